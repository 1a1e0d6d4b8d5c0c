"""Which methods are tried for one sampler, in which coordinates, and with how many steps for its network calls?"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from scoresde.model import Model
from scoresde.process.parameterization import Prediction, V
from scoresde.sampling.base import StepSampler
from scoresde.sampling.calibration.noise_pool import NoisePool
from scoresde.sampling.calibration.rollouts import Rollouts, unit
from scoresde.sampling.calibration.step_fractions import StepFractions
from scoresde.sampling.grid import ExplicitGrid
from scoresde.sampling.moments import Moments
from scoresde.sampling.multistep import Adams
from scoresde.sampling.whitened import Whitened, WhitenedCoordinates

__all__ = ["Candidate", "candidates"]

_SETTLED = ((2, 0, "sigma"), (2, 3, "angle"), (2, 3, "sigma"))


class Candidate:
    """One candidate: a method with its orders settled, in its coordinates, and how many steps it may take.

    Args:
        model: The network, in eval mode.
        original: The sampler as it was given: the way makes no more network calls.
        method: Its grid and number of steps do not count.
        moments: What is left out of the walk, or None.
    """

    def __init__(self, model: Model, original: StepSampler, method: StepSampler, moments: Moments | None) -> None:
        self.own = original.grid.times(model.sde, original.steps)
        self.shares = StepFractions.make(self.own, model.sde.tau_min)
        self._model, self._method, self._moments = model, method, moments
        budget, steps = _calls(original, self.own, False), original.steps
        places = {n: self.shares.times(self.shares.power(2.0, n)) for n in range(steps, steps + 4)}
        whitened = moments is not None
        self.steps = max([n for n in places if _calls(method, places[n], whitened) <= budget] or [steps])

    def walks(self, starts: NoisePool) -> Rollouts:
        """Those from some starts, in its coordinates."""
        x, predict = starts.draws.x, starts.draws.predict(self._model)
        small = unit(self._model, x)
        if self._moments is None:
            return Rollouts(predict, self._method, x, starts.ends, lambda last: last, small, starts.weights)
        frame, (first, last) = WhitenedCoordinates(self._moments, x), (self.own[0], self.own[-1])
        called, leave = partial(frame.predict, predict, first), partial(frame.leave, tau=last)
        return Rollouts(called, self._method, frame.enter(x, first), starts.ends, leave, small, starts.weights)

    def sampler(self, taus: list[float]) -> StepSampler | Whitened:
        """The method on a grid."""
        fitted = replace(self._method, steps=self.steps, grid=ExplicitGrid(tuple(taus)))
        return fitted if self._moments is None else Whitened(fitted, self._moments)


def _calls(way: StepSampler, taus: list[float], whitened: bool) -> int:
    """Network calls of a walk; whitened, that at the start is none."""
    x, calls, memory = torch.zeros(1, 1), 0, None

    def predict(x: Tensor, tau: float) -> Prediction:
        nonlocal calls
        calls += not (whitened and tau == taus[0])
        return Prediction(x, tau, torch.zeros_like(x), V())

    for tau, s in zip(taus, taus[1:]):
        x, memory = way.step(predict, x, tau, s, lambda: None, memory)
    return calls


def candidates(original: StepSampler) -> list[StepSampler]:
    """The sampler, or if it leaves its orders open those with settled ones."""
    if isinstance(original, Adams) and original.predictor_order is None and original.corrector_order is None:
        own = (original.predictor, original.corrector, original.variable)
        if (original.prediction, original.variable) != ("v", "angle"):
            settled = [own]
        else:
            settled = [*_SETTLED, *[own] * (original.corrector > 0)]
        return [replace(original, predictor_order=p, corrector_order=c, variable=of) for p, c, of in settled]
    return [original]
