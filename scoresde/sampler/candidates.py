"""Which methods are tried for one sampler, in which coordinates, and with how many steps for its network calls?"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from scoresde.model import Model
from scoresde.parameterization import Prediction, V
from scoresde.sampler.base import Predict, StepSampler
from scoresde.sampler.grid import Custom
from scoresde.sampler.moments import Moments
from scoresde.sampler.multistep import Adams
from scoresde.sampler.shares import Shares
from scoresde.sampler.walks import Walks, unit
from scoresde.sampler.whitened import Coordinates, Whitened

__all__ = ["Job", "Way", "ways"]

_SETTLED = ((2, 0, "sigma"), (2, 3, "angle"), (2, 3, "sigma"))


@dataclass(frozen=True, eq=False)
class Job:
    """What all candidates share: model, starts and right ends; the first half is fitted to, the second held out.

    Attributes:
        model: The network, in eval mode.
        original: The sampler as it was given.
        own: Its times.
        x: Starts, ``(2 * noises, *D)``.
        ends: Where they should lead, likewise.
        cond: Passed to the network, likewise.
        weights: Of the half that is fitted to, whose first half are then hard ones; None where all are alike.
    """

    model: Model
    original: StepSampler
    own: list[float]
    x: Tensor
    ends: Tensor
    cond: dict[str, Tensor]
    weights: Tensor | None

    @property
    def fair(self) -> slice:
        """Rows that are fitted to and were drawn as they come."""
        half = len(self.x) // 2
        return slice(0 if self.weights is None else half // 2, half)

    def walks(self, way: StepSampler, moments: Moments | None, held: bool = False) -> Walks:
        """Those of a way from one half of the starts, in the coordinates of the moments."""
        half = len(self.x) // 2
        rows = slice(half, None) if held else slice(half)
        predict: Predict = partial(self.model.predict, **{name: value[rows] for name, value in self.cond.items()})
        x, ends, weights = self.x[rows], self.ends[rows], None if held else self.weights
        if moments is None:
            return Walks(predict, way, x, ends, lambda last: last, unit(self.model, x), weights)
        frame = Coordinates(moments, x)
        return Walks(
            partial(frame.predict, predict, self.own[0]),
            way,
            frame.enter(x, self.own[0]),
            ends,
            partial(frame.leave, tau=self.own[-1]),
            unit(self.model, x),
            weights,
        )


class Way:
    """One candidate: a method with its orders settled, in its coordinates, and how many steps it may take.

    Args:
        job: What it is for.
        method: Its grid and number of steps do not count.
        moments: What is left out of the walk, or None.
    """

    def __init__(self, job: Job, method: StepSampler, moments: Moments | None) -> None:
        self.fit, self.held = job.walks(method, moments), job.walks(method, moments, held=True)
        self.shares = Shares.make(job.own, job.model.sde.tau_min)
        self._method, self._moments = method, moments
        budget, steps = _calls(job.original, job.own, job.x, False), job.original.steps
        places = {n: self.shares.times(self.shares.power(2.0, n)) for n in range(steps, steps + 4)}
        whitened = moments is not None
        self.steps = max([n for n in places if _calls(method, places[n], job.x, whitened) <= budget] or [steps])

    def sampler(self, taus: list[float]) -> StepSampler | Whitened:
        """The method on a grid."""
        fitted = replace(self._method, steps=self.steps, grid=Custom(tuple(taus)))
        return fitted if self._moments is None else Whitened(fitted, self._moments)


def _calls(way: StepSampler, taus: list[float], x: Tensor, whitened: bool) -> int:
    """Network calls of a walk; whitened, that at the start is none."""
    x, calls, memory = x[:1], 0, None

    def predict(x: Tensor, tau: float) -> Prediction:
        nonlocal calls
        calls += not (whitened and tau == taus[0])
        return Prediction(x, tau, torch.zeros_like(x), V())

    for tau, s in zip(taus, taus[1:]):
        x, memory = way.step(predict, x, tau, s, lambda: None, memory)
    return calls


def ways(original: StepSampler) -> list[StepSampler]:
    """The sampler, or if it leaves its orders open those with settled ones."""
    if isinstance(original, Adams) and original.predictor_order is None and original.corrector_order is None:
        own = (original.predictor, original.corrector, original.variable)
        if (original.prediction, original.variable) != ("v", "angle"):
            settled = [own]
        else:
            settled = [*_SETTLED, *[own] * (original.corrector > 0)]
        return [replace(original, predictor_order=p, corrector_order=c, variable=of) for p, c, of in settled]
    return [original]
