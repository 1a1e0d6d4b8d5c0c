"""Numbers of the report: a value and its error as rounded text, and means over seeds."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

__all__ = ["Number", "mean"]


@dataclass(frozen=True)
class Number:
    """A value and its error; None where one is unknown."""

    value: float | None
    error: float | None = None

    def text(self, digits: int = 3, factor: float = 1.0) -> str:
        """The rounded value, times ``factor``, a 0 without a sign; a dash if it is unknown."""
        if self.value is None:
            return "–"
        return f"{round(factor * self.value, digits) + 0.0:.{digits}f}".replace("-", "−")

    def error_text(self, digits: int = 3, factor: float = 1.0) -> str:
        """± and the rounded error, times ``factor``; empty if it is unknown."""
        return "" if self.error is None else f"± {factor * self.error:.{digits}f}"


def mean(entries: list[dict[str, Any] | float | None]) -> Number:
    """The mean over seeds; its error is the standard deviation over seeds, or the error of a single entry.

    Args:
        entries: One per seed: a number, ``{"value", "stderr"}``, or None if unknown.
    """
    pairs = [(e, None) if not isinstance(e, dict) else (e["value"], e.get("stderr")) for e in entries]
    known = [(float(value), error) for value, error in pairs if value is not None]
    if not known:
        return Number(None)
    values = [value for value, _ in known]
    return Number(fmean(values), stdev(values) if len(values) > 1 else known[0][1])
