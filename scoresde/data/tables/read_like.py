"""Tables that are read as an earlier one was: with its columns, kinds and codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from scoresde.data.description import Description
from scoresde.data.tables.column_names import check_names
from scoresde.data.tables.columns import Columns
from scoresde.data.tables.dates import are_dates, in_unit
from scoresde.data.tables.kinds import FoundColumn, category_texts, read_column
from scoresde.data.tables.parse_columns import is_number

__all__ = ["class_codes", "columns_of", "read_like"]

_SHOWN = 5


def columns_of(like: object) -> Columns:
    """The columns of an earlier table.

    Args:
        like: Its description.

    Raises:
        TypeError: If it is no description of a table that was read by name.
    """
    if not isinstance(like, Description) or like.columns is None or like.encoding is None:
        got = type(like).__name__ if not isinstance(like, Description) else f"that of {like.name!r}"
        raise TypeError(f"like= takes the description of a table, got {got}; pass load_data(table).description.")
    return like.columns


def read_like(table: Any, rows: np.ndarray, columns: Columns) -> list[FoundColumn]:
    """The features of a table, read as those of an earlier one.

    Args:
        table: The table.
        rows: Numbers of the rows that are used, ``(n,)``.
        columns: Of the earlier table.

    Raises:
        ValueError: If a column is absent, a cell is not of the column's kind, a text is no known category, or a column
            of one value has another one.
    """
    check_names(table, columns.names, None, ())
    for name, value in columns.constants.items():
        if name in table.names:
            _check_constant(table, name, rows, value)
    return [_read(table, name, rows, columns) for name in columns.names]


def _read(table: Any, name: str, rows: np.ndarray, columns: Columns) -> FoundColumn:
    kind = columns.kinds[name]
    if kind == "integer":
        _check_whole(table, name, rows)
    if kind != "category":
        found = read_column(table, name, rows, kind)
        if kind == "date" and found.unit != columns.dates[name]:
            found = replace(found, values=in_unit(name, found.values, rows, found.unit, columns.dates[name]))
        return found
    present = rows[~table.missing(name)[rows]]
    texts = category_texts(table, name, present)
    values = np.full(table.rows, np.nan)
    values[present] = _codes(name, [texts[row] for row in present], columns.categories[name], "category")
    return FoundColumn(name, kind, values[rows], columns.categories[name])


def _check_whole(table: Any, name: str, rows: np.ndarray) -> None:
    values = table.numbers(name)[rows]
    fractions = np.flatnonzero(~np.isnan(values) & (values != np.rint(values)))
    if len(fractions):
        raise ValueError(
            f"column {name!r} holds whole numbers in the table that was described, got {values[fractions[0]].item()} "
            f"at row {rows[fractions[0]]} (rows count from 0); round it, leave that row out, or train on a table that "
            "has such numbers."
        )


def _check_constant(table: Any, name: str, rows: np.ndarray, value: Any) -> None:
    """Refuses cells that differ from the one value that a column had: the model knows no other."""
    texts, missing = table.texts(name), table.missing(name)
    others = [row for row in rows.tolist() if not missing[row] and not _same(texts[row], value)]
    if others:
        raise ValueError(
            f"column {name!r} has the one value {value} in the table that was described, got {texts[others[0]]!r} at "
            f"row {others[0]} (rows count from 0; {len(others)} such), which the model does not know; leave those rows "
            "out, leave the column out, or train on a table that has both."
        )


def _same(text: str, value: Any) -> bool:
    """Whether a cell is a constant, however it is written: 7 and 7.0, 2024-02-29 and 2024-02-29 00:00:00."""
    if text == str(value):
        return True
    if is_number(text) and is_number(str(value)):
        return float(text) == float(value)
    if isinstance(value, str) and are_dates([text, value]):
        return bool(np.datetime64(text.rstrip("Z")) == np.datetime64(value.rstrip("Z")))
    return False


def class_codes(name: str, texts: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """The class codes of texts, ``(n,)`` int64, among the classes of an earlier table.

    Raises:
        ValueError: If a text is no known class.
    """
    return _codes(name, texts, names, "class").astype(np.int64)


def _codes(name: str, texts: Sequence[str], known: Sequence[str], what: str) -> np.ndarray:
    codes: dict[Any, int] = {text: i for i, text in enumerate(known)}
    codes |= {float(text): i for i, text in enumerate(known) if is_number(text)}  # 1.0 is 1
    found = [codes.get(text, codes.get(float(text)) if is_number(text) else None) for text in texts]
    unknown = Counter(text for text, code in zip(texts, found, strict=True) if code is None)
    if unknown:
        shown = ", ".join(f"{text!r} ({count} rows)" for text, count in unknown.most_common(_SHOWN))
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        raise ValueError(
            f"each {what} of {name!r} must be one that the model was trained on, {_listed(known)}; got {shown}{more}. "
            "Leave those rows out, write them as one of these, or train on a table that has them."
        )
    return np.array(found, dtype=np.float64)


def _listed(known: Sequence[str]) -> str:
    return ", ".join(known) if len(known) <= 12 else f"{', '.join(known[:12])} ... ({len(known)})"
