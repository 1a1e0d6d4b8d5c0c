r"""What is log p under a model? $\log p(x) = \log p_{prior}(z) + \int(\nabla\cdot v - \delta\cdot s)\,d\phi$, by ODE.

In the angle φ, $\cos\phi = e^{-\tau}$, the flow is $dx/d\phi = v$ and along it $d\log p/d\phi = -\nabla\cdot v$. Both
vanish for standard-normal data: what is integrated is only how the data differ from noise. Path and integral are solved
apart: the path by forward calls alone, the integral at nodes along it. A path that was solved loosely has the defect
$\delta = \dot x - v$; along it $d\log p/d\phi = -\nabla\cdot v + \delta\cdot s$, and s is known. So the value does not
inherit the path's error where s is the score of the density that the flow carries, and a small part of it otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from scoresde._core.checks import check_finite
from scoresde._core.noise import Noise
from scoresde._core.tensors import expand, sum_event, widest_dtype
from scoresde.likelihood.batching import Density, Observe, bar, batches, evaluated, part_of
from scoresde.likelihood.ode.angle_velocity import AngleVelocity
from scoresde.likelihood.ode.dense_output import DenseOutput
from scoresde.likelihood.ode.error_budget import ErrorBudget, LogProb, join
from scoresde.likelihood.ode.jacobian import Jacobian
from scoresde.likelihood.ode.quadrature import QuadratureNodes, place_nodes, remainder, score_at
from scoresde.likelihood.ode.solver import AdaptiveSolver, Solution, Solver, Status
from scoresde.likelihood.ode.trace import Divergence, Trace, default_trace
from scoresde.model import Model, event_size, refuse_unknown
from scoresde.process import ou

__all__ = ["log_prob"]

_HELD = 1 << 16  # values of x that go through the network together where products are computed
_KEPT = 1 << 22  # values of x at the nodes of one batch
_PATH = 0.3  # the path's share of a progress bar


def log_prob(
    model: Model,
    x: Tensor,
    *,
    trace: Trace | None = None,
    solver: Solver | None = None,
    nodes: int = 40,
    prior_log_prob: Density | None = None,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    strict: bool = False,
    progress: bool = False,
    **cond: object,
) -> LogProb:
    r"""Log-density by the probability-flow ODE, of the law at ``tau_min``, in the view's coordinates.

    $\log\tilde p(x) = \log p_{prior}(z) + \int(\nabla\cdot v - \delta\cdot s)\,d\phi - d\log c$, δ the path's defect.
    Not of the law at 0: data are scored as if they carried that much noise. Runs in eval mode and without gradients, in
    float64 but for the network. With `AdaptiveSolver` and ``seeds`` a sample's value does not depend on its neighbors.

    Args:
        model: Trained or exact.
        x: Data in the view's coordinates at ``tau_min`` (model units), ``(B, *D)``.
        trace: `ExactTrace` or `Hutchinson`; default exact up to 16 dimensions.
        solver: Of the path; default `AdaptiveSolver`, each sample with its own steps. `TorchDiffEq` shares them.
        nodes: Where the divergence is looked at, per sample.
        prior_log_prob: Log-density, nats, ``(B, *D) -> (B,)``, of x itself (not of the view's) at the end of the clock;
            default the view's prior.
        generator: Source of the probes; the global random state is then left alone.
        seeds: One integer per sample instead: a sample's probes then do not depend on its batch.
        batch_size: Most samples at once, and most places at which products are computed together; default by the size
            of an event.
        strict: Raise where a sample does not arrive, instead of a status and NaN.
        progress: Shows a progress bar.
        **cond: Passed to the network; tensors have one entry per sample, ``(B, ...)``.

    Returns:
        See `LogProb`.

    Raises:
        TypeError: If ``x`` is not floating, or a keyword is neither an option nor read by the network.
        ValueError: If ``x`` is not finite (names the index), a shape does not fit, or a setting is out of its domain.
        RuntimeError: If the network is not differentiable in x or returns NaN (names τ and the samples); with
            ``strict``, if a sample does not arrive.

    Source: Chen et al. 2018; Song et al. 2021, appendix D.2; here in the angle, with the path's defect accounted for.
    """
    refuse_unknown(log_prob, model, cond)
    scorer = LikelihoodScorer(model, trace, solver or AdaptiveSolver(), nodes, prior_log_prob, cond, batch_size, strict)
    scorer.check(x, seeds)
    parts = []
    with evaluated(model), bar(progress) as observe:
        for rows in scorer.batches(x):
            noise = Noise(generator, None if seeds is None else seeds[rows])
            parts.append(scorer(x[rows], noise, rows, part_of(observe, rows.start / len(x), len(x[rows]) / len(x))))
    return join(parts or [scorer(x, Noise(generator, seeds), slice(0, 0))])


@dataclass(frozen=True, eq=False)
class LikelihoodScorer:
    """Everything about a log-density but the data: what `log_prob` and the bound on quantized data share."""

    model: Model
    trace: Trace | None
    solver: Solver
    nodes: int
    prior_log_prob: Density | None
    cond: dict[str, object]
    batch_size: int | None = None
    strict: bool = False

    def check(self, x: Tensor, seeds: Sequence[int] | None) -> None:
        """Refuses data, seeds or conditioning that do not fit; see `log_prob`."""
        shape = self.model.event_shape
        if self.trace is not None and not isinstance(self.trace, Trace):
            raise TypeError(f"trace must be a Trace, got {self.trace!r}; pass an object such as Hutchinson(probes=8).")
        if not isinstance(self.solver, Solver):
            raise TypeError(
                f"solver must be a Solver, got {self.solver!r}; pass an object such as AdaptiveSolver(tol=0.01)."
            )
        if isinstance(self.nodes, bool) or not isinstance(self.nodes, int) or self.nodes < 8:
            raise ValueError(f"nodes must be an integer >= 8, got {self.nodes!r}; 40 suit most laws.")
        if not x.is_floating_point():
            raise TypeError(f"x must be a floating tensor, got {x.dtype}; levels are scored by bits_per_dim.")
        if x.ndim == 0 or (shape is not None and x.shape[1:] != shape):
            axes = ", ".join(["B", *map(str, ("*D",) if shape is None else shape)])
            raise ValueError(f"x must have shape ({axes}), got {tuple(x.shape)}; give the batch first, then one event.")
        check_finite(x, "x")
        per_sample = {k: v for k, v in self.cond.items() if isinstance(v, Tensor) and v.ndim}
        for name, value in {"seeds": seeds, **per_sample}.items():
            if value is not None and len(value) != len(x):
                raise ValueError(f"{name} must have one entry per sample, {len(x)}, got {len(value)}.")

    def batches(self, x: Tensor) -> list[slice]:
        """Rows that are scored together."""
        size = self.batch_size
        return batches(len(x), max(1, _KEPT // (self.nodes * max(event_size(x), 1))) if size is None else size)

    def __call__(self, x: Tensor, noise: Noise, rows: slice, observe: Observe | None = None) -> LogProb:
        """One batch, which is ``rows`` of the whole; inside `evaluated`."""
        state = x.detach().to(widest_dtype(x.device)) / float(self.model.sde.scale(self.model.sde.tau_min))
        flow = AngleVelocity(self.model, self.cond, rows, tuple(x.shape[1:]))
        flat = state.reshape(len(x), flow.size)
        with flow.naming():
            if not len(x):
                solution = Solution(_Still(flat), flat, flat.new_zeros(0), *(torch.zeros(0, dtype=torch.int64),) * 2)
            else:
                solution = self.solver.solve(flow, flat, flow.low, flow.high, part_of(observe, 0.0, _PATH))
            value = self.along(flow, solution, flat, solution.end, noise, part_of(observe, _PATH, 1 - _PATH))
        return replace(value, latent=value.latent.to(torch.promote_types(x.dtype, torch.float32)))

    def along(
        self,
        flow: AngleVelocity,
        solution: Solution,
        data: Tensor,
        z: Tensor,
        noise: Noise,
        observe: Observe | None = None,
    ) -> LogProb:
        """The log-densities of ``data`` by paths between it and ``z``, ``(B, d)`` both, solved either way."""
        trace = default_trace(flow.size) if self.trace is None else self.trace
        held = max(1, _HELD // flow.size) if self.batch_size is None else self.batch_size
        placed = place_nodes(solution.path, (data, z), flow.low, flow.high, self.nodes)
        told = None if observe is None else _counting(observe, placed.phi.numel())
        jacobian = Jacobian(placed, flow, flow.forms(trace.mode, data), held, told)
        divergence = trace.divergence(jacobian, noise)
        arrived = solution.status == Status.ARRIVED
        jacobian.refuse_values(divergence.value, arrived)
        if self.strict and not bool(arrived.all()):
            raise RuntimeError(_not_arrived(solution, flow.rows.start))
        s = score_at(placed, jacobian.v)
        defect = ((placed.slope - jacobian.v) * s).sum(2)
        parts = _Parts(divergence, defect, (s * jacobian.v).sum(2))
        return self._result(flow, solution, jacobian, parts, data, z)

    def _result(
        self, flow: AngleVelocity, solution: Solution, jacobian: Jacobian, parts: _Parts, data: Tensor, z: Tensor
    ) -> LogProb:
        sde, placed = self.model.sde, jacobian.nodes
        value = self.inside(z.reshape(-1, *flow.shape)) + sum_event(
            placed.weights * (parts.divergence.value - parts.defect)
        )
        stderr, dof = (sum_event(part) for part in parts.divergence.spread(placed.weights))
        tau = torch.as_tensor(ou.tau_from_angle(solution.phi))
        end = tau if solution.end is z else torch.full_like(tau, sde.tau_max)
        scale = expand(torch.as_tensor(sde.scale(end.clamp(max=300.0))), z)  # an infinite clock is at its limit there
        return LogProb(
            torch.where((solution.status == Status.ARRIVED).to(value.device), value, math.nan),
            stderr,
            dof,
            self._budget(parts, placed, stderr, data),
            solution.status,
            (z * scale).reshape(-1, *flow.shape),
            sum_event(tau),
            solution.nfe + jacobian.calls.sum(1),
            jacobian.products.sum(1),
        )

    def _budget(self, parts: _Parts, placed: QuadratureNodes, stderr: Tensor, data: Tensor) -> ErrorBudget:
        exact = not bool((parts.divergence.variance != 0).any())
        seen = parts.divergence.value if exact else parts.smooth
        low = self.model.sde.tau_min
        change = (parts.divergence.value + parts.smooth)[:, 0] * (low * float(ou.alpha(low) / ou.sigma(low)))
        return ErrorBudget(
            stderr,
            sum_event(placed.weights * parts.defect).abs(),
            sum_event(remainder(placed, seen - parts.defect)),
            sum_event(torch.zeros_like(change)) if self.prior_log_prob is not None else _mismatch(self.model, data),
            sum_event(change).abs(),
        )

    def inside(self, z: Tensor) -> Tensor:
        """What log p is but for the integral, nats, ``(B,)``: that of the end, ``(B, *D)``, and the view's scale."""
        fixed = event_size(z) * math.log(float(self.model.sde.scale(self.model.sde.tau_min)))
        if self.prior_log_prob is None:
            return self.model.sde.prior_log_prob(z) - fixed
        out = self.prior_log_prob(z)
        if out.shape != z.shape[:1]:
            raise ValueError(f"prior_log_prob must return shape ({len(z)},), one per sample, got {tuple(out.shape)}.")
        return sum_event(out) - fixed


class _Parts(NamedTuple):
    r"""What is integrated, at the nodes: the divergence, the defect's $\delta\cdot s$, and $s\cdot v$."""

    divergence: Divergence
    defect: Tensor
    smooth: Tensor


class _Still(DenseOutput):
    """The path of no sample."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def at(self, phi: Tensor) -> Tensor:
        """Nothing."""
        return self.x.new_empty((*phi.shape, self.x.shape[1]))

    def slope(self, phi: Tensor) -> Tensor:
        """Nothing."""
        return self.at(phi)

    def turn(self) -> Tensor:
        """Nothing."""
        return self.x.new_empty(0, 1)


def _mismatch(model: Model, x: Tensor) -> Tensor:
    r"""$KL(N(\alpha x, \sigma^2) \,\|\, prior)$ at the end of the clock, nats, ``(B,)``."""
    sde, dims = model.sde, x.shape[1]
    alpha, ratio = float(ou.alpha(sde.tau_max)), float(ou.sigma(sde.tau_max)) / sde.prior_std
    spread = 0.5 * dims * (ratio**2 - 1.0) - dims * math.log(ratio)
    return 0.5 * (alpha / sde.prior_std) ** 2 * sum_event(x * x) + spread


def _not_arrived(solution: Solution, first: int) -> str:
    lost = (solution.status != Status.ARRIVED).nonzero().flatten()
    shown = ", ".join(str(int(row) + first) for row in lost[:8]) + (" …" if len(lost) > 8 else "")
    row = int(lost[0])
    status, tau = Status(int(solution.status[row])).name, float(ou.tau_from_angle(solution.phi[row].cpu()))
    return (
        f"every sample must arrive (strict=True), but [{shown}] did not: {status} at tau = {tau:.4g} after "
        f"{int(solution.nfe[row])} evaluations; loosen the tolerance, raise max_nfe, or set strict=False."
    )


def _counting(observe: Observe, places: int) -> Callable[[int], None]:
    """Turns numbers of places into the share done; what comes on top of one visit each is not counted."""
    done = 0

    def told(count: int) -> None:
        nonlocal done
        done += count
        observe(min(1.0, done / places))

    return told
