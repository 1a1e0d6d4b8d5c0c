"""How does a column become numbers? Nothing is guessed: what is missing, or is no number, is refused by its row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

__all__ = ["codes", "finite", "is_number", "numbers", "refuse_missing"]

_MISSING = ("", "na", "n/a", "nan", "null", "none", "?")


def numbers(name: str, values: Sequence[str]) -> np.ndarray:
    """Text to ``float64``, ``(N,)``.

    Args:
        name: Of the column.
        values: One text per row.

    Raises:
        ValueError: If one is missing, infinite or no number; the column and the row are named.
    """
    try:
        found = np.array([float(value) for value in values])
    except ValueError:
        row = next(i for i, value in enumerate(values) if not is_number(value))
        _refuse_text(name, row, values[row])
    return finite(name, found)


def finite(name: str, values: np.ndarray) -> np.ndarray:
    """The values, ``float64`` of shape ``(N,)``, if all are finite; else a ValueError that names column and row."""
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        refuse_missing(name, int(bad[0]), values[bad[0]].item(), len(bad))
    return values


def codes(name: str, values: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Whole numbers ``0 ...`` for text, ``(N,)``, and the texts in that order: by value if all are numbers.

    Raises:
        ValueError: If a text is empty, or a word for what is missing among numbers; the column and the row are named.
    """
    texts = set(values)
    numeric = all(text.strip().lower() in _MISSING or is_number(text) for text in texts)
    for text in sorted(texts):
        if text == "" or (numeric and (text.strip().lower() in _MISSING or not math.isfinite(float(text)))):
            refuse_missing(name, values.index(text), text, sum(value == text for value in values))
    names = tuple(sorted(texts, key=_value if numeric else None))
    place = {text: i for i, text in enumerate(names)}
    return np.array([place[value] for value in values], dtype=np.int64), names


def refuse_missing(name: str, row: int, value: object, count: int) -> NoReturn:
    """Raises the ValueError on a value that is not there."""
    raise ValueError(
        f"a table must be whole, got {value!r} in column {name!r} at row {row} (the first is 0; {count} such); drop "
        "those rows, fill them, or leave the column out of columns=."
    )


def _refuse_text(name: str, row: int, value: str) -> NoReturn:
    if value.strip().lower() in _MISSING:
        refuse_missing(name, row, value, 1)
    raise ValueError(
        f"a column must hold numbers, {name!r} holds {value!r} at row {row} (the first is 0); leave it out of "
        f"columns=, read it as classes with label={name!r}, or code it as 0, 1, ... with categories=({name!r},)."
    )


def _value(text: str) -> tuple[float, str]:
    return float(text), text


def is_number(text: str) -> bool:
    """Whether a text is read as a float; nan and inf are."""
    try:
        float(text)
    except ValueError:
        return False
    return True
