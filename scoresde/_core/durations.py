"""Durations in words: measured ones with their seconds, estimated ones rounded."""

from __future__ import annotations

__all__ = ["about", "duration"]


def duration(seconds: float) -> str:
    """A measured duration: ``8.2 s``, ``4 min 05 s``, ``2 h 05 min``."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest:02d} s"
    return "{} h {:02d} min".format(*divmod(round(seconds / 60), 60))


def about(seconds: float) -> str:
    """An estimated duration, rounded: ``9 s``, ``12 min``, ``3.1 h``, ``4.2 days``."""
    for size, unit in ((86400.0, "days"), (3600.0, "h")):
        if seconds >= 1.5 * size:
            count = seconds / size
            return f"{count:.1f} {unit}" if count < 9.95 else f"{count:.0f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 99.5 else f"{max(seconds, 1.0):.0f} s"
