"""Missing cells of a table: what counts as missing, how many there are in which column, and the rows without them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from scoresde._core.suggest import unknown_name

__all__ = ["MISSING_TEXTS", "complete_rows", "is_missing"]

MISSING_TEXTS = ("", "NA", "N/A", "<NA>", "#N/A", "NaN", "null", "None", "?")
_CHOICES = ("refuse", "drop")
_SHOWN = 12


class _HasMissing(Protocol):
    def missing(self, name: str) -> np.ndarray: ...


def is_missing(texts: Sequence[str | None], markers: Sequence[str] = MISSING_TEXTS) -> np.ndarray:
    """Whether each text stands for a missing cell, ``(N,)``: it is blank, None or a marker, in upper or lower case."""
    lower = {marker.strip().lower() for marker in markers} | {""}
    absent = {text for text in set(texts) if text is None or text.strip().lower() in lower}
    return np.fromiter((text in absent for text in texts), bool, len(texts))


def complete_rows(table: _HasMissing, names: Sequence[str], rows: int, missing: str) -> np.ndarray:
    """The rows of a table without a missing cell in the named columns.

    Args:
        table: The table.
        names: The columns that are read.
        rows: Number of rows of the table.
        missing: ``"refuse"`` raises an error if there is a missing cell, ``"drop"`` leaves its row out with a warning.

    Returns:
        Row numbers, ``int64``, in order.

    Raises:
        ValueError: If a cell is missing and ``missing`` is ``"refuse"``, no row is complete, or ``missing`` is unknown.
    """
    if missing not in _CHOICES:
        raise ValueError(unknown_name("choice missing=", str(missing), _CHOICES))
    masks = {name: table.missing(name) for name in names}
    incomplete = np.zeros(rows, bool)
    for mask in masks.values():
        incomplete |= mask
    dropped = int(incomplete.sum())
    if not dropped:
        return np.arange(rows)
    counts = {name: int(mask.sum()) for name, mask in masks.items() if mask.any()}
    per_column = ", ".join(f"{name}: {count}" for name, count in list(counts.items())[:_SHOWN])
    per_column += f" and {len(counts) - _SHOWN} more columns" if len(counts) > _SHOWN else ""
    if missing == "drop" and dropped < rows:
        warnings.warn(f"rows with missing cells are left out: {dropped} of {rows} ({per_column}).", stacklevel=2)
        return np.flatnonzero(~incomplete)
    row = int(incomplete.argmax())
    first = next(name for name, mask in masks.items() if mask[row])
    remedy = 'leave those rows out with missing="drop"' if dropped < rows else "no row would remain without them"
    raise ValueError(
        f"a table must have no missing cells, got {sum(counts.values())} in {dropped} of {rows} rows ({per_column}; "
        f"the first in column {first!r} at row {row}, rows count from 0); {remedy}, fill them, or leave those columns "
        "out of columns=. If such a text is a value, name the texts that are missing with missing_texts=."
    )
