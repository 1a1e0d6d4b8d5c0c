r"""Log-densities of a model's own samples: the trajectory that draws a sample also carries the integral of log p."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_integer
from scoresde._core.noise import Noise
from scoresde._core.tensors import widest_dtype
from scoresde.likelihood.batching import evaluation_mode
from scoresde.likelihood.conditions import likelihood_inputs
from scoresde.likelihood.ode.adaptive_solver import AdaptiveSolver
from scoresde.likelihood.ode.angle_velocity import AngleVelocity
from scoresde.likelihood.ode.dense_output import PiecewisePolynomial
from scoresde.likelihood.ode.error_budget import LogProb, join
from scoresde.likelihood.ode.scorer import LikelihoodScorer
from scoresde.likelihood.ode.solver import Solution, Solver
from scoresde.likelihood.ode.trace import Trace
from scoresde.likelihood.score_check import refuse_without_score
from scoresde.model import Model, refuse_unknown
from scoresde.process import ou
from scoresde.sampling import StepSampler, sample

__all__ = ["ScoredSamples", "sample_log_prob"]


@dataclass(frozen=True, eq=False)
class ScoredSamples:
    """Samples and their log-densities.

    Attributes:
        x: Samples at ``tau_min``, in the view's coordinates, ``(n, *D)``.
        scored: Their log-densities under the flow; ``scored.latent`` is the prior sample that each started from.
    """

    x: Tensor
    scored: LogProb


def sample_log_prob(
    model: Model,
    shape: int | Sequence[int],
    sampler: StepSampler | Solver | None = None,
    *,
    trace: Trace | None = None,
    nodes: int = 40,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    strict: bool = False,
    **cond: object,
) -> ScoredSamples:
    """Draws samples and computes their log-densities along the same trajectories.

    The trajectory of a fixed-step sampler is the cubic through its states with slope v at each, at the cost of one more
    network call per state. The log-density is corrected for the defect of this trajectory, as in `log_prob`. So it is
    the log-density of the sample that was drawn, whatever the number of steps.

    Args:
        model: Trained or exact.
        shape: Number of samples (the model then knows its event shape), or ``(n, *D)``.
        sampler: `AdaptiveSolver` (default) or `TorchDiffEq`, or a deterministic fixed-step sampler whose grid ends at
            ``tau_min``, such as ``Adams(steps=20)``.
        trace, nodes, batch_size, strict: As for `log_prob`.
        generator: Source of prior samples and probes.
        seeds: One integer in [0, 2**63) per sample instead.
        **cond: Passed to the network; tensors have one entry per sample, ``(n, ...)``.

    Returns:
        See `ScoredSamples`.

    Raises:
        TypeError: If the sampler is neither a `StepSampler` nor a `Solver`.
        ValueError: If it draws noise, or does not end at ``tau_min``; and as `log_prob`.
        RuntimeError: As `log_prob`.
    """
    refuse_unknown(sample_log_prob, model, cond)
    refuse_without_score(sample_log_prob, model)
    check_arguments(sample_log_prob, locals())
    cond = likelihood_inputs(model, cond)
    sampler = AdaptiveSolver() if sampler is None else sampler
    _check_sampler(sampler)
    if isinstance(shape, numbers.Real):
        check_integer("shape", shape, 0)
    size = (shape, *(model.event_shape or ())) if isinstance(shape, int) else tuple(shape)
    if not size or not all(isinstance(n, int) and n >= 0 for n in size):
        raise ValueError(f"shape must be (n, *D), integers >= 0, got {size!r}; pass a number of samples, or (n, *D).")
    if generator is None and seeds is None:
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
    solver = sampler if isinstance(sampler, Solver) else AdaptiveSolver()
    scorer = LikelihoodScorer(model, trace, solver, nodes, None, cond, batch_size, strict)
    weight = next(iter([*model.parameters(), *model.buffers()]), torch.empty(0))
    like = torch.empty(size, dtype=torch.promote_types(weight.dtype, torch.float32), device=weight.device)
    scorer.check(torch.zeros_like(like), seeds)
    parts = []
    with evaluation_mode(model):
        for rows in scorer.batches(like) or [slice(0, 0)]:
            noise = Noise(generator, None if seeds is None else seeds[rows])
            z = model.sde.prior(like[rows], noise)
            parts.append(_draw(scorer, sampler, z, noise, rows))
    return ScoredSamples(torch.cat([x for x, _ in parts]), join([scored for _, scored in parts]))


def _check_sampler(sampler: StepSampler | Solver) -> None:
    if not isinstance(sampler, (StepSampler, Solver)):
        raise TypeError(
            f"sampler must be a StepSampler or a Solver, got {sampler!r}; pass an object such as AdaptiveSolver()."
        )
    if isinstance(sampler, StepSampler) and sampler.stochastic:
        raise ValueError(
            f"a sample has a density along its trajectory only if no noise is drawn, but {sampler} draws noise; use a "
            "deterministic sampler such as Adams(steps=20), or score its samples by log_prob."
        )


def _draw(
    scorer: LikelihoodScorer, sampler: StepSampler | Solver, z: Tensor, noise: Noise, rows: slice
) -> tuple[Tensor, LogProb]:
    """One batch of samples from prior samples z, ``(B, *D)``, with their log-densities."""
    flow = AngleVelocity(scorer.model, scorer.cond, rows, tuple(z.shape[1:]))
    latent = z.to(widest_dtype(z.device)).reshape(len(z), flow.size)
    with flow.global_indices():
        if not len(z):
            return z, scorer(z, noise, rows)
        if isinstance(sampler, Solver):
            solution = sampler.solve(flow, latent, flow.phi_max, flow.phi_min)
        else:
            solution = _sample_trajectory(sampler, flow, z)
        scored = scorer.score_trajectory(flow, solution, solution.end, latent, noise)
    x = solution.end * float(scorer.model.sde.scale(scorer.model.sde.tau_min))
    return x.reshape(z.shape).to(z.dtype), scored


def _sample_trajectory(sampler: StepSampler, flow: AngleVelocity, z: Tensor) -> Solution:
    """The solution that a fixed-step sampler computes, with cubics between its states."""
    sde, count = flow.model.sde, len(z)
    init = z.to(widest_dtype(z.device)) * float(sde.scale(min(sde.tau_max, 300.0)))
    rows = torch.arange(count, device=z.device)
    samples = sample(
        flow.model, z.shape, sampler, init=init, start=sde.tau_max, trajectory=True, **flow.conditioning(rows)
    )
    assert samples.taus is not None
    assert samples.trajectory is not None
    if not abs(samples.tau - sde.tau_min) <= 1e-6 * sde.tau_min:
        raise ValueError(
            f"a sampler whose samples are scored must end at tau_min = {sde.tau_min:g}, but {sampler} ends at "
            f"{samples.tau:g}; use another grid, such as DenseEnds()."
        )
    phis = [min(max(float(ou.angle(tau)), flow.phi_min), flow.phi_max) for tau in samples.taus]
    states = [
        x.reshape(count, flow.size) / float(sde.scale(min(tau, 300.0)))
        for x, tau in zip(samples.trajectory, samples.taus, strict=True)
    ]
    velocities = [flow(rows, x.new_full((count,), phi), x) for x, phi in zip(states, phis, strict=True)]
    nfe = torch.full((count,), samples.nfe + flow.cost * len(phis), dtype=torch.int64, device=z.device)
    trajectory = PiecewisePolynomial.interpolate(phis, states, velocities)
    return Solution(trajectory, states[-1], states[0].new_full((count,), phis[-1]), nfe, torch.zeros_like(nfe))
