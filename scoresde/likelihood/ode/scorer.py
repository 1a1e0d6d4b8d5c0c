r"""Log-densities of one batch, $\log p(x) = \log p_{prior}(z) + \int(\nabla\cdot v - \delta\cdot s)\,d\phi$.

Solver and quadrature are separate. The solver computes the trajectory by forward calls alone. The integral is a sum
over quadrature nodes on it. $\delta = \dot x - v$ is the defect of the trajectory and s the score.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from scoresde._core.call_inputs import check_entries
from scoresde._core.checks import check_event_shape, check_finite, check_integer, check_kind, check_seeds
from scoresde._core.noise import Noise
from scoresde._core.tensors import event_size, expand, sum_event, widest_dtype
from scoresde.likelihood.batching import Density, ProgressHook, batches, progress_part
from scoresde.likelihood.ode.angle_velocity import AngleVelocity
from scoresde.likelihood.ode.dense_output import DenseOutput
from scoresde.likelihood.ode.error_budget import ErrorBudget, LogProb
from scoresde.likelihood.ode.jacobian import Jacobian
from scoresde.likelihood.ode.quadrature import place_nodes, quadrature_error, score_at
from scoresde.likelihood.ode.solver import Solution, Solver, Status
from scoresde.likelihood.ode.trace import Divergence, Trace, default_trace
from scoresde.model import Model, gaussian_process
from scoresde.process import ou

__all__ = ["LikelihoodScorer"]

_PRODUCT_VALUES = 1 << 16  # values of x in one network call that computes products
_NODE_VALUES = 1 << 22  # values of x at the nodes of one batch
_SOLVE_SHARE = 0.3  # the solver's share of the progress bar
_MIN_NODES = 8


@dataclass(frozen=True, eq=False)
class LikelihoodScorer:
    """A model with all settings of a log-density: the part that `log_prob`, `bits_per_dim` and others share.

    Attributes:
        model, trace, solver, nodes, prior_log_prob, batch_size, strict: As for `log_prob`.
        cond: Passed to the network.
    """

    model: Model
    trace: Trace | None
    solver: Solver
    nodes: int
    prior_log_prob: Density | None
    cond: dict[str, object]
    batch_size: int | None = None
    strict: bool = False

    def check(self, x: Tensor, seeds: Sequence[int] | None) -> None:
        """Refuses settings out of their domain, and data, seeds or conditioning that do not fit; see `log_prob`."""
        if self.trace is not None:
            check_kind("trace", self.trace, Trace)
        check_kind("solver", self.solver, Solver)
        check_integer("nodes", self.nodes, least=_MIN_NODES)
        if not x.is_floating_point():
            raise TypeError(f"x must be a floating tensor, got {x.dtype}; score integer values by bits_per_dim.")
        check_event_shape(x, self.model.event_shape, "x")
        check_finite(x, "x")
        if seeds is not None:
            check_seeds(seeds, len(x))
        for name, value in self.cond.items():
            if isinstance(value, Tensor) and value.ndim:
                check_entries(name, value, len(x))

    def batches(self, x: Tensor) -> list[slice]:
        """Rows of each batch; without ``batch_size`` as many as the memory for the nodes admits."""
        default = max(1, _NODE_VALUES // (self.nodes * max(event_size(x), 1)))
        return batches(len(x), default if self.batch_size is None else self.batch_size)

    def __call__(self, x: Tensor, noise: Noise, rows: slice, observe: ProgressHook | None = None) -> LogProb:
        """Log-densities of one batch, which is ``rows`` of the data; the caller sets `evaluation_mode`."""
        state = x.detach().to(widest_dtype(x.device)) / float(self.model.sde.scale(self.model.sde.tau_min))
        flow = AngleVelocity(self.model, self.cond, rows, tuple(x.shape[1:]))
        data = state.reshape(len(x), flow.size)
        with flow.global_indices():
            if len(x):
                hook = progress_part(observe, 0.0, _SOLVE_SHARE)
                solution = self.solver.solve(flow, data, flow.phi_min, flow.phi_max, hook)
            else:
                zeros = torch.zeros(0, dtype=torch.int64)
                solution = Solution(_EmptyTrajectory(data), data, data.new_zeros(0), zeros, zeros)
            hook = progress_part(observe, _SOLVE_SHARE, 1 - _SOLVE_SHARE)
            scored = self.score_trajectory(flow, solution, data, solution.end, noise, hook)
        return replace(scored, latent=scored.latent.to(torch.promote_types(x.dtype, torch.float32)))

    def score_trajectory(
        self,
        flow: AngleVelocity,
        solution: Solution,
        data: Tensor,
        z: Tensor,
        noise: Noise,
        observe: ProgressHook | None = None,
    ) -> LogProb:
        """Log-densities of ``data`` by trajectories between it and ``z``, ``(B, d)`` both, solved in any direction."""
        trace = default_trace(flow.size) if self.trace is None else self.trace
        chunk = max(1, _PRODUCT_VALUES // flow.size) if self.batch_size is None else self.batch_size
        nodes = place_nodes(solution.trajectory, (data, z), flow.phi_min, flow.phi_max, self.nodes)
        counter = None if observe is None else _count_nodes(observe, nodes.phi.numel())
        jacobian = Jacobian(nodes, flow, flow.quadratic_forms(trace.mode, data), chunk, counter)
        divergence = trace.divergence(jacobian, noise)
        arrived = solution.status == Status.ARRIVED
        jacobian.check_finite(divergence.value, arrived)
        if self.strict and not bool(arrived.all()):
            raise RuntimeError(_arrival_error(solution, flow.rows.start))
        s = score_at(nodes, jacobian.v)
        defect = ((nodes.slope - jacobian.v) * s).sum(2)
        integrands = _Integrands(divergence, defect, (s * jacobian.v).sum(2))
        return self._result(flow, solution, jacobian, integrands, data, z)

    def _result(
        self,
        flow: AngleVelocity,
        solution: Solution,
        jacobian: Jacobian,
        integrands: _Integrands,
        data: Tensor,
        z: Tensor,
    ) -> LogProb:
        sde, nodes = self.model.sde, jacobian.nodes
        integral = sum_event(nodes.weights * (integrands.divergence.value - integrands.defect))
        value = self.boundary_term(z.reshape(-1, *flow.shape)) + integral
        stderr, dof = (sum_event(part) for part in integrands.divergence.integral_stderr(nodes.weights))
        tau = torch.as_tensor(ou.tau_from_angle(solution.phi))
        tau_z = tau if solution.end is z else torch.full_like(tau, sde.tau_max)
        scale = expand(torch.as_tensor(sde.scale(tau_z.clamp(max=300.0))), z)  # an infinite clock has its limit there
        return LogProb(
            torch.where((solution.status == Status.ARRIVED).to(value.device), value, math.nan),
            stderr,
            dof,
            self._budget(integrands, jacobian, stderr),
            solution.status,
            (z * scale).reshape(-1, *flow.shape),
            sum_event(tau),
            solution.nfe + flow.cost * jacobian.calls.sum(1),
            jacobian.products.sum(1),
        )

    def _budget(self, integrands: _Integrands, jacobian: Jacobian, stderr: Tensor) -> ErrorBudget:
        nodes = jacobian.nodes
        divergence, exact = integrands.divergence.value, not bool((integrands.divergence.variance != 0).any())
        smooth = divergence if exact else integrands.score_velocity  # probes add roughness that is not the integrand's
        tau = self.model.sde.tau_min
        change = (divergence + integrands.score_velocity)[:, 0] * (tau * float(ou.alpha(tau) / ou.sigma(tau)))
        no_mismatch = sum_event(torch.zeros_like(change))
        return ErrorBudget(
            stderr,
            sum_event(nodes.weights * integrands.defect).abs(),
            sum_event(quadrature_error(nodes, smooth - integrands.defect)),
            _prior_shift(self.model, jacobian) if self.prior_log_prob is None else no_mismatch,
            sum_event(change).abs(),
        )

    def boundary_term(self, z: Tensor) -> Tensor:
        """log p without its integral, nats, ``(B,)``: log prior of z, ``(B, *D)``, minus the view's d log c."""
        log_volume = event_size(z) * math.log(float(self.model.sde.scale(self.model.sde.tau_min)))
        if self.prior_log_prob is None:
            return self.model.sde.prior_log_prob(z) - log_volume
        out = self.prior_log_prob(z)
        if out.shape != z.shape[:1]:
            raise ValueError(f"prior_log_prob must return shape ({len(z)},), one per sample, got {tuple(out.shape)}.")
        return sum_event(out) - log_volume


