"""How far do walks end from where they should, and how does that change as a knot of the grid moves?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from scoresde.model import Model
from scoresde.sampling.base import Predict, StepSampler
from scoresde.sampling.calibration.step_fractions import StepFractions

__all__ = ["Rollouts", "unit", "rollout"]


@dataclass(frozen=True, eq=False)
class Rollouts:
    r"""Walks of a sampler from some starts, and how far from the right ends they lead.

    A walk that ends at another part of the data is as far off as such parts are apart, and no small move of a time
    brings it back. So the descent lowers the mean of $c^2\log(1 + e^2/c^2)$, with e the root mean square error of a
    walk and c the spread of the ends: the mean square, but for such walks.

    Attributes:
        predict: The network call.
        sampler: A deterministic one.
        x: Starts, ``(B, *D)``, in the coordinates of ``predict``.
        ends: Where they should lead, ``(B, *D)``, in x.
        leave: Takes the last state to x.
        unit: How far a time is moved for a difference, as a share of a step: see `unit`.
        weights: Of the walks, ``(B,)``, 1 on average.
    """

    predict: Predict
    sampler: StepSampler
    x: Tensor
    ends: Tensor
    leave: Callable[[Tensor], Tensor]
    unit: float
    weights: Tensor

    def end(self, taus: Sequence[float]) -> Tensor:
        """Where walks over ``taus`` lead, ``(B, *D)``, in x."""
        return self._walk(taus, self.x, None)

    def error(self, taus: Sequence[float]) -> float:
        """Root mean square over all elements; infinite where the times do not fall or a walk blows up."""
        return self._judged(taus, lambda squares: math.sqrt((squares * self.weights).mean()))

    def loss(self, taus: Sequence[float]) -> float:
        """What the descent lowers; infinite as `error` is."""
        return self._judged(taus, lambda squares: float(((squares / self._spread).log1p() * self.weights).mean()))

    def slopes(self, shares: StepFractions, places: list[float]) -> tuple[Tensor, Tensor]:
        """All errors as ``(n,)``, and their slopes in the places of the knots, ``(n, steps - 1)``, by differences.

        Both are weighted as the loss weighs their walks. A step is pure: up to the knot that is moved, the walk need
        not be made again.
        """
        taus, along, columns = shares.times(places), [], []
        end = self._walk(taus, self.x, None, along)
        weight = (self.weights / (1.0 + self._squares(end) / self._spread)).sqrt().reshape(-1, *[1] * (end.ndim - 1))
        for i in range(1, len(taus) - 1):
            move = self.unit * min(places[i - 1] - places[i], places[i] - places[i + 1])
            moved = [taus[i - 1], shares.time(places[i] + move), *taus[i + 1 :]]
            columns.append(((self._walk(moved, *along[i - 1]) - end) / move * weight).flatten())
        return ((end - self.ends) * weight).flatten(), torch.stack(columns, 1)

    @cached_property
    def _spread(self) -> float:
        """Mean square of the ends about their mean; 1 where they are one point."""
        return float((self.ends - self.ends.mean(0)).square().mean()) or 1.0

    def _squares(self, end: Tensor) -> Tensor:
        return (end - self.ends).reshape(len(end), -1).square().mean(1)

    def _judged(self, taus: Sequence[float], judge: Callable[[Tensor], float]) -> float:
        if not all(tau > s for tau, s in zip(taus, taus[1:])):
            return math.inf
        value = judge(self._squares(self.end(taus)))
        return value if math.isfinite(value) else math.inf

    def _walk(self, taus: Sequence[float], x: Tensor, memory: Any, along: list[Any] | None = None) -> Tensor:
        return self.leave(rollout(self.sampler, self.predict, taus, x, memory, along))


def rollout(
    sampler: StepSampler,
    predict: Predict,
    taus: Sequence[float],
    x: Tensor,
    memory: Any = None,
    along: list[Any] | None = None,
) -> Tensor:
    """Where a deterministic sampler leads ``x`` over ``taus``; states and memories before each step go ``along``."""
    for tau, s in zip(taus, taus[1:]):
        if along is not None:
            along.append((x, memory))
        x, memory = sampler.step(predict, x, tau, s, _no_noise, memory)
    return x


def unit(model: Model, x: Tensor) -> float:
    """The cube root of what the coarsest type in use can tell apart."""
    types = {value.dtype for value in (x, *model.parameters()) if value.is_floating_point()}
    return max(torch.finfo(each).eps for each in types) ** (1 / 3)


def _no_noise() -> Tensor:
    raise AssertionError("a deterministic sampler drew noise")
