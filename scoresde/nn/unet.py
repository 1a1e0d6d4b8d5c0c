r"""Which network suits pictures? A convolutional U: residual blocks on ever coarser grids and back, with skips.

Each block is $h \leftarrow h + C_2\,\mathrm{SiLU}(a \odot \mathrm{GN}(C_1\,\mathrm{SiLU}(\mathrm{GN}(h))) + b)$
with scale a (near 1) and shift b from the noise level and label; the residual branches and the output start at zero.
Grids shrink to ceil(size / 2), and grow to the size of the skip that they meet, so any size fits.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde.nn._checks import check_fraction, check_input, check_positive, check_sizes
from scoresde.nn._layers import zeroed
from scoresde.nn.embeddings import Conditioning, FourierInput

__all__ = ["UNet"]


class _Attention(nn.Module):
    """Residual self-attention over the pixels; Linear layers on channels-last views, so no layout is forced."""

    def __init__(self, width: int, heads: int, groups: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(groups, width)
        self.enter = nn.Linear(width, 3 * width)
        self.leave = zeroed(nn.Linear(width, width))

    def forward(self, h: Tensor) -> Tensor:
        batch, channels, rows, columns = h.shape
        tokens = self.norm(h).permute(0, 2, 3, 1).reshape(batch, rows * columns, channels)
        joined = self.enter(tokens).reshape(batch, rows * columns, 3, self.heads, channels // self.heads)
        query, key, value = joined.permute(2, 0, 3, 1, 4).unbind(0)
        read = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).reshape(tokens.shape)
        return h + self.leave(read).reshape(batch, rows, columns, channels).permute(0, 3, 1, 2)


class _Block(nn.Module):
    """Residual block with adaptive scale and shift, followed by attention if ``heads`` is not 0."""

    def __init__(self, arrive: int, width: int, embedding_width: int, dropout: float, groups: int, heads: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, arrive)
        self.enter = nn.Conv2d(arrive, width, 3, padding=1)
        self.film = nn.Linear(embedding_width, 2 * width)
        self.adaptive = nn.GroupNorm(groups, width, affine=False)
        self.drop = nn.Dropout(dropout)
        self.leave = zeroed(nn.Conv2d(width, width, 3, padding=1))
        self.shortcut = nn.Identity() if arrive == width else nn.Conv2d(arrive, width, 1)
        self.attention = _Attention(width, heads, groups) if heads else nn.Identity()

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.film(embedding)[:, :, None, None].chunk(2, 1)
        update = self.adaptive(self.enter(F.silu(self.norm(h))))
        update = self.leave(self.drop(F.silu(torch.addcmul(shift, update, scale + 1))))
        return self.attention(self.shortcut(h) + update)


@dataclass(eq=False, repr=False)
class UNet(nn.Module):
    """UNet of the DDPM family for events (C, H, W) of any size >= 8; gives 0 before training.

    Attention runs on torch's fused kernels, which know no forward-mode derivatives: take a `torch.func.jvp` inside
    ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``, whose memory grows with the square of the pixels attended to.
    On a CPU, ``net.to(memory_format=torch.channels_last)`` makes a training step about a fifth faster.

    Attributes:
        event_shape: (channels, height, width) of one picture.
        channels: Width of the finest level, a multiple of ``groups`` and larger.
        multipliers: Width of each level over ``channels``; each level after the first halves the grid.
        blocks: Residual blocks per level, on the way down and again on the way up.
        attention: Levels whose blocks attend, 0 the finest. The middle attends too, unless this is empty.
        heads: Attention heads; divides the width of every attending level.
        dropout: Probability in [0, 1) of dropping a hidden value while training.
        groups: Groups of the normalisation.
        fourier: Features joined to the input, or None.
        log_snr_range: Noise levels told apart, nats; beyond them the network sees the nearer end.
        num_classes: Number of labels ``cond`` may take, or None.
        null_class: Whether a null label exists besides (see `LabelEmbedding`), as guidance needs.
        outputs: Values per entry of the event; more than one add a last axis to the output (see `Pointwise`).

    Raises:
        ValueError, TypeError: If a setting is out of its range or two do not fit together.

    Source: Ho, Jain & Abbeel 2020, appendix B; adaptive scale and shift of Nichol & Dhariwal 2021, section 3. Unlike
    theirs, one skip leaves each block and none the resampling, and growing narrows to the level it arrives at.
    """

    event_shape: tuple[int, ...]
    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (2,)
    heads: int = 4
    dropout: float = 0.0
    groups: int = 8
    fourier: FourierInput | None = None
    log_snr_range: tuple[float, float] = (-20.0, 20.0)
    num_classes: int | None = None
    null_class: bool = False
    outputs: int = 1

    def __post_init__(self) -> None:
        super().__init__()
        self._check_sizes()
        self._check_attention()
        widths = [self.channels * m for m in self.multipliers]
        told = 4 * self.channels
        self.condition = Conditioning(told, self.log_snr_range, self.num_classes, self.null_class)
        self.log_snr_range = self.condition.noise.log_snr_range

        def block(arrive: int, width: int, attends: bool) -> _Block:
            return _Block(arrive, width, told, self.dropout, self.groups, self.heads if attends else 0)

        arrive = self.event_shape[0] * (1 if self.fourier is None else self.fourier.copies)
        self.shrink = nn.ModuleList([nn.Conv2d(arrive, widths[0], 3, padding=1)])
        self.shrink.extend(nn.Conv2d(fine, coarse, 3, 2, 1) for fine, coarse in pairwise(widths))
        self.grow = nn.ModuleList([nn.Identity()])
        self.grow.extend(nn.Conv2d(coarse, fine, 3, padding=1) for fine, coarse in reversed([*pairwise(widths)]))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            attends = level in self.attention
            self.down.append(nn.ModuleList(block(width, width, attends) for _ in range(self.blocks)))
            self.up.insert(0, nn.ModuleList(block(2 * width, width, attends) for _ in range(self.blocks)))
        self.middle = nn.ModuleList(block(widths[-1], widths[-1], b and bool(self.attention)) for b in (True, False))
        self.norm = nn.GroupNorm(self.groups, widths[0])
        self.leave = zeroed(nn.Conv2d(widths[0], self.event_shape[0] * self.outputs, 3, padding=1))

    def _check_sizes(self) -> None:
        """Refuses sizes that cannot be built, in the user's terms."""
        self.event_shape = check_sizes("event_shape", self.event_shape)
        self.multipliers = check_sizes("multipliers", self.multipliers)
        for name in ("channels", "blocks", "heads", "groups", "outputs"):
            check_positive(name, getattr(self, name), whole=True)
        check_fraction("dropout", self.dropout)
        if len(self.event_shape) != 3 or min(self.event_shape[1:]) < 8:
            raise ValueError(
                f"event_shape must be (channels, height >= 8, width >= 8), got {self.event_shape}; use MLP otherwise."
            )
        if not self.multipliers:
            raise ValueError("multipliers must name at least one level, got (); write multipliers=(1,).")
        if self.channels % self.groups or self.channels == self.groups:
            raise ValueError(
                f"channels must be a multiple of groups and larger, got channels={self.channels} and "
                f"groups={self.groups}; use channels={2 * self.groups}, say, or other groups."
            )

    def _check_attention(self) -> None:
        """Refuses levels that do not exist and heads that do not fit."""
        self.attention = tuple(self.attention)
        levels = range(len(self.multipliers))
        for level in self.attention:
            if level not in levels:
                raise ValueError(f"attention must name levels 0 ... {levels[-1]}, got {level!r}; 0 is the finest.")
        for level in {*self.attention, levels[-1]} if self.attention else ():
            if self.channels * self.multipliers[level] % self.heads:
                raise ValueError(
                    f"heads must divide the width of every attending level, got heads={self.heads} and width "
                    f"{self.channels * self.multipliers[level]} at level {level}; use heads=1, say."
                )

    @property
    def null_label(self) -> int | None:
        """The label that means "no label", or None where none is trained."""
        return self.condition.null_label

    def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor | None = None) -> Tensor:
        """Evaluates the network.

        Args:
            x: Noised pictures, shape ``(B, *event_shape)``, in either memory format.
            log_snr: Noise level in nats, shape ``(B,)``; infinities are allowed.
            cond: Labels, whole numbers of shape ``(B,)``, or None.

        Returns:
            Shape and dtype of ``x``, with a last axis for several ``outputs``; computed in the weights' dtype.

        Raises:
            ValueError, TypeError: If a shape or dtype does not fit, or a label on the CPU is out of range.
        """
        check_input(x, log_snr, self.event_shape)
        embedding = self.condition(log_snr, cond)
        h = x if self.fourier is None else self.fourier(x, log_snr.clamp(*self.log_snr_range))
        h = h.to(self.leave.weight.dtype)
        skips: list[Tensor] = []
        for shrink, level in zip(self.shrink, self.down, strict=True):
            h = shrink(h)
            for block in level:  # pyright: ignore[reportGeneralTypeIssues] (a ModuleList of ModuleLists)
                h = block(h, embedding)
                skips.append(h)
        for block in self.middle:
            h = block(h, embedding)
        for grow, level in zip(self.grow, self.up, strict=True):
            h = grow(F.interpolate(h, size=skips[-1].shape[2:], mode="nearest"))
            for block in level:  # pyright: ignore[reportGeneralTypeIssues] (a ModuleList of ModuleLists)
                h = block(torch.cat([h, skips.pop()], 1), embedding)
        out = self.leave(F.silu(self.norm(h))).to(x.dtype)
        return out if self.outputs == 1 else out.unflatten(1, (-1, self.outputs)).movedim(2, -1)
