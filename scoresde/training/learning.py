"""Where is kept what times learn from the loss? In a few tensors of the run, the same in all of its processes."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from scoresde._tensor import Noise
from scoresde.loss import Loss
from scoresde.model import Model
from scoresde.sde import SDE
from scoresde.times import Learned
from scoresde.times.base import spread

__all__ = ["Learning"]


class Learning:
    """The loss of a run, with times that follow it where they are `Learned`.

    Args:
        loss: What is minimised.
        sde: The process.
        accelerator: Of the run.

    Attributes:
        state: What was learned; empty where nothing is.
    """

    def __init__(self, loss: Loss, sde: SDE, accelerator: Accelerator) -> None:
        self._loss, self._sde, self._accelerator = loss, sde, accelerator
        self._times = loss.times if isinstance(loss.times, Learned) else None
        self.state: dict[str, Tensor] = {} if self._times is None else self._times.fresh(sde, accelerator.device)
        self._seen: list[Tensor] = []

    def each(self, model: Model, x0: Tensor, **cond: Any) -> Tensor:
        """The loss of each sample, ``(B,)``; global random state gives times and noise."""
        if self._times is None:
            return self._loss(model, x0, **cond)
        noise = Noise()
        draw = self._times.drawn(spread(self._times.base(x0, noise)), self._sde, self.state)
        each = self._loss.at(model, x0, draw, noise.normal(x0), **cond)
        self._seen.append(self._times.observed(draw, each, self._sde))
        return each

    def move(self, good: Tensor) -> None:
        """Learns from what all processes saw since the last time, if the update was ``good``."""
        if self._times is None:
            return
        seen = self._seen[0] if len(self._seen) == 1 else torch.stack(self._seen).sum(0)
        self._seen.clear()
        if self._accelerator.num_processes > 1:
            seen = torch.as_tensor(self._accelerator.reduce(seen, "sum"))
        moved = self._times.moved(self.state, seen, self._sde)
        self.state = {name: torch.where(good, moved[name], value) for name, value in self.state.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Takes back what was learned.

        Raises:
            ValueError: If it is not what these times learn.
        """
        if {n: v.shape for n, v in state.items()} != {n: v.shape for n, v in self.state.items()}:
            raise ValueError(f"learned times have {sorted(self.state)}, got {sorted(state)} of other shapes or names.")
        self.state = {name: value.to(self.state[name]) for name, value in state.items()}
