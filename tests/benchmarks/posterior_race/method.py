"""What a method of the benchmark is: a name, and a function from a problem and an amount of work to samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posterior_race.problems import Problem
from scoresde.model import Model
from scoresde.process.prediction import Prediction

__all__ = ["Counted", "Method", "Run"]


@dataclass(frozen=True)
class Run:
    """Samples, ``(count, *D)``, and the work that each took: evaluations and Jacobian products of the model."""

    x: Tensor
    work: float


@dataclass(frozen=True)
class Method:
    """A configuration.

    Attributes:
        group: "exact", "ours", "particles" (more work than the others) or the library.
        name: Method, settings and sampler.
        run: Maps (problem, work per sample, seed) to samples.
        problems: Where it can be used.
    """

    group: str
    name: str
    run: Callable[[Problem, int, int], Run]
    problems: str = "ABCDEF"

    def __str__(self) -> str:
        return f"{self.group:9s} {self.name}"


class Counted(Model):
    """A model that counts its evaluations and the backward passes through them: the work of one sample."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model, self.work = model, 0
        self.sde, self.event_shape = model.sde, model.event_shape

    def _count(self, gradient: Tensor) -> None:
        self.work += 1

    def predict(self, x: Tensor, tau: Any, **cond: object) -> Prediction:
        self.work += 1
        prediction = self.model.predict(x, tau, **cond)
        if torch.is_grad_enabled() and prediction.out.requires_grad:
            prediction.out.register_hook(self._count)
        return prediction
