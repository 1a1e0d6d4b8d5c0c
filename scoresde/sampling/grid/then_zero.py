"""Grids that end at τ = 0 with a step of their own: `ThenZero`, and `ShiftedFlow` of flow matching."""

from __future__ import annotations

from dataclasses import dataclass

from scoresde._core.checks import check_kind, check_positive
from scoresde.process import ou
from scoresde.process.base import Process
from scoresde.process.schedule import StraightPath
from scoresde.sampling.grid.base import Grid
from scoresde.sampling.grid.uniform import Karras

__all__ = ["ShiftedFlow", "ThenZero"]


@dataclass(frozen=True)
class ThenZero(Grid):
    """The times of ``grid`` with one step fewer, then 0. A single step leads from the start to 0.

    Args:
        grid: A grid that ends at ``tau_min``.

    Source: Karras et al. 2022, eq. 5: n noise levels from σ_max to σ_min, then 0.
    """

    grid: Grid = Karras()

    def __post_init__(self) -> None:
        check_kind("grid", self.grid, Grid)

    def knots(self, sde: Process, steps: int, start: float) -> list[float]:
        return [start, 0.0] if steps == 1 else [*self.grid.knots(sde, steps - 1, start), 0.0]


@dataclass(frozen=True)
class ShiftedFlow(Grid):
    r"""n noise levels of the straight path, $\sigma' = s\sigma/(1 + (s - 1)\sigma)$ with σ even, then 0.

    σ is even from the start, 1 at the end of the clock, down to ``last``. A shift above 1 makes the steps shorter near
    pure noise. It changes the times only, not the process.

    Args:
        shift: s.
        last: The last σ before 0; None for 1/n.

    Raises:
        ValueError: If a number is not positive, or ``last`` is not below 1.

    Source: Esser et al. 2024 (Stable Diffusion 3), section 5.3.2.
    """

    shift: float = 1.0
    last: float | None = None

    def __post_init__(self) -> None:
        check_positive(shift=self.shift)
        if self.last is not None and not 0 < self.last < 1:
            raise ValueError(f"last must lie in (0, 1), got {self.last!r}; None is one over the number of steps.")

    def knots(self, sde: Process, steps: int, start: float) -> list[float]:
        path, shift = StraightPath(), self.shift
        first = float(ou.sigma(start) / (ou.alpha(start) + ou.sigma(start)))
        first = first / (shift - (shift - 1.0) * first)
        last = 1.0 / steps if self.last is None else self.last
        levels = [first + (last - first) * i / max(steps - 1, 1) for i in range(1, steps)]
        return [start, *(float(path.tau(shift * v / (1.0 + (shift - 1.0) * v))) for v in levels), 0.0]
