"""State of adaptive timesteps during a training run: a few tensors, equal in all of its processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from scoresde._core.noise import Noise
from scoresde.model import Model
from scoresde.objective.base import Objective
from scoresde.objective.timesteps import AdaptiveTimesteps
from scoresde.objective.timesteps.base import stratify
from scoresde.process.base import Process

__all__ = ["AdaptiveTimestepState"]


class AdaptiveTimestepState:
    """The loss of a run; its timesteps adapt to it if they are `AdaptiveTimesteps`.

    Args:
        loss: The objective: an `Objective`, or the loss of a `TrainingSource`, which has no timesteps.
        sde: The process.
        accelerator: Of the run.

    Attributes:
        state: Of the adaptive timesteps; empty for others.
    """

    def __init__(self, loss: Objective | Callable[..., Tensor], sde: Process, accelerator: Accelerator) -> None:
        self._loss, self._sde, self._accelerator = loss, sde, accelerator
        timesteps = loss.timesteps if isinstance(loss, Objective) else None
        self._timesteps = timesteps if isinstance(timesteps, AdaptiveTimesteps) else None
        self.state: dict[str, Tensor] = (
            {} if self._timesteps is None else self._timesteps.initial_state(sde, accelerator.device)
        )
        self._statistics: list[Tensor] = []

    def losses(self, model: Model, x0: Tensor, **cond: Any) -> Tensor:
        """The loss of each sample, ``(B,)``; timesteps and noise come from the global random state."""
        if self._timesteps is None or not isinstance(self._loss, Objective):
            return self._loss(model, x0, **cond)
        noise = Noise()
        uniforms = stratify(self._timesteps.uniforms(x0, noise))
        draw = self._timesteps.inverse_cdf(uniforms, self._sde, self.state)
        losses = self._loss.at(model, x0, draw, model.sde.draw_noise(x0, noise), **cond)
        self._statistics.append(self._timesteps.loss_statistics(draw, losses, self._sde))
        return losses

    def update(self, finite: Tensor) -> None:
        """Updates the state from all processes' losses since the last update.

        Args:
            finite: Whether the gradient was finite, bool, ``()``; if not, the state stays.
        """
        if self._timesteps is None:
            return
        statistics = self._statistics[0] if len(self._statistics) == 1 else torch.stack(self._statistics).sum(0)
        self._statistics.clear()
        if self._accelerator.num_processes > 1:
            statistics = torch.as_tensor(self._accelerator.reduce(statistics, "sum"))
        updated = self._timesteps.updated_state(self.state, statistics, self._sde)
        self.state = {name: torch.where(finite, updated[name], value) for name, value in self.state.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Replaces the state by a stored one.

        Raises:
            ValueError: If names or shapes differ from those of the run's timesteps.
        """
        if {n: v.shape for n, v in state.items()} != {n: v.shape for n, v in self.state.items()}:
            raise ValueError(
                f"the state of adaptive timesteps must have the names and shapes of {sorted(self.state)}, got "
                f"{sorted(state)}; resume with the timesteps of the stored run."
            )
        self.state = {name: value.to(self.state[name]) for name, value in state.items()}
