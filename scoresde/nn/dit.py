r"""Which network suits large events and large machines? A transformer whose tokens are patches of the event (DiT).

Each block is $h \leftarrow h + g_1 \odot A(a_1 \odot \mathrm{LN}(h) + b_1)$, then
$h \leftarrow h + g_2 \odot M(a_2 \odot \mathrm{LN}(h) + b_2)$, with A attention, M a layer pair, and scales a (near 1),
shifts b and gates g (near 0) from the noise level and label (adaLN-Zero): each block starts as the identity.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde.nn._attention import SelfAttention
from scoresde.nn._checks import check_fraction, check_input, check_positive, check_sizes
from scoresde.nn._layers import recomputed, zeroed
from scoresde.nn.embeddings import Conditioning, FourierInput

__all__ = ["DiT"]


def _modulated(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(h, h.shape[-1:]), scale + 1)


class _Block(nn.Module):
    """Attention, then two layers, each with its adaptive norm and gate."""

    def __init__(self, width: int, heads: int, told: int, dropout: float) -> None:
        super().__init__()
        self.film = zeroed(nn.Linear(told, 6 * width))
        self.attention = SelfAttention(width, heads, silent=False)
        self.enter = nn.Linear(width, 4 * width)
        self.drop = nn.Dropout(dropout)
        self.leave = nn.Linear(4 * width, width)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        read, mix = self.film(embedding).unsqueeze(1).chunk(2, 2)
        scale, shift, gate = read.chunk(3, 2)
        h = torch.addcmul(h, gate, self.attention(_modulated(h, scale, shift)))
        scale, shift, gate = mix.chunk(3, 2)
        hidden = F.gelu(self.enter(_modulated(h, scale, shift)), approximate="tanh")
        return torch.addcmul(h, gate, self.leave(self.drop(hidden)))


@dataclass(eq=False, repr=False)
class DiT(nn.Module):
    """Diffusion transformer for series (C, L), pictures (C, H, W) and volumes (C, D, H, W); 0 before training.

    Attention runs on torch's fused kernels, which know no forward-mode derivatives: take a `torch.func.jvp` inside
    ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``. Under autocast to bfloat16 the noise level, Fourier features
    and (on a CPU) attention stay in float32. ``net.compile()`` works.

    Attributes:
        event_shape: (channels, and one to three sizes) of one event. Sizes that ``patch`` does not divide are filled
            up with zeros at their far end, inside the network.
        patch: Size of a patch along each axis; the number of tokens, (size / patch) to the power of the axes, decides
            what a step costs.
        width: Width of a token; a multiple of twice the number of axes.
        depth: Number of blocks.
        heads: Attention heads; divides ``width``.
        dropout: Probability in [0, 1) of dropping a hidden value while training.
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

    Source: Peebles & Xie 2023 (DiT), section 3: patches, fixed sine-cosine positions, adaLN-Zero.
    """

    event_shape: tuple[int, ...]
    patch: int = 2
    width: int = 192
    depth: int = 6
    heads: int = 3
    dropout: float = 0.0
    fourier: FourierInput | None = None
    log_snr_range: tuple[float, float] = (-20.0, 20.0)
    num_classes: int | None = None
    null_class: bool = False
    outputs: int = 1
    checkpoint: bool = False
    augment: int = 0

    def __post_init__(self) -> None:
        super().__init__()
        self._check()
        self.condition = Conditioning(self.width, self.log_snr_range, self.num_classes, self.null_class, self.augment)
        self.log_snr_range = self.condition.noise.log_snr_range
        volume = self.event_shape[0] * self.patch ** (len(self.event_shape) - 1)
        self.enter = nn.Linear(volume * (1 if self.fourier is None else self.fourier.copies), self.width)
        self.blocks = nn.ModuleList(_Block(self.width, self.heads, self.width, self.dropout) for _ in range(self.depth))
        self.film = zeroed(nn.Linear(self.width, 2 * self.width))
        self.leave = zeroed(nn.Linear(self.width, volume * self.outputs))

    def _check(self) -> None:
        """Refuses settings that cannot be built, in the user's terms."""
        self.event_shape = check_sizes("event_shape", self.event_shape)
        for name in ("patch", "width", "depth", "heads", "outputs"):
            check_positive(name, getattr(self, name), whole=True)
        check_fraction("dropout", self.dropout)
        axes = len(self.event_shape) - 1
        if not 1 <= axes <= 3:
            raise ValueError(
                f"event_shape must be (channels, one to three sizes), got {self.event_shape}; use MLP otherwise."
            )
        if self.width % (2 * axes) or self.width % self.heads:
            raise ValueError(
                f"width must be a multiple of heads and of 2 x axes = {2 * axes}, got width={self.width} and "
                f"heads={self.heads}; use width={math.lcm(2 * axes, self.heads) * 32}, say."
            )

    @property
    def null_label(self) -> int | None:
        """The label that means "no label", or None where none is trained."""
        return self.condition.null_label

    def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor | None = None, augment: Tensor | None = None) -> Tensor:
        """Evaluates the network.

        Args:
            x: Noised events, shape ``(B, *event_shape)``.
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
        tokens = self._patches(h.to(self.enter.weight.dtype))
        grid = tuple(-(-n // self.patch) for n in self.event_shape[1:])
        h = self.enter(tokens)
        h = h + positions(grid, self.width, like=h)
        for block in self.blocks:
            again = self.checkpoint and self.training and torch.is_grad_enabled()
            h = recomputed(block, h, embedding) if again else block(h, embedding)
        scale, shift = self.film(embedding).unsqueeze(1).chunk(2, 2)
        return self._event(self.leave(_modulated(h, scale, shift)), grid).to(x.dtype)

    def _patches(self, h: Tensor) -> Tensor:
        """``(B, C, *sizes)`` to ``(B, tokens, C * patch^axes)``, with zeros where patches overhang."""
        sizes, p = self.event_shape[1:], self.patch
        h = F.pad(h, [end for n in reversed(sizes) for end in (0, -n % p)])
        for axis in range(len(sizes)):
            h = h.unflatten(2 + 2 * axis, (-1, p))
        places, inside = range(2, h.ndim, 2), range(3, h.ndim, 2)
        return h.permute(0, *places, 1, *inside).flatten(1, len(sizes)).flatten(2)

    def _event(self, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Undoes `_patches`, with a last axis for several outputs."""
        channels, *sizes = self.event_shape
        axes, p = len(sizes), self.patch
        h = tokens.reshape(len(tokens), *grid, channels, *[p] * axes, self.outputs)
        order = itertools.chain.from_iterable((1 + a, 2 + axes + a) for a in range(axes))
        h = h.permute(0, 1 + axes, *order, 2 + 2 * axes)
        h = h.reshape(len(tokens), channels, *(n * p for n in grid), self.outputs)
        for axis, n in enumerate(sizes):
            h = h.narrow(2 + axis, 0, n)
        return h.contiguous() if self.outputs > 1 else h.squeeze(-1).contiguous()


def positions(grid: tuple[int, ...], width: int, like: Tensor) -> Tensor:
    r"""Sines and cosines of each axis's place n at periods $2\pi \cdot 10000^{j/J}$, $j = 0 \dots J - 1$.

    Args:
        grid: Number of places along each axis.
        width: Length of the code, shared out evenly to the axes.
        like: Gives dtype and device; computed in at least float32.

    Returns:
        Shape ``(prod(grid), width)``.

    Source: Vaswani et al. 2017, section 3.5, per axis as in He et al. 2022.
    """
    dtype, count = torch.promote_types(like.dtype, torch.float32), width // (2 * len(grid))
    omega = torch.logspace(0, -4 * (count - 1) / count, count, dtype=dtype, device=like.device)
    places = torch.meshgrid([torch.arange(n, dtype=dtype, device=like.device) for n in grid], indexing="ij")
    phases = [torch.outer(place.flatten(), omega) for place in places]
    return torch.cat([f(phase) for phase in phases for f in (torch.sin, torch.cos)], 1).to(like.dtype)
