"""Columns of a table: what turns events ``(n, D)`` back into named columns of numbers, texts and dates."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from scoresde.data.tables.dates import dates_of
from scoresde.data.tables.parse_columns import is_number

if TYPE_CHECKING:
    from scoresde.data.description import Description

__all__ = ["Columns", "arrow_table", "table_arrays"]

Constant = str | int | float | bool
_MOST_TEXT = 200_000  # characters of all categories; a checkpoint stores them in its description


@dataclass(frozen=True)
class Columns:
    """Names and kinds of a table's columns, as plain Python values.

    Args:
        names: Names of the features, in the order of the event's entries.
        categories: For each categorical feature, the texts that 0, 1, ... stand for.
        integers: Names of the features whose values are whole numbers.
        label: Name of the column of class labels, or None.
        order: All columns that come back, in the order of the table; empty for the features, then the label.
        dates: For each feature that holds dates their unit: "D" for days, "s", "ms" or "us" for seconds.
        bools: Names of the categorical features that are False and True, as bools.
        constants: Columns that are not features because they have one value: that value.
        left_out: Columns that identify rows. They are not features and do not come back.

    Raises:
        ValueError: If a name occurs twice or is unknown, or the categories are too many to be stored.
    """

    names: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    integers: tuple[str, ...] = ()
    label: str | None = None
    order: tuple[str, ...] = ()
    dates: Mapping[str, str] = field(default_factory=dict, hash=False)
    bools: tuple[str, ...] = ()
    constants: Mapping[str, Constant] = field(default_factory=dict, hash=False)
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("names", "integers", "order", "bools", "left_out"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "categories", {name: tuple(texts) for name, texts in self.categories.items()})
        every = [*self.names, *self.constants, *(() if self.label is None else (self.label,))]
        if repeated := [name for name in every if every.count(name) > 1]:
            raise ValueError(f"columns must have different names, got {repeated[0]!r} twice; rename one.")
        if not self.order:
            object.__setattr__(self, "order", tuple(every))
        if sorted(self.order) != sorted(every):
            raise ValueError(f"order must name each of {every} once, got {list(self.order)}.")
        described = (*self.categories, *self.integers, *self.dates, *self.bools)
        if unknown := [name for name in described if name not in self.names]:
            raise ValueError(
                f"categories, integers, dates and bools must name columns of {list(self.names)}, got {unknown[0]!r}."
            )
        lengths = {name: sum(map(len, texts)) for name, texts in self.categories.items()}
        if sum(lengths.values()) > _MOST_TEXT:
            longest = max(lengths, key=lambda name: lengths[name])
            raise ValueError(
                f"the categories of all columns must have at most {_MOST_TEXT} characters, got {lengths[longest]} in "
                f"{len(self.categories[longest])} categories of {longest!r}; leave that column out of columns=."
            )

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each column, label aside: numeric, integer, category, date, constant or identifier."""
        shown = [name for name in self.order if name != self.label]
        return {name: self._kind(name) for name in (*shown, *self.left_out)}

    def _kind(self, name: str) -> str:
        groups = {
            "category": self.categories,
            "integer": self.integers,
            "date": self.dates,
            "constant": self.constants,
            "identifier": self.left_out,
        }
        return next((kind for kind, names in groups.items() if name in names), "numeric")


