"""Error budget of a log-density: the size of each of its errors, in nats per sample, and the result that carries it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from scoresde.likelihood.ode.solver import Status
from scoresde.likelihood.student import student_half_width

__all__ = ["ErrorBudget", "LogProb"]


@dataclass(frozen=True, eq=False)
class ErrorBudget:
    r"""Sizes of a log-density's errors, nats, each ``(B,)`` float64.

    The first three are errors in computing the model's own log-density. The last two measure the distance between that
    density and another one; they are not part of an interval.

    Attributes:
        trace: Standard error of the divergence over its probes; 0: exact, NaN: unknown.
        solver: $|\int(\dot x - v)\cdot s\,d\phi|$: the change that the error of the trajectory would have caused. The
            value is corrected for it. No error remains if s is the score of the flow's density, else a part of it.
        quadrature: Estimated from the decay of the integrand's Legendre coefficients (with probes: of $s\cdot v$'s).
        prior: $|z\cdot(s - s_{prior})(z)|$ at the sample's state z at the end of the clock, s the model's score there:
            to first order in $\alpha(\tau_{max})$, the change of this sample's log-density if the distribution of the
            data at that time took the place of the prior. For data of mean m it is $\alpha|m\cdot z|$. The shifts of
            single samples have both signs; their mean is of second order. 0 with ``prior_log_prob``.
        truncation: $|\tau_{min}\,\partial_\tau\log p|$: to first order, the difference between the log-densities at
            ``tau_min`` and at τ = 0.
    """

    trace: Tensor
    solver: Tensor
    quadrature: Tensor
    prior: Tensor
    truncation: Tensor

    def means(self) -> dict[str, float]:
        """Means over the samples, by name."""
        return {field.name: float(getattr(self, field.name).mean()) for field in fields(self)}


@dataclass(frozen=True, eq=False)
class LogProb:
    """Log-densities with their errors, the latent states and the cost.

    Attributes:
        log_prob: ``(B,)`` float64, nats, under the distribution at ``tau_min``, in the view's coordinates; NaN for a
            sample that did not arrive.
        stderr: ``(B,)`` float64, standard error over the probes: 0 for an exact trace, NaN (unknown) for one probe.
        dof: ``(B,)`` float64, degrees of freedom of ``stderr``.
        budget: All errors.
        status: ``(B,)`` int64, a `Status` each.
        latent: The state at the end of the clock, or where the solver stopped, in the view's coordinates, ``(B, *D)``;
            ``sample(..., ODE(), init=latent)`` maps it back to the data.
        reached: ``(B,)`` float64, the OU time of ``latent``.
        nfe: ``(B,)`` int64, network evaluations along the trajectory and at the nodes, without the few that test on one
            sample whether the network is differentiable.
        products: ``(B,)`` int64, Jacobian products.
    """

    log_prob: Tensor
    stderr: Tensor
    dof: Tensor
    budget: ErrorBudget
    status: Tensor
    latent: Tensor
    reached: Tensor
    nfe: Tensor
    products: Tensor

    @property
    def arrived(self) -> Tensor:
        """Which samples have a value, ``(B,)`` bool."""
        return self.status == Status.ARRIVED

    def interval(self, level: float = 0.95) -> tuple[Tensor, Tensor]:
        """Lower and upper end of a confidence interval for the model's log-density, ``(B,)`` each.

        Student's t over the probes, widened by the budget's ``solver`` and ``quadrature``.

        Args:
            level: In (0, 1).

        Raises:
            ValueError: If the level is not in (0, 1).
        """
        half = half_width(self.stderr, self.dof, self.budget, level)
        return self.log_prob - half, self.log_prob + half


def half_width(stderr: Tensor, dof: Tensor, budget: ErrorBudget, level: float) -> Tensor:
    """Half the width of a confidence interval, nats, ``(B,)``: Student's t over the probes, plus solver and quadrature.

    Raises:
        ValueError: If the level is not in (0, 1).
    """
    return student_half_width(stderr, dof, level) + budget.solver + budget.quadrature


def join_budgets(parts: list[ErrorBudget]) -> ErrorBudget:
    """The budgets of several batches as one."""
    return ErrorBudget(
        **{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(ErrorBudget)}
    )


def join(parts: list[LogProb]) -> LogProb:
    """The results of several batches as one."""
    names = [field.name for field in fields(LogProb) if field.name != "budget"]
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return LogProb(budget=join_budgets([part.budget for part in parts]), **joined)
