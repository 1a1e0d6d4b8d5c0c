r"""Rollouts of a sampler from a pool of noises, and their errors against reference solutions.

A `NoisePool` holds starting noises, the reference solutions from them, and weights. `Rollouts` integrates the sampler
from the same noises over any grid of times and measures how far the results are from the reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from scoresde.model import Model
from scoresde.process.parameterization import Prediction
from scoresde.sampling.base import Predict, StepSampler

__all__ = ["NoiseBatch", "NoisePool", "Rollouts", "finite_difference_step", "rollout"]


@dataclass(frozen=True, eq=False)
class NoiseBatch:
    """Starting noises with their conditioning.

    Attributes:
        x: Noises, ``(B, *D)``.
        cond: Passed to the network, one entry per noise.
        batch_size: Noises per network call; None for all at once.
    """

    x: Tensor
    cond: dict[str, Tensor]
    batch_size: int | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice | Tensor) -> NoiseBatch:
        return replace(self, x=self.x[rows], cond={name: value[rows] for name, value in self.cond.items()})

    def predict(self, model: Model) -> Predict:
        """The network call for states ``(B, *D)``, one for each noise, in parts of ``batch_size``."""
        size = self.batch_size
        if size is None or len(self) <= size:
            return partial(model.predict, **self.cond)
        parts = [self[begin : begin + size] for begin in range(0, len(self), size)]

        def batched(x: Tensor, tau: float) -> Prediction:
            predictions = [model.predict(rows, tau, **part.cond) for rows, part in zip(x.split(size), parts)]
            out = torch.cat([prediction.out for prediction in predictions])
            return Prediction(x, tau, out, predictions[0].parameterization)

        return batched


@dataclass(frozen=True, eq=False)
class NoisePool:
    """Noises with their reference solutions and weights.

    Attributes:
        noises: The noises.
        targets: Reference solutions from them, in x at the last time, ``(B, *D)``.
        weights: ``(B,)``, 1 on average.
    """

    noises: NoiseBatch
    targets: Tensor
    weights: Tensor

    @staticmethod
    def equally_weighted(noises: NoiseBatch, targets: Tensor) -> NoisePool:
        """A pool in which every weight is 1."""
        return NoisePool(noises, targets, torch.ones(len(noises), dtype=targets.dtype, device=targets.device))

    def with_hardest(self, hardest: NoiseBatch, targets: Tensor, easy: Tensor, total: int) -> NoisePool:
        """This pool, a random sample of all noises, joined by the hardest of the others; weighted to stand for all.

        The hardest noises, and those of this pool that are as hard, have the weight of one noise. The easy ones of this
        pool share the weight of all remaining noises. Weighted means then estimate means over all noises.

        Args:
            hardest: The hardest of all noises that are not in this pool.
            targets: Reference solutions from ``hardest``.
            easy: Which noises of this pool are easier than every one of ``hardest``, bool ``(B,)``.
            total: Number of all noises, those of this pool included.
        """
        cond = {name: torch.cat([value, hardest.cond[name]]) for name, value in self.noises.cond.items()}
        ones, easy = torch.ones(len(hardest)).to(self.weights), easy.to(self.weights)
        self_weighted = len(hardest) + len(easy) - easy.sum()
        weights = torch.cat([1 - easy + easy * (total - self_weighted) / easy.sum().clamp(min=1.0), ones])
        noises = replace(self.noises, x=torch.cat([self.noises.x, hardest.x]), cond=cond)
        return NoisePool(noises, torch.cat([self.targets, targets]), weights / weights.mean())


@dataclass(frozen=True, eq=False)
class Rollouts:
    r"""Rollouts of a sampler from a pool of noises, and their errors against the reference.

    A rollout that ends at another mode than its reference has an error as large as the distance between the modes. A
    small change of a time does not correct it. The loss limits the influence of such rollouts. It is the weighted mean
    of $\log(1 + e^2/c^2)$, with e the root mean square error of a rollout and c the spread of the targets. Up to the
    factor c² it is the mean square error where errors are small.

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

    def end(self, taus: Sequence[float]) -> Tensor:
        """Last states over the times ``taus``, in x, ``(B, *D)``."""
        return self._end(taus, self.x, None)

    def error(self, taus: Sequence[float]) -> float:
        """Weighted root mean square error over all elements; infinite if the times do not fall or a state diverges."""
        return self._evaluate(taus, lambda squares: math.sqrt((squares * self.weights).mean()))

    def loss(self, taus: Sequence[float]) -> float:
        """The loss of the class docstring; infinite under the same conditions as `error`."""
        return self._evaluate(
            taus, lambda squares: float(((squares / self._target_variance).log1p() * self.weights).mean())
        )

    def linearize(self, taus: Sequence[float], moved: Sequence[float], moves: Sequence[float]) -> tuple[Tensor, Tensor]:
        """All errors ``(n,)``, and their derivatives in the interior times ``(n, steps - 1)``, by finite differences.

        Both are weighted as the loss weights their rollouts. A step is a pure function, so the rollout with one moved
        time is recomputed only from the step before that time.

        Args:
            taus: The ``steps + 1`` times.
            moved: For each interior time, its value after a small move.
            moves: The move of each, in the variable of the derivative.
        """
        history, columns = [], []
        end = self._end(taus, self.x, None, history)
        weight = 1.0 + self._squared_errors(end) / self._target_variance
        weight = (self.weights / weight).sqrt().reshape(-1, *[1] * (end.ndim - 1))
        for i, (tau, move) in enumerate(zip(moved, moves, strict=True)):
            moved_end = self._end([taus[i], tau, *taus[i + 2 :]], *history[i])
            columns.append(((moved_end - end) / move * weight).flatten())
        return ((end - self.targets) * weight).flatten(), torch.stack(columns, 1)

    @cached_property
    def _target_variance(self) -> float:
        """c²: mean square of the targets about their mean; 1 where all are the same point."""
        return float((self.targets - self.targets.mean(0)).square().mean()) or 1.0

    def _squared_errors(self, end: Tensor) -> Tensor:
        return (end - self.targets).reshape(len(end), -1).square().mean(1)

    def _evaluate(self, taus: Sequence[float], reduce: Callable[[Tensor], float]) -> float:
        if not all(tau > s for tau, s in zip(taus, taus[1:])):
            return math.inf
        value = reduce(self._squared_errors(self.end(taus)))
        return value if math.isfinite(value) else math.inf

    def _end(self, taus: Sequence[float], x: Tensor, memory: Any, history: list[Any] | None = None) -> Tensor:
        return self.to_x(rollout(self.sampler, self.predict, taus, x, memory, history))


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
