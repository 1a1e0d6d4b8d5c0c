r"""Which changed pictures may be trained on without being sampled? Those whose change the network is told.

A change is nine numbers, all 0 for none: (mirror, flip, $\log_2$ scale $z$, $\cos a - 1$, $\sin a$, $r \cos 2b$,
$r \sin 2b$, $t_x$, $t_y$). A point of the picture at $p$, in pixels from its center (x to the right, y down), goes to

$$2^z\, S\, R\, F\, p + (t_x W, t_y H),$$

$F$ the two reflections, $R$ the rotation by $a$ from x towards y, $S$ the stretch by $2^r$ along the angle $b$ and by
$2^{-r}$ across it. The numbers say all about it: a network that reads them learns the law of the changed pictures given
the change, and with nine zeros it samples pictures as they are.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Augment"]


@dataclass(frozen=True)
class Augment:
    """Non-leaky augmentation of pictures: each change is drawn on its own and told to the network.

    Args:
        p: Probability of each change but the mirror, in [0, 1].
        mirror: Swap left and right in half of the pictures, whatever ``p``.
        flip: Swap top and bottom, in half of those that are chosen.
        scale: Standard deviation of log2 of the scale.
        rotate: Largest angle either way, radians; uniform.
        stretch: Standard deviation of log2 of the stretch along an axis of any direction; the area stays.
        translate: Standard deviation of the shift, as a fraction of width and height.

    Raises:
        ValueError: If one is out of its domain.

    Not done: other changes than in place (color, noise, cutting). What leaves the picture is lost, what enters is its
    reflection; values between pixels are bicubic, not antialiased, and may leave the range of the data by a little. So
    a dequantized picture stays one under mirror and flip only: bits per dimension are those with nine zeros.

    Source: Karras, Aittala, Aila & Laine 2022, app. F.2 (there the stretch is told with b instead of 2b, which gives
        one stretch two names); the defaults are theirs for CIFAR-10.
    """

    dims: ClassVar[int] = 9
    """How many numbers tell a change."""

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
        """Changed pictures, and what to tell the network.

        Args:
            x: Pictures, model units, ``(B, C, H, W)``.
            generator: Source of the changes, on the device of ``x``; ``None`` draws from the global state.

        Returns:
            Pictures ``(B, C, H, W)``, those without a change as they were; changes ``(B, 9)``, of the type of ``x``.

        Raises:
            ValueError: If ``x`` is not of that shape or not floating.
        """
        change = self.draw(len(x), generator, x.device).to(x.dtype if x.is_floating_point() else torch.float32)
        return self.transform(x, change), change

    def draw(self, n: int, generator: torch.Generator | None = None, device: torch.device | None = None) -> Tensor:
        """Changes of ``n`` pictures, ``(n, 9)``; the same random numbers are used up whatever is switched off."""
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
    def transform(x: Tensor, change: Tensor) -> Tensor:
        """Pictures ``x`` ``(B, C, H, W)`` under the changes ``(B, 9)``; nine zeros leave every bit as it was."""
        if x.ndim != 4 or not x.is_floating_point() or change.shape != (len(x), Augment.dims):
            raise ValueError(
                f"pictures must be floating (B, C, H, W) with changes (B, 9), got {x.dtype} {tuple(x.shape)} and "
                f"{tuple(change.shape)}; scale the data to model units first."
            )
        mirror, flip = (change[:, i].reshape(-1, 1, 1, 1) > 0.5 for i in (0, 1))
        x = torch.where(mirror, x.flip(3), x)
        x = torch.where(flip, x.flip(2), x)
        back, grid = _back(change, x.shape[3], x.shape[2]), _grid(x.shape[2], x.shape[3], change.device)
        where = (grid @ back[:, None, :, :2].mT + back[:, None, None, :, 2]).to(x.dtype)
        moved = functional.grid_sample(x, where, mode="bicubic", padding_mode="reflection", align_corners=False)
        return torch.where((change[:, 2:] != 0).any(1).reshape(-1, 1, 1, 1), moved, x)


def _back(change: Tensor, width: int, height: int) -> Tensor:
    """Where a point comes from, ``(B, 2, 3)``, both in units in which the picture reaches from -1 to 1."""
    z, cos, sin, c, s, tx, ty = change[:, 2:].float().unbind(1)
    cos, r = cos + 1, torch.hypot(c, s)
    near = r < 1e-12
    c, s = c / r.masked_fill(near, 1.0), s / r.masked_fill(near, 1.0)
    even, odd = torch.cosh(math.log(2) * r), -torch.sinh(math.log(2) * r)  # of the inverse stretch
    unstretch = _matrix(even + odd * c, odd * s, odd * s, even - odd * c)
    inverse = torch.exp2(-z)[:, None, None] * _matrix(cos, sin, -sin, cos) @ unstretch
    ratio = height / width
    xx, xy, yx, yy = inverse.flatten(1).unbind(1)
    linear = _matrix(xx, ratio * xy, (1 / ratio) * yx, yy)  # by numbers: a tensor of them would make a GPU wait
    return torch.cat([linear, -linear @ torch.stack([2 * tx, 2 * ty], dim=1)[:, :, None]], dim=2)


def _grid(height: int, width: int, device: torch.device) -> Tensor:
    """Where the pixels are, ``(H, W, 2)``: x, y in the units of `_back`."""
    y, x = ((2 * torch.arange(n, device=device) + 1) / n - 1 for n in (height, width))
    return torch.stack([x[None].expand(height, -1), y[:, None].expand(-1, width)], dim=-1)


def _matrix(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.stack([torch.stack([a, b], dim=-1), torch.stack([c, d], dim=-1)], dim=-2)
