"""Where is kept what times learn from the loss? In a few tensors of the run, the same in all of its processes."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from scoresde._core.noise import Noise
from scoresde.model import Model
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import AdaptiveTimesteps
from scoresde.objective.timesteps.base import spread
from scoresde.process.sde import SDE

__all__ = ["AdaptiveTimestepState"]


class AdaptiveTimestepState:
    """The loss of a run, with times that follow it where they are `AdaptiveTimesteps`.

    Args:
        loss: What is minimized.
        sde: The process.
        accelerator: Of the run.

    Attributes:
        state: What was learned; empty where nothing is.
    """

    def __init__(self, loss: Loss, sde: SDE, accelerator: Accelerator) -> None:
        self._loss, self._sde, self._accelerator = loss, sde, accelerator
        self._timesteps = loss.timesteps if isinstance(loss.timesteps, AdaptiveTimesteps) else None
        self.state: dict[str, Tensor] = (
            {} if self._timesteps is None else self._timesteps.fresh(sde, accelerator.device)
        )
        self._seen: list[Tensor] = []

    def each(self, model: Model, x0: Tensor, **cond: Any) -> Tensor:
        """The loss of each sample, ``(B,)``; global random state gives times and noise."""
        if self._timesteps is None:
            return self._loss(model, x0, **cond)
        noise = Noise()
        draw = self._timesteps.drawn(spread(self._timesteps.base(x0, noise)), self._sde, self.state)
        each = self._loss.at(model, x0, draw, noise.normal(x0), **cond)
        self._seen.append(self._timesteps.observed(draw, each, self._sde))
        return each

    def move(self, good: Tensor) -> None:
        """Learns from what all processes saw since the last time, if the update was ``good``."""
        if self._timesteps is None:
            return
        seen = self._seen[0] if len(self._seen) == 1 else torch.stack(self._seen).sum(0)
        self._seen.clear()
        if self._accelerator.num_processes > 1:
            seen = torch.as_tensor(self._accelerator.reduce(seen, "sum"))
        moved = self._timesteps.moved(self.state, seen, self._sde)
        self.state = {name: torch.where(good, moved[name], value) for name, value in self.state.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Takes back what was learned.

        Raises:
            ValueError: If it is not what these times learn.
        """
        if {n: v.shape for n, v in state.items()} != {n: v.shape for n, v in self.state.items()}:
            raise ValueError(f"learned times have {sorted(self.state)}, got {sorted(state)} of other shapes or names.")
        self.state = {name: value.to(self.state[name]) for name, value in state.items()}
