"""The description of a table: the map of each column to model units, fitted to the train part."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

import numpy as np
from torch import Tensor

from scoresde.data.conditions.base import ConditionKind
from scoresde.data.description import Description
from scoresde.data.tables.column_maps import CategoryColumn, NumberColumn, fit_category_column, fit_number_column
from scoresde.data.tables.columns import Columns
from scoresde.data.tables.encoding import TableEncoding
from scoresde.data.tables.kinds import FoundColumn

__all__ = ["describe_table"]

_KNOTS = 4000  # of all columns
_MOST_TEXT = 380_000  # characters of the description; a checkpoint stores it as text
_SHOWN = 5


def describe_table(
    name: str,
    found: Sequence[FoundColumn],
    train: Tensor | slice,
    label: str | None,
    conditions: Mapping[str, ConditionKind],
    order: tuple[str, ...],
    hint: str = "",
    one_hot: bool = False,
) -> Description:
    """The description of a table.

    Args:
        name: Name of the data.
        found: All columns except the label; values of the rows that are used.
        train: Indices of the train part among these rows.
        label: Name of the column of labels, or None.
        conditions: Kinds of the conditions whose classes have names.
        order: Names of the columns that come back, in their order.
        hint: End of the error if no column varies.
        one_hot: Whether categories are one-hot entries in model units, in place of codes.

    Raises:
        ValueError: If no column varies, one does not vary in the train part, or there are too many.
    """
    features = [column for column in found if column.modeled]
    if not features:
        kinds = ", ".join(f"{column.name}: {column.kind}" for column in found)
        raise ValueError(f"a table needs a column that varies, got {kinds}; state other kinds with kinds=.{hint}")
    _warn_of_others(found)
    most = max(2, min(96, _KNOTS // len(features)))
    maps = tuple(_fitted(column, _part(column.values, train), most) for column in features)
    offsets, scales = zip(*(_affine(each, _part(column.values, train)) for each, column in zip(maps, features)))
    coded = not one_hot and any(column.kind == "category" for column in features)
    columns = _columns(found, label, order)
    _check_length(maps, columns)
    missing = any(bool(np.isnan(column.values).any()) for column in features)
    shape, encoding = (len(features),), TableEncoding(maps, coded)
    return Description(
        name,
        shape,
        offset=offsets,
        scale=scales,
        columns=columns,
        missing=missing,
        encoding=encoding,
        conditions=conditions,
    )


def _columns(found: Sequence[FoundColumn], label: str | None, order: tuple[str, ...]) -> Columns:
    features = [column for column in found if column.modeled]
    return Columns(
        tuple(column.name for column in features),
        {column.name: column.texts for column in features if column.kind == "category"},
        tuple(column.name for column in features if column.kind == "integer"),
        label,
        order,
        {column.name: column.unit for column in features if column.kind == "date"},
        tuple(column.name for column in features if column.is_bool),
        {column.name: column.value for column in found if column.kind == "constant"},
        tuple(column.name for column in found if column.kind == "identifier"),
    )


def _check_length(maps: Sequence[NumberColumn | CategoryColumn], columns: Columns) -> None:
    length = len(repr([astuple(each) for each in maps])) + len(repr(columns)) + 110 * len(maps)
    if length > _MOST_TEXT:
        raise ValueError(
            f"the description of a table must have at most {_MOST_TEXT} characters, that of its {len(maps)} columns "
            f"has about {length}; choose fewer by columns=, or store the numbers as a .npy file."
        )


def _part(values: np.ndarray, index: Tensor | slice) -> np.ndarray:
    """The values of a part that are not missing."""
    part = values[index if isinstance(index, slice) else index.numpy()]
    return part[~np.isnan(part)]


def _fitted(column: FoundColumn, values: np.ndarray, most_knots: int) -> NumberColumn | CategoryColumn:
    if not len(values):
        raise ValueError(f"column {column.name!r} has no value in the train part; leave it out, or train on more rows.")
    if values.min() == values.max():
        raise ValueError(
            f"a column must vary in the train part, {column.name!r} is constant there; take another split (seed=, "
            f"test_fraction=), or leave it out with kinds={{{column.name!r}: 'identifier'}}."
        )
    if column.kind != "category":
        return fit_number_column(values, column.step, most_knots)
    unseen = [text for i, text in enumerate(column.texts) if not np.any(values == i)]
    if unseen:
        shown = ", ".join(unseen[:_SHOWN]) + (" ..." if len(unseen) > _SHOWN else "")
        warnings.warn(
            f"{len(unseen)} of {len(column.texts)} categories of {column.name!r} occur in the test part only "
            f"({shown}): a model cannot learn them; merge rare categories, or hold out other rows (seed=).",
            stacklevel=5,
        )
    return fit_category_column(values, len(column.texts))


def _affine(fitted: NumberColumn | CategoryColumn, values: np.ndarray) -> tuple[float, float]:
    """Offset and scale of a column: of its map if that is affine, else mean and deviation; 0 and 1 of categories."""
    if isinstance(fitted, CategoryColumn):
        return 0.0, 1.0
    if fitted.standardized:
        return fitted.knots[0], 1 / fitted.slopes[0]
    return float(values.mean()), float((values - values.mean()).std())


def _warn_of_others(found: Sequence[FoundColumn]) -> None:
    """Says which columns are no features."""
    constants: list[Any] = [column.name for column in found if column.kind == "constant"]
    identifiers: list[Any] = [column.name for column in found if column.kind == "identifier"]
    if constants:
        warnings.warn(
            f"columns of one value are not modeled and come back as they are: {', '.join(constants)}.", stacklevel=4
        )
    if identifiers:
        warnings.warn(
            f"columns that identify rows are left out: {', '.join(identifiers)}; to model one, state its kind, integer "
            "or category, with kinds=.",
            stacklevel=4,
        )
