"""Two-dimensional toy distributions with structure that a Gaussian lacks: modes, curves, edges.

Each toy is ``toy(n, generator) -> (points (n, 2), labels (n,))``, centered near 0 with coordinates of about unit size,
so that its scaling is the identity. Options are keyword-only. `heartbeat` has sequences of bits in place of points.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scoresde._core.checks import check_integer

__all__ = ["TOYS", "checkerboard", "circles", "heartbeat", "moons", "pinwheel", "ring", "swiss_roll", "two_spirals"]

_Samples = tuple[Tensor, Tensor]


def ring(
    n: int, generator: torch.Generator | None = None, *, modes: int = 8, radius: float = 1.0, std: float = 0.1
) -> _Samples:
    """Equal isotropic Gaussians at ``radius * (cos, sin)(2 pi k / modes)``, each of standard deviation ``std``.

    Returns:
        Points ``(n, 2)`` and the mode index ``k`` of each, ``(n,)``.
    """
    k = _labels(n, modes, generator)
    return radius * _circle(2 * math.pi * k / modes) + std * _normal(n, generator), k


def circles(n: int, generator: torch.Generator | None = None, *, std: float = 0.05) -> _Samples:
    """Two circles of radius 1 and 1/2 with normal noise; the label is 0 for the outer circle, 1 for the inner one."""
    k = _labels(n, 2, generator)
    radius = 1 - k / 2
    return radius[:, None] * _circle(2 * math.pi * _uniform(n, generator)) + std * _normal(n, generator), k


def moons(n: int, generator: torch.Generator | None = None, *, std: float = 0.1) -> _Samples:
    """Two interleaved half circles of radius 1, the second rotated by pi about the origin, with normal noise."""
    k = _labels(n, 2, generator)
    arc = _circle(math.pi * _uniform(n, generator)) - torch.tensor([0.5, 0.25])
    return (1 - 2 * k)[:, None] * arc + std * _normal(n, generator), k


def swiss_roll(n: int, generator: torch.Generator | None = None, *, std: float = 0.05) -> _Samples:
    """The spiral ``t (cos t, sin t) / 10`` with ``t`` uniform in ``[3/2 pi, 9/2 pi]``, with normal noise; one label."""
    t = 1.5 * math.pi * (1 + 2 * _uniform(n, generator))
    return (t / 10)[:, None] * _circle(t) + std * _normal(n, generator), torch.zeros(n, dtype=torch.int64)


def checkerboard(n: int, generator: torch.Generator | None = None) -> _Samples:
    """Uniform on the 8 unit squares of ``[-2, 2)^2`` with an even corner sum; the label is the square."""
    k = _labels(n, 8, generator)
    column = k // 2 - 2
    row = 2 * (k % 2) - 2 + column % 2
    corner = torch.stack([column, row], dim=1)
    return corner + torch.rand(n, 2, generator=generator), k


def pinwheel(n: int, generator: torch.Generator | None = None, *, arms: int = 5) -> _Samples:
    """Gaussians stretched along a radius and sheared into spiral arms; the label is the arm."""
    k = _labels(n, arms, generator)
    radial, tangential = (torch.tensor([0.3, 0.1]) * _normal(n, generator)).unbind(1)
    radial = radial + 1
    angle = 2 * math.pi * k / arms + 0.25 * torch.exp(radial)
    direction = _circle(angle)
    return radial[:, None] * direction + tangential[:, None] * direction.flip(1) * torch.tensor([-1.0, 1.0]), k


def two_spirals(n: int, generator: torch.Generator | None = None, *, std: float = 0.03) -> _Samples:
    """Two arms ``±t (cos t, sin t) / (3 pi)``, ``t`` in ``[0, 3 pi]`` uniform in area, with normal noise."""
    k = _labels(n, 2, generator)
    t = 3 * math.pi * torch.sqrt(_uniform(n, generator))
    arm = (t / (3 * math.pi))[:, None] * _circle(t)
    return (1 - 2 * k)[:, None] * arm + std * _normal(n, generator), k


def heartbeat(n: int, generator: torch.Generator | None = None, *, length: int = 20, period: int = 5) -> _Samples:
    r"""Bits with a pulse at every ``period``-th place, from a random place on: $\log_2$ ``period`` bits in all.

    Returns:
        Bits ``(n, length)``, ``uint8``, and the place of the first pulse of each, ``(n,)``.

    Raises:
        ValueError: If ``length`` or ``period`` is not a positive integer, or ``period`` exceeds ``length``.

    Source: Sohl-Dickstein et al. 2015, section 3.1.2.
    """
    check_integer("length", length, 2)
    check_integer("period", period, 2, most=length)
    phase = _labels(n, period, generator)
    return (torch.arange(length) % period == phase[:, None]).to(torch.uint8), phase


def _circle(angle: Tensor) -> Tensor:
    return torch.stack([torch.cos(angle), torch.sin(angle)], dim=1)


def _labels(n: int, classes: int, generator: torch.Generator | None) -> Tensor:
    return torch.randint(classes, (n,), generator=generator)


def _normal(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.randn(n, 2, generator=generator)


def _uniform(n: int, generator: torch.Generator | None) -> Tensor:
    return torch.rand(n, generator=generator)


TOYS = {toy.__name__: toy for toy in (checkerboard, circles, moons, pinwheel, ring, swiss_roll, two_spirals)}
