"""How does a batch move together? By torchdiffeq, whose steps it shares: as small as the worst sample needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torchdiffeq import odeint

from scoresde._core.suggest import nearest
from scoresde.likelihood.ode.dense_output import PiecewisePolynomial, step_polynomial
from scoresde.likelihood.ode.solver import NotFinite, Solution, Solver, Status, Velocity, check_count, check_positive

__all__ = ["METHODS", "TorchDiffEq"]

METHODS = ("dopri5", "bosh3", "dopri8", "adaptive_heun")


class _Spent(Exception):
    """The limit of evaluations is reached."""


@dataclass(frozen=True)
class TorchDiffEq(Solver):
    """An adaptive method of torchdiffeq. A sample's value moves with its neighbors, within the tolerance.

    The error of a step is the largest of the samples' own, so each meets the tolerance by itself. Where one cannot go
    on, none can: all have its status.

    Args:
        method: ``"dopri5"``, ``"bosh3"``, ``"dopri8"`` or ``"adaptive_heun"``.
        rtol, atol: Relative and absolute tolerance of a step, root mean square over the event.
        max_nfe: Evaluations before it gives up.

    Raises:
        ValueError: If the method is unknown, a tolerance is not positive, or ``max_nfe`` no positive integer.
    """

    method: str = "dopri5"
    rtol: float = 1e-4
    atol: float = 1e-4
    max_nfe: int = 10_000

    def __post_init__(self) -> None:
        check_positive("rtol", self.rtol)
        check_positive("atol", self.atol)
        check_count("max_nfe", self.max_nfe)
        if self.method not in METHODS:
            raise ValueError(f"no method is named {self.method!r}; {nearest(str(self.method), METHODS)}")

    def solve(
        self, velocity: Velocity, x: Tensor, start: float, end: float, observe: Callable[[float], None] | None = None
    ) -> Solution:
        """See the base class. The path between two steps is the cubic with v at both ends."""
        run = _Run(self, velocity, x, start, end, observe)
        status, last = run.solve()
        return run.solution(status, last)


class _Run:
    """One solve, and the states it has passed through."""

    def __init__(
        self,
        solver: TorchDiffEq,
        velocity: Velocity,
        x: Tensor,
        start: float,
        end: float,
        observe: Callable[[float], None] | None,
    ) -> None:
        self.solver, self.velocity, self.observe = solver, velocity, observe
        self.x, self.start, self.end, self.nfe = x, start, end, 0
        self.rows = torch.arange(len(x), device=x.device)
        self.knots: list[tuple[float, Tensor]] = []
        self.last = torch.full_like(x, float("nan"))

    def _slope(self, phi: Tensor, x: Tensor) -> Tensor:
        if self.nfe + 1 > self.solver.max_nfe:
            raise _Spent
        self.nfe += 1
        self.last = self.velocity(self.rows, phi.expand(len(x)), x)
        return self.last

    def solve(self) -> tuple[Status, Tensor]:
        """What became of the batch, and its last state."""

        def slope(phi: Tensor, x: Tensor) -> Tensor:
            return self._slope(phi, x)

        slope.callback_accept_step = self._accept  # torchdiffeq looks for a callback of this name
        times = torch.tensor([self.start, self.end], dtype=self.x.dtype, device=self.x.device)
        options = {
            "norm": lambda error: error.square().mean(1).sqrt().max(),
            "dtype": self.x.dtype,
            "step_t": times[1:],  # without it the last step overshoots the clock and is interpolated
        }
        chosen = self.solver
        try:
            out = odeint(
                slope, self.x, times, rtol=chosen.rtol, atol=chosen.atol, method=chosen.method, options=options
            )
            assert isinstance(out, Tensor)
            return Status.ARRIVED, out[-1]
        except _Spent:
            return Status.MAX_NFE, self._reached()[1]
        except AssertionError as error:
            if "underflow" not in str(error) and "non-finite" not in str(error):
                raise
        bad = self.rows[~torch.isfinite(self.last).all(1)]
        phi, x = self._reached()
        if len(bad):
            raise NotFinite(bad, torch.full_like(bad, phi, dtype=self.x.dtype))
        return Status.UNDERFLOW, x

    def _accept(self, phi: Tensor, x: Tensor, step: Tensor) -> None:
        self.knots.append((float(phi), x))
        if self.observe is not None:
            self.observe((float(phi + step) - self.start) / (self.end - self.start))

    def _reached(self) -> tuple[float, Tensor]:
        return self.knots[-1] if self.knots else (self.start, self.x)

    def solution(self, status: Status, last: Tensor) -> Solution:
        """The path through the states; one more evaluation at each gives it its slopes."""
        x, count, sign = self.x, len(self.x), 1.0 if self.end > self.start else -1.0
        knots = [*self.knots, (self.end, last)] if status is Status.ARRIVED else [*self.knots]
        knots = knots if len(knots) > 1 else [(self.start, x), (self.end, x)]
        slopes = [sign * self.velocity(self.rows, x.new_full((count,), phi), at) for phi, at in knots]
        pieces = []
        for i in range(len(knots) - 1):
            gone, h = abs(knots[i][0] - self.start), abs(knots[i + 1][0] - knots[i][0])
            at = x.new_full((count,), gone), x.new_full((count,), h)
            pieces.append(step_polynomial(self.rows, *at, (knots[i][1], knots[i + 1][1]), (slopes[i], slopes[i + 1])))
        nfe = torch.full((count,), self.nfe + len(knots), dtype=torch.int64, device=x.device)
        phi = x.new_full((count,), self.end if status is Status.ARRIVED else knots[-1][0])
        return Solution(
            PiecewisePolynomial(pieces, count, self.start, sign), last, phi, nfe, torch.full_like(nfe, int(status))
        )
