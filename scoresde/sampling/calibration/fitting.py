"""The fit of one sampler: candidates are screened on the surrogate, then tried on the network; the best are refined."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from scoresde.model import Model
from scoresde.sampling.base import StepSampler
from scoresde.sampling.calibration.calibration import Calibration
from scoresde.sampling.calibration.candidates import (
    Candidate,
    candidate_methods,
    count_calls,
    is_small,
    leaves_orders_open,
)
from scoresde.sampling.calibration.noises import NoisePool
from scoresde.sampling.calibration.preparation import Preparation
from scoresde.sampling.calibration.rollouts import Rollouts
from scoresde.sampling.calibration.rows import FittedRollouts
from scoresde.sampling.calibration.search import descend, evolve
from scoresde.sampling.non_stationary import NonStationary

__all__ = ["Effort", "fit_sampler", "planned_evaluations"]

_FEEDBACKS = {False: (0.3,), True: (0.3, 1.0)}  # see `FittedRollouts`; by whether the coordinates are whitened
_SCREENED = 4  # methods that are tried on the network
_ITERATIONS_IF_SMALL = 8  # for small events, see `is_small`
_CONTENDING = 2.0  # a second one is refined if its loss is at most this multiple of the best
_DESCENT_SHARE, _LEAST_FOR_DESCENT = 5, 15  # a descent on the network needs a fifth of the noises


@dataclass(frozen=True)
class Effort:
    """How long a fit searches.

    Attributes:
        iterations: Iterations of a descent on the network, at most.
        search: Rounds of the evolution strategy.
        generator: Source of its trials, on the CPU.
    """

    iterations: int
    search: int
    generator: torch.Generator

    def is_thorough(self, event_shape: tuple[int, ...]) -> bool:
        """Whether descents use all noises, and `Adams` is tried with fixed orders too."""
        return self.search > 0 or is_small(event_shape)

    @staticmethod
    def of(steps: int, noises: Tensor, iterations: int | None, search: int, generator: torch.Generator) -> Effort:
        """The effort for a number of steps, from noises ``(B, *D)``; ``iterations`` None is the default."""
        default = _ITERATIONS_IF_SMALL if is_small(noises.shape[1:]) and not search else max(1, 15 // steps)
        return Effort(default if iterations is None else iterations, search, generator)


@dataclass(frozen=True, eq=False)
class _Trial:
    """A candidate on a grid, with its loss on the noises of the fit."""

    candidate: Candidate
    taus: list[float]
    loss: float
    rollouts: Rollouts | FittedRollouts


def fit_sampler(model: Model, original: StepSampler, shared: Preparation, effort: Effort) -> Calibration:
    """The original sampler or, if it has a smaller error on the held-out noises, the best of the candidates.

    Grids, weights and methods are chosen on the noises of the fit. The held-out noises only choose between the original
    and at most three fits: with fitted weights in either coordinates, and with fixed orders.
    """
    trials: list[_Trial] = []
    if leaves_orders_open(original):
        trials += _with_fitted_weights(model, original, shared, effort)
    if not trials or effort.is_thorough(shared.fit.noises.x.shape[1:]):
        trials += _with_fixed_orders(model, original, shared, effort)
    unfitted = Candidate(model, original, original, None)
    uncalibrated = _Trial(unfitted, unfitted.original_taus, math.nan, unfitted.rollouts(shared.fit))
    errors = [each.candidate.rollouts(shared.held_out).error(each.taus) for each in (uncalibrated, *trials)]
    error, best = min(zip(errors, (uncalibrated, *trials)), key=lambda pair: pair[0])
    sampler = original if best is uncalibrated else best.candidate.sampler(best.taus)
    return Calibration(sampler, original, error, errors[0], best.rollouts.error(best.taus), len(shared.fit.noises))


def _with_fitted_weights(model: Model, original: StepSampler, shared: Preparation, effort: Effort) -> list[_Trial]:
    """The best `NonStationary` sampler in each of the coordinates."""
    trials = [
        _best_grid(Candidate(model, original, NonStationary(original.steps), m), shared) for m in shared.coordinates
    ]
    trials = [trial for trial in trials if math.isfinite(trial.loss)]
    trials.sort(key=lambda trial: trial.loss)
    if effort.search:
        trials = [_evolved(trial, effort) for trial in trials[:1]]
    if effort.is_thorough(shared.fit.noises.x.shape[1:]):
        return [_polished(trial, shared, effort) for trial in trials]
    trials = [_improved(trial, shared, effort) for trial in trials[:1]] + trials[1:]
    return [replace(trial, candidate=trial.candidate.with_weights(_weights(trial))) for trial in trials]


def _best_grid(candidate: Candidate, shared: Preparation) -> _Trial:
    """The original's grid, or a descent on the surrogate from it or another, with weights fitted on the network.

    Some of the noises choose the grid; all of them fit the weights.
    """
    grids = [candidate.own_grid()]
    for feedback in _FEEDBACKS[candidate.is_whitened]:
        surrogate = candidate.surrogate_fit(shared.surrogate, shared.surrogate_weights, feedback)
        initial = candidate.own_grid(), min(candidate.initial_grids(), key=surrogate.loss)
        grids += [_descended(_Trial(candidate, taus, math.nan, surrogate)).taus for taus in initial]
    part = _part(shared.fit)
    few = candidate.network_fit(part, shared.solved[: len(part.noises)], shared.elements)
    taus = min(grids, key=few.loss)
    rollouts = candidate.network_fit(shared.fit, shared.solved, shared.elements)
    return _Trial(candidate, taus, rollouts.loss(taus), rollouts)


def _improved(trial: _Trial, shared: Preparation, effort: Effort) -> _Trial:
    """On the grid of a descent on some of the noises, if its loss on all of them is lower."""
    part, candidate = _part(shared.fit), trial.candidate
    local = candidate.network_fit(part, shared.solved[: len(part.noises)], shared.elements)
    moved = _on_network(replace(trial, candidate=candidate.with_weights(_weights(trial))), part)
    for i in range(effort.iterations):
        if i:
            moved = _on_network(replace(moved, candidate=candidate.with_weights(local.rows(moved.taus))), part)
        moved = _refined(moved, 1, settled=0.01, trials=2)
    rollouts = candidate.network_fit(shared.fit, shared.solved, shared.elements)
    refitted = _Trial(candidate, moved.taus, rollouts.loss(moved.taus), rollouts)
    return min(trial, refitted, key=lambda each: each.loss)


def _polished(trial: _Trial, shared: Preparation, effort: Effort) -> _Trial:
    """With the weights fitted on its grid, after a descent on the last states of all noises."""
    fitted = trial.rollouts
    assert isinstance(fitted, FittedRollouts)
    trial = _on_network(replace(trial, candidate=trial.candidate.with_weights(_weights(trial))), shared.fit)
    for _ in range(effort.iterations):
        trial = _with_last_weights(_refined(trial, 1), fitted, shared.fit)
    return trial


def _weights(trial: _Trial) -> tuple[tuple[float, ...], ...]:
    """The weights fitted on a trial's grid."""
    assert isinstance(trial.rollouts, FittedRollouts)
    return trial.rollouts.rows(trial.taus)


