r"""Which network suits pictures, series and volumes? A convolutional U: residual blocks on ever coarser grids and back.

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

from scoresde.nn._blocks import Block, Downsample, Size, Upsample, convolution, halved
from scoresde.nn._checks import check_fraction, check_input, check_positive, check_sizes
from scoresde.nn._layers import derivable, recomputed, zeroed
from scoresde.nn.embeddings import Conditioning, FourierInput

__all__ = ["UNet"]


@dataclass(eq=False, repr=False)
class UNet(nn.Module):
    """UNet of the DDPM family for series (C, L), pictures (C, H, W) and volumes (C, D, H, W); 0 before training.

    Weights lie with their channels last in memory, which the fast kernels want. On a CPU with bfloat16 instructions a
    training step under ``torch.autocast("cpu", torch.bfloat16)`` takes a fraction of one in float32; the noise level,
    Fourier features, statistics of the normalization and (on a CPU) attention stay in float32. ``net.compile()`` works.

    Attention runs on torch's fused kernels, which know no forward-mode derivatives: take a `torch.func.jvp` inside
    ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``, whose memory grows with the square of the places attended to.

    Attributes:
        event_shape: (channels, and one to three sizes) of one event, each size >= 1.
        channels: Width of the finest level, a multiple of ``groups`` and larger.
        multipliers: Width of each level over ``channels``; each level after the first halves the grid.
        blocks: Residual blocks per level, on the way down and again on the way up.
        attention: Levels whose blocks attend, 0 the finest. The middle attends too, unless this is empty.
        heads: Attention heads; divides the width of every attending level.
        head_width: Width of one head, in place of ``heads`` where it is not None.
        resample_in_blocks: Whether grids change inside residual blocks of their own, by means and copies (as in
            BigGAN), rather than by one convolution. Costs two more blocks per level.
        dropout: Probability in [0, 1) of dropping a hidden value while training.
        groups: Groups of the normalization; None for as many as are at least 16 wide. On a CPU, narrower groups
            fill no vector and are several times slower.
        fourier: Features joined to the input, or None.
        log_snr_range: Noise levels told apart, nats; beyond them the network sees the nearer end.
        num_classes: Number of labels ``cond`` may take, or None.
        null_class: Whether a null label exists besides (see `LabelEmbedding`), as guidance needs.
        outputs: Values per entry of the event; more than one add a last axis to the output (see `Pointwise`).
        checkpoint: Whether training keeps only what passes between blocks, and computes the rest again for the
            gradient: same gradients, less memory, about a third more time.
        augment: How many numbers the keyword ``augment`` holds, which tell how an event was changed: 9 for
            `scoresde.data.Augment`. 0 for a network that reads none.

    Raises:
        ValueError, TypeError: If a setting is out of its range or two do not fit together.

    Source: Ho, Jain & Abbeel 2020, appendix B; adaptive scale and shift of Nichol & Dhariwal 2021, section 3;
    resampling blocks of Brock et al. 2019 as in Song et al. 2021, appendix H. Unlike theirs, one skip leaves each block
    and none the resampling, and growing narrows to the level it arrives at.
    """

    event_shape: tuple[int, ...]
    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] = (2,)
    heads: int = 4
    head_width: int | None = None
    resample_in_blocks: bool = False
    dropout: float = 0.0
    groups: int | None = None
    fourier: FourierInput | None = None
    log_snr_range: tuple[float, float] = (-20.0, 20.0)
    num_classes: int | None = None
    null_class: bool = False
    outputs: int = 1
    checkpoint: bool = False
    augment: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self._check_sizes()
        self._check_attention()
        self.condition = Conditioning(
            4 * self.channels, self.log_snr_range, self.num_classes, self.null_class, self.augment
        )
        self.log_snr_range = self.condition.noise.log_snr_range
        axes, widths = len(self.event_shape) - 1, [self.channels * m for m in self.multipliers]
        arrive = self.event_shape[0] * (1 if self.fourier is None else self.fourier.copies)
        self.enter = convolution(axes, arrive, widths[0])
        shrink, grow = (self._block, self._block) if self.resample_in_blocks else (Downsample, Upsample)
        self.shrink = nn.ModuleList(shrink(axes, fine, coarse) for fine, coarse in pairwise(widths))
        self.grow = nn.ModuleList(grow(axes, coarse, fine) for fine, coarse in reversed([*pairwise(widths)]))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(widths):
            heads = self._heads(width) if level in self.attention else 0
            self.down.append(nn.ModuleList(self._block(axes, width, width, heads) for _ in range(self.blocks)))
            self.up.insert(0, nn.ModuleList(self._block(axes, 2 * width, width, heads) for _ in range(self.blocks)))
        middle = self._heads(widths[-1]) if self.attention else 0
        self.middle = nn.ModuleList(self._block(axes, widths[-1], widths[-1], heads) for heads in (middle, 0))
        self.norm = nn.GroupNorm(self._groups, widths[0])
        self.leave = zeroed(convolution(axes, widths[0], self.event_shape[0] * self.outputs))

    @property
    def _groups(self) -> int:
        if self.groups is not None:
            return self.groups
        return max((n for n in range(1, self.channels // 16 + 1) if self.channels % n == 0), default=1)

    def _heads(self, width: int) -> int:
        return self.heads if self.head_width is None else width // self.head_width

    def _block(self, axes: int, arrive: int, width: int, heads: int = 0) -> Block:
        return Block(axes, arrive, width, 4 * self.channels, self._groups, self.dropout, heads)

    def _check_sizes(self) -> None:
        """Refuses sizes that cannot be built, in the user's terms."""
        self.event_shape = check_sizes("event_shape", self.event_shape)
        self.multipliers = check_sizes("multipliers", self.multipliers)
        for name in ("channels", "blocks", "heads", "outputs", "head_width", "groups"):
            if getattr(self, name) is not None or name not in ("head_width", "groups"):
                check_positive(name, getattr(self, name), whole=True)
        check_fraction("dropout", self.dropout)
        if not 2 <= len(self.event_shape) <= 4:
            raise ValueError(
                f"event_shape must be (channels, one to three sizes), got {self.event_shape}; use MLP otherwise."
            )
        if not self.multipliers:
            raise ValueError("multipliers must name at least one level, got (); write multipliers=(1,).")
        if self.channels % self._groups or self.channels == self._groups:
            raise ValueError(
                f"channels must be a multiple of groups and larger, got channels={self.channels} and "
                f"groups={self._groups}; use channels={2 * self._groups}, say, or other groups."
            )

    def _check_attention(self) -> None:
        """Refuses levels that do not exist and heads that do not fit."""
        self.attention = tuple(self.attention)
        levels = range(len(self.multipliers))
        for level in self.attention:
            if level not in levels:
                raise ValueError(f"attention must name levels 0 ... {levels[-1]}, got {level!r}; 0 is the finest.")
        name = "heads" if self.head_width is None else "head_width"
        for level in sorted({*self.attention, levels[-1]}) if self.attention else ():
            if self.channels * self.multipliers[level] % getattr(self, name):
                raise ValueError(
                    f"{name} must divide the width of every attending level, got {name}={getattr(self, name)} and "
                    f"width {self.channels * self.multipliers[level]} at level {level}; use heads=1, say."
                )

    @property
    def null_label(self) -> int | None:
        """The label that means "no label", or None where none is trained."""
        return self.condition.null_label

    def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor | None = None, augment: Tensor | None = None) -> Tensor:
        """Evaluates the network.

        Args:
            x: Noised events, shape ``(B, *event_shape)``, in either memory format.
            log_snr: Noise level in nats, shape ``(B,)``; infinities are allowed.
            cond: Labels, whole numbers of shape ``(B,)``, or None.
            augment: How the events were changed, ``(B, augment)``, or None for not at all.

        Returns:
            Shape and dtype of ``x``, with a last axis for several ``outputs``; computed in the weights' dtype.

        Raises:
            ValueError, TypeError: If a shape or dtype does not fit, or a label on the CPU is out of range.
        """
        check_input(x, log_snr, self.event_shape)
        embedding = self.condition(log_snr, cond, augment)
        h = x if self.fourier is None else self.fourier(x, log_snr.clamp(*self.log_snr_range))
        h = h.to(self.norm.weight.dtype)
        h = self._hidden(h if h.ndim > 3 else h.unsqueeze(2), embedding)
        out = self.leave(F.silu(self.norm(derivable(h)))).to(x.dtype).contiguous()
        if self.outputs == 1:
            return out.reshape(x.shape)
        return out.reshape(len(x), self.event_shape[0], self.outputs, *self.event_shape[1:]).movedim(2, -1)

    def _hidden(self, h: Tensor, embedding: Tensor) -> Tensor:
        """Down, through the middle and up again."""
        h, skips = self.enter(h), []
        for level, blocks in enumerate(self.down):
            if level:
                h = self._run(self.shrink[level - 1], h, embedding, halved(h.shape[2:]))
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues] (a ModuleList of ModuleLists)
                h = self._run(block, h, embedding)
                skips.append(h)
        for block in self.middle:
            h = self._run(block, h, embedding)
        for level, blocks in enumerate(self.up):
            if level:
                h = self._run(self.grow[level - 1], h, embedding, tuple(skips[-1].shape[2:]))
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues] (a ModuleList of ModuleLists)
                h = self._run(block, torch.cat([h, skips.pop()], 1), embedding)
        return h

    def _run(self, block: nn.Module, h: Tensor, embedding: Tensor, *size: Size) -> Tensor:
        if self.checkpoint and self.training and torch.is_grad_enabled():
            return recomputed(block, h, embedding, *size)
        return block(h, embedding, *size)