def table_arrays(
    y: np.ndarray, description: Description | None, labels: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Events as the columns of a table, in its order.

    A categorical column gets the text of the nearest code, as numbers or bools where these were categories. A column of
    whole numbers gets the nearest integer, a date is a ``datetime64``, a constant column has its value in every row;
    other values stay as they are. Without names columns are x0, x1, ...

    Args:
        y: Events in data units, ``(n, D)`` or ``(n,)``. NaN is missing: an empty text, NaN or NaT.
        description: Of the data, or None.
        labels: Class labels, ``(n,)``, or None. The column has the classes' names, as integers where all names are
            integers; a label without a name (the null label) is empty.

    Returns:
        Name -> column, ``(n,)``: floats, ``int64``, bool, ``datetime64`` or text.

    Raises:
        ValueError: If an event has more than one axis.
    """
    if y.ndim > 2:
        raise ValueError(f"a table needs events of one axis, (n, D), got shape {y.shape}; write these as .npz.")
    y = y.reshape(len(y), math.prod(y.shape[1:]))  # also of no event
    columns = None if description is None else description.columns
    columns = Columns(tuple(f"x{i}" for i in range(y.shape[1]))) if columns is None else columns
    arrays = {name: _decoded(y[:, i], name, columns) for i, name in enumerate(columns.names)}
    arrays |= {name: np.full(len(y), value) for name, value in columns.constants.items()}
    order = list(columns.order)
    if labels is not None:
        if columns.label is None:
            order.append("label")
        class_names = None if description is None else description.labels
        arrays[columns.label or "label"] = _class_column(labels, class_names)
    return {name: arrays[name] for name in order if name in arrays}


def _decoded(values: np.ndarray, name: str, columns: Columns) -> np.ndarray:
    if name in columns.categories:
        return _category(values, columns.categories[name], name in columns.bools)
    if name in columns.dates:
        return dates_of(values, columns.dates[name])
    return _integers(values) if name in columns.integers else values


def _category(values: np.ndarray, texts: Sequence[str], as_bool: bool) -> np.ndarray:
    """Texts of codes; integers, floats or bools where the texts are all of these and none is missing."""
    missing = np.isnan(values)
    codes = np.clip(np.rint(np.where(missing, 0, values)), 0, len(texts) - 1).astype(np.int64)
    found = np.where(missing, "", np.array(texts)[codes])
    if as_bool and not missing.any():
        return found == "True"
    if all(map(_is_integer, texts)) and not missing.any():
        return found.astype(np.int64)
    if all(_is_plain_number(text) for text in texts):
        return np.where(missing, np.nan, np.array(texts, np.float64)[codes])
    return found


def _integers(values: np.ndarray) -> np.ndarray:
    """The nearest integers as ``int64``; as floats if one is missing or does not fit."""
    rounded = np.rint(values)
    return rounded.astype(np.int64) if np.all(np.abs(rounded) < 2.0**63) else rounded  # also false for NaN


def _class_column(labels: np.ndarray, names: Sequence[str] | None) -> np.ndarray:
    if names is None:
        return np.asarray(labels, dtype=np.int64)
    texts = np.array([names[i] if 0 <= i < len(names) else "" for i in labels.tolist()], dtype=np.str_)
    every_label_named = bool(np.all((labels >= 0) & (labels < len(names))))
    return texts.astype(np.int64) if every_label_named and all(map(_is_integer, names)) else texts


def _is_integer(text: str) -> bool:
    """Whether a text is an integer as Python writes it, so that nothing is lost by conversion."""
    return len(text) < 19 and text.removeprefix("-").isdecimal() and str(int(text)) == text


def _is_plain_number(text: str) -> bool:
    """Whether a text is a number without zeros in front, which a code such as 01234 has."""
    return is_number(text) and not re.fullmatch(r"[+-]?0\d+", text)


def arrow_table(columns: Mapping[str, np.ndarray]) -> Any:
    """Named columns as a ``pyarrow.Table``; text as strings, an empty one as null.

    Args:
        columns: Name -> column, ``(n,)``.

    Raises:
        ModuleNotFoundError: If pyarrow is missing.
    """
    try:
        import pyarrow
    except ImportError:
        raise ModuleNotFoundError(
            "a table needs pandas or pyarrow, both are missing; pip install pandas, or pip install 'scoresde[parquet]'."
        ) from None

    def array(column: np.ndarray) -> Any:
        if column.dtype.kind == "U":
            return pyarrow.array([text or None for text in column.tolist()], pyarrow.string())
        return pyarrow.array(column)

    return pyarrow.table({name: array(column) for name, column in columns.items()})
