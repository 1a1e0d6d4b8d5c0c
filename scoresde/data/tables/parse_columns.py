"""Conversion of table columns to numbers and class codes; a value that is neither raises an error."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import NoReturn

import numpy as np

from scoresde.data.tables.notation import plain_number, remedies

__all__ = ["check_exact_integers", "check_finite_cells", "encode_classes", "is_number", "parse_numbers"]

_EXACT = 2**53  # float64 holds every integer up to this one


def parse_numbers(name: str, texts: Sequence[str], missing: np.ndarray, decimal: str = ".") -> np.ndarray:
    """Parses text to ``float64``, ``(N,)``, with NaN in missing cells.

    Args:
        name: Name of the column, for error messages.
        texts: One text per row.
        missing: Whether a cell is missing, ``(N,)``.
        decimal: The decimal mark.

    Raises:
        ValueError: If another cell is infinite, not a number, or an integer that ``float64`` does not hold exactly;
            the error names column and row.
    """
    written = texts
    if decimal != ".":
        texts = ["" if "." in text else text.replace(decimal, ".") for text in texts]  # "": a point makes no number
    try:
        values = np.array([math.nan if absent else _number(text) for text, absent in zip(texts, missing)], np.float64)
    except ValueError:
        row = next(i for i, text in enumerate(texts) if not (missing[i] or is_number(text)))
        _raise_not_numeric(name, row, written[row], decimal)
    large: list[int] = np.flatnonzero(np.abs(values) >= _EXACT).tolist()
    check_exact_integers(name, ((i, int(texts[i])) for i in large if re.fullmatch(r"\s*[+-]?\d+\s*", texts[i])))
    return check_finite_cells(name, values, missing)


def check_finite_cells(name: str, values: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Returns the values, ``float64`` of shape ``(N,)``, if all that are not missing are finite; else raises."""
    bad = np.flatnonzero(~(np.isfinite(values) | missing))
    if len(bad):
        raise ValueError(
            f"a column must hold finite numbers, got {values[bad[0]].item()} in column {name!r} at row {bad[0]} (rows "
            f"count from 0; {len(bad)} such rows); remove those rows, or leave the column out of columns=."
        )
    return values


def check_exact_integers(name: str, cells: Iterable[tuple[int, int]]) -> None:
    """Checks that ``float64`` holds integers exactly.

    Args:
        name: Name of the column, for the error message.
        cells: Row and value of each integer.

    Raises:
        ValueError: If it does not hold one; the error names column and row.
    """
    for row, value in cells:
        if int(float(value)) != value:
            raise ValueError(
                f"an integer must be exact in float64, got {value} in column {name!r} at row {row} (rows count from "
                f"0); subtract a constant from that column, read it as classes with label={name!r}, or leave it out "
                "of columns=."
            )


def encode_classes(name: str, texts: Sequence[str], rows: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Class codes 0, 1, ... of texts and the class names in that order: by value if all are numbers.

    Args:
        name: Name of the column, for error messages.
        texts: One text per row of the table.
        rows: The rows to encode, ``(M,)``.

    Returns:
        Codes, ``int64`` of shape ``(M,)``, and the names.

    Raises:
        ValueError: If all texts are numbers and one is not finite; the error names column and row.
    """
    texts = [str(texts[row]) for row in rows]
    distinct = set(texts)
    numeric = all(map(is_number, distinct))
    if numeric:
        check_finite_cells(name, np.array([float(text) for text in texts]), np.zeros(len(texts), bool))
    names = tuple(sorted(distinct, key=_numeric_key if numeric else None))
    code = {text: i for i, text in enumerate(names)}
    return np.array([code[text] for text in texts], dtype=np.int64), names


def _raise_not_numeric(name: str, row: int, value: str, decimal: str) -> NoReturn:
    if (plain := plain_number(value, decimal)) is not None:
        raise ValueError(
            f"a column must hold plain numbers, {name!r} holds {value!r} at row {row} (rows count from 0); write it as "
            f"{plain}, without signs of a unit or marks between thousands, {remedies(name)}"
        )
    hint = ""
    if re.fullmatch(r"\s*[+-]?\d*,\d+([eE][+-]?\d+)?\s*", value):
        hint = " If the comma is the decimal mark, pass decimal=','."
    elif decimal != "." and is_number(value):
        hint = f" The table is read with the decimal mark {decimal!r}; if the point is it, pass decimal='.'."
    elif any(mark in value for mark in ";\t|") or (" " in value.strip() and is_number(value.split()[0])):
        hint = " If a row has several fields, check delimiter=."
    elif not re.search(r"\d", value):
        hint = f" If it stands for a missing cell, pass missing_texts={value.strip()!r}."
    raise ValueError(
        f"a column must hold numbers, {name!r} holds {value!r} at row {row} (rows count from 0); leave it out of "
        f"columns=, correct it, or state what the column is: kinds={{{name!r}: 'category'}}, or label={name!r}." + hint
    )


def _numeric_key(text: str) -> tuple[float, str]:
    return float(text), text


def is_number(text: str) -> bool:
    """Whether Python parses a text as a float; nan and inf count, 1_05 does not: that is a code."""
    try:
        _number(text)
    except ValueError:
        return False
    return True


def _number(text: str) -> float:
    if "_" in text:
        raise ValueError(text)
    return float(text)
