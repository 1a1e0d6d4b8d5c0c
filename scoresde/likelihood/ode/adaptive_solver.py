r"""Dormand–Prince 5(4) with a step size per sample, for $dx/d\phi = v(x, \phi)$, and its dense output of degree 4.

The solver makes forward calls of the network only. A call evaluates all samples that have not arrived, each at its own
angle, so the result of a sample never depends on its neighbors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.checks import check_integer, check_positive
from scoresde.likelihood.batching import ProgressHook
from scoresde.likelihood.ode.dense_output import PiecewisePolynomial, StepPolynomial, hermite_cubic
from scoresde.likelihood.ode.solver import NotFinite, Solution, Solver, Status, VelocityFunction

__all__ = ["AdaptiveSolver"]

# Dormand & Prince 1980, table 2: nodes, stages (the last row gives the step), and the error of the step.
_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_STAGES = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)
# Coefficient of θ²(1 - θ)² that, added to the Hermite cubic, gives the quartic through the midpoint of order 4
# (Shampine 1986).
_QUARTIC = (
    -12715105075 / 11282082432,
    0.0,
    87487479700 / 32700410799,
    -10690763975 / 1880347072,
    701980252875 / 199316789632,
    -1453857185 / 822651844,
    69997945 / 29380423,
)
_STEP_NFE = 6  # evaluations per step; the seventh stage is the first of the next step


@dataclass(frozen=True)
class AdaptiveSolver(Solver):
    """Dormand–Prince 5(4) with a step size per sample, so that no value depends on its neighbors.

    Args:
        tol: Admitted error of a step, root mean square over the event, in units of the noise scale σ at its end.
        max_nfe: Limit of network evaluations per sample.

    Raises:
        ValueError: If ``tol`` is not positive and finite, or ``max_nfe`` is not a positive integer.

    Source: Dormand & Prince 1980; proportional-integral step control, Hairer & Wanner 1996, section IV.2.
    """

    tol: float = 0.01
    max_nfe: int = 10_000

    def __post_init__(self) -> None:
        check_positive(tol=self.tol)
        check_integer("max_nfe", self.max_nfe)

    def solve(
        self, velocity: VelocityFunction, x: Tensor, start: float, end: float, observe: ProgressHook | None = None
    ) -> Solution:
        batch = _Batch(self, velocity, x, start, end)
        while len(batch.active):
            batch.step()
            if observe is not None:
                observe(float(batch.distance.min()) / batch.span)
        batch.extrapolate_unmoved()
        trajectory = PiecewisePolynomial(batch.steps, len(x), start, batch.sign)
        return Solution(trajectory, batch.x, batch.phi(batch.distance), batch.nfe, batch.status)


class _Batch:
    """State of all samples during a solve, and the polynomials of their accepted steps.

    The slopes are dx/d(distance), where the distance |φ - start| increases in either direction.
    """

    def __init__(self, solver: AdaptiveSolver, velocity: VelocityFunction, x: Tensor, start: float, end: float) -> None:
        self.solver, self.velocity = solver, velocity
        self.start, self.span, self.sign = start, abs(end - start), math.copysign(1.0, end - start)
        count, device = len(x), x.device
        self.x = x.clone()
        self.distance = x.new_zeros(count)
        self.cost = getattr(velocity, "cost", 1)
        self.nfe = torch.full((count,), self.cost, dtype=torch.int64, device=device)
        self.status = torch.zeros_like(self.nfe)
        self.active = torch.arange(count, device=device)
        self.slope = self.sign * velocity(self.active, self.phi(self.distance), x) if count else x
        ratio = _rms(self.x) / _rms(self.slope).clamp(min=1e-10)
        self.h = (0.05 * ratio).clamp(max=0.5 * start).clamp(1e-4 * self.span, 0.1 * self.span)
        self.last_error = x.new_ones(count)
        self.steps: list[StepPolynomial] = []

    def phi(self, distance: Tensor) -> Tensor:
        """The angle at that distance from the start."""
        return self.start + self.sign * distance

    def step(self) -> None:
        """One attempted step of every active sample."""
        rows = self.active
        remaining = self.span - self.distance[rows]
        h = torch.minimum(self.h[rows], remaining)
        x, slopes = self.x[rows], [self.slope[rows]]
        y = x
        for node, stage in zip(_NODES[1:], _STAGES[1:], strict=True):
            y = x + h.unsqueeze(1) * _combine(stage, slopes)
            phi = self.phi((self.distance[rows] + node * h).clamp(max=self.span))
            slopes.append(self.sign * self.velocity(rows, phi, y))
        self.nfe[rows] += self.cost * _STEP_NFE
        sigma = torch.sin(self.phi((self.distance[rows] + h).clamp(max=self.span)))
        error = _rms(h.unsqueeze(1) * _combine(_ERROR, slopes)) / (self.solver.tol * sigma)
        finite = torch.isfinite(error) & torch.isfinite(y).all(1)
        accepted = finite & (error <= 1.0)
        self._accept(rows[accepted], h[accepted], x[accepted], y[accepted], [slope[accepted] for slope in slopes])
        self._control(rows, h, h >= remaining, accepted, finite, error)

    def extrapolate_unmoved(self) -> None:
        """Gives samples without an accepted step their tangent as the only polynomial."""
        rows = (self.distance == 0).nonzero().squeeze(1)
        h, slope, x = self.distance.new_full((len(rows),), self.span), self.slope[rows], self.x[rows]
        self.steps.append(hermite_cubic(rows, self.distance[rows], h, (x, x + self.span * slope), (slope, slope)))

    def _accept(self, rows: Tensor, h: Tensor, x: Tensor, y: Tensor, slopes: list[Tensor]) -> None:
        polynomial = hermite_cubic(rows, self.distance[rows], h, (x, y), (slopes[0], slopes[-1]))
        quartic = _combine(_QUARTIC, slopes)  # times θ²(1 - θ)²
        polynomial.coefficients[:, 1] += quartic
        polynomial.coefficients[:, 2] -= 2 * quartic
        polynomial.coefficients[:, 3] += quartic
        self.steps.append(polynomial)
        self.x[rows], self.slope[rows] = y, slopes[-1]

    def _control(self, rows: Tensor, h: Tensor, last: Tensor, accepted: Tensor, finite: Tensor, error: Tensor) -> None:
        """Sets the next step sizes, and stops the samples that have arrived or failed."""
        clamped = error.clamp(min=1e-8)
        grow = (0.9 * clamped**-0.14 * self.last_error[rows] ** 0.08).clamp(0.2, 10.0)
        shrink = torch.where(finite, (0.9 * clamped**-0.2).clamp(0.2, 1.0), 0.2)
        self.h[rows] = h * torch.where(accepted, grow, shrink)
        distance = torch.where(last, self.span, self.distance[rows] + h)
        self.distance[rows] = torch.where(accepted, distance, self.distance[rows])
        self.last_error[rows] = torch.where(accepted, error.clamp(min=1e-4), self.last_error[rows])
        arrived = self.distance[rows] >= self.span
        underflow = ~arrived & (self.h[rows] < 1e-13 * self.span)
        exhausted = ~arrived & ~underflow & (self.nfe[rows] + self.cost * _STEP_NFE > self.solver.max_nfe)
        not_finite = underflow & ~finite
        if bool(not_finite.any()):
            raise NotFinite(rows[not_finite], self.phi(self.distance[rows[not_finite]]))
        self.status[rows[underflow]] = int(Status.UNDERFLOW)
        self.status[rows[exhausted]] = int(Status.MAX_NFE)
        self.active = rows[~(arrived | underflow | exhausted)]


def _rms(x: Tensor) -> Tensor:
    """Root mean square over the event, ``(R, d)`` to ``(R,)``."""
    return x.square().mean(1).sqrt()


def _combine(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    """Weighted sum of the slopes; terms of weight 0 are left out."""
    out: Tensor | None = None
    for weight, slope in zip(weights, slopes):
        if weight:
            out = weight * slope if out is None else out.add_(slope, alpha=weight)
    assert out is not None
    return out