def _with_last_weights(trial: _Trial, fitted: FittedRollouts, pool: NoisePool) -> _Trial:
    """With the weights of the last step fitted again, if that lowers the loss."""
    weights = fitted.last_row(trial.taus, trial.candidate.weights)
    refitted = _on_network(replace(trial, candidate=trial.candidate.with_weights(weights)), pool)
    return min(trial, refitted, key=lambda each: each.loss)


def _with_fixed_orders(model: Model, original: StepSampler, shared: Preparation, effort: Effort) -> list[_Trial]:
    """The best of the methods with fixed orders, one for each number of steps; two with a search."""
    thorough = effort.is_thorough(shared.fit.noises.x.shape[1:])
    pool = shared.fit if thorough else _part(shared.fit)
    initial: list[_Trial] = []
    for method, moments in product(candidate_methods(original), shared.coordinates):
        candidate = Candidate(model, original, method, moments)
        surrogate = candidate.surrogate_rollouts(shared.surrogate, shared.surrogate_weights)
        loss, taus = min((surrogate.loss(taus), taus) for taus in candidate.initial_grids())
        initial.append(_Trial(candidate, taus, loss, surrogate))
    initial = sorted(initial, key=lambda trial: trial.loss)[:_SCREENED]
    trials = [_on_network(_descended(trial), pool) for trial in initial] + [_on_network(initial[0], pool)]
    trials = sorted(trials, key=lambda trial: trial.loss)
    trials = [trial for trial in trials[:2] if trial.loss <= _CONTENDING * trials[0].loss]
    settings = {"settled": 0.003, "trials": 4} if thorough else {"settled": 0.03, "trials": 2}
    refined = sorted((_refined(trial, 1, **settings) for trial in trials), key=lambda trial: trial.loss)
    if not effort.search:
        return [_refined(refined[0], effort.iterations, **settings)]
    return [_evolved(_refined(trial, effort.iterations, **settings), effort) for trial in refined]


