"""Times of the jumps of a few-step student."""

from __future__ import annotations

from collections.abc import Sequence

from scoresde._core.checks import check_integer
from scoresde.process import ou
from scoresde.process.base import Process

__all__ = ["ALL_NODES", "jump_times", "nodes_between"]

_LAST_ANGLE = 0.5  # radians: where the last jump of several begins
ALL_NODES = 24
"""Intervals of the trajectories of a student of jumps between any two times."""


def jump_times(sde: Process, calls: int, taus: Sequence[float] | None = None) -> tuple[float, ...]:
    """The ``calls + 1`` times of a student of fixed jumps, from ``tau_max`` to ``tau_min``.

    The last jump begins at a small angle, so that it removes what the jump before left of an error within a mode.

    Args:
        sde: The process.
        calls: Number of jumps.
        taus: The times, if they are chosen by the user.

    Raises:
        ValueError: If the times do not fall from ``tau_max``, or their number does not fit.
    """
    check_integer("calls", calls)
    if taus is not None:
        times = tuple(float(tau) for tau in taus)
        if len(times) != calls + 1 or abs(times[0] - sde.tau_max) > 1e-6 * sde.tau_max:
            raise ValueError(
                f"taus must be {calls + 1} times from tau_max = {sde.tau_max:.6g}, got {times}; or leave them out."
            )
        return times
    first, last = ou.angle(sde.tau_max), ou.angle(sde.tau_min)
    middle = max(_LAST_ANGLE, last + 0.2 * (first - last)) if last > 0.5 * _LAST_ANGLE else _LAST_ANGLE
    inner = [middle + (first - middle) * (calls - 1 - i) / (calls - 1) for i in range(1, calls)] if calls > 1 else []
    return (sde.tau_max, *(ou.tau_from_angle(angle) for angle in inner), sde.tau_min)


def nodes_between(taus: Sequence[float], count: int) -> tuple[float, ...]:
    """The times with ``count - 1`` more between any two neighbors, even in the angle."""
    nodes = [taus[0]]
    for tau, s in zip(taus, taus[1:]):
        begin, end = ou.angle(tau), ou.angle(s)
        nodes += [ou.tau_from_angle(begin + (end - begin) * k / count) for k in range(1, count)]
        nodes.append(s)
    return tuple(nodes)
