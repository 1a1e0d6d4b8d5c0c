"""Base class of time grids, which checks their times, and a grid of explicit times."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_integer
from scoresde.model import Model
from scoresde.process.base import Process

__all__ = ["ExplicitGrid", "Grid"]


class Grid(CheckedArguments, ABC):
    """A rule for the times between the start and the end of sampling: subclasses define `knots`, users call `times`."""

    @abstractmethod
    def knots(self, sde: Process, steps: int, start: float) -> list[float]:
        """``steps + 1`` OU times, falling from ``start`` to the grid's end; unchecked."""

    def for_model(self, model: Model) -> Grid:
        """The grid with the settings that it leaves to the model; default: this grid."""
        return self

    def times(self, sde: Process, steps: int, start: float | None = None) -> list[float]:
        """The knots, checked.

        Args:
            sde: The process; its clock, ``tau_min`` and ``tau_max`` are used.
            steps: Number of steps.
            start: The first OU time; default the end of the clock.

        Raises:
            ValueError: If ``steps`` is not a positive integer, ``start`` is not above the grid's end, or the times do
                not fall strictly.
        """
        check_integer("steps", steps)
        first = sde.tau_max if start is None else float(start)
        if not sde.tau_min < first <= sde.tau_max * (1 + 1e-6):
            raise ValueError(
                f"a start must lie in (tau_min, tau_max] = ({sde.tau_min:g}, {sde.tau_max:g}], got {first!r}."
            )
        times = self.knots(sde, steps, first)
        if len(times) != steps + 1:
            raise ValueError(f"{self} has {len(times) - 1} steps, but {steps} were asked for; make them agree.")
        for i, (tau, s) in enumerate(zip(times, times[1:])):
            if not (tau > s >= 0 and math.isfinite(s)):
                raise ValueError(
                    f"a grid must fall strictly and stay at or above 0, but {self} gives {tau!r} then {s!r} at step "
                    f"{i + 1} of {steps}; use fewer steps, another grid, or a clock with a finite end."
                )
        if not math.isclose(times[0], first, rel_tol=1e-6):  # true for two infinities
            raise ValueError(
                f"a grid must begin where sampling starts, at tau = {first!r}, but {self} begins at {times[0]!r}; "
                f"pass start={times[0]!r}."
            )
        return times


@dataclass(frozen=True)
class ExplicitGrid(Grid):
    """Explicit OU times.

    Args:
        taus: The times, strictly falling; the first is the start, the last is 0 or above.

    Raises:
        ValueError: If there are fewer than two.
    """

    taus: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.taus) < 2:
            raise ValueError(f"taus must be two times or more, a start and an end, got {self.taus!r}.")

    def knots(self, sde: Process, steps: int, start: float) -> list[float]:
        """The times themselves, for any ``steps`` (`times` refuses another number)."""
        return [float(tau) for tau in self.taus]
