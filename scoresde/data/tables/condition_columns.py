"""Columns of a table that are conditions: a category becomes a class, a number a vector of one entry.

Dates and times are days since 1970-01-01, with the time of the day as a fraction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde._core.suggest import unknown_name
from scoresde.data.conditions.base import ConditionKind
from scoresde.data.conditions.fit import check_name, condition_name
from scoresde.data.conditions.kinds import ClassCondition
from scoresde.data.description import Description
from scoresde.data.tables.dates import are_dates, days_of
from scoresde.data.tables.kinds import FoundColumn, find_kind, read_column
from scoresde.data.tables.read_like import class_codes

__all__ = ["check_condition_columns", "read_classes", "read_conditions"]


def check_condition_columns(table: Any, columns: Sequence[str], features: Sequence[str] | None) -> None:
    """Checks the columns that are conditions.

    Args:
        table: The table.
        columns: Their names.
        features: Names of the features that the user states, or None.

    Raises:
        ValueError: If one is unknown, is named twice, is a feature too, or has no usable name.
    """
    for column in columns:
        if column not in table.names:
            raise ValueError(unknown_name("column in condition=", column, table.names))
        if list(columns).count(column) > 1 or column in (features or ()):
            raise ValueError(
                f"each column may be used once, {column!r} is named twice; name it in columns= or in condition=."
            )
        check_name(condition_name(column))


def read_conditions(
    table: Any, columns: Sequence[str], rows: np.ndarray, kinds: Mapping[str, str], like: Description | None
) -> tuple[dict[str, Tensor], dict[str, ConditionKind], set[str]]:
    """The conditions of the rows by name, the kinds of those that are classes, and the names of those that are dates.

    Args:
        table: The table.
        columns: Names of the columns.
        rows: Numbers of the rows that are used, ``(n,)``.
        kinds: Kinds that the user states.
        like: Description of an earlier table, whose classes count; or None.

    Returns:
        Classes ``(n,)`` and numbers ``(n, 1)``, dates in days, NaN in missing cells; and the description of the
        classes; the names of the dates.

    Raises:
        ValueError: If a column has one value, identifies rows, or is a category with missing cells.
    """
    values: dict[str, Tensor] = {}
    described: dict[str, ConditionKind] = {}
    dates: set[str] = set()
    for column in columns:
        name = condition_name(column)
        if name in values:
            raise ValueError(f"columns of conditions must have different names, {name!r} occurs twice; rename one.")
        kind = kinds.get(column) or _kind(table, column)
        earlier = None if like is None else like.conditions.get(name)
        if isinstance(earlier, ClassCondition):
            kind = "category"
        elif earlier is not None:  # numbers or dates, also where these rows have one value, or are all different
            kind = "date" if kind == "date" or _holds_dates(table, column, rows) else "numeric"
        if kind in ("constant", "identifier"):
            raise ValueError(
                f"a condition must vary and be shared by rows, column {column!r} is of the kind {kind}; leave it out "
                f"of condition=, or state its kind: kinds={{{column!r}: 'numeric'}}."
            )
        if kind == "category":
            values[name], described[name] = read_classes(table, column, rows, earlier)
        else:
            values[name] = torch.from_numpy(_numbers(read_column(table, column, rows, kind))).unsqueeze(1)
            dates |= {name} if kind == "date" else set()
    return values, described, dates


def _holds_dates(table: Any, column: str, rows: np.ndarray) -> bool:
    missing, texts = table.missing(column), table.texts(column)
    return table.type_of(column) == "date" or are_dates([texts[row] for row in rows.tolist() if not missing[row]])


def _numbers(found: FoundColumn) -> np.ndarray:
    """The values; dates and times in days, since a vector of numbers has no unit of its own."""
    return days_of(found.values, found.unit) if found.kind == "date" else found.values


def _kind(table: Any, column: str) -> str:
    """The kind of a column; numbers that are all different are numbers, since the user wants them."""
    kind = find_kind(table, column)
    if kind != "identifier":
        return kind
    try:
        table.numbers(column)
    except ValueError:
        return kind
    return "numeric"


def read_classes(
    table: Any, column: str, rows: np.ndarray, earlier: ConditionKind | None
) -> tuple[Tensor, ConditionKind]:
    """The class codes of a column, ``(n,)`` int64, among those of an earlier table if there is one, and their kind.

    Raises:
        ValueError: If a cell is missing, or is no class of the earlier table.
    """
    if (absent := int(table.missing(column)[rows].sum())) > 0:
        raise ValueError(
            f"a condition of classes must be known for every row, {column!r} is missing in {absent} of {len(rows)}; "
            'leave those rows out with missing="drop", or fill them.'
        )
    if isinstance(earlier, ClassCondition) and earlier.names is not None:
        texts = table.texts(column)
        codes = class_codes(column, [texts[row] for row in rows], earlier.names)
        return torch.from_numpy(codes), earlier
    codes, names = table.classes(column, rows)
    return torch.from_numpy(codes).long(), ClassCondition(len(names), names)
