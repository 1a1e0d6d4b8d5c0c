r"""Calibration: fits a deterministic sampler to a model so that its last states are nearest to reference solutions.

Three things are fitted:

- the times of the steps, by a descent on the loss of rollouts from a pool of noises;
- the orders, if the sampler is an `Adams` that leaves them open;
- the mean and covariance of the data, from the model's data estimates. If these moments lower the error, the sampler
  runs in whitened coordinates (`Whitened`).

Only values of the network are used, never its gradient, so any deterministic sampler and any network can be used. The
result is the candidate with the smallest error on held-out noises, and the original sampler is one of the candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.call_inputs import check_per_sample
from scoresde._core.checks import check_integer
from scoresde._core.noise import Noise
from scoresde.model import Model, check_model, evaluating, refuse_unknown
from scoresde.process import ou
from scoresde.sampling.base import StepSampler, check_deterministic
from scoresde.sampling.calibration.candidates import Candidate, candidate_methods
from scoresde.sampling.calibration.rollouts import NoiseBatch, NoisePool, rollout
from scoresde.sampling.calibration.search import StepFractions, descend, evolve
from scoresde.sampling.moments import Moments
from scoresde.sampling.multistep import Adams
from scoresde.sampling.whitened import MAX_START_ALPHA, Whitened

__all__ = ["Calibration", "calibrate"]

_MIN_NOISES_FOR_MOMENTS, _MAX_ELEMENTS_FOR_MOMENTS = 16, 4096
_RANDOM_DIVISOR = 5  # with a pool, one in five of the noises is taken at random


@dataclass(frozen=True)
class Calibration:
    """Result of `calibrate`. Errors are root mean squares over all elements of the last state, in x.

    Attributes:
        sampler: The calibrated sampler, or the original if nothing was better. It makes no more network calls.
        original: The sampler before calibration, on its own grid.
        error: Error of ``sampler`` on the held-out noises.
        original_error: Error of ``original`` on the held-out noises.
        fit_error: Error of ``sampler`` on the noises of the fit. If it is far below ``error``, use more noises.
        noises: Number of noises of the fit; as many were held out. If they were chosen from a larger pool, they are
            weighted, and the errors are estimates for the pool.
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

    Cost: one iteration needs about as many network calls as ``steps / 2`` rollouts from ``noises`` noises, and most
    descents end after ten iterations. There is one descent for each of ``starts``, with and without whitening. If
    ``sampler`` is an `Adams` that leaves its orders open, that is done for each of three or four methods. The reference
    costs ``8 * steps`` network calls, at least 128, on twice as many noises.

    For data with well separated modes, the few noises that lead to a wrong mode dominate the error. For such data use
    ``pool=8``, ``search=60`` and a thousand noises or more. One round of the search is ten rollouts, for each method,
    with and without whitening.

    Args:
        model: The model; run in eval mode, without gradients.
        sampler: A deterministic step sampler. The calibrated sampler has the same first and last time.
        steps: Number of steps of the original sampler; default ``sampler.steps``.
        shape: Shape of one event; default that of the model.
        noises: Number of noises to fit to. As many others are held out to choose the best candidate.
        iterations: Iterations of one descent, at most. It ends when one lowers the loss by less than a thousandth.
        starts: Number of initial grids to descend from, 1 to 4.
        search: Rounds of an evolution strategy after the descents; 0 for none.
        pool: How many times ``noises`` are drawn, for the fit and again for the held-out set. With ``pool > 1`` a fifth
            of the noises used are the first of their pool. The others are those from which two coarse rollouts end
            farthest apart. Weights make the errors estimates for the pool.
        whiten: True also tries whitened coordinates, with moments estimated from the model; False does not. Pass
            `Moments` of the data for events of more than 4096 elements, or with fewer than 16 randomly taken noises:
            no moments are estimated there.
        batch_size: Noises in one network call; default all.
        generator: Source of all randomness; the global random state is then not used. Default: a new generator seeded
            from the global one.
        dtype: Type of the states; default the model's, at least float32.
        **cond: Passed to the network, one entry per noise, ``(2 * pool * noises, …)``.

    Returns:
        The calibrated sampler and its errors. On the held-out noises it is never worse than the original.

    Raises:
        TypeError: If ``model`` is not a Model, ``sampler`` not a `StepSampler`, or a keyword is neither an option nor
            read by the network.
        ValueError: If the sampler is stochastic or its grid does not fit the process; if a number is out of its range;
            if the shape or the conditioning does not fit.
        RuntimeError: If the reference solution is not finite.

    Source: fitting a sampler's steps to a model: Watson et al. 2022 (differentiable sampler search); Xue et al. 2024
    (optimized time steps). Descent: Marquardt 1963. The parameterization by step fractions in the root of the angle is
    ours.
    """
    check_model(model)
    counts = {"noises": noises, "iterations": iterations, "starts": starts, "pool": pool}
    original = _check_arguments(sampler, steps, search, batch_size, counts).for_model(model)
    check_arguments(calibrate, locals())
    refuse_unknown(calibrate, model, cond)
    with torch.inference_mode(False), torch.no_grad(), evaluating(model):
        x, generator = _draw_noises(model, shape, 2 * pool * noises, generator, dtype)
        check_per_sample(cond, len(x), "noise (2 * pool * noises)")
        batch = NoiseBatch(x, {name: value.to(x.device) for name, value in cond.items()}, batch_size)
        fit, held_out, moments = _pools_and_moments(model, original, batch, noises, whiten, generator)
        best = _uncalibrated(model, original, fit, held_out)
        coordinates = [None] if moments is None else [None, moments]
        for method, whitening in product(candidate_methods(original), coordinates):
            candidate = Candidate(model, original, method, whitening)
            rollouts, held_out_rollouts = candidate.rollouts(fit), candidate.rollouts(held_out)
            grids = list(descend(rollouts, candidate.fractions, candidate.steps, iterations, starts))
            if search:
                initial, trial_generator = min(grids, key=rollouts.loss), _cpu_generator(generator)
                grids.append(evolve(rollouts, candidate.fractions, initial, search, trial_generator))
            error, taus = min((held_out_rollouts.error(taus), taus) for taus in grids)
            if error < best.error:
                fit_error = rollouts.error(taus)
                best = replace(best, sampler=candidate.sampler(taus), error=error, fit_error=fit_error)
        return best


def _check_arguments(
    sampler: StepSampler, steps: int | None, search: int, batch_size: int | None, counts: dict[str, int]
) -> StepSampler:
    """The original sampler: ``sampler`` with ``steps`` steps."""
    check_deterministic(sampler, "calibrate")
    for name, value in counts.items():
        check_integer(name, value)
    if batch_size is not None:
        check_integer("batch_size", batch_size)
    check_integer("search", search, least=0)
    return sampler if steps is None else replace(sampler, steps=steps)


def _draw_noises(
    model: Model, shape: Sequence[int] | None, n: int, generator: torch.Generator | None, dtype: torch.dtype | None
) -> tuple[Tensor, torch.Generator]:
    """``n`` draws from the prior, and the generator that drew them."""
    event_shape = model.event_shape if shape is None else tuple(shape)
    for size in event_shape or ():
        check_integer("each entry of shape", size)
    if event_shape is None:
        raise ValueError("calibrate needs the shape of an event, and the model states none; pass shape=(…).")
    tensors = (value for value in [*model.parameters(), *model.buffers()] if value.is_floating_point())
    reference = next(tensors, torch.empty(0))
    dtype = torch.promote_types(reference.dtype, torch.float32) if dtype is None else dtype
    if generator is None:
        generator = torch.Generator(reference.device).manual_seed(int(torch.randint(2**62, ())))
    if not dtype.is_floating_point:
        raise TypeError(f"dtype must be a floating type, got {dtype}; float32 or float64 are usual.")
    like = torch.empty(n, *event_shape, dtype=dtype, device=reference.device)
    x = model.sde.prior(like, Noise(generator), model.sde.tau_max)
    model._check_event(x)
    return x, generator


def _cpu_generator(source: torch.Generator) -> torch.Generator:
    """A CPU generator seeded from another generator."""
    seed = int(torch.randint(2**62, (), generator=source, device=source.device))
    return torch.Generator().manual_seed(seed)


def _pools_and_moments(
    model: Model,
    original: StepSampler,
    batch: NoiseBatch,
    noises: int,
    whiten: bool | Moments,
    generator: torch.Generator,
) -> tuple[NoisePool, NoisePool, Moments | None]:
    """The pools of the fit and the held-out set, ``noises`` of each half of a batch, and the moments for whitening."""
    halves = [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
    reference = partial(_reference, model, original)
    n_random = noises if len(halves[0]) == noises else -(-noises // _RANDOM_DIVISOR)
    random = [NoisePool.equally_weighted(half[:n_random], reference(half[:n_random])) for half in halves]
    moments = _moments(model, original, random[0], whiten, generator)
    if n_random == noises:
        return random[0], random[1], moments
    coarse = Candidate(model, original, candidate_methods(original)[0], moments)
    fit, held_out = (_add_hardest(*pair, noises, coarse, reference) for pair in zip(random, halves))
    return fit, held_out, moments


def _add_hardest(
    random: NoisePool, pool: NoiseBatch, noises: int, coarse: Candidate, reference: Callable[[NoiseBatch], Tensor]
) -> NoisePool:
    """``random``, the first noises of ``pool``, joined by the hardest others, to ``noises`` in all.

    The hardest are those from which two rollouts of ``coarse``, on different grids, end farthest apart.
    """
    powers = (4 / 3, 5 / 3)
    grids = [coarse.fractions.times(coarse.fractions.power_positions(power, coarse.steps)) for power in powers]
    distances = []
    for begin in range(0, len(pool), noises):
        part = pool[begin : begin + noises]
        rollouts = coarse.rollouts(NoisePool.equally_weighted(part, part.x))  # only the last states are used
        difference = rollouts.end(grids[0]) - rollouts.end(grids[1])
        distances.append(difference.reshape(len(part), -1).square().mean(1))
    distance, n_random = torch.cat(distances), len(random.noises)
    rows = n_random + distance[n_random:].argsort(descending=True)[: noises - n_random]
    easy = distance[:n_random] < distance[rows].min()
    return random.with_hardest(pool[rows], reference(pool[rows]), easy, len(pool))


def _moments(
    model: Model, original: StepSampler, pool: NoisePool, whiten: bool | Moments, generator: torch.Generator
) -> Moments | None:
    """Moments given, or estimated from the model at its own samples; None where that is impossible or not wanted."""
    taus, x = original.grid.times(model.sde, original.steps), pool.targets
    if ou.alpha(taus[0]) > MAX_START_ALPHA:
        return None
    if isinstance(whiten, Moments):
        return whiten
    if not whiten or original.steps < 2:
        return None
    if len(x) < _MIN_NOISES_FOR_MOMENTS or x[0].numel() > _MAX_ELEMENTS_FOR_MOMENTS:
        return None
    predict = pool.noises.predict(model)
    x0 = x if taus[-1] == 0 else predict(x, taus[-1]).x0
    return Moments.of(x0).sharpened(predict, x0, Noise(generator).normal)


def _uncalibrated(model: Model, original: StepSampler, fit: NoisePool, held_out: NoisePool) -> Calibration:
    candidate = Candidate(model, original, original, None)
    error, fit_error = (candidate.rollouts(pool).error(candidate.original_taus) for pool in (held_out, fit))
    return Calibration(original, original, error, error, fit_error, len(fit.noises))


def _reference(model: Model, original: StepSampler, noises: NoiseBatch) -> Tensor:
    """Solutions of the probability-flow ODE from the noises, on a fine grid with the ends of the original's.

    The network is not called below ``tau_min``, even if the last time is 0.
    """
    taus = original.grid.times(model.sde, original.steps)
    steps, fractions = max(8 * original.steps, 128), StepFractions.from_grid(taus, model.sde.tau_min)
    solver = Adams(steps, predictor_order=4, corrector_order=4, prediction="alpha_v", variable="angle")
    fine_taus = fractions.times(fractions.power_positions(2.0, steps))
    ends = rollout(solver, noises.predict(model), fine_taus, noises.x)
    if not bool(torch.isfinite(ends).all()):
        raise RuntimeError(
            f"the reference, Adams(steps={steps}), must end in finite numbers, got NaN or infinity; "
            "sample(model, …) with this sampler names the network call that returned them."
        )
    return ends
