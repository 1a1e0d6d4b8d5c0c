"""What is log p of a model's own samples? The path that drew them is the path along which it is integrated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.noise import Noise
from scoresde._core.tensors import widest_dtype
from scoresde.likelihood.batching import evaluated
from scoresde.likelihood.ode.angle_velocity import AngleVelocity
from scoresde.likelihood.ode.dense_output import PiecewisePolynomial, step_polynomial
from scoresde.likelihood.ode.error_budget import LogProb, join
from scoresde.likelihood.ode.log_prob import LikelihoodScorer
from scoresde.likelihood.ode.solver import AdaptiveSolver, Solution, Solver
from scoresde.likelihood.ode.trace import Trace
from scoresde.model import Model, refuse_unknown
from scoresde.process import ou
from scoresde.sampling import StepSampler, sample

__all__ = ["ScoredSamples", "sample_log_prob"]


@dataclass(frozen=True, eq=False)
class ScoredSamples:
    """Samples and their log-densities.

    Attributes:
        x: Samples at ``tau_min``, view's coordinates, ``(n, *D)``.
        scored: Their log-densities under the flow; ``scored.latent`` is where they started.
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
    """Draws samples and says how likely each is, along one path.

    A fixed-step sampler's path is the cubic through its states with v at each, which takes one more network call per
    state. What such a path lacks in accuracy the density accounts for, as `log_prob` does, so the value is that of the
    sample that was drawn, whatever the steps.

    Args:
        model: Trained or exact.
        shape: Number of samples (the model then knows its event shape), or ``(n, *D)``.
        sampler: `AdaptiveSolver` (default) or `TorchDiffEq`, or a deterministic fixed-step sampler whose grid ends at
            ``tau_min``, such as ``Adams(steps=20)``.
        trace, nodes, batch_size, strict: As for `log_prob`.
        generator: Source of starts and probes.
        seeds: One integer per sample instead.
        **cond: Passed to the network; tensors have one entry per sample, ``(n, ...)``.

    Returns:
        See `ScoredSamples`.

    Raises:
        TypeError: If the sampler is neither.
        ValueError: If it draws noise, or does not end at ``tau_min``; and as `log_prob`.
        RuntimeError: As `log_prob`.
    """
    refuse_unknown(sample_log_prob, model, cond)
    if sampler is None:
        sampler = AdaptiveSolver()
    _check(sampler)
    size = (shape, *(model.event_shape or ())) if isinstance(shape, int) else tuple(shape)
    if generator is None and seeds is None:
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
    solver = sampler if isinstance(sampler, Solver) else AdaptiveSolver()
    scorer = LikelihoodScorer(model, trace, solver, nodes, None, cond, batch_size, strict)
    held = next(iter([*model.parameters(), *model.buffers()]), torch.empty(0))
    like = torch.empty(size, dtype=torch.promote_types(held.dtype, torch.float32), device=held.device)
    scorer.check(torch.zeros_like(like), seeds)
    parts = []
    with evaluated(model):
        for rows in scorer.batches(like) or [slice(0, 0)]:
            noise = Noise(generator, None if seeds is None else seeds[rows])
            z = model.sde.prior(like[rows], noise)
            parts.append(_draw(scorer, sampler, z, noise, rows))
    return ScoredSamples(torch.cat([x for x, _ in parts]), join([scored for _, scored in parts]))


def _check(sampler: StepSampler | Solver) -> None:
    if not isinstance(sampler, (StepSampler, Solver)):
        raise TypeError(
            f"sampler must be a StepSampler or a Solver, got {sampler!r}; pass an object such as AdaptiveSolver()."
        )
    if isinstance(sampler, StepSampler) and sampler.stochastic:
        raise ValueError(
            f"a sample has a density along its path only where no noise is drawn, but {sampler} draws some; take a "
            "deterministic one such as Adams(steps=20), or score its samples by log_prob."
        )


def _draw(
    scorer: LikelihoodScorer, sampler: StepSampler | Solver, z: Tensor, noise: Noise, rows: slice
) -> tuple[Tensor, LogProb]:
    """One batch, from x at the end of the clock, ``(B, *D)``."""
    flow = AngleVelocity(scorer.model, scorer.cond, rows, tuple(z.shape[1:]))
    start = z.to(widest_dtype(z.device)).reshape(len(z), flow.size)
    with flow.naming():
        if not len(z):
            return z, scorer(z, noise, rows)
        if isinstance(sampler, Solver):
            solution = sampler.solve(flow, start, flow.high, flow.low)
        else:
            solution = _walk(sampler, flow, z)
        scored = scorer.along(flow, solution, solution.end, start, noise)
    x = solution.end * float(scorer.model.sde.scale(scorer.model.sde.tau_min))
    return x.reshape(z.shape).to(z.dtype), scored


def _walk(sampler: StepSampler, flow: AngleVelocity, z: Tensor) -> Solution:
    """A fixed-step walk as a path."""
    sde, count = flow.model.sde, len(z)
    init = z.to(widest_dtype(z.device)) * float(sde.scale(min(sde.tau_max, 300.0)))
    everyone = torch.arange(count, device=z.device)
    drawn = sample(flow.model, z.shape, sampler, init=init, start=sde.tau_max, trajectory=True, **flow.part(everyone))
    assert drawn.taus is not None
    assert drawn.trajectory is not None
    if not abs(drawn.tau - sde.tau_min) <= 1e-6 * sde.tau_min:
        raise ValueError(
            f"a sampler whose samples are scored must end at tau_min = {sde.tau_min:g}, but {sampler} ends at "
            f"{drawn.tau:g}; give it another grid, such as DenseEnds()."
        )
    phis = [min(max(float(ou.angle(tau)), flow.low), flow.high) for tau in drawn.taus]
    states = [
        x.reshape(count, flow.size) / float(sde.scale(min(tau, 300.0)))
        for x, tau in zip(drawn.trajectory, drawn.taus, strict=True)
    ]
    slopes = [-flow(everyone, x.new_full((count,), phi), x) for x, phi in zip(states, phis, strict=True)]
    pieces = []
    for i in range(len(phis) - 1):
        gone, h = states[0].new_full((count,), phis[0] - phis[i]), states[0].new_full((count,), phis[i] - phis[i + 1])
        pieces.append(step_polynomial(everyone, gone, h, (states[i], states[i + 1]), (slopes[i], slopes[i + 1])))
    nfe = torch.full((count,), drawn.nfe + len(phis), dtype=torch.int64, device=z.device)
    path = PiecewisePolynomial(pieces, count, phis[0], -1.0)
    return Solution(path, states[-1], states[0].new_full((count,), phis[-1]), nfe, torch.zeros_like(nfe))