class _Integrands(NamedTuple):
    r"""Integrands at the nodes: the divergence, the defect's $\delta\cdot s$, and $s\cdot v$."""

    divergence: Divergence
    defect: Tensor
    score_velocity: Tensor


class _EmptyTrajectory(DenseOutput):
    """The trajectory of a batch without samples."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def at(self, phi: Tensor) -> Tensor:
        return self.x.new_empty((*phi.shape, self.x.shape[1]))

    def slope(self, phi: Tensor) -> Tensor:
        return self.at(phi)

    def sharpest_turn(self) -> Tensor:
        return self.x.new_empty(0, 1)


def _prior_shift(model: Model, jacobian: Jacobian) -> Tensor:
    r"""$|z\cdot(s - s_{prior})|$ at the state z at the end of the clock, nats, ``(B,)``; see `ErrorBudget`.

    With $s = -z - v\cot\varphi$, written so that the two terms $-z$ cancel exactly.
    """
    nodes = jacobian.nodes
    z, v, phi = nodes.x[:, -1], jacobian.v[:, -1], nodes.phi[:, -1:]
    difference = (1.0 / gaussian_process(model).prior_std ** 2 - 1.0) * z - v / torch.tan(phi)
    return sum_event(z * difference).abs()


def _arrival_error(solution: Solution, first: int) -> str:
    failed = (solution.status != Status.ARRIVED).nonzero().flatten()
    listed = ", ".join(str(int(row) + first) for row in failed[:8]) + (" …" if len(failed) > 8 else "")
    row = int(failed[0])
    status, tau = Status(int(solution.status[row])).name, float(ou.tau_from_angle(solution.phi[row].cpu()))
    return (
        f"every sample must arrive (strict=True), but [{listed}] did not: {status} at tau = {tau:.4g} after "
        f"{int(solution.nfe[row])} evaluations; loosen the tolerance, raise max_nfe, or set strict=False."
    )


def _count_nodes(observe: ProgressHook, total: int) -> Callable[[int], None]:
    """Converts numbers of nodes into the fraction done; repeated visits of a node do not raise it above 1."""
    done = 0

    def count(nodes: int) -> None:
        nonlocal done
        done += nodes
        observe(min(1.0, done / total))

    return count
