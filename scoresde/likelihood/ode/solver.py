r"""How does a point move along the flow? $dx/d\phi = v(x, \phi)$, each sample with a step control of its own.

Dormand and Prince's pair of order 5(4), with a polynomial of degree 4 over every step: the path is known at every
angle. Only forward calls of the network are made. What one sample does never depends on its neighbors: a call holds
those that are still on their way, each at its own angle.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

from scoresde.likelihood.ode.dense_output import DenseOutput, PiecewisePolynomial, StepPolynomial, step_polynomial
from scoresde.process import ou

__all__ = ["AdaptiveSolver", "NotFinite", "Solution", "Solver", "Status", "Velocity", "check_count", "check_positive"]

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``(rows, phi, x)`` to v: of the samples ``rows``, ``(R,)``, at their angles, ``(R,)``, and states, ``(R, d)``."""

# Dormand & Prince 1980, table 2: nodes, stages (the last row gives the step), and the step's error.
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
# What the quartic through both ends, both slopes and the midpoint of order 4 needs beside them (Shampine 1986).
_BULGE = (
    -12715105075 / 11282082432,
    0.0,
    87487479700 / 32700410799,
    -10690763975 / 1880347072,
    701980252875 / 199316789632,
    -1453857185 / 822651844,
    69997945 / 29380423,
)


class Status(IntEnum):
    """What became of a sample."""

    ARRIVED = 0
    MAX_NFE = 1
    UNDERFLOW = 2


class Solution(NamedTuple):
    """A solved path.

    Attributes:
        path: Where the samples were.
        end: Where they are, ``(B, d)``.
        phi: The angle they reached, ``(B,)``.
        nfe: Evaluations that each one saw, ``(B,)`` int64.
        status: A `Status` each, ``(B,)`` int64.
    """

    path: DenseOutput
    end: Tensor
    phi: Tensor
    nfe: Tensor
    status: Tensor


class Solver(ABC):
    """How the flow is followed."""

    @abstractmethod
    def solve(
        self, velocity: Velocity, x: Tensor, start: float, end: float, observe: Callable[[float], None] | None = None
    ) -> Solution:
        """Follows the flow.

        Args:
            velocity: The right-hand side.
            x: ``(B, d)`` at ``start``.
            start, end: Angles; either may be the larger.
            observe: Called with the share of the way that the slowest sample has gone.

        Returns:
            See `Solution`.

        Raises:
            RuntimeError: If the velocity is not finite (names τ and samples).
        """


@dataclass(frozen=True)
class AdaptiveSolver(Solver):
    """Our own: Dormand–Prince 5(4), a step size per sample, so that no value depends on its neighbors.

    Args:
        tol: Error of a step that is admitted, root mean square over the event, in units of the noise's scale σ there.
        max_nfe: Evaluations per sample before it gives up.

    Raises:
        ValueError: If ``tol`` is not positive and finite, or ``max_nfe`` no positive integer.

    Source: Dormand & Prince 1980; the control is proportional-integral, Hairer & Wanner 1996, section IV.2.
    """

    tol: float = 0.01
    max_nfe: int = 10_000

    def __post_init__(self) -> None:
        check_positive("tol", self.tol)
        check_count("max_nfe", self.max_nfe)

    def solve(
        self, velocity: Velocity, x: Tensor, start: float, end: float, observe: Callable[[float], None] | None = None
    ) -> Solution:
        """See the base class."""
        walk = _Walk(self, velocity, x, start, end)
        while len(walk.rows):
            walk.step()
            if observe is not None:
                observe(float(walk.gone.min()) / walk.span)
        walk.stay()
        path = PiecewisePolynomial(walk.pieces, len(x), start, walk.sign)
        return Solution(path, walk.x, walk.phi(walk.gone), walk.nfe, walk.status)