def _descended(trial: _Trial) -> _Trial:
    """After a descent on the surrogate."""
    iterations = max(1, min(8, 100 // trial.candidate.steps))
    return _refined(trial, iterations, settled=0.02, trials=4)


def _part(pool: NoisePool) -> NoisePool:
    """The first noises of a pool, as many as a descent on the network needs."""
    return pool[: _part_size(len(pool.noises))]


def _part_size(noises: int) -> int:
    return max(noises // _DESCENT_SHARE, min(noises, _LEAST_FOR_DESCENT))


def _on_network(trial: _Trial, pool: NoisePool) -> _Trial:
    rollouts = trial.candidate.rollouts(pool)
    return replace(trial, rollouts=rollouts, loss=rollouts.loss(trial.taus))


def _refined(trial: _Trial, iterations: int, settled: float = 0.003, trials: int = 4) -> _Trial:
    """After a descent."""
    fractions = trial.candidate.fractions
    taus, loss = descend(trial.rollouts, fractions, trial.taus, iterations, settled=settled, trials=trials)
    return replace(trial, taus=taus, loss=loss)


def _evolved(trial: _Trial, effort: Effort) -> _Trial:
    """After the evolution strategy."""
    loss: Callable[[list[float]], float] = trial.rollouts.loss
    taus = evolve(loss, trial.candidate.fractions, trial.taus, effort.search, effort.generator)
    return replace(trial, taus=taus, loss=loss(taus))


def planned_evaluations(model: Model, original: StepSampler, noises: Tensor, effort: Effort) -> int:
    """Network evaluations of `fit_sampler` from ``noises``, at most."""
    calls = count_calls(original, original.grid.times(model.sde, original.steps), call_at_start=True)
    thorough, is_open = effort.is_thorough(noises.shape[1:]), leaves_orders_open(original)
    iteration, fits = 0.5 * calls + 4, 1 if effort.search else 2
    share = _part_size(len(noises)) / len(noises)
    rollouts = 1.0  # of the original, on the held-out noises
    if is_open:
        grids = sum(1 + 2 * len(feedbacks) for feedbacks in _FEEDBACKS.values())
        rollouts += grids * share + len(_FEEDBACKS) + fits + 10 * effort.search
        descent = effort.iterations * (iteration + 2) + 2
        rollouts += fits * descent if thorough else 1 + descent * share
    if not is_open or thorough:
        rollouts += 2 if effort.search else 1
        descents = _SCREENED + 1 + (2 + effort.iterations) * iteration + 20 * effort.search
        rollouts += descents * (1.0 if thorough else share)
    return math.ceil(rollouts * len(noises) * calls * model.cost)
