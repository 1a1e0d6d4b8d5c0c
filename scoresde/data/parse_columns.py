"""Conversion of table columns to numbers and class codes; a missing or non-numeric value raises an error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

import numpy as np

__all__ = ["check_all_finite", "encode_classes", "is_number", "parse_numbers", "raise_missing"]

_MISSING = ("", "na", "n/a", "nan", "null", "none", "?")


def parse_numbers(name: str, texts: Sequence[str]) -> np.ndarray:
    """Parses text to ``float64``, ``(N,)``.

    Args:
        name: Name of the column, for error messages.
        texts: One text per row.

    Raises:
        ValueError: If a value is missing, infinite or not a number; the error names column and row.
    """
    try:
        values = np.array([float(text) for text in texts])
    except ValueError:
        row = next(i for i, text in enumerate(texts) if not is_number(text))
        _raise_not_numeric(name, row, texts[row])
    return check_all_finite(name, values)


def check_all_finite(name: str, values: np.ndarray) -> np.ndarray:
    """Returns the values, ``float64`` of shape ``(N,)``, if all are finite; else raises with column and row."""
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise_missing(name, int(bad[0]), values[bad[0]].item(), len(bad))
    return values


def encode_classes(name: str, texts: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class codes 0, 1, ... of texts, ``(N,)``, and the class names in that order: by value if all are numbers.

    Raises:
        ValueError: If a text is empty, or stands for a missing value among numbers; the error names column and row.
    """
    distinct = set(texts)
    numeric = all(text.strip().lower() in _MISSING or is_number(text) for text in distinct)
    for text in sorted(distinct):
        if text == "" or (numeric and (text.strip().lower() in _MISSING or not math.isfinite(float(text)))):
            raise_missing(name, texts.index(text), text, sum(other == text for other in texts))
    names = tuple(sorted(distinct, key=_numeric_key if numeric else None))
    code = {text: i for i, text in enumerate(names)}
    return np.array([code[text] for text in texts], dtype=np.int64), names


def raise_missing(name: str, row: int, value: object, count: int) -> NoReturn:
    """Raises the ValueError for ``count`` missing values in a column, the first of them in ``row``."""
    raise ValueError(
        f"a table must have no missing values, got {value!r} in column {name!r} at row {row} (rows count from 0; "
        f"{count} such rows); drop those rows, fill them, or leave the column out of columns=."
    )


def _raise_not_numeric(name: str, row: int, value: str) -> NoReturn:
    if value.strip().lower() in _MISSING:
        raise_missing(name, row, value, 1)
    raise ValueError(
        f"a column must hold numbers, {name!r} holds {value!r} at row {row} (rows count from 0); leave it out of "
        f"columns=, read it as classes with label={name!r}, or encode it as 0, 1, ... with categories=({name!r},)."
    )


def _numeric_key(text: str) -> tuple[float, str]:
    return float(text), text


def is_number(text: str) -> bool:
    """Whether Python parses a text as a float; nan and inf count."""
    try:
        float(text)
    except ValueError:
        return False
    return True
