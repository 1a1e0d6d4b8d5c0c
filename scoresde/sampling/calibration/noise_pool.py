"""From which noises is a sampler judged, and where do they lead? Where few of many decide the error, from mostly those.

Of a pool some noises are taken as they come, and with them those on which two rough walks end farthest apart; each
weighs as much as it stands for, so that weighted means are the pool's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from scoresde.model import Model
from scoresde.process.parameterization import Prediction
from scoresde.sampling.base import Predict

__all__ = ["NoiseBatch", "NoisePool"]


@dataclass(frozen=True, eq=False)
class NoiseBatch:
    """Noises and what goes with them.

    Attributes:
        x: ``(B, *D)``.
        cond: Passed to the network, one entry per noise.
        batch_size: Of a network call; None for all at once.
    """

    x: Tensor
    cond: dict[str, Tensor]
    batch_size: int | None = None

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, rows: slice | Tensor) -> NoiseBatch:
        return replace(self, x=self.x[rows], cond={name: value[rows] for name, value in self.cond.items()})

    def predict(self, model: Model) -> Predict:
        """The network call, for as many states as there are noises."""
        size = self.batch_size
        if size is None or len(self) <= size:
            return partial(model.predict, **self.cond)
        parts = [self[begin : begin + size] for begin in range(0, len(self), size)]

        def batched(x: Tensor, tau: float) -> Prediction:
            found = [model.predict(some, tau, **part.cond) for some, part in zip(x.split(size), parts)]
            return Prediction(x, tau, torch.cat([each.out for each in found]), found[0].parameterization)

        return batched


@dataclass(frozen=True, eq=False)
class NoisePool:
    """Noises, where the flow leads them and how much each counts.

    Attributes:
        draws: The noises.
        ends: ``(B, *D)``.
        weights: ``(B,)``, 1 on average.
    """

    draws: NoiseBatch
    ends: Tensor
    weights: Tensor

    @staticmethod
    def alike(draws: NoiseBatch, ends: Tensor) -> NoisePool:
        """All count the same."""
        return NoisePool(draws, ends, torch.ones(len(draws), dtype=ends.dtype, device=ends.device))

    def with_hard(self, hard: NoiseBatch, ends: Tensor, easy: Tensor, pool: int) -> NoisePool:
        """These and the hardest of a pool, of which these are a fair part.

        Args:
            hard: The hardest of the rest of the pool.
            ends: Where they lead.
            easy: Which of these are easier than all ``hard``, ``(B,)``; they stand for all that are.
            pool: How many noises there are.
        """
        cond = {name: torch.cat([value, hard.cond[name]]) for name, value in self.draws.cond.items()}
        ones, easy = torch.ones(len(hard)).to(self.weights), easy.to(self.weights)
        counted = len(hard) + len(easy) - easy.sum()
        weights = torch.cat([1 - easy + easy * (pool - counted) / easy.sum().clamp(min=1.0), ones])
        draws = replace(self.draws, x=torch.cat([self.draws.x, hard.x]), cond=cond)
        return NoisePool(draws, torch.cat([self.ends, ends]), weights / weights.mean())
