r"""How does this sampler end nearest to where it should, on this model? Three things are fitted to a fine reference.

The data's mean and covariance, as the model's own field has them, so that only what is beyond them is walked
(`whitened`), where that is better; the orders, where an `Adams` leaves them open; and the times, which a `descent`
moves. Walks and reference start from the same noises. Only values are asked for, never the network's gradient: any
deterministic sampler and any network will do. What is kept is best on noises that the fit never saw, the sampler as it
was among the candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import torch
from torch import Tensor

from scoresde._core.noise import Noise
from scoresde.model import Model, check_model, check_per_sample, evaluating, refuse_unknown
from scoresde.process import ou
from scoresde.sampling.base import StepSampler, check_deterministic
from scoresde.sampling.calibration.candidates import Candidate, candidates
from scoresde.sampling.calibration.descent import descend
from scoresde.sampling.calibration.evolution import evolve
from scoresde.sampling.calibration.noise_pool import NoiseBatch, NoisePool
from scoresde.sampling.calibration.rollouts import rollout
from scoresde.sampling.calibration.step_fractions import StepFractions
from scoresde.sampling.moments import Moments
from scoresde.sampling.multistep import Adams
from scoresde.sampling.whitened import DEEP, Whitened

__all__ = ["Calibration", "calibrate"]

_FEWEST, _LARGEST, _FAIR = 16, 4096, 5


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` returns. Errors are root mean squares over all elements at the end, in x.

    Attributes:
        sampler: What was fitted, or the sampler as it was if nothing was better. Makes no more network calls than that.
        original: The sampler as it was given, on its own grid.
        error: Of ``sampler``, on the noises that were held out.
        original_error: Of ``original``, on the same.
        fit_error: Of ``sampler``, on the noises that it was fitted to; if it is far below ``error``, they are too few.
        noises: How many noises it was fitted to; as many were held out. Chosen from a larger pool they are weighed, and
            the errors are the pool's.
    """

    sampler: StepSampler | Whitened
    original: StepSampler
    error: float
    original_error: float
    fit_error: float
    noises: int


def calibrate(
    model: Model,
    sampler: StepSampler,
    steps: int | None = None,
    *,
    shape: Sequence[int] | None = None,
    noises: int = 128,
    iterations: int = 20,
    starts: int = 1,
    search: int = 0,
    pool: int = 1,
    whiten: bool | Moments = True,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    **cond: Tensor,
) -> Calibration:
    """Fits a deterministic sampler to a model, at the same number of network calls.

    An iteration costs about as many network calls as half of ``steps`` walks, on ``noises`` samples; most fits end
    after ten. There is a fit from each of ``starts``, with and without the data's mean and covariance in the walk, and
    so for each of three or four methods if ``sampler`` is an `Adams` that leaves its orders open. The reference costs
    8 ``steps`` calls, 128 at least, on twice as many samples.

    Where data lie in parts far from each other, few noises, near the watersheds, are led to a wrong part, and those
    decide the error. There ``pool=8``, ``search=60`` and a thousand noises or more are worth their time; a round of
    the search is ten walks, for each method with and without.

    Args:
        model: The model; evaluated in eval mode, without gradients.
        sampler: A deterministic step sampler. Its grid says where the fitted one ends.
        steps: Number of steps; default the sampler's.
        shape: Of one event; default the model's.
        noises: Starts to fit to; as many more decide what is kept.
        iterations: Of a descent, at most; it ends where one gains less than a thousandth.
        starts: Grids to descend from, at most four.
        search: Rounds of an evolution strategy after the descents; 0 for none.
        pool: How many times ``noises`` to draw, to fit and again to hold out. Of each pool a fifth of the noises are
            its first, the others those that two rough walks take farthest apart; all weigh as much as they stand for.
        whiten: Whether the walk may leave out the data's mean and covariance; or these, from data, where events are
            too large (over 4096 elements) or the noises that are taken as they come too few (under 16) to have them
            from the model.
        batch_size: Noises in a network call; default all.
        generator: Source of the noises; default a new one with seed 0. The global random state is left alone.
        dtype: Of the states; default the model's, at least float32.
        **cond: Passed to the network, one entry per noise, ``(2 * pool * noises, …)``.

    Returns:
        The calibrated sampler and its errors: on the noises held out it is never worse than the original.

    Raises:
        TypeError: If the model is none, the sampler is no `StepSampler`, or a keyword is neither an option nor read by
            the network.
        ValueError: If the sampler is stochastic or cannot walk from the clock's end, a number is not positive, or the
            shape or the conditioning does not fit.
        RuntimeError: If the reference does not end in finite numbers.

    Source: fitting a sampler's steps to a model: Watson et al. 2022 (differentiable sampler search); Xue et al. 2024
    (optimized time steps). Descent: Marquardt 1963. Shares of the range of the root of the angle are ours.
    """
    check_model(model)
    counts = {"noises": noises, "iterations": iterations, "starts": starts, "pool": pool}
    original = _checked(sampler, steps, **counts, batch_size=1 if batch_size is None else batch_size)
    if isinstance(search, bool) or not isinstance(search, int) or search < 0:
        raise ValueError(f"search must be a number of rounds, 0 for none, got {search!r}.")
    refuse_unknown(calibrate, model, cond)
    with torch.inference_mode(False), torch.no_grad(), evaluating(model):
        x, source = _noises(model, shape, 2 * pool * noises, generator, dtype)
        check_per_sample(cond, len(x), "noise (2 * pool * noises)")
        draws = NoiseBatch(x, {name: value.to(x.device) for name, value in cond.items()}, batch_size)
        halves = [draws[: pool * noises], draws[pool * noises :]]
        lead, few = partial(_reference, model, original), noises if pool == 1 else -(-noises // _FAIR)
        fit, held = (NoisePool.alike(half[:few], lead(half[:few])) for half in halves)
        moments = _moments(model, original, fit, whiten, source)
        if few < noises:
            rough = Candidate(model, original, candidates(original)[0], moments)
            fit, held = (_with_hard(each, half, noises, rough, lead) for each, half in zip((fit, held), halves))
        kept = _as_it_was(model, original, fit, held)
        for method, coordinates in product(candidates(original), (None,) if moments is None else (None, moments)):
            way = Candidate(model, original, method, coordinates)
            walks, judge = way.walks(fit), way.walks(held)
            grids = list(descend(walks, way.shares, way.steps, iterations, starts))
            if search:
                trials = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=source, device=x.device)))
                grids.append(evolve(walks, way.shares, min(grids, key=walks.loss), search, trials))
            error, taus = min((judge.error(taus), taus) for taus in grids)
            if error < kept.error:
                kept = replace(kept, sampler=way.sampler(taus), error=error, fit_error=walks.error(taus))
        return kept


