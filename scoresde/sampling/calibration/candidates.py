"""Candidates of a calibration: a method with fixed orders, its coordinates, and its number of steps."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from scoresde.model import Model
from scoresde.process.parameterization import Prediction, V
from scoresde.sampling.base import StepSampler
from scoresde.sampling.calibration.rollouts import NoisePool, Rollouts, finite_difference_step
from scoresde.sampling.calibration.search import StepFractions
from scoresde.sampling.grid import ExplicitGrid
from scoresde.sampling.moments import Moments
from scoresde.sampling.multistep import Adams
from scoresde.sampling.whitened import Whitened, WhitenedCoordinates

__all__ = ["Candidate", "candidate_methods"]

# predictor order, corrector order, variable
_ADAMS_CANDIDATES = ((2, 0, "sigma"), (2, 3, "angle"), (2, 3, "sigma"))


class Candidate:
    """One candidate: a method with fixed orders, in x or in whitened coordinates.

    Its number of steps is the largest, up to three more than the original's, that needs no more network calls than the
    original.

    Args:
        model: The model, in eval mode.
        original: The sampler to be calibrated.
        method: The method; its grid and number of steps are not used.
        moments: Moments that define the whitened coordinates; None for x.

    Attributes:
        original_taus: The original's grid.
        fractions: Parameterization of the grids with its ends.
        steps: Number of steps.
    """

    def __init__(self, model: Model, original: StepSampler, method: StepSampler, moments: Moments | None) -> None:
        self.original_taus = original.grid.times(model.sde, original.steps)
        self.fractions = StepFractions.from_grid(self.original_taus, model.sde.tau_min)
        self._model, self._method, self._moments = model, method, moments
        budget = _count_calls(original, self.original_taus, call_at_start=True)

        def affordable(steps: int) -> bool:
            taus = self.fractions.times(self.fractions.power_positions(2.0, steps))
            return _count_calls(method, taus, call_at_start=moments is None) <= budget

        self.steps = max(filter(affordable, range(original.steps, original.steps + 4)), default=original.steps)

    def rollouts(self, pool: NoisePool) -> Rollouts:
        """Rollouts from a pool of noises, in the candidate's coordinates."""
        x, predict = pool.noises.x, pool.noises.predict(self._model)
        relative_step = finite_difference_step(self._model, x)
        if self._moments is None:
            return Rollouts(predict, self._method, x, pool.targets, lambda x: x, relative_step, pool.weights)
        first, last = self.original_taus[0], self.original_taus[-1]
        coordinates = WhitenedCoordinates(self._moments, x)
        whitened_predict = partial(coordinates.predict, predict, first)
        y, to_x = coordinates.whiten(x, first), partial(coordinates.unwhiten, tau=last)
        return Rollouts(whitened_predict, self._method, y, pool.targets, to_x, relative_step, pool.weights)

    def sampler(self, taus: list[float]) -> StepSampler | Whitened:
        """The candidate as a sampler on a grid."""
        sampler = replace(self._method, steps=self.steps, grid=ExplicitGrid(tuple(taus)))
        return sampler if self._moments is None else Whitened(sampler, self._moments)


def candidate_methods(original: StepSampler) -> list[StepSampler]:
    """The sampler itself, or, if it is an `Adams` with both orders left open, versions with fixed orders."""
    if not isinstance(original, Adams) or (original.predictor_order, original.corrector_order) != (None, None):
        return [original]
    interpolation = original.interpolation
    default_orders = (original.predictor, original.corrector, interpolation.variable)
    if (original.prediction, original.variable) not in ((None, None), ("v", "angle")):
        choices = [default_orders]
    else:
        choices = [*_ADAMS_CANDIDATES, *[default_orders] * (original.corrector > 0)]
    return [
        replace(
            original,
            predictor_order=predictor,
            corrector_order=corrector,
            prediction=interpolation.prediction,
            variable=variable,
        )
        for predictor, corrector, variable in choices
    ]


def _count_calls(method: StepSampler, taus: list[float], *, call_at_start: bool) -> int:
    """Network calls of one rollout; those at the first time are not counted unless ``call_at_start``."""
    x, calls, memory = torch.zeros(1, 1), 0, None

    def predict(x: Tensor, tau: float) -> Prediction:
        nonlocal calls
        calls += call_at_start or tau != taus[0]
        return Prediction(x, tau, torch.zeros_like(x), V())

    for tau, s in zip(taus, taus[1:]):
        x, memory = method.step(predict, x, tau, s, lambda: None, memory)
    return calls
