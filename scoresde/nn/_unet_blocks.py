r"""Building blocks of `UNet` on grids of one, two or three axes: convolutions, resampling and residual blocks.

Downsampling shrinks a grid to ceil(size / 2) along each axis; upsampling enlarges it to a given size. A series
(C, L) is stored as an image of one row, so that one set of kernels serves. Weights and activations use torch's
channels-last memory format.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde.nn._attention import SpatialAttention, SpatialCrossAttention
from scoresde.nn._condition_inputs import Context
from scoresde.nn._execution import group_norm_input
from scoresde.nn._initialization import zero_init

Size = tuple[int, ...]


def convolution(axes: int, in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    """Convolution of kernel size 3 over 1, 2 or 3 axes; keeps the grid, or shrinks it to ceil(size / ``stride``)."""
    if axes == 1:
        layer = nn.Conv2d(in_channels, out_channels, (1, 3), (1, stride), (0, 1))
    else:
        layer = (nn.Conv2d if axes == 2 else nn.Conv3d)(in_channels, out_channels, 3, stride, 1)
    layout = torch.channels_last_3d if axes == 3 else torch.channels_last
    layer.weight = nn.Parameter(layer.weight.detach().contiguous(memory_format=layout))
    return layer


def half_size(size: Size) -> Size:
    """Size of the next coarser grid: ceil(size / 2) along each axis."""
    return tuple(-(-n // 2) for n in size)


def resample(h: Tensor, size: Size) -> Tensor:
    """Nearest-neighbor upsampling to ``size`` if that is finer, else means of 2 along each axis (1 at an odd end)."""
    old_size = tuple(h.shape[2:])
    if size == old_size:
        return h
    if any(new > old for new, old in zip(size, old_size)):
        return F.interpolate(h, size=size, mode="nearest")
    kernel = [2 if new < old else 1 for new, old in zip(size, old_size)]
    pool = F.avg_pool2d if len(size) == 2 else F.avg_pool3d
    return pool(h, kernel, ceil_mode=True, count_include_pad=False)


def to_patches(h: Tensor, patch: int) -> Tensor:
    """The values of each patch as channels: ``(B, C, *sizes)`` to ``(B, C * patch^axes, *sizes / patch)``."""
    if patch == 1:
        return h
    axes = h.ndim - 2
    for axis in range(axes):
        h = h.unflatten(2 + 2 * axis, (-1, patch))
    return h.permute(0, 1, *range(3, h.ndim, 2), *range(2, h.ndim, 2)).flatten(1, 1 + axes)


def from_patches(h: Tensor, patch: int) -> Tensor:
    """Inverse of `to_patches`."""
    if patch == 1:
        return h
    axes = h.ndim - 2
    h = h.unflatten(1, (-1, *[patch] * axes))
    h = h.permute(0, 1, *(i for axis in range(axes) for i in (2 + axes + axis, 2 + axis)))
    for axis in range(axes):
        h = h.flatten(2 + axis, 3 + axis)
    return h


class PointwiseConv(nn.Module):
    """Convolution of kernel size 1 over any number of axes, computed as a matrix product."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_channels, out_channels)

    def forward(self, h: Tensor) -> Tensor:
        return self.linear(h.movedim(1, -1)).movedim(-1, 1)


class Downsample(nn.Module):
    """Downsampling to the next coarser grid by a convolution of stride 2."""

    def __init__(self, axes: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = convolution(axes, in_channels, out_channels, stride=2)

    def forward(self, h: Tensor, embedding: Tensor, size: Size, context: Context | None = None) -> Tensor:
        return self.conv(h)


class Upsample(nn.Module):
    """Upsampling to a given size by nearest neighbors, followed by a convolution."""

    def __init__(self, axes: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = convolution(axes, in_channels, out_channels)

    def forward(self, h: Tensor, embedding: Tensor, size: Size, context: Context | None = None) -> Tensor:
        return self.conv(resample(h, size))


class ResidualBlock(nn.Module):
    """Residual block with adaptive group norm; resamples if a size is given; attends if ``heads`` is not 0.

    With a ``context_width`` it then attends to the tokens of the network's conditions.

    Source: adaptive group norm of Nichol & Dhariwal 2021, section 3; resampling between the first activation and the
    first convolution, and in the shortcut, of Brock, Donahue & Simonyan 2019, figure 15.
    """

    def __init__(
        self,
        axes: int,
        in_channels: int,
        out_channels: int,
        embedding_width: int,
        groups: int,
        dropout: float = 0.0,
        heads: int = 0,
        context_width: int = 0,
    ) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(groups, in_channels)
        self.conv_in = convolution(axes, in_channels, out_channels)
        self.film = nn.Linear(embedding_width, 2 * out_channels)
        self.norm_out = nn.GroupNorm(groups, out_channels, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.conv_out = zero_init(convolution(axes, out_channels, out_channels))
        self.shortcut = nn.Identity() if in_channels == out_channels else PointwiseConv(in_channels, out_channels)
        self.attention = SpatialAttention(out_channels, heads, groups) if heads else nn.Identity()
        self.cross_attention = None
        if heads and context_width:
            self.cross_attention = SpatialCrossAttention(out_channels, context_width, heads, groups)

    def forward(self, h: Tensor, embedding: Tensor, size: Size | None = None, context: Context | None = None) -> Tensor:
        update = F.silu(self.norm_in(group_norm_input(h)))
        if size is not None:
            h, update = resample(h, size), resample(update, size)
        film = self.film(embedding)
        scale, shift = film.reshape(*film.shape, *(1 for _ in h.shape[2:])).chunk(2, 1)
        update = torch.addcmul(shift, self.norm_out(group_norm_input(self.conv_in(update))), scale + 1)
        h = self.attention(self.shortcut(h) + self.conv_out(self.dropout(F.silu(update))))
        return h if self.cross_attention is None else self.cross_attention(h, context)
