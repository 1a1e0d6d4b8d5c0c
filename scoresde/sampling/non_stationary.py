r"""Non-stationary multistep methods: $x_{i+1} = c_i\,x_0 + \sum_{j \le i} b_{ij}\,v_j$, with weights fitted to a model.

Every multistep method of fixed steps has this form: a state is a linear combination of the first state and of the
velocities $v_j = dx/d\phi$ so far. `calibrate` fits the weights to a model.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

from scoresde._core.tensors import combine
from scoresde.process import ou
from scoresde.sampling.base import Predict, StepSampler
from scoresde.sampling.exponential import advance
from scoresde.sampling.grid import Grid, UniformAngle

__all__ = ["NonStationary"]


@dataclass(frozen=True)
class NonStationary(StepSampler):
    r"""A multistep sampler whose every step has weights of its own, one network call each.

    Args:
        steps: Number of steps.
        grid: The times of the steps; default `UniformAngle`.
        weights: For step i = 0, 1, … the ``i + 2`` numbers $c_i, b_{i0}, …, b_{ii}$, fitted by `calibrate` for this
            grid and one model. Empty for Euler's method in the angle, $x_{i+1} = x_i + (\phi_{i+1} - \phi_i)\,v_i$.

    Raises:
        ValueError: If the number of weights does not fit the steps.

    Source: Shaul et al. 2024 (bespoke non-stationary solvers). They fit by gradient descent through the network;
    `calibrate` by least squares on reference solutions.
    """

    steps: int = 20
    grid: Grid = field(default_factory=UniformAngle)
    weights: tuple[tuple[float, ...], ...] = ()

    order: ClassVar[int] = 1
    """That of Euler's method, without weights; fitted weights belong to one number of steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        lengths = [len(row) for row in self.weights]
        if lengths and lengths != list(range(2, self.steps + 2)):
            raise ValueError(
                f"weights must be {self.steps} rows of 2, 3, … numbers, one row for each step, got rows of {lengths}; "
                "fit them by calibrate."
            )

    def step(
        self, predict: Predict, x: Any, tau: Any, s: Any, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        velocity = predict(x, tau).v
        if not self.weights:
            return advance(x, 1.0, [ou.angle(s) - ou.angle(tau)], [velocity]), None
        first, velocities = (x, ()) if memory is None else memory
        velocities = (*velocities, velocity)
        on_first, *weights = self.weights[len(velocities) - 1]
        return advance(first, on_first, weights, list(velocities)), (first, velocities)

    def moved(self, memory: Any, tau: float, change: Any) -> Any:
        if memory is None:
            return None
        first, velocities = memory
        on_first = self.weights[len(velocities) - 1][0]
        return combine(1.0, first, 1.0 / on_first, change), velocities
