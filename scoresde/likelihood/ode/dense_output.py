r"""Dense output of an ODE solver: $x(\theta) = x_0 + h\,\theta\,(a + b\theta + c\theta^2 + d\theta^3)$ over each step.

$x_0$ is the state at the start of the step, h its length in the angle φ, and θ in [0, 1] the fraction of it. Each
sample has its own steps.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["DenseOutput", "PiecewisePolynomial", "StepPolynomial", "hermite_cubic"]


class DenseOutput(ABC):
    """The trajectory x(φ) of each sample at every angle between its ends."""

    @abstractmethod
    def at(self, phi: Tensor) -> Tensor:
        """States at angles ``(B, N)``, each sample's own: ``(B, N, d)``."""

    @abstractmethod
    def slope(self, phi: Tensor) -> Tensor:
        """dx/dφ at these angles, ``(B, N, d)``."""

    @abstractmethod
    def sharpest_turn(self) -> Tensor:
        r"""The angle at which $\varphi\,|d^2x/d\varphi^2|^2$ is largest along the trajectory, ``(B, 1)``."""


class StepPolynomial(NamedTuple):
    """The polynomials of one step of some samples: x + h θ (a + bθ + cθ² + dθ³), θ in [0, 1].

    Attributes:
        rows: The samples, ``(R,)``.
        distance: Distance in angle from the start of the trajectory to the start of the step, ``(R,)``.
        h: Length of the step, ``(R,)``.
        x: State at the start of the step, ``(R, d)``.
        coefficients: a, b, c, d, ``(R, 4, d)``.
    """

    rows: Tensor
    distance: Tensor
    h: Tensor
    x: Tensor
    coefficients: Tensor


def hermite_cubic(
    rows: Tensor, distance: Tensor, h: Tensor, ends: tuple[Tensor, Tensor], slopes: tuple[Tensor, Tensor]
) -> StepPolynomial:
    """The cubic Hermite polynomial between two states, ``(R, d)``, with the given slopes there."""
    mean = (ends[1] - ends[0]) / h.unsqueeze(1)
    first, last = slopes
    coefficients = (first, 3 * mean - 2 * first - last, first + last - 2 * mean, torch.zeros_like(mean))
    return StepPolynomial(rows, distance, h, ends[0], torch.stack(coefficients, 1))


class PiecewisePolynomial(DenseOutput):
    """Dense output made of the polynomials of all steps.

    Args:
        steps: Polynomials of all samples; those of one sample in the order of its steps.
        count: Number of samples; each has at least one polynomial.
        start: Angle at the start of the trajectory.
        sign: 1 if the angle increases along the trajectory, else -1.
    """

    def __init__(self, steps: list[StepPolynomial], count: int, start: float, sign: float) -> None:
        self.start, self.sign = start, sign
        joined = StepPolynomial(*(torch.cat(part) for part in zip(*steps, strict=True)))
        order = torch.argsort(joined.rows, stable=True)
        self.steps = StepPolynomial(*(part[order] for part in joined))
        rows = self.steps.rows
        counts = torch.bincount(rows, minlength=count)
        self.first = counts.cumsum(0) - counts
        self.last = self.first + counts - 1
        self.table_index = rows, torch.arange(len(rows), device=rows.device) - self.first[rows]
        self.distances = joined.distance.new_full((count, int(counts.max())), math.inf)  # (sample, step), padded
        self.distances[self.table_index] = self.steps.distance

    @classmethod
    def interpolate(
        cls, phis: Sequence[float], states: Sequence[Tensor], velocities: Sequence[Tensor]
    ) -> PiecewisePolynomial:
        """Cubic Hermite interpolation of states that all samples have at the same angles.

        Args:
            phis: Two or more angles, increasing or decreasing.
            states, velocities: x and dx/dφ at these angles, ``(B, d)`` each.
        """
        x, start, sign = states[0], phis[0], math.copysign(1.0, phis[-1] - phis[0])
        rows, slopes = torch.arange(len(x), device=x.device), [sign * v for v in velocities]
        steps = []
        for i in range(len(phis) - 1):
            distance = x.new_full((len(x),), abs(phis[i] - start))
            h = x.new_full((len(x),), abs(phis[i + 1] - phis[i]))
            steps.append(hermite_cubic(rows, distance, h, (states[i], states[i + 1]), (slopes[i], slopes[i + 1])))
        return cls(steps, len(x), start, sign)

    def at(self, phi: Tensor) -> Tensor:
        """States at angles ``(B, N)``: ``(B, N, d)``. Past the end of a sample that did not arrive: extrapolated."""
        step, theta = self._locate(phi)
        _, _, h, x, coefficients = self.steps
        out = coefficients[step, 3]
        for power in (2, 1, 0):
            out = out.mul_(theta).add_(coefficients[step, power])
        return out.mul_(theta * h[step].unsqueeze(2)).add_(x[step])

    def slope(self, phi: Tensor) -> Tensor:
        step, theta = self._locate(phi)
        out = 4.0 * self.steps.coefficients[step, 3]
        for power in (2, 1, 0):
            out = out.mul_(theta).add_(self.steps.coefficients[step, power], alpha=power + 1)
        return out.mul_(self.sign)

    def sharpest_turn(self) -> Tensor:
        """The angle of the sharpest turn, ``(B, 1)``, among five angles of each step."""
        _, distance, h, _, coefficients = self.steps
        theta = torch.linspace(0.0, 1.0, 5, dtype=h.dtype, device=h.device)
        powers = torch.stack([torch.full_like(theta, 2.0), 6.0 * theta, 12.0 * theta * theta], 1)
        curvature = torch.einsum("tp,rpd->rtd", powers, coefficients[:, 1:]) / h.reshape(-1, 1, 1)
        phi = self.start + self.sign * (distance.unsqueeze(1) + theta * h.unsqueeze(1))
        sharpness, index = (curvature.square().sum(2) * phi).max(1)
        table = torch.full_like(self.distances, -1.0)
        table[self.table_index] = sharpness
        step = self.first + table.argmax(1)
        return phi[step].gather(1, index[step].unsqueeze(1))

    def _locate(self, phi: Tensor) -> tuple[Tensor, Tensor]:
        """The step that holds each angle, ``(B, N)``, and θ within it, ``(B, N, 1)``."""
        distance = ((phi - self.start) * self.sign).contiguous()
        step = (torch.searchsorted(self.distances, distance, right=True) - 1).clamp(min=0)
        step = torch.minimum(step + self.first.unsqueeze(1), self.last.unsqueeze(1))
        return step, ((distance - self.steps.distance[step]) / self.steps.h[step]).unsqueeze(2)
