r"""What is a UNet made of, on grids of one, two or three axes? Convolutions, changes of the grid, residual blocks.

Grids shrink to ceil(size / 2) along each axis and grow to any size given. A line of values is kept as a picture of
one row, so that one set of kernels serves; tensors keep their channels last in memory wherever the weights do.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde.nn._attention import GridAttention
from scoresde.nn._layers import derivable, zeroed

Size = tuple[int, ...]


def convolution(axes: int, arrive: int, width: int, stride: int = 1) -> nn.Module:
    """Convolution of reach 3 over 1, 2 or 3 axes that keeps the grid, or shrinks it to ceil(size / ``stride``)."""
    if axes == 1:
        layer = nn.Conv2d(arrive, width, (1, 3), (1, stride), (0, 1))
    else:
        layer = (nn.Conv2d if axes == 2 else nn.Conv3d)(arrive, width, 3, stride, 1)
    layout = torch.channels_last_3d if axes == 3 else torch.channels_last
    layer.weight = nn.Parameter(layer.weight.detach().contiguous(memory_format=layout))
    return layer


def halved(size: Size) -> Size:
    """The next coarser grid."""
    return tuple(-(-n // 2) for n in size)


def resized(h: Tensor, size: Size) -> Tensor:
    """On a grid of ``size``, by copies if that is finer, else by means of 2 along each axis (of 1 at an odd end)."""
    here = tuple(h.shape[2:])
    if size == here:
        return h
    if any(new > old for new, old in zip(size, here)):
        return F.interpolate(h, size=size, mode="nearest")
    reach = [2 if new < old else 1 for new, old in zip(size, here)]
    pool = F.avg_pool2d if len(size) == 2 else F.avg_pool3d
    return pool(h, reach, ceil_mode=True, count_include_pad=False)


class PointwiseConv(nn.Module):
    """The same layer at each place, from channels to channels: a convolution of reach 1, as a product of matrices."""

    def __init__(self, arrive: int, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(arrive, width)

    def forward(self, h: Tensor) -> Tensor:
        return self.linear(h.movedim(1, -1)).movedim(-1, 1)


class Downsample(nn.Module):
    """To the next coarser grid, by a convolution of stride 2."""

    def __init__(self, axes: int, arrive: int, width: int) -> None:
        super().__init__()
        self.conv = convolution(axes, arrive, width, stride=2)

    def forward(self, h: Tensor, embedding: Tensor, size: Size) -> Tensor:
        return self.conv(h)


class Upsample(nn.Module):
    """To a finer grid of the given size, by copies and a convolution."""

    def __init__(self, axes: int, arrive: int, width: int) -> None:
        super().__init__()
        self.conv = convolution(axes, arrive, width)

    def forward(self, h: Tensor, embedding: Tensor, size: Size) -> Tensor:
        return self.conv(resized(h, size))


class Block(nn.Module):
    """Residual block with adaptive scale and shift; resizes inside if a size is given; attends if ``heads`` is not 0.

    Source: Brock, Donahue & Simonyan 2019, figure 15 (resampling between the first activation and convolution).
    """

    def __init__(
        self, axes: int, arrive: int, width: int, told: int, groups: int, dropout: float = 0.0, heads: int = 0
    ) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, arrive)
        self.enter = convolution(axes, arrive, width)
        self.film = nn.Linear(told, 2 * width)
        self.adaptive = nn.GroupNorm(groups, width, affine=False)
        self.drop = nn.Dropout(dropout)
        self.leave = zeroed(convolution(axes, width, width))
        self.shortcut = nn.Identity() if arrive == width else PointwiseConv(arrive, width)
        self.attention = GridAttention(width, heads, groups) if heads else nn.Identity()

    def forward(self, h: Tensor, embedding: Tensor, size: Size | None = None) -> Tensor:
        update = F.silu(self.norm(derivable(h)))
        if size is not None:
            h, update = resized(h, size), resized(update, size)
        film = self.film(embedding)
        scale, shift = film.reshape(*film.shape, *(1 for _ in h.shape[2:])).chunk(2, 1)
        update = torch.addcmul(shift, self.adaptive(derivable(self.enter(update))), scale + 1)
        return self.attention(self.shortcut(h) + self.leave(self.drop(F.silu(update))))
