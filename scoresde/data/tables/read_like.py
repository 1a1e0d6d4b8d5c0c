"""Tables that are read as an earlier one was: with its columns, kinds and codes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from scoresde.data.description import Description
from scoresde.data.tables.column_names import check_names
from scoresde.data.tables.columns import Columns
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
        ValueError: If a column is absent, a cell is not of the column's kind, or a text is no known category.
    """
    check_names(table, columns.names, None, ())
    return [_read(table, name, rows, columns) for name in columns.names]


def _read(table: Any, name: str, rows: np.ndarray, columns: Columns) -> FoundColumn:
    kind = columns.kinds[name]
    if kind != "category":
        return read_column(table, name, rows, kind)
    present = rows[~table.missing(name)[rows]]
    texts = category_texts(table, name, present)
    values = np.full(table.rows, np.nan)
    values[present] = _codes(name, [texts[row] for row in present], columns.categories[name], "category")
    return FoundColumn(name, kind, values[rows], columns.categories[name])


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
