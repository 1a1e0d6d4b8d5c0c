"""Dates and times of a table as numbers: days since 1970-01-01, or seconds since then; texts are ISO 8601."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

import numpy as np

from scoresde.data.tables.notation import DATE_RULE

__all__ = ["are_dates", "date_step", "dates_of", "days_of", "in_unit", "parse_dates"]

_ISO = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.(\d{1,6}))?)?(Z?))?")
_DAY = 86_400.0  # seconds
_STEPS = {"s": (_DAY, 3600.0, 60.0, 1.0), "ms": (1e-3,), "us": (1e-6,)}


def are_dates(texts: Sequence[str]) -> bool:
    """Whether there are texts and all of them are dates or times, such as 2024-02-29 or 2024-02-29T12:30:00.5."""
    return bool(texts) and all(_ISO.fullmatch(text) for text in texts)


def parse_dates(name: str, texts: Sequence[str], missing: np.ndarray) -> tuple[np.ndarray, str]:
    """Days or seconds of texts that are dates.

    Args:
        name: Name of the column, for messages.
        texts: One per row.
        missing: Whether a cell is missing, ``(N,)``.

    Returns:
        Float64 ``(N,)``, NaN where missing; the unit: "D" for days, else "s", "ms" or "us": seconds to that precision.

    Raises:
        ValueError: If a text is no date.
    """
    present: list[int] = np.flatnonzero(~missing).tolist()
    matches = [_ISO.fullmatch(texts[i]) for i in present]
    if None in matches:
        row = present[matches.index(None)]
        raise ValueError(
            f"{DATE_RULE}, got {texts[row]!r} in column {name!r} at "
            f"row {row} (rows count from 0); rewrite that column, or read it as another kind with kinds=."
        )
    try:
        days = all(len(texts[i]) == 10 for i in present)
        found = np.array([texts[i].rstrip("Z") for i in present], "datetime64[D]" if days else "datetime64[us]")
    except ValueError as error:
        raise ValueError(f"column {name!r} must hold dates that exist, got: {error}; correct them.") from None
    if any(match[2] for match in matches if match is not None):
        warn_of_zone(name)
    digits = max((len(match[1] or "") for match in matches if match is not None), default=0)
    values = np.full(len(texts), np.nan)
    values[present] = found.astype(np.int64) / (1 if days else 1e6)
    return values, "D" if days else ("s" if digits == 0 else "ms" if digits <= 3 else "us")


def warn_of_zone(name: str) -> None:
    """Warns that a column of times is read and written in UTC."""
    warnings.warn(f"the times of column {name!r} are read as UTC and come back without a time zone.", stacklevel=2)


def date_step(values: np.ndarray, unit: str) -> float:
    """Spacing of the grid of dates, in days or seconds: the longest of day, hour, minute and unit that fits all.

    Args:
        values: Not missing, ``(n,)``.
        unit: As of `parse_dates`.
    """
    steps = _STEPS.get(unit, (1.0,))
    return next((step for step in steps if step >= 1 and not np.any(values % step)), steps[-1])


def days_of(values: np.ndarray, unit: str) -> np.ndarray:
    """Days since 1970-01-01, with the time of the day as a fraction, from values in the unit of `parse_dates`."""
    return values if unit == "D" else values / _DAY


def in_unit(name: str, values: np.ndarray, rows: np.ndarray, unit: str, wanted: str) -> np.ndarray:
    """Dates in the unit of an earlier table, days or seconds, whichever of them this one has.

    Args:
        name: Name of the column, for messages.
        values: In ``unit``, ``(n,)`` float64, NaN where missing.
        rows: Numbers of their rows, ``(n,)``, for messages.
        unit, wanted: As of `parse_dates`.

    Raises:
        ValueError: If days are wanted and a value is a time of the day.
    """
    if (unit == "D") == (wanted == "D"):
        return values
    if unit == "D":
        return values * _DAY
    times = np.flatnonzero(~np.isnan(values) & (values % _DAY != 0))
    if len(times):
        raise ValueError(
            f"column {name!r} holds days in the table that was described, got the time "
            f"{dates_of(values[times[:1]], unit)[0]} at row {rows[times[0]]} (rows count from 0); leave the time of "
            "the day out."
        )
    return values / _DAY


def dates_of(values: np.ndarray, unit: str) -> np.ndarray:
    """Days or seconds as ``datetime64``, ``(n,)``; NaN becomes NaT.

    Args:
        values: ``(n,)`` float64.
        unit: As of `parse_dates`.
    """
    per_unit = {"ms": 1e3, "us": 1e6}.get(unit, 1.0)
    result = np.full(len(values), np.datetime64("NaT"), f"datetime64[{unit}]")
    present = ~np.isnan(values)
    result[present] = np.rint(values[present] * per_unit).astype(np.int64).astype(f"datetime64[{unit}]")
    return result