class _Walk:
    """The state of all samples, and the pieces of path that they have left behind."""

    def __init__(self, solver: AdaptiveSolver, velocity: Velocity, x: Tensor, start: float, end: float) -> None:
        self.solver, self.velocity = solver, velocity
        self.start, self.span, self.sign = start, abs(end - start), math.copysign(1.0, end - start)
        count, device = len(x), x.device
        self.x = x.clone()
        self.gone = x.new_zeros(count)
        self.nfe = torch.ones(count, dtype=torch.int64, device=device)
        self.status = torch.zeros_like(self.nfe)
        self.rows = torch.arange(count, device=device)
        self.slope = self.sign * velocity(self.rows, self.phi(self.gone), x) if count else x
        size = _rms(self.x) / _rms(self.slope).clamp(min=1e-10)
        self.h = (0.05 * size).clamp(max=0.5 * start).clamp(1e-4 * self.span, 0.1 * self.span)
        self.before = x.new_ones(count)
        self.pieces: list[StepPolynomial] = []

    def phi(self, gone: Tensor) -> Tensor:
        """The angle after a way of that length."""
        return self.start + self.sign * gone

    def step(self) -> None:
        """One attempt of every sample that is on its way."""
        rows = self.rows
        left = self.span - self.gone[rows]
        h = torch.minimum(self.h[rows], left)
        x, ks = self.x[rows], [self.slope[rows]]
        y = x
        for node, stage in zip(_NODES[1:], _STAGES[1:], strict=True):
            y = x + h.unsqueeze(1) * _combine(stage, ks)
            ks.append(self.sign * self.velocity(rows, self.phi((self.gone[rows] + node * h).clamp(max=self.span)), y))
        self.nfe[rows] += 6
        sigma = torch.sin(self.phi((self.gone[rows] + h).clamp(max=self.span)))
        error = _rms(h.unsqueeze(1) * _combine(_ERROR, ks)) / (self.solver.tol * sigma)
        finite = torch.isfinite(error) & torch.isfinite(y).all(1)
        taken = finite & (error <= 1.0)
        self._keep(rows[taken], h[taken], x[taken], y[taken], [k[taken] for k in ks])
        self._control(rows, h, h >= left, taken, finite, error)

    def stay(self) -> None:
        """Of samples that could not take one step, the tangent."""
        rows = (self.gone == 0).nonzero().squeeze(1)
        h, slope = self.gone.new_full((len(rows),), self.span), self.slope[rows]
        self.pieces.append(
            step_polynomial(rows, self.gone[rows], h, (self.x[rows], self.x[rows] + self.span * slope), (slope, slope))
        )

    def _keep(self, rows: Tensor, h: Tensor, x: Tensor, y: Tensor, ks: list[Tensor]) -> None:
        cubic = step_polynomial(rows, self.gone[rows], h, (x, y), (ks[0], ks[-1]))
        bulge = _combine(_BULGE, ks)  # times θ²(1 - θ)²
        cubic.quartic[:, 1] += bulge
        cubic.quartic[:, 2] -= 2 * bulge
        cubic.quartic[:, 3] += bulge
        self.pieces.append(cubic)
        self.x[rows], self.slope[rows] = y, ks[-1]

    def _control(self, rows: Tensor, h: Tensor, last: Tensor, taken: Tensor, finite: Tensor, error: Tensor) -> None:
        """The next step sizes, and who goes on."""
        small = error.clamp(min=1e-8)
        grow = (0.9 * small**-0.14 * self.before[rows] ** 0.08).clamp(0.2, 10.0)
        shrink = torch.where(finite, (0.9 * small**-0.2).clamp(0.2, 1.0), 0.2)
        self.h[rows] = h * torch.where(taken, grow, shrink)
        self.gone[rows] = torch.where(taken, torch.where(last, self.span, self.gone[rows] + h), self.gone[rows])
        self.before[rows] = torch.where(taken, error.clamp(min=1e-4), self.before[rows])
        arrived = self.gone[rows] >= self.span
        under = ~arrived & (self.h[rows] < 1e-13 * self.span)
        spent = ~arrived & ~under & (self.nfe[rows] + 6 > self.solver.max_nfe)
        stuck = under & ~finite
        if bool(stuck.any()):
            raise NotFinite(rows[stuck], self.phi(self.gone[rows[stuck]]))
        self.status[rows[under]] = int(Status.UNDERFLOW)
        self.status[rows[spent]] = int(Status.MAX_NFE)
        self.rows = rows[~(arrived | under | spent)]


def _rms(v: Tensor) -> Tensor:
    """Root mean square over the event, ``(R, d)`` to ``(R,)``."""
    return v.square().mean(1).sqrt()


def check_positive(name: str, value: float) -> None:
    """Refuses a tolerance that is not positive and finite.

    Raises:
        ValueError: If it is not.
    """
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be positive and finite, got {value!r}.")


def check_count(name: str, value: int) -> None:
    """Refuses a number that is not a positive integer.

    Raises:
        ValueError: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}.")


def _combine(weights: tuple[float, ...], ks: list[Tensor]) -> Tensor:
    """The weighted sum of the slopes."""
    out: Tensor | None = None
    for weight, k in zip(weights, ks):
        if weight:
            out = weight * k if out is None else out.add_(k, alpha=weight)
    assert out is not None
    return out


class NotFinite(RuntimeError):
    """The network, or its derivative, is not finite.

    Args:
        rows: Indices of the samples, ``(R,)``.
        phi: Their angles, ``(R,)``.
    """

    def __init__(self, rows: Tensor, phi: Tensor) -> None:
        self.rows, self.phi = rows, phi
        named = sorted(set(rows.tolist()))
        shown = ", ".join(map(str, named[:8])) + (" …" if len(named) > 8 else "")
        super().__init__(
            f"the network, or its derivative, is NaN or infinite at tau = {float(ou.tau_from_angle(phi[0].cpu())):.6g} "
            f"for the samples [{shown}]; look at its inputs there, or train it at that tau."
        )
