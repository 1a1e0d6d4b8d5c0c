r"""`ParallelBeam`: sums along parallel lines at several angles, as tomography measures them; by a matrix."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_finite
from scoresde.guidance.operators.base import LinearOperator

__all__ = ["ParallelBeam"]


class ParallelBeam(LinearOperator):
    r"""Projections of a square image: for each angle θ, pixel sums over bins of $t = c\cos\theta + r\sin\theta$.

    Each pixel, with column c and row r from the image's center, is split linearly between the two bins nearest to t, so
    every projection keeps the sum of the image. Bins have the width of a pixel and cover the diagonal.

    Args:
        angles: In radians; 0 sums over rows (one value per column).
        event_shape: ``(C, n, n)``.

    Measurements have shape ``(C, len(angles), bins)``.

    Raises:
        ValueError: If there is no angle, one is not finite, or the image is not square.
    """

    weight: Tensor

    def __init__(self, angles: Sequence[float] | Tensor, event_shape: tuple[int, ...]) -> None:
        super().__init__()
        check_arguments(ParallelBeam, locals())
        theta = torch.as_tensor(angles, dtype=torch.float64)
        check_finite(theta, "angles")
        if theta.ndim != 1 or not len(theta):
            raise ValueError(f"angles must be one or more numbers, got shape {tuple(theta.shape)}.")
        if len(event_shape) != 3 or event_shape[1] != event_shape[2]:
            raise ValueError(f"event_shape must be (C, n, n), got {tuple(event_shape)}.")
        channels, n, _ = event_shape
        half = math.ceil((n - 1) / math.sqrt(2.0)) + 1
        self.event_shape, self.output_shape = tuple(event_shape), (channels, len(theta), 2 * half + 1)
        center = torch.arange(n, dtype=torch.float64) - (n - 1) / 2
        row, column = torch.meshgrid(center, center, indexing="ij")
        t = theta.cos().reshape(-1, 1) * column.flatten() + theta.sin().reshape(-1, 1) * row.flatten() + half
        low = t.floor()
        first = torch.arange(len(theta)).reshape(-1, 1) * (2 * half + 1) + low.long()
        pixel = torch.arange(n * n).expand_as(first)
        weight = torch.zeros(len(theta) * (2 * half + 1), n * n, dtype=torch.float64)
        weight.index_put_((first, pixel), 1.0 - (t - low), accumulate=True)
        weight.index_put_((first + 1, pixel), t - low, accumulate=True)
        self.register_buffer("weight", weight)

    def apply(self, x0: Tensor) -> Tensor:
        return (x0.flatten(2) @ self.weight.to(x0.dtype).mT).reshape(len(x0), *self.output_shape)

    def adjoint(self, y: Tensor) -> Tensor:
        return (y.flatten(2) @ self.weight.to(y.dtype)).reshape(len(y), *self.event_shape)
