"""Candidates of a calibration: a method with fixed orders, its coordinates, and its number of steps."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from scoresde._core.tensors import widest_dtype
from scoresde.model import Model
from scoresde.process.parameterization import V
from scoresde.process.prediction import GaussianPrediction, Prediction
from scoresde.sampling.base import StepSampler
from scoresde.sampling.calibration.fractions import StepFractions
from scoresde.sampling.calibration.noises import NoisePool
from scoresde.sampling.calibration.reference import ReferenceSolutions
from scoresde.sampling.calibration.robust_loss import RobustLoss
from scoresde.sampling.calibration.rollouts import Rollouts, finite_difference_step
from scoresde.sampling.calibration.rows import FittedRollouts
from scoresde.sampling.calibration.surrogate import Surrogate
from scoresde.sampling.grid import ExplicitGrid
from scoresde.sampling.moments import Moments
from scoresde.sampling.multistep import Adams
from scoresde.sampling.non_stationary import NonStationary
from scoresde.sampling.whitened import Whitened, WhitenedCoordinates

__all__ = ["Candidate", "candidate_methods", "count_calls", "is_small", "leaves_orders_open"]

_SMALL = 16

# predictor order, corrector order, variable
_ADAMS_CANDIDATES = (
    (1, 2, "sigma"),
    (2, 0, "sigma"),
    (2, 3, "angle"),
    (2, 3, "sigma"),
    (3, 4, "angle"),
)


class Candidate:
    """One candidate: a method with fixed orders, in x or in whitened coordinates.

    Its number of steps is the largest, up to three more or fewer than the original's, that needs no more network calls
    than the original.

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
        budget = count_calls(original, self.original_taus, call_at_start=True)

        def affordable(steps: int) -> bool:
            taus = self.fractions.times(self.fractions.power_positions(2.0, steps))
            return count_calls(method, taus, call_at_start=moments is None) <= budget

        numbers = range(max(1, original.steps - 3), original.steps + 4)
        self.steps = max(filter(affordable, numbers), default=original.steps)

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

    def surrogate_rollouts(self, surrogate: Surrogate, weights: Tensor) -> Rollouts:
        """Rollouts of the surrogate, in the candidate's coordinates."""
        ends = self.original_taus[0], self.original_taus[-1]
        return surrogate.rollouts(self._method, ends, weights, whiten=self._moments is not None)

    def surrogate_fit(self, surrogate: Surrogate, weights: Tensor, feedback: float) -> FittedRollouts:
        """Rollouts of the surrogate whose weights are fitted."""
        ends = self.original_taus[0], self.original_taus[-1]
        return surrogate.fitted(ends, weights, feedback, whiten=self._moments is not None)

    def network_fit(self, pool: NoisePool, solved: ReferenceSolutions, elements: Tensor | None) -> FittedRollouts:
        """Rollouts of the network whose weights are fitted.

        Args:
            pool: The noises.
            solved: The reference solutions from them.
            elements: The recorded elements; None for all.
        """
        x, last, precise = pool.noises.x, self.original_taus[-1], widest_dtype(pool.noises.x.device)
        rollouts, ends = self.rollouts(pool), solved.ends.reshape(len(x), -1)
        coordinates = None if self._moments is None else WhitenedCoordinates(self._moments, x)
        chosen = slice(None) if elements is None else elements

        def linear(y: Tensor, tau: float) -> Tensor:
            flat = y.reshape(len(y), -1) if coordinates is None else coordinates.scaled(y, tau)
            return flat[:, chosen].to(precise)

        def reference(tau: float) -> Tensor:
            x_ref = ends[:, chosen] if tau == last else solved.interpolated(solved.x, tau)
            if coordinates is not None:
                x_ref = x_ref + coordinates.centered(torch.zeros_like(ends[:1]), tau)[:, chosen]
            return x_ref.to(precise)

        robust = RobustLoss.of(reference(last), pool.weights)
        return FittedRollouts(rollouts.predict, rollouts.x, linear, reference, robust)

    def initial_grids(self) -> list[list[float]]:
        """Grids to start a descent from."""
        powers = [self.fractions.power_positions(power, self.steps) for power in (1.0, 1.5, 2.0, 3.0)]
        mixed = [self.fractions.mixed_positions(weight, self.steps) for weight in (0.25, 0.5)]
        return [self.fractions.times(positions) for positions in (*powers, *mixed)]

    def own_grid(self) -> list[float]:
        """The original's grid, interpolated to the candidate's number of steps."""
        positions = self.fractions.of_times(self.original_taus)
        at = np.linspace(0, len(positions) - 1, self.steps + 1)
        return self.fractions.times(np.interp(at, np.arange(len(positions)), positions).tolist())

    @property
    def is_whitened(self) -> bool:
        """Whether it runs in whitened coordinates."""
        return self._moments is not None

    @property
    def weights(self) -> tuple[tuple[float, ...], ...]:
        """The fitted weights; empty for a method without."""
        return self._method.weights if isinstance(self._method, NonStationary) else ()

    def with_weights(self, weights: tuple[tuple[float, ...], ...]) -> Candidate:
        """This candidate, whose method is `NonStationary` with fitted weights."""
        candidate = copy.copy(self)
        candidate._method = NonStationary(self.steps, weights=weights)
        return candidate

    def sampler(self, taus: list[float]) -> StepSampler | Whitened:
        """The candidate as a sampler on a grid."""
        sampler = replace(self._method, steps=self.steps, grid=ExplicitGrid(tuple(taus)))
        return sampler if self._moments is None else Whitened(sampler, self._moments)


def is_small(event_shape: Sequence[int]) -> bool:
    """Whether events have up to 16 values: networks are cheap, and all noises and candidates are used."""
    return math.prod(event_shape) <= _SMALL


def leaves_orders_open(sampler: StepSampler) -> bool:
    """Whether it is an `Adams` with its default orders, prediction and variable, which `calibrate` may change."""
    return isinstance(sampler, Adams) and replace(sampler, steps=1) == Adams(
        1, sampler.grid, noise_estimate=sampler.noise_estimate
    )


def candidate_methods(original: StepSampler) -> list[StepSampler]:
    """The sampler itself, or, if it leaves its orders open, `Adams` with several."""
    if not isinstance(original, Adams) or not leaves_orders_open(original):
        return [original]
    return [
        replace(original, predictor_order=predictor, corrector_order=corrector, prediction="v", variable=variable)
        for predictor, corrector, variable in _ADAMS_CANDIDATES
    ]


def count_calls(method: StepSampler, taus: list[float], *, call_at_start: bool) -> int:
    """Network calls of one rollout; those at the first time are not counted unless ``call_at_start``."""
    x, calls, memory = torch.zeros(1, 1), 0, None

    def predict(x: Tensor, tau: float) -> Prediction:
        nonlocal calls
        calls += call_at_start or tau != taus[0]
        return GaussianPrediction(x, tau, torch.zeros_like(x), V())

    for tau, s in zip(taus, taus[1:]):
        x, memory = method.step(predict, x, tau, s, lambda: None, memory)
    return calls