def _as_it_was(model: Model, original: StepSampler, fit: NoisePool, held: NoisePool) -> Calibration:
    way = Candidate(model, original, original, None)
    errors = [way.walks(each).error(way.own) for each in (held, fit)]
    return Calibration(original, original, errors[0], errors[0], errors[1], len(fit.draws))


def _with_hard(
    fair: NoisePool, pool: NoiseBatch, noises: int, rough: Candidate, lead: Callable[[NoiseBatch], Tensor]
) -> NoisePool:
    """``noises`` of a pool: ``fair``, its first, and of the rest those that two rough walks take farthest apart."""
    grids = [rough.shares.times(rough.shares.power(power, rough.steps)) for power in (4 / 3, 5 / 3)]
    apart = []
    for begin in range(0, len(pool), noises):
        part = pool[begin : begin + noises]
        walks = rough.walks(NoisePool.alike(part, part.x))
        apart.append((walks.end(grids[0]) - walks.end(grids[1])).reshape(len(part), -1).square().mean(1))
    apart, few = torch.cat(apart), len(fair.draws)
    rows = few + apart[few:].argsort(descending=True)[: noises - few]
    hard = pool[rows]
    easy = apart[:few] < apart[rows].min()
    return fair.with_hard(hard, lead(hard), easy, len(pool))


def _moments(
    model: Model, original: StepSampler, fair: NoisePool, whiten: bool | Moments, source: torch.Generator
) -> Moments | None:
    """Of the model's own samples, as its field has them; None where there are too few, or they are too large."""
    own, ends = original.grid.times(model.sde, original.steps), fair.ends
    if ou.alpha(own[0]) > DEEP:
        return None
    if isinstance(whiten, Moments):
        return whiten
    if not whiten or len(ends) < _FEWEST or ends[0].numel() > _LARGEST or original.steps < 2:
        return None
    predict = fair.draws.predict(model)
    data = ends if own[-1] == 0 else predict(ends, own[-1]).x0
    return Moments.of(data).sharpened(predict, data, Noise(source).normal)


def _checked(sampler: StepSampler, steps: int | None, **counts: int) -> StepSampler:
    check_deterministic(sampler, "calibrate")
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    return sampler if steps is None else replace(sampler, steps=steps)


def _noises(
    model: Model, shape: Sequence[int] | None, n: int, generator: torch.Generator | None, dtype: torch.dtype | None
) -> tuple[Tensor, torch.Generator]:
    """Noises, and where they come from."""
    event = model.event_shape if shape is None else tuple(shape)
    if event is None:
        raise ValueError("calibrate needs the shape of an event, and the model states none; pass shape=(…).")
    held = next((p for p in [*model.parameters(), *model.buffers()] if p.is_floating_point()), torch.empty(0))
    kind = torch.promote_types(held.dtype, torch.float32) if dtype is None else dtype
    source = torch.Generator(held.device).manual_seed(0) if generator is None else generator
    x = model.sde.prior(torch.empty(n, *event, dtype=kind, device=held.device), Noise(source), model.sde.tau_max)
    model._check_event(x)
    return x, source


def _reference(model: Model, original: StepSampler, draws: NoiseBatch) -> Tensor:
    """Where the ODE leads noises; the network is not asked below ``tau_min``, also if the walk ends at 0."""
    own = original.grid.times(model.sde, original.steps)
    steps, shares = max(8 * original.steps, 128), StepFractions.make(own, model.sde.tau_min)
    taus, way = shares.times(shares.power(2.0, steps)), Adams(steps, predictor_order=4, corrector_order=4)
    ends = rollout(way, draws.predict(model), taus, draws.x)
    if not bool(torch.isfinite(ends).all()):
        raise RuntimeError(
            f"the reference, Adams(steps={steps}), must end in finite numbers, got NaN or infinity; "
            "sample(model, …) with it says at which network call."
        )
    return ends
