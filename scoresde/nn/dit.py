r"""The diffusion transformer (DiT): a transformer whose tokens are patches of the event, for large events.

Each block is $h \leftarrow h + g_1 \odot A(a_1 \odot \mathrm{LN}(h) + b_1)$, then
$h \leftarrow h + g_2 \odot M(a_2 \odot \mathrm{LN}(h) + b_2)$, with self-attention A and a two-layer MLP M. Scales a
(near 1), shifts b and gates g (near 0) come from the embedding of log-SNR and conditions (adaLN-Zero). Conditions of
tokens c add $h \leftarrow h + A(\mathrm{LN}(h), c)$ between the two. Each block starts as the identity.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_integer
from scoresde.nn._argument_checks import check_input, check_probability, check_sizes
from scoresde.nn._attention import CrossAttention, SelfAttention
from scoresde.nn._condition_inputs import ChannelInputs, Context, TokenInputs, check_declared, complete, entering
from scoresde.nn._execution import checkpointed
from scoresde.nn._former_settings import FormerClasses
from scoresde.nn._initialization import zero_init
from scoresde.nn.conditions import Condition
from scoresde.nn.embeddings import Conditioning
from scoresde.nn.fourier_features import FourierInput

__all__ = ["DiT"]


def _modulate(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return torch.addcmul(shift, F.layer_norm(h, h.shape[-1:]), scale + 1)


class _Block(nn.Module):
    """Transformer block: attention, then a two-layer MLP, each with adaptive layer norm and gate (adaLN-Zero).

    Cross-attention to a context lies between them, without modulation.

    Source: Chen et al. 2024 (PixArt-α), section 2.3, for the place of cross-attention and its start at 0.
    """

    def __init__(self, width: int, heads: int, embedding_width: int, dropout: float, context_width: int) -> None:
        super().__init__()
        self.modulation = zero_init(nn.Linear(embedding_width, 6 * width))
        self.attention = SelfAttention(width, heads, zero_output=False)
        self.cross_attention = CrossAttention(width, context_width, heads) if context_width else None
        self.linear_in = nn.Linear(width, 4 * width)
        self.dropout = nn.Dropout(dropout)
        self.linear_out = nn.Linear(4 * width, width)

    def forward(self, h: Tensor, embedding: Tensor, context: Context | None = None) -> Tensor:
        attention, mlp = self.modulation(embedding).unsqueeze(1).chunk(2, 2)
        scale, shift, gate = attention.chunk(3, 2)
        h = torch.addcmul(h, gate, self.attention(_modulate(h, scale, shift)))
        if self.cross_attention is not None:
            h = h + self.cross_attention(F.layer_norm(h, h.shape[-1:]), context)
        scale, shift, gate = mlp.chunk(3, 2)
        hidden = F.gelu(self.linear_in(_modulate(h, scale, shift)), approximate="tanh")
        return torch.addcmul(h, gate, self.linear_out(self.dropout(hidden)))


@dataclass(eq=False, repr=False)
class DiT(FormerClasses, CheckedArguments, nn.Module):
    """Diffusion transformer for series (C, L), images (C, H, W) and volumes (C, D, H, W); returns 0 before training.

    Attention uses torch's fused kernels, which have no forward-mode derivatives: call `torch.func.jvp` inside
    ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``. Under autocast to bfloat16 the log-SNR embedding, the Fourier
    features and (on a CPU) attention stay in float32. ``net.compile()`` works.

    Attributes:
        event_shape: (channels, and one to three sizes) of one event. Sizes that are not multiples of ``patch`` are
            padded with zeros at their far end, inside the network.
        patch: Patch size along each axis. The number of tokens, (size / patch) to the power of the number of axes,
            determines the cost of a step.
        width: Width of a token; a multiple of twice the number of axes.
        depth: Number of transformer blocks.
        heads: Number of attention heads; divides ``width``.
        dropout: Probability in [0, 1) of dropping a hidden unit in training.
        fourier: Fourier features appended to the input channels, or None.
        log_snr_range: Range of log-SNR that the network resolves, nats; values outside are clamped to it.
        conditions: The network's further inputs by name, ``{"label": Classes(10)}``, see `scoresde.nn.conditions`.
            Tokens enter by cross-attention in each block; channels are concatenated to the input.
        outputs: Values per entry of the event; more than one add a last axis to the output (see `Pointwise`).
        checkpoint: Activation checkpointing: training stores only the inputs of blocks and recomputes the rest in the
            backward pass. Same gradients, less memory, about a third more time.
        augment: Number of augmentation parameters in the keyword ``augment``: 9 for `scoresde.data.Augment`, 0 for a
            network that reads none.
        delta: Whether the network reads the angle of a jump, as few-step students do (`scoresde.distillation`).

    Raises:
        ValueError, TypeError: If a setting is out of its range or two do not fit together.

    Source: Peebles & Xie 2023 (DiT), section 3: patches, fixed sine-cosine position embeddings, adaLN-Zero.
    """

    event_shape: tuple[int, ...]
    patch: int = 2
    width: int = 192
    depth: int = 6
    heads: int = 3
    dropout: float = 0.0
    fourier: FourierInput | None = None
    log_snr_range: tuple[float, float] = (-20.0, 20.0)
    conditions: Mapping[str, Condition] = field(default_factory=dict, metadata={"write": "if set"})
    outputs: int = 1
    checkpoint: bool = False
    augment: int = 0
    delta: bool = field(default=False, metadata={"write": "if set"})

    def __post_init__(self) -> None:
        super().__init__()
        self._check_settings()
        self.conditions = check_declared(self.conditions)
        self.conditioning = Conditioning(
            self.width, self.log_snr_range, entering(self.conditions, "vector"), self.augment, self.delta
        )
        self.channel_inputs = ChannelInputs(self.conditions, self.event_shape)
        self.token_inputs = TokenInputs(self.conditions, self.width)
        self.log_snr_range = self.conditioning.log_snr_embedding.log_snr_range
        positions = self.patch ** (len(self.event_shape) - 1)
        patch_size = self.event_shape[0] * positions
        in_features = patch_size * (1 if self.fourier is None else self.fourier.features_per_value)
        in_features += self.channel_inputs.features * positions
        self.patch_embedding = nn.Linear(in_features, self.width)
        context_width = self.width if entering(self.conditions, "tokens") else 0
        self.blocks = nn.ModuleList(
            _Block(self.width, self.heads, self.width, self.dropout, context_width) for _ in range(self.depth)
        )
        self.modulation = zero_init(nn.Linear(self.width, 2 * self.width))
        self.linear_out = zero_init(nn.Linear(self.width, patch_size * self.outputs))

    def _check_settings(self) -> None:
        self.event_shape = check_sizes("event_shape", self.event_shape)
        for name in ("patch", "width", "depth", "heads", "outputs"):
            check_integer(name, getattr(self, name))
        check_probability("dropout", self.dropout)
        axes = len(self.event_shape) - 1
        if not 1 <= axes <= 3:
            raise ValueError(
                f"event_shape must be (channels, one to three sizes), got {self.event_shape}; use MLP otherwise."
            )
        if self.width % (2 * axes) or self.width % self.heads:
            raise ValueError(
                f"width must be a multiple of heads and of 2 x axes = {2 * axes}, got width={self.width} and "
                f"heads={self.heads}; use width={math.lcm(2 * axes, self.heads) * 32}, for example."
            )

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        *,
        augment: Tensor | None = None,
        delta: Tensor | None = None,
        **cond: Tensor | None,
    ) -> Tensor:
        """Evaluates the network.

        Args:
            x: Noised events, shape ``(B, *event_shape)``.
            log_snr: Log-SNR in nats, shape ``(B,)``; infinities are allowed.
            augment: Augmentation parameters, ``(B, augment)``, or None for unchanged events.
            delta: Angle of the jump, radians, ``(B,)``, or None for no jump.
            **cond: Conditions by name, one entry per sample; one that is left out, or None, is null.

        Returns:
            Shape and dtype of ``x``, with a last axis for several ``outputs``; computed in the weights' dtype.

        Raises:
            ValueError, TypeError: If a shape or dtype does not fit, or a label on the CPU is out of range.
        """
        check_input(x, log_snr, self.event_shape)
        values = complete(self, self.conditions, cond, log_snr, self.event_shape)
        embedding, context = self.conditioning.embed(log_snr, values, augment, delta), self.token_inputs(values)
        h = x if self.fourier is None else self.fourier(x, log_snr.clamp(*self.log_snr_range))
        h = h.to(self.patch_embedding.weight.dtype)
        if self.channel_inputs.features:
            h = torch.cat([h, self.channel_inputs(values).to(h.dtype)], 1)
        patches = self._to_patches(h)
        grid = tuple(-(-n // self.patch) for n in self.event_shape[1:])
        h = self.patch_embedding(patches)
        h = h + position_embedding(grid, self.width, like=h)
        for block in self.blocks:
            recompute = self.checkpoint and self.training and torch.is_grad_enabled()
            h = checkpointed(block, h, embedding, context) if recompute else block(h, embedding, context)
        scale, shift = self.modulation(embedding).unsqueeze(1).chunk(2, 2)
        return self._from_patches(self.linear_out(_modulate(h, scale, shift)), grid).to(x.dtype)

    def _to_patches(self, h: Tensor) -> Tensor:
        """``(B, C, *sizes)`` to ``(B, tokens, C * patch^axes)``, zero-padded to multiples of the patch size."""
        sizes, p = self.event_shape[1:], self.patch
        h = F.pad(h, [end for n in reversed(sizes) for end in (0, -n % p)])
        for axis in range(len(sizes)):
            h = h.unflatten(2 + 2 * axis, (-1, p))
        grid_axes, patch_axes = range(2, h.ndim, 2), range(3, h.ndim, 2)
        return h.permute(0, *grid_axes, 1, *patch_axes).flatten(1, len(sizes)).flatten(2)

    def _from_patches(self, patches: Tensor, grid: tuple[int, ...]) -> Tensor:
        """Inverse of `_to_patches`, with a last axis for several outputs."""
        channels, *sizes = self.event_shape
        axes, p = len(sizes), self.patch
        h = patches.reshape(patches.shape[0], *grid, channels, *[p] * axes, self.outputs)
        order = itertools.chain.from_iterable((1 + a, 2 + axes + a) for a in range(axes))
        h = h.permute(0, 1 + axes, *order, 2 + 2 * axes)
        h = h.reshape(patches.shape[0], channels, *(n * p for n in grid), self.outputs)
        for axis, n in enumerate(sizes):
            h = h.narrow(2 + axis, 0, n)
        return h.contiguous() if self.outputs > 1 else h.squeeze(-1).contiguous()


def position_embedding(grid: tuple[int, ...], width: int, like: Tensor) -> Tensor:
    r"""Sines and cosines of each axis's position n at periods $2\pi \cdot 10000^{j/J}$, $j = 0 \dots J - 1$.

    Args:
        grid: Number of positions along each axis.
        width: Width of the embedding, divided equally among the axes.
        like: Gives dtype and device; computed in at least float32.

    Returns:
        Shape ``(prod(grid), width)``.

    Source: Vaswani et al. 2017, section 3.5, per axis as in He et al. 2022.
    """
    dtype, count = torch.promote_types(like.dtype, torch.float32), width // (2 * len(grid))
    omega = torch.logspace(0, -4 * (count - 1) / count, count, dtype=dtype, device=like.device)
    coordinates = torch.meshgrid([torch.arange(n, dtype=dtype, device=like.device) for n in grid], indexing="ij")
    phases = [torch.outer(coordinate.flatten(), omega) for coordinate in coordinates]
    return torch.cat([f(phase) for phase in phases for f in (torch.sin, torch.cos)], 1).to(like.dtype)
