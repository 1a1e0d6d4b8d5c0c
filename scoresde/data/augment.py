r"""Non-leaky augmentation of images: random affine maps whose parameters are given to the network.

Nine augmentation parameters describe a map, all 0 for the identity: (mirror, flip, $\log_2$ scale $z$, $\cos a - 1$,
$\sin a$, $r \cos 2b$, $r \sin 2b$, $t_x$, $t_y$). A point of the image at $p$, in pixels from its center (x to the
right, y down), maps to

$$2^z\, S\, R\, F\, p + (t_x W, t_y H).$$

Here $F$ is the product of the two reflections, and $R$ is the rotation by $a$ from x to y. $S$ stretches by $2^r$ along
the angle $b$ and by $2^{-r}$ across it. The parameters determine the map completely. A network that reads them learns
the distribution of the transformed images given the parameters; with nine zeros it samples untransformed images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from scoresde._core.annotations import CheckedArguments

__all__ = ["Augment"]


@dataclass(frozen=True)
class Augment(CheckedArguments):
    """Non-leaky augmentation of images: each transformation is drawn independently and its parameters are returned.

    Args:
        p: Probability of each transformation except the mirror, in [0, 1].
        mirror: Swap left and right with probability 1/2, whatever ``p``.
        flip: Swap top and bottom with probability ``p / 2``.
        scale: Standard deviation of log2 of the scale.
        rotate: Largest rotation angle in either direction, radians; uniform.
        stretch: Standard deviation of log2 of the area-preserving stretch along an axis of random direction.
        translate: Standard deviation of the shift, as a fraction of width and height.

    Raises:
        ValueError: If a value is out of its range.

    Not done: changes of values (color, noise, cutout). Pixels that leave the image are lost, and its reflection fills
    the gap. Interpolation is bicubic without antialiasing and may exceed the range of the data slightly. So only mirror
    and flip keep dequantized images dequantized: compute bits per dimension with nine zeros.

    Source: Karras, Aittala, Aila & Laine 2022, app. F.2 (there the stretch has the angle b instead of 2b, so that one
        stretch has two parameter values); the defaults are theirs for CIFAR-10.
    """

    dims: ClassVar[int] = 9
    """Number of augmentation parameters."""

    p: float = 0.12
    mirror: bool = True
    flip: bool = True
    scale: float = 0.2
    rotate: float = math.pi
    stretch: float = 0.2
    translate: float = 0.125

    def __post_init__(self) -> None:
        for name, high in (("p", 1.0), ("scale", 2.0), ("rotate", math.pi), ("stretch", 2.0), ("translate", 1.0)):
            value = getattr(self, name)
            if not 0 <= value <= high:
                raise ValueError(f"{name} must lie in [0, {high:.4g}], got {value!r}; 0 switches it off.")

    def __call__(self, x: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Transforms images and returns them with the augmentation parameters.

        Args:
            x: Images, model units, ``(B, C, H, W)``.
            generator: Source of the parameters, on the device of ``x``; ``None`` uses the global random state.

        Returns:
            Images ``(B, C, H, W)``, unchanged where all parameters are 0; parameters ``(B, 9)``, of the type of ``x``.

        Raises:
            ValueError: If ``x`` is not of that shape or not floating.
        """
        parameters = self.draw(len(x), generator, x.device).to(x.dtype if x.is_floating_point() else torch.float32)
        return self.transform(x, parameters), parameters

    def draw(self, n: int, generator: torch.Generator | None = None, device: torch.device | None = None) -> Tensor:
        """Parameters for ``n`` images, ``(n, 9)``; switched-off transformations consume the same random numbers."""
        u = torch.rand(n, 10, generator=generator, device=device)
        z, r, tx, ty = torch.randn(n, 4, generator=generator, device=device).unbind(1)
        on = (u[:, :5] < self.p).to(u.dtype).unbind(1)
        half = (u[:, 5:7] < 0.5).to(u.dtype).unbind(1)
        a, b = on[1] * self.rotate * (2 * u[:, 7] - 1), 2 * math.pi * u[:, 8]
        r = on[2] * self.stretch * r
        z = on[3] * self.scale * z
        tx, ty = (on[4] * self.translate * t for t in (tx, ty))
        mirror, flip = float(self.mirror) * half[0], float(self.flip) * on[0] * half[1]
        return torch.stack([mirror, flip, z, a.cos() - 1, a.sin(), r * b.cos(), r * b.sin(), tx, ty], dim=1)

    @staticmethod
    def transform(x: Tensor, parameters: Tensor) -> Tensor:
        """Images ``(B, C, H, W)`` under the maps of ``parameters`` ``(B, 9)``; nine zeros change no bit."""
        if x.ndim != 4 or not x.is_floating_point() or parameters.shape != (len(x), Augment.dims):
            raise ValueError(
                f"images must be floating (B, C, H, W) with parameters (B, 9), got {x.dtype} {tuple(x.shape)} and "
                f"{tuple(parameters.shape)}; scale the data to model units first."
            )
        mirror, flip = (parameters[:, i].reshape(-1, 1, 1, 1) > 0.5 for i in (0, 1))
        x = torch.where(mirror, x.flip(3), x)
        x = torch.where(flip, x.flip(2), x)
        inverse = _inverse_map(parameters, x.shape[3], x.shape[2])
        pixels = _pixel_grid(x.shape[2], x.shape[3], parameters.device)
        source = (pixels @ inverse[:, None, :, :2].mT + inverse[:, None, None, :, 2]).to(x.dtype)
        moved = functional.grid_sample(x, source, mode="bicubic", padding_mode="reflection", align_corners=False)
        return torch.where((parameters[:, 2:] != 0).any(1).reshape(-1, 1, 1, 1), moved, x)


def _inverse_map(parameters: Tensor, width: int, height: int) -> Tensor:
    """The inverse affine map without reflections, ``(B, 2, 3)``, in coordinates from -1 to 1 along each axis."""
    z, cos, sin, c, s, tx, ty = parameters[:, 2:].float().unbind(1)
    cos, r = cos + 1, torch.hypot(c, s)
    is_zero = r < 1e-12
    c, s = c / r.masked_fill(is_zero, 1.0), s / r.masked_fill(is_zero, 1.0)
    even, odd = torch.cosh(math.log(2) * r), -torch.sinh(math.log(2) * r)  # of the inverse stretch
    unstretch = _matrix(even + odd * c, odd * s, odd * s, even - odd * c)
    inverse = torch.exp2(-z)[:, None, None] * _matrix(cos, sin, -sin, cos) @ unstretch
    ratio = height / width
    xx, xy, yx, yy = inverse.flatten(1).unbind(1)
    linear = _matrix(xx, ratio * xy, (1 / ratio) * yx, yy)  # Python numbers: a tensor of them would make a GPU wait
    return torch.cat([linear, -linear @ torch.stack([2 * tx, 2 * ty], dim=1)[:, :, None]], dim=2)


def _pixel_grid(height: int, width: int, device: torch.device) -> Tensor:
    """Coordinates of the pixels, ``(H, W, 2)``: x, y in the units of `_inverse_map`."""
    y, x = ((2 * torch.arange(n, device=device) + 1) / n - 1 for n in (height, width))
    return torch.stack([x[None].expand(height, -1), y[:, None].expand(-1, width)], dim=-1)


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.stack([torch.stack([a, b], dim=-1), torch.stack([c, d], dim=-1)], dim=-2)
