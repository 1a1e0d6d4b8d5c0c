r"""Other times at which a network may want to be called: another clock, a shifted flow time, another step.

An adapter calls its network at $u(\tau)$ of a clock. A network that was trained with another clock $u'$ is called right
at the time $\tau'$ with $u(\tau') = u'(\tau)$. A flow time shifted by s changes the log-SNR by $-2\log s$.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from scoresde.adapters import Adapter, FromSigma, FromStep, FromTime
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.schedule import Cosine, FromBetas, LinearBetas, Schedule, Sigmoid, StraightPath

__all__ = ["Time", "chain_of", "clock_of", "step_offset", "time_alternatives"]

Time = Callable[[float], float | None]

_SHIFTS = (1.5, 2.0, 3.0, 5.0, 8.0)
_ALIKE = 0.25  # clocks whose log-SNRs differ by less count as one
_PROBES = (0.1, 0.25, 0.5, 0.75, 0.9)


def time_alternatives(model: Model) -> list[tuple[str, str, str, Time]]:
    """Question, name, remedy and time of each alternative.

    Args:
        model: Its adapter's clock is the stated one, without an adapter that of its process.
    """
    result = []
    clock = clock_of(model)
    if clock is not None:
        for name, other in _clocks().items():
            if not _alike(clock, other):
                remedy = f"give the adapter (and the process) this clock: {name}"
                result.append(("time", f"its time belongs to the clock {name}", remedy, other_clock(clock, other)))
    for shift in (*_SHIFTS, *(1.0 / s for s in _SHIFTS)):
        name = f"its time is that of a noise level {_fold(shift)}, as a flow time shifted by {shift:.3g}"
        remedy = (
            f"a shift of the flow time moves the grid only; call the network at the time of the noise level, without "
            f"the shift (or with it, if it was trained so): the level that it needs is {shift:.3g} times the one it got"
        )
        result.append(("time", name, remedy, shifted(shift)))
    if isinstance(getattr(model, "net", None), FromSigma):
        for factor, text in ((0.25, "a quarter"), (4.0, "four times"), (0.5, "half"), (2.0, "twice")):
            remedy = 'choose FromSigma\'s level: "sigma", "log", "quarter log" or "angle"'
            result.append(("time", f"its time is {text} of the log-SNR it got", remedy, scaled(factor)))
    return result


def _fold(shift: float) -> str:
    return f"{shift:.3g} times as large" if shift > 1 else f"{1 / shift:.3g} times as small"


def clock_of(model: Model) -> Schedule | None:
    """The clock from which the network's time is computed; None for a network of the noise level."""
    net = getattr(model, "net", None)
    if isinstance(net, FromStep):
        return net.clock
    if isinstance(net, FromTime):
        return net.sde.schedule
    return None if isinstance(net, Adapter) else model.sde.schedule


def chain_of(model: Model) -> tuple[Schedule, int] | None:
    """The clock and the number of steps of a network that takes steps; None for any other."""
    net = getattr(model, "net", None)
    if isinstance(net, FromStep):
        return net.clock, net.steps
    if isinstance(net, FromTime) and net.scale >= 10:
        return net.sde.schedule, round(net.scale)
    return None


def _clocks() -> dict[str, Schedule]:
    roots = [math.sqrt(0.00085) + (math.sqrt(0.012) - math.sqrt(0.00085)) * k / 999 for k in range(1000)]
    return {
        "LinearBetas(), or LinearVP(), which is almost the same": LinearBetas(),
        "Cosine()": Cosine(),
        "scaled linear betas from 0.00085 to 0.012": FromBetas(tuple(root * root for root in roots)),
        "StraightPath()": StraightPath(),
        "Sigmoid()": Sigmoid(),
    }


def _alike(clock: Schedule, other: Schedule) -> bool:
    gaps = [abs(float(ou.log_snr(clock.tau(u))) - float(ou.log_snr(other.tau(u)))) for u in _PROBES]
    return max(gaps) < _ALIKE


def other_clock(stated: Schedule, clock: Schedule) -> Time:
    """The time at which the stated clock shows what ``clock`` shows at tau; None outside of it."""

    def time(tau: float) -> float | None:
        if not max(clock.tau_start, 1e-12) <= tau <= clock.tau_max:
            return None
        return float(stated.tau(float(clock.u(tau))))

    return time


def shifted(shift: float) -> Time:
    """The time at a noise level σ/α that is ``shift`` times as large."""
    return lambda tau: float(ou.tau_from_log_snr(float(ou.log_snr(tau)) - 2.0 * math.log(shift)))


def scaled(factor: float) -> Time:
    """The time at ``factor`` times the log-SNR."""
    return lambda tau: float(ou.tau_from_log_snr(factor * float(ou.log_snr(tau))))


def step_offset(clock: Schedule, steps: int, offset: int) -> Time:
    """The time ``offset`` steps later on a chain; None before its first step or after its last."""

    def time(tau: float) -> float | None:
        u = float(clock.u(tau)) + offset / steps
        return float(clock.tau(u)) if 1.0 / steps - 1e-9 <= u <= 1.0 else None

    return time
