"""Callbacks of sampling: what a sampler reports after each step, and what an observer receives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from scoresde.process.prediction import Prediction

__all__ = ["Observer", "Progress", "StepHook"]

StepHook = Callable[[int, int, float, Tensor], None]
"""How a sampler reports a step: ``observe(done, steps, tau, x)``. It may raise, which ends sampling there."""


@dataclass(frozen=True, eq=False)
class Progress:
    """State of sampling after a step, as an observer receives it.

    Attributes:
        done, steps: Number of steps done, and of all steps. Adaptive solvers do not know theirs and report percent.
        tau: OU time of ``x``.
        x: State, not in the view's coordinates, ``(B, *D)``.
        prediction: The last network call, made at a time above ``tau``.
    """

    done: int
    steps: int
    tau: float
    x: Tensor
    prediction: Prediction

    @property
    def x0(self) -> Tensor:
        """Preview: the data estimate of the last network call, ``(B, *D)``; computed on access, without a call."""
        return self.prediction.x0


Observer = Callable[[Progress], object]
"""Called after each step. A true return value stops sampling there.

tqdm's ``update`` sometimes returns a true value: wrap it in a function that returns None."""
