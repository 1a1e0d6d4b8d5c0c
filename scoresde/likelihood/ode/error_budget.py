"""How far can a log-density be trusted? Its errors one by one, each in nats and per sample."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from scipy import stats
from torch import Tensor

from scoresde.likelihood.ode.solver import Status

__all__ = ["ErrorBudget", "LogProb"]


@dataclass(frozen=True, eq=False)
class ErrorBudget:
    r"""Sizes of a log-density's errors, nats, each ``(B,)`` float64.

    The first three say how well the model's own log-density was computed. The last two say how far that density is from
    another one: they are no part of an interval.

    Attributes:
        trace: Standard error of the divergence over its probes; 0: exact, NaN: unknown.
        solver: $|\int(\dot x - v)\cdot s\,d\phi|$: what the path's own error would have changed. The value has been
            corrected for it, which leaves nothing where s is the score of the flow's density, and otherwise a part.
        quadrature: Estimated from the fall of the integrand's Legendre coefficients (with probes: of $s\cdot v$'s).
        prior: $KL(q(x_T \mid x)\,\|\,prior)$, on average an upper bound on how far the prior is from the data's own law
            at the end of the clock; 0 where that law was given.
        truncation: $|\tau_{min}\,\partial_\tau\log p|$: to first order, how far the law scored is from that at τ = 0.
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
    """Log-densities, how far they can be trusted, where the data went, and what it cost.

    Attributes:
        log_prob: ``(B,)`` float64, nats, of the law at ``tau_min``, in the view's coordinates; NaN where not arrived.
        stderr: ``(B,)`` float64, standard error over the probes: 0 for an exact trace, NaN (unknown) for one probe.
        dof: ``(B,)`` float64, degrees of freedom of ``stderr``.
        budget: All errors.
        status: ``(B,)`` int64, a `Status` each.
        latent: The state at the end of the clock (or where the sample gave up), view's coordinates, ``(B, *D)``;
            ``sample(..., ODE(), init=latent)`` leads back to the data.
        reached: ``(B,)`` float64, the OU time of ``latent``.
        nfe: ``(B,)`` int64, evaluations of the network: along the path and at the nodes, without the few with which one
            sample tests its derivative.
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
            ValueError: If it is not.
        """
        half = half_width(self.stderr, self.dof, self.budget, level)
        return self.log_prob - half, self.log_prob + half


def half_width(stderr: Tensor, dof: Tensor, budget: ErrorBudget, level: float) -> Tensor:
    """Half of a confidence interval, nats, ``(B,)``: Student's t over the probes, and ``solver`` and ``quadrature``.

    Raises:
        ValueError: If the level is not in (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie in (0, 1), got {level!r}; 0.95 is usual.")
    t = torch.as_tensor(stats.t.ppf(0.5 + level / 2, dof.cpu().numpy())).to(stderr)
    return t * stderr + budget.solver + budget.quadrature


def concatenate(parts: list[ErrorBudget]) -> ErrorBudget:
    """The batches' budgets as one."""
    return ErrorBudget(
        **{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(ErrorBudget)}
    )


def join(parts: list[LogProb]) -> LogProb:
    """The batches' results as one."""
    names = [field.name for field in fields(LogProb) if field.name != "budget"]
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in names}
    return LogProb(budget=concatenate([part.budget for part in parts]), **joined)
