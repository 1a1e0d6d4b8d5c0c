r"""The U-Net of the DDPM family: convolutional residual blocks on successively coarser grids and back.

Each block is $h \leftarrow h + C_2\,\mathrm{SiLU}(a \odot \mathrm{GN}(C_1\,\mathrm{SiLU}(\mathrm{GN}(h))) + b)$.
The embedding of log-SNR and conditions gives the scale a (near 1) and the shift b. Residual branches and the output
layer start at zero. Grids shrink to ceil(size / 2) and grow to the size of the matching skip, so any size fits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_integer
from scoresde.nn._argument_checks import check_input, check_probability, check_sizes
from scoresde.nn._condition_inputs import ChannelInputs, Context, TokenInputs, check_declared, complete, entering
from scoresde.nn._execution import checkpointed, group_norm_input
from scoresde.nn._former_settings import FormerClasses
from scoresde.nn._initialization import zero_init
from scoresde.nn._unet_blocks import (
    Downsample,
    ResidualBlock,
    Size,
    Upsample,
    convolution,
    from_patches,
    half_size,
    to_patches,
)
from scoresde.nn.conditions import Condition
from scoresde.nn.embeddings import Conditioning
from scoresde.nn.fourier_features import FourierInput

__all__ = ["UNet"]


@dataclass(eq=False, repr=False)
class UNet(FormerClasses, CheckedArguments, nn.Module):
    """U-Net for series (C, L), images (C, H, W) and volumes (C, D, H, W); returns 0 before training.

    Weights use torch's channels-last memory format, which the fast kernels need. On a CPU with bfloat16 instructions,
    ``torch.autocast("cpu", torch.bfloat16)`` makes a training step several times faster than float32. The log-SNR
    embedding, Fourier features, normalization statistics and (on a CPU) attention stay in float32.
    ``net.compile()`` works.

    Attention uses torch's fused kernels, which have no forward-mode derivatives: call `torch.func.jvp` inside
    ``torch.nn.attention.sdpa_kernel(SDPBackend.MATH)``. Its memory grows with the square of the number of positions.

    Attributes:
        event_shape: (channels, and one to three sizes) of one event, each size >= 1.
        channels: Number of channels at the finest resolution, a multiple of ``groups`` and larger.
        multipliers: Channels at each resolution over ``channels``; each resolution after the first halves the grid.
        blocks: Residual blocks per resolution, in the encoder and again in the decoder.
        attention: Indices of the resolutions whose blocks attend, 0 the finest. The middle block attends too, unless
            this is empty. None, the default, is the coarsest resolution alone; the attribute then holds its index.
        heads: Number of attention heads; divides the channels of every attending resolution.
        head_width: Width of one head; if not None, it replaces ``heads``.
        resample_in_blocks: Whether residual blocks resample, by means and nearest neighbors (as in BigGAN), rather
            than one convolution. Costs two more blocks per resolution.
        dropout: Probability in [0, 1) of dropping a hidden unit in training.
        groups: Groups of the group norm; None for the largest number of groups of at least 16 channels. On a CPU,
            narrower groups do not fill a vector register and are several times slower.
        fourier: Fourier features appended to the input channels, or None.
        log_snr_range: Range of log-SNR that the network resolves, nats; values outside are clamped to it.
        conditions: The network's further inputs by name, ``{"label": Classes(10)}``, see `scoresde.nn.conditions`.
            Tokens enter by cross-attention in the blocks that attend; channels are concatenated to the input.
        outputs: Values per entry of the event; more than one add a last axis to the output (see `Pointwise`).
        checkpoint: Activation checkpointing: training stores only the inputs of blocks and recomputes the rest in the
            backward pass. Same gradients, less memory, about a third more time.
        augment: Number of augmentation parameters in the keyword ``augment``: 9 for `scoresde.data.Augment`, 0 for a
            network that reads none.
        delta: Whether the network reads the angle of a jump, as few-step students do (`scoresde.distillation`).
        patch: Values along each axis that become channels at the input, and are separated again at the output
            (Hoogeboom et al. 2023). The finest grid, and with it the cost, shrinks by this factor along each axis. It
            must divide each size.

    Raises:
        ValueError, TypeError: If a setting is out of its range or two do not fit together.

    Example:
        >>> import torch
        >>> from scoresde import UNet
        >>> net = UNet((1, 8, 8), channels=16, multipliers=(1, 2))
        >>> net(torch.randn(2, 1, 8, 8), log_snr=torch.zeros(2)).shape
        torch.Size([2, 1, 8, 8])

    Source: Ho, Jain & Abbeel 2020, appendix B (after Ronneberger et al. 2015); adaptive group norm of Nichol &
    Dhariwal 2021, section 3; resampling blocks of Brock et al. 2019 as in Song et al. 2021, appendix H. Unlike theirs,
    each block has one skip, resampling has none, and upsampling reduces to the channels of the resolution it reaches.
    """

    event_shape: tuple[int, ...]
    channels: int = 32
    multipliers: tuple[int, ...] = (1, 2, 2)
    blocks: int = 2
    attention: tuple[int, ...] | None = None
    heads: int = 4
    head_width: int | None = None
    resample_in_blocks: bool = False
    dropout: float = 0.0
    groups: int | None = None
    fourier: FourierInput | None = None
    log_snr_range: tuple[float, float] = (-20.0, 20.0)
    conditions: Mapping[str, Condition] = field(default_factory=dict, metadata={"write": "if set"})
    outputs: int = 1
    checkpoint: bool = False
    augment: int = 0
    delta: bool = field(default=False, metadata={"write": "if set"})
    patch: int = field(default=1, metadata={"write": "if set"})

    def __post_init__(self) -> None:
        super().__init__()
        self.conditions = check_declared(self.conditions)
        self._check_settings()
        self.attention = attention = self._checked_attention()
        self.conditioning = Conditioning(
            4 * self.channels, self.log_snr_range, entering(self.conditions, "vector"), self.augment, self.delta
        )
        self.channel_inputs = ChannelInputs(self.conditions, self.event_shape)
        self.token_inputs = TokenInputs(self.conditions, 4 * self.channels)
        self.log_snr_range = self.conditioning.log_snr_embedding.log_snr_range
        axes, widths = len(self.event_shape) - 1, [self.channels * m for m in self.multipliers]
        in_channels = self.event_shape[0] * (1 if self.fourier is None else self.fourier.features_per_value)
        in_channels, patch_values = in_channels + self.channel_inputs.features, self.patch**axes
        self.conv_in = convolution(axes, in_channels * patch_values, widths[0])
        down, up = (self._block, self._block) if self.resample_in_blocks else (Downsample, Upsample)
        self.downsample = nn.ModuleList(down(axes, fine, coarse) for fine, coarse in pairwise(widths))
        self.upsample = nn.ModuleList(up(axes, coarse, fine) for fine, coarse in reversed([*pairwise(widths)]))
        self.down_blocks, self.up_blocks = nn.ModuleList(), nn.ModuleList()
        for i, width in enumerate(widths):
            heads = self._heads(width) if i in attention else 0
            down_blocks = nn.ModuleList(self._block(axes, width, width, heads) for _ in range(self.blocks))
            up_blocks = nn.ModuleList(self._block(axes, 2 * width, width, heads) for _ in range(self.blocks))
            self.down_blocks.append(down_blocks)
            self.up_blocks.insert(0, up_blocks)
        middle_heads = self._heads(widths[-1]) if attention else 0
        self.middle_blocks = nn.ModuleList(
            self._block(axes, widths[-1], widths[-1], heads) for heads in (middle_heads, 0)
        )
        self.norm_out = nn.GroupNorm(self._groups, widths[0])
        self.conv_out = zero_init(convolution(axes, widths[0], self.event_shape[0] * self.outputs * patch_values))

    @property
    def _groups(self) -> int:
        if self.groups is not None:
            return self.groups
        return max((n for n in range(1, self.channels // 16 + 1) if self.channels % n == 0), default=1)

    def _heads(self, width: int) -> int:
        return self.heads if self.head_width is None else width // self.head_width

    def _block(self, axes: int, in_channels: int, out_channels: int, heads: int = 0) -> ResidualBlock:
        context_width = 4 * self.channels if entering(self.conditions, "tokens") else 0
        return ResidualBlock(
            axes, in_channels, out_channels, 4 * self.channels, self._groups, self.dropout, heads, context_width
        )

    def _check_settings(self) -> None:
        self.event_shape = check_sizes("event_shape", self.event_shape)
        self.multipliers = check_sizes("multipliers", self.multipliers)
        for name in ("channels", "blocks", "heads", "outputs", "head_width", "groups", "patch"):
            if getattr(self, name) is not None or name not in ("head_width", "groups"):
                check_integer(name, getattr(self, name))
        check_probability("dropout", self.dropout)
        if not 2 <= len(self.event_shape) <= 4:
            raise ValueError(
                f"event_shape must be (channels, one to three sizes), got {self.event_shape}; use MLP otherwise."
            )
        if any(size % self.patch for size in self.event_shape[1:]):
            raise ValueError(
                f"patch must divide each size of the event, got patch={self.patch} and sizes {self.event_shape[1:]}; "
                "use patch=1, or resize the events."
            )
        if not self.multipliers:
            raise ValueError("multipliers must have at least one entry, got (); write multipliers=(1,).")
        if self.channels % self._groups or self.channels == self._groups:
            raise ValueError(
                f"channels must be a multiple of groups and larger, got channels={self.channels} and "
                f"groups={self._groups}; use channels={2 * self._groups}, for example, or other groups."
            )

    def _checked_attention(self) -> tuple[int, ...]:
        resolutions = range(len(self.multipliers))
        attention = tuple(resolutions[-1:] if self.attention is None else self.attention)
        if not attention and entering(self.conditions, "tokens"):
            raise ValueError("tokens enter by attention, got attention=(); name resolutions, or leave attention out.")
        for i in attention:
            check_integer("each entry of attention", i, least=None)
        for i in attention:
            if i not in resolutions:
                raise ValueError(
                    f"attention must name resolutions 0 ... {resolutions[-1]}, got {i!r}; 0 is the finest."
                )
        name = "heads" if self.head_width is None else "head_width"
        for i in sorted({*attention, resolutions[-1]}) if attention else ():
            if self.channels * self.multipliers[i] % getattr(self, name):
                raise ValueError(
                    f"{name} must divide the channels of every attending resolution, got {name}={getattr(self, name)} "
                    f"and {self.channels * self.multipliers[i]} channels at resolution {i}; use heads=1, for example."
                )
        return attention

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
            x: Noised events, shape ``(B, *event_shape)``, in either memory format.
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
        h = h.to(self.norm_out.weight.dtype)
        if self.channel_inputs.features:
            h = torch.cat([h, self.channel_inputs(values).to(h.dtype)], 1)
        h = to_patches(h, self.patch)
        h = self._encode_decode(h if h.ndim > 3 else h.unsqueeze(2), embedding, context)
        out = self.conv_out(F.silu(self.norm_out(group_norm_input(h)))).to(x.dtype).contiguous()
        out = from_patches(out.squeeze(2) if x.ndim == 3 else out, self.patch)
        if self.outputs == 1:
            return out.reshape(x.shape)
        return out.reshape(x.shape[0], self.event_shape[0], self.outputs, *self.event_shape[1:]).movedim(2, -1)

    def _encode_decode(self, h: Tensor, embedding: Tensor, context: Context | None) -> Tensor:
        """Encoder, middle blocks and decoder, from the first convolution to the input of the last."""
        h, skips = self.conv_in(h), []
        for i, blocks in enumerate(self.down_blocks):
            if i:
                h = self._run(self.downsample[i - 1], h, embedding, context, half_size(h.shape[2:]))
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues] (a ModuleList of ModuleLists)
                h = self._run(block, h, embedding, context)
                skips.append(h)
        for block in self.middle_blocks:
            h = self._run(block, h, embedding, context)
        for i, blocks in enumerate(self.up_blocks):
            if i:
                h = self._run(self.upsample[i - 1], h, embedding, context, tuple(skips[-1].shape[2:]))
            for block in blocks:  # pyright: ignore[reportGeneralTypeIssues] (a ModuleList of ModuleLists)
                h = self._run(block, torch.cat([h, skips.pop()], 1), embedding, context)
        return h

    def _run(
        self, block: nn.Module, h: Tensor, embedding: Tensor, context: Context | None, size: Size | None = None
    ) -> Tensor:
        if self.checkpoint and self.training and torch.is_grad_enabled():
            return checkpointed(block, h, embedding, size, context)
        return block(h, embedding, size, context)
