"""How is a number written? A value and its error, rounded; means over seeds; seconds as people say them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

__all__ = ["Number", "duration", "mean"]


@dataclass(frozen=True)
class Number:
    """A value and its uncertainty, either of which may be unknown."""

    value: float | None
    error: float | None = None

    def text(self, digits: int = 3, factor: float = 1.0) -> str:
        """The value, or a dash."""
        return "–" if self.value is None else f"{factor * self.value:.{digits}f}".replace("-", "−")

    def error_text(self, digits: int = 3, factor: float = 1.0) -> str:
        """± and the error, or nothing."""
        return "" if self.error is None else f"± {factor * self.error:.{digits}f}"


def duration(seconds: float) -> str:
    """Seconds as people say them: ``8.2 s``, ``4 min 05 s``."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def mean(entries: list[dict[str, Any] | float | None]) -> Number:
    """Of numbers, or of ``{"value", "stderr"}``, over seeds; the error is their standard deviation, or that of the one.

    Args:
        entries: One per seed; None is unknown.
    """
    pairs = [(e, None) if not isinstance(e, dict) else (e["value"], e.get("stderr")) for e in entries]
    known = [(float(value), error) for value, error in pairs if value is not None]
    if not known:
        return Number(None)
    values = [value for value, _ in known]
    return Number(fmean(values), stdev(values) if len(values) > 1 else known[0][1])
