"""The interval of a benchmark: a clock, the noise-to-signal ratio where samplers start, and that where they end."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from scoresde.process import ou
from scoresde.process.schedule import Schedule
from scoresde.process.sde import SDE

__all__ = ["Span", "ratio"]


def ratio(tau: float) -> float:
    """sigma/alpha at OU time ``tau``."""
    return math.exp(-0.5 * float(ou.log_snr(tau)))


@dataclass(frozen=True)
class Span:
    """From ``start`` down to ``end`` on a clock, OU times.

    Attributes:
        clock: The schedule that the network was trained on.
        start: OU time of the start.
        end: OU time of the end.
        u_end: Clock value of the end.
    """

    clock: Schedule
    start: float
    end: float
    u_end: float

    @classmethod
    def of(cls, sde: SDE) -> Span:
        """The whole clock of a process, down to ``tau_min``."""
        return cls(sde.schedule, sde.tau_max, sde.tau_min, sde.u_min)

    def clipped(self, log_snr: float) -> Span:
        """The span from the time of ``log_snr`` on, if it starts before."""
        return replace(self, start=min(self.start, float(ou.tau_from_log_snr(log_snr))))

    @property
    def u_start(self) -> float:
        """Clock value of the start."""
        return 1.0 if self.start == self.clock.tau_max else float(self.clock.u(self.start))

    @cached_property
    def first(self) -> float:
        """sigma/alpha at the start."""
        return ratio(self.start)

    @cached_property
    def last(self) -> float:
        """sigma/alpha at the end."""
        return ratio(self.end)
