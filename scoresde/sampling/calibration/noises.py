"""Noises to fit to: batches with their conditioning, and weighted pools with their reference solutions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from scoresde.model import Model
from scoresde.process.prediction import GaussianPrediction, Prediction
from scoresde.sampling.base import Predict
from scoresde.sampling.calibration.meter import Meter

__all__ = ["NoiseBatch", "NoisePool"]


@dataclass(frozen=True, eq=False)
class NoiseBatch:
    """Starting noises with their conditioning.

    Attributes:
        x: Noises, ``(B, *D)``.
        cond: Passed to the network, one entry per noise.
        batch_size: Noises per network call; None for all at once.
        meter: Counts the network evaluations.
    """

    x: Tensor
    cond: dict[str, Tensor]
    batch_size: int | None = None
    meter: Meter = field(default_factory=Meter)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice | Tensor) -> NoiseBatch:
        return replace(self, x=self.x[rows], cond={name: value[rows] for name, value in self.cond.items()})

    def predict(self, model: Model) -> Predict:
        """The network call for states ``(B, *D)``, one for each noise, in parts of ``batch_size``."""
        size = min(self.batch_size or len(self), len(self))
        parts = [self[begin : begin + size] for begin in range(0, len(self), size)]

        def batched(x: Tensor, tau: float) -> Prediction:
            self.meter.add(len(x) * model.cost)
            predictions = [model.predict(rows, tau, **part.cond) for rows, part in zip(x.split(size), parts)]
            if len(predictions) == 1:
                return predictions[0]
            out = torch.cat([prediction.out for prediction in predictions])
            return GaussianPrediction(x, tau, out, predictions[0].parameterization)

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

    def __getitem__(self, rows: slice) -> NoisePool:
        weights = self.weights[rows]
        return NoisePool(self.noises[rows], self.targets[rows], weights / weights.mean())

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
