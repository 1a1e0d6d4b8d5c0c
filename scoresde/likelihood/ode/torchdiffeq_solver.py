"""ODE solver of torchdiffeq: all samples of a batch share each step, which is as small as the worst sample requires."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.checks import check_integer, check_positive
from scoresde._core.suggest import unknown_name
from scoresde.likelihood.batching import ProgressHook
from scoresde.likelihood.ode.dense_output import PiecewisePolynomial
from scoresde.likelihood.ode.solver import NotFinite, Solution, Solver, Status, VelocityFunction

__all__ = ["METHODS", "TorchDiffEq"]

METHODS = ("dopri5", "bosh3", "dopri8", "adaptive_heun")


class _MaxNFE(Exception):
    """The limit of evaluations is reached."""


@dataclass(frozen=True)
class TorchDiffEq(Solver):
    """An adaptive method of torchdiffeq. A sample's value depends on its neighbors, within the tolerance.

    The error of a step is the largest among the samples, so every sample meets the tolerance. If one sample cannot
    continue, none can, and all get its status. Between two steps the trajectory is the cubic with slope v at both ends.

    Args:
        method: ``"dopri5"``, ``"bosh3"``, ``"dopri8"`` or ``"adaptive_heun"``.
        rtol, atol: Relative and absolute tolerance of a step, root mean square over the event.
        max_nfe: Limit of network evaluations.

    Raises:
        ValueError: If the method is unknown, a tolerance is not positive, or ``max_nfe`` is not a positive integer.
    """

    method: str = "dopri5"
    rtol: float = 1e-4
    atol: float = 1e-4
    max_nfe: int = 10_000

    def __post_init__(self) -> None:
        check_positive(rtol=self.rtol, atol=self.atol)
        check_integer("max_nfe", self.max_nfe)
        if self.method not in METHODS:
            raise ValueError(unknown_name("method", str(self.method), METHODS))

    def solve(
        self, velocity: VelocityFunction, x: Tensor, start: float, end: float, observe: ProgressHook | None = None
    ) -> Solution:
        return _Solve(self, velocity, x, start, end, observe).run()


class _Solve:
    """One solve, with the states at the starts of its accepted steps."""

    def __init__(
        self,
        solver: TorchDiffEq,
        velocity: VelocityFunction,
        x: Tensor,
        start: float,
        end: float,
        observe: ProgressHook | None,
    ) -> None:
        self.solver, self.velocity, self.observe = solver, velocity, observe
        self.x, self.start, self.end, self.nfe = x, start, end, 0
        self.cost = getattr(velocity, "cost", 1)
        self.rows = torch.arange(len(x), device=x.device)
        self.states: list[tuple[float, Tensor]] = []
        self.last_velocity = torch.full_like(x, float("nan"))

    def run(self) -> Solution:
        """The solution; one more evaluation at each state gives the trajectory its slopes."""
        status, end = self._integrate()
        x, states = self.x, self.states + [(self.end, end)] * (status is Status.ARRIVED)
        if len(states) < 2:
            states = [(self.start, x), (self.end, x)]
        phis = [phi for phi, _ in states]
        velocities = [self.velocity(self.rows, x.new_full((len(x),), phi), state) for phi, state in states]
        trajectory = PiecewisePolynomial.interpolate(phis, [state for _, state in states], velocities)
        nfe = torch.full((len(x),), self.nfe + self.cost * len(states), dtype=torch.int64, device=x.device)
        phi = x.new_full((len(x),), self.end if status is Status.ARRIVED else self._last_state()[0])
        return Solution(trajectory, end, phi, nfe, torch.full_like(nfe, int(status)))

    def _integrate(self) -> tuple[Status, Tensor]:
        """The status of the batch, and its last state."""
        from torchdiffeq import odeint  # imported here because it imports scipy, which takes a second

        def slope(phi: Tensor, x: Tensor) -> Tensor:
            return self._evaluate(phi, x)

        slope.callback_accept_step = self._accept  # torchdiffeq looks for a callback of this name
        ends = torch.tensor([self.start, self.end], dtype=self.x.dtype, device=self.x.device)
        options = {
            "norm": lambda error: error.square().mean(1).sqrt().max(),
            "dtype": self.x.dtype,
            "step_t": ends[1:],  # without it the last step overshoots the clock and is interpolated
        }
        solver = self.solver
        try:
            out = odeint(slope, self.x, ends, rtol=solver.rtol, atol=solver.atol, method=solver.method, options=options)
            assert isinstance(out, Tensor)
            return Status.ARRIVED, out[-1]
        except _MaxNFE:
            return Status.MAX_NFE, self._last_state()[1]
        except AssertionError as error:
            if "underflow" not in str(error) and "non-finite" not in str(error):
                raise
        bad = self.rows[~torch.isfinite(self.last_velocity).all(1)]
        phi, x = self._last_state()
        if len(bad):
            raise NotFinite(bad, torch.full_like(bad, phi, dtype=self.x.dtype))
        return Status.UNDERFLOW, x

    def _evaluate(self, phi: Tensor, x: Tensor) -> Tensor:
        if self.nfe + self.cost > self.solver.max_nfe:
            raise _MaxNFE
        self.nfe += self.cost
        self.last_velocity = self.velocity(self.rows, phi.expand(len(x)), x)
        return self.last_velocity

    def _accept(self, phi: Tensor, x: Tensor, step: Tensor) -> None:
        self.states.append((float(phi), x))
        if self.observe is not None:
            self.observe((float(phi + step) - self.start) / (self.end - self.start))

    def _last_state(self) -> tuple[float, Tensor]:
        return self.states[-1] if self.states else (self.start, self.x)
