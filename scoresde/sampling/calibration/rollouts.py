r"""Rollouts of a sampler from a pool of noises, and their errors against reference solutions.

`Rollouts` integrates the sampler from the noises of a pool over any grid of times and measures how far the results are
from the reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from scoresde.model import Model
from scoresde.process.prediction import Prediction
from scoresde.sampling.base import Predict, StepSampler
from scoresde.sampling.calibration.robust_loss import RobustLoss

__all__ = ["Rollouts", "finite_difference_step", "rollout"]


class _Memo:
    """The network call, which returns recorded predictions for the states of a recorded rollout."""

    def __init__(self, predict: Predict) -> None:
        self._predict = predict
        self._recorded: dict[tuple[int, float], tuple[Tensor, Prediction]] = {}  # the states keep their ids alive

    def __call__(self, x: Tensor, tau: float) -> Prediction:
        key = id(x), tau
        if key not in self._recorded:
            self._recorded[key] = x, self._predict(x, tau)
        return self._recorded[key][1]

    def replay(self, x: Tensor, tau: float) -> Prediction:
        """A recorded prediction, or a new one that is not recorded."""
        recorded = self._recorded.get((id(x), tau))
        return self._predict(x, tau) if recorded is None else recorded[1]


@dataclass(frozen=True, eq=False)
class Rollouts:
    """Rollouts of a sampler from a pool of noises, and their errors against the reference.

    The last rollout is kept, with the memory before each step, so that its derivatives begin where a time moves.

    Attributes:
        predict: The network call, in the coordinates of the rollouts.
        sampler: A deterministic step sampler.
        x: First states, ``(B, *D)``, in the same coordinates.
        targets: Reference solutions at the last time, ``(B, *D)``, in x.
        to_x: Takes the last state to x.
        relative_step: Size of a finite difference relative to the shorter adjacent step, see `finite_difference_step`.
        weights: Weights of the rollouts, ``(B,)``, 1 on average.
    """

    predict: Predict
    sampler: StepSampler
    x: Tensor
    targets: Tensor
    to_x: Callable[[Tensor], Tensor]
    relative_step: float
    weights: Tensor
    _last: dict[tuple[float, ...], _Recorded] = field(default_factory=dict, init=False, repr=False)

    def end(self, taus: Sequence[float]) -> Tensor:
        """Last states over the times ``taus``, in x, ``(B, *D)``."""
        return self._record(taus).end

    def error(self, taus: Sequence[float]) -> float:
        """Weighted root mean square error over all elements; infinite if the times do not fall or a state diverges."""
        return self._evaluate(taus, self._robust.root_mean_square)

    def loss(self, taus: Sequence[float]) -> float:
        """The `RobustLoss`; infinite under the same conditions as `error`."""
        return self._evaluate(taus, self._robust.value)

    def influence(self, taus: Sequence[float]) -> Tensor:
        """Roots of the factors by which the loss weights the squared errors of the rollouts, ``(B, 1, …)``."""
        squares = self._squares(self.end(taus))
        root = self._robust.influence(squares).sqrt()
        return root.reshape(-1, *[1] * (self.targets.ndim - 1))

    def residual(self, taus: Sequence[float], weight: Tensor) -> Tensor:
        """Differences of the last states from the targets, times a weight, ``(n,)``."""
        return ((self.end(taus) - self.targets) * weight).flatten()

    def jacobian(self, taus: Sequence[float], moved: Sequence[float], moves: Sequence[float], weight: Tensor) -> Tensor:
        """Derivatives of `residual` in the interior times, ``(n, steps - 1)``, by finite differences.

        A step is a pure function, so the rollout with one moved time is recomputed only from the step before that time,
        and that step's first prediction is known.

        Args:
            taus: The ``steps + 1`` times.
            moved: For each interior time, its value after a small move.
            moves: The move of each, in the variable of the derivative.
            weight: See `influence`.
        """
        recorded, columns = self._record(taus), []
        for i, (tau, move) in enumerate(zip(moved, moves, strict=True)):
            times, (x, memory) = [taus[i], tau, *taus[i + 2 :]], recorded.history[i]
            end = self.to_x(rollout(self.sampler, recorded.memo.replay, times, x, memory))
            columns.append(((end - recorded.end) / move * weight).flatten())
        return torch.stack(columns, 1)

    @cached_property
    def _robust(self) -> RobustLoss:
        return RobustLoss.of(self.targets, self.weights)

    def _squares(self, end: Tensor) -> Tensor:
        return (end - self.targets).reshape(len(end), -1).square().mean(1)

    def _evaluate(self, taus: Sequence[float], reduce: Callable[[Tensor], float]) -> float:
        if not all(tau > s for tau, s in zip(taus, taus[1:])):
            return math.inf
        return reduce(self._squares(self.end(taus)))

    def _record(self, taus: Sequence[float]) -> _Recorded:
        key = tuple(taus)
        if key not in self._last:
            self._last.clear()
            memo, history = _Memo(self.predict), []
            end = self.to_x(rollout(self.sampler, memo, taus, self.x, None, history))
            self._last[key] = _Recorded(end, history, memo)
        return self._last[key]


@dataclass(frozen=True, eq=False)
class _Recorded:
    """A rollout: its last states in x, state and memory before each step, and its network calls."""

    end: Tensor
    history: list[Any]
    memo: _Memo


def rollout(
    sampler: StepSampler,
    predict: Predict,
    taus: Sequence[float],
    x: Tensor,
    memory: Any = None,
    history: list[Any] | None = None,
) -> Tensor:
    """The last state of a deterministic sampler over the times ``taus``.

    Args:
        sampler: The sampler; its own grid is not used.
        predict: The network call.
        taus: Decreasing times.
        x: First state, ``(B, *D)``.
        memory: The memory before the first step.
        history: A list to which the state and the memory before each step are appended, or None.
    """
    for tau, s in zip(taus, taus[1:]):
        if history is not None:
            history.append((x, memory))
        x, memory = sampler.step(predict, x, tau, s, _refuse_noise, memory)
    return x


def finite_difference_step(model: Model, x: Tensor) -> float:
    """The cube root of the coarsest machine epsilon among the state and the network's parameters."""
    types = {value.dtype for value in (x, *model.parameters()) if value.is_floating_point()}
    return max(torch.finfo(dtype).eps for dtype in types) ** (1 / 3)


def _refuse_noise() -> Tensor:
    raise AssertionError("a deterministic sampler drew noise")
