r"""At which times does a sampler stop? A grid is ``steps + 1`` strictly falling OU times, from the start to its end.

The chain's grid ends at 0 (its last step is τ₁ → 0); every other ends at ``tau_min``. No time is rounded, so there are
exactly ``steps`` distinct steps whatever the clock's own length.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from scoresde import _tensor as t
from scoresde import ou
from scoresde.sde import SDE

__all__ = ["Chain", "Custom", "Grid", "UniformAngle", "UniformLogSNR", "UniformTau", "UniformU"]


class Grid(ABC):
    """A rule for the times between a start and an end."""

    @abstractmethod
    def place(self, sde: SDE, steps: int, start: float) -> list[float]:
        """``steps + 1`` OU times falling from ``start`` to the grid's end; unchecked."""

    def times(self, sde: SDE, steps: int, start: float | None = None) -> list[float]:
        """The times, checked.

        Args:
            sde: The process, whose clock, ``tau_min`` and end are used.
            steps: Number of steps.
            start: OU time of the first; default the end of the clock.

        Raises:
            ValueError: If ``steps`` is not a positive integer, ``start`` is not above the grid's end, or the times do
                not fall strictly.
        """
        t.check_steps(steps)
        first = sde.tau_max if start is None else float(start)
        if not sde.tau_min < first <= sde.tau_max * (1 + 1e-6):
            raise ValueError(
                f"a start must lie in (tau_min, tau_max] = ({sde.tau_min:g}, {sde.tau_max:g}], got {first!r}."
            )
        times = self.place(sde, steps, first)
        for i, (tau, s) in enumerate(zip(times, times[1:])):
            if not (tau > s >= 0 and math.isfinite(s)):
                raise ValueError(
                    f"a grid must fall strictly and stay at or above 0, but {self} gives {tau!r} then {s!r} at step "
                    f"{i + 1} of {steps}; use fewer steps, another grid, or a clock with a finite end."
                )
        if abs(times[0] - first) > 1e-6 * first:
            raise ValueError(
                f"a grid must begin where sampling starts, at tau = {first!r}, but {self} begins at {times[0]!r}; "
                f"pass start={times[0]!r}."
            )
        if len(times) != steps + 1:
            raise ValueError(f"{self} has {len(times) - 1} steps, but {steps} were asked for; make them agree.")
        return times


def _even(
    to: Callable[[float], float], back: Callable[[float], float], start: float, end: float, steps: int
) -> list[float]:
    """Evenly spaced in ``to(tau)``; the two ends are kept exactly."""
    a, b = to(start), to(end)
    return [start, *(back(a + (b - a) * i / steps) for i in range(1, steps)), end]


@dataclass(frozen=True)
class Chain(Grid):
    """The DDPM chain: even in u from the start's, down to u = 0, where τ is taken as 0: τ_K … τ_1, 0."""

    def place(self, sde: SDE, steps: int, start: float) -> list[float]:
        """τ(u_start · k / steps) for k = steps … 1, then 0."""
        if start == sde.tau_max:
            return sde.schedule.knots(steps)[::-1]
        u = float(sde.schedule.u(start))
        return [start, *(float(sde.schedule.tau(u * k / steps)) for k in range(steps - 1, 0, -1)), 0.0]


@dataclass(frozen=True)
class UniformU(Grid):
    """Even in the clock's u, from the start down to ``tau_min``."""

    def place(self, sde: SDE, steps: int, start: float) -> list[float]:
        """See the class."""
        clock = sde.schedule
        return _even(lambda v: float(clock.u(v)), lambda v: float(clock.tau(v)), start, sde.tau_min, steps)


@dataclass(frozen=True)
class UniformTau(Grid):
    """Even in OU time, from the start down to ``tau_min``."""

    def place(self, sde: SDE, steps: int, start: float) -> list[float]:
        """See the class."""
        return _even(float, float, start, sde.tau_min, steps)


@dataclass(frozen=True)
class UniformLogSNR(Grid):
    """Even in log-SNR, from the start down to ``tau_min``; needs a start with some signal left."""

    def place(self, sde: SDE, steps: int, start: float) -> list[float]:
        """See the class."""
        return _even(lambda v: float(ou.log_snr(v)), lambda v: float(ou.tau_from_log_snr(v)), start, sde.tau_min, steps)


@dataclass(frozen=True)
class UniformAngle(Grid):
    """Even in the angle φ = atan(σ/α), from the start down to ``tau_min``."""

    def place(self, sde: SDE, steps: int, start: float) -> list[float]:
        """See the class."""
        return _even(lambda v: float(ou.angle(v)), lambda v: float(ou.tau_from_angle(v)), start, sde.tau_min, steps)


@dataclass(frozen=True)
class Custom(Grid):
    """The user's own OU times.

    Args:
        taus: Strictly falling, the last at 0 or above; the first is the start.
    """

    taus: tuple[float, ...]

    def place(self, sde: SDE, steps: int, start: float) -> list[float]:
        """The times as given, however many steps were asked for (`times` refuses a disagreement)."""
        return [float(tau) for tau in self.taus]
