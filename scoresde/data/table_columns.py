"""Columns of a table: what turns events ``(n, D)`` back into named columns of numbers and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scoresde.data.description import Description

__all__ = ["Columns", "arrow_table", "table_arrays"]

_MOST_TEXT = 200_000  # characters of all categories; a checkpoint stores them in its description


@dataclass(frozen=True)
class Columns:
    """Names and kinds of a table's columns, as plain Python values.

    Args:
        names: Names of the features, in the order of the event's entries.
        categories: For each categorical feature, the texts that 0, 1, ... stand for.
        integers: Names of the features whose values are whole numbers.
        label: Name of the column of class labels, or None.
        label_index: Index of that column in the table; None for the last.

    Raises:
        ValueError: If a name occurs twice or is unknown, or the categories are too many to be stored.
    """

    names: tuple[str, ...]
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    integers: tuple[str, ...] = ()
    label: str | None = None
    label_index: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        object.__setattr__(self, "integers", tuple(self.integers))
        object.__setattr__(self, "categories", {name: tuple(texts) for name, texts in self.categories.items()})
        every = [*self.names, *(() if self.label is None else (self.label,))]
        if repeated := [name for name in every if every.count(name) > 1]:
            raise ValueError(f"columns must have different names, got {repeated[0]!r} twice; rename one.")
        if unknown := [name for name in (*self.categories, *self.integers) if name not in self.names]:
            raise ValueError(f"categories and integers must name columns of {list(self.names)}, got {unknown[0]!r}.")
        lengths = {name: sum(map(len, texts)) for name, texts in self.categories.items()}
        if sum(lengths.values()) > _MOST_TEXT:
            longest = max(lengths, key=lambda name: lengths[name])
            raise ValueError(
                f"the categories of all columns must have at most {_MOST_TEXT} characters, got {lengths[longest]} in "
                f"{len(self.categories[longest])} categories of {longest!r}; leave that column out of columns=."
            )

    @classmethod
    def of_table(
        cls,
        names: Sequence[str],
        values: Sequence[np.ndarray],
        categories: Mapping[str, tuple[str, ...]],
        label: str | None,
        file_names: Sequence[str],
    ) -> Columns:
        """The columns of a table that was read: features of whole numbers are integers.

        Args:
            names: Names of the features.
            values: Their values, ``(N,)`` each; missing ones are NaN.
            categories: Texts of the categorical features.
            label: Name of the column of labels, or None.
            file_names: Names of all columns of the file, in its order; the label returns to its place if all its
                other columns are features in that order.
        """
        whole = [name for name, column in zip(names, values, strict=True) if name not in categories and _whole(column)]
        with_label = [name for name in file_names if name in names or name == label]
        same_order = label is not None and [name for name in with_label if name != label] == list(names)
        index = with_label.index(label) if same_order and label in with_label else None
        return cls(tuple(names), categories, tuple(whole), label, None if index == len(names) else index)


def table_arrays(
    y: np.ndarray, description: Description | None, labels: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Events as the columns of a table, in its order.

    A categorical column gets the text of the nearest code, a column of whole numbers the nearest integer; other values
    stay as they are. Values outside of a column's range are not clipped. Without names columns are x0, x1, ...

    Args:
        y: Events in data units, ``(n, D)`` or ``(n,)``.
        description: Of the data, or None.
        labels: Class labels, ``(n,)``, or None. The column has the classes' names, as integers where all names are
            integers; a label without a name (the null label) is empty.

    Returns:
        Name -> column, ``(n,)``: floats, ``int64`` or text.

    Raises:
        ValueError: If an event has more than one axis.
    """
    if y.ndim > 2:
        raise ValueError(f"a table needs events of one axis, (n, D), got shape {y.shape}; write these as .npz.")
    y = y.reshape(len(y), -1)
    columns = None if description is None else description.columns
    columns = Columns(tuple(f"x{i}" for i in range(y.shape[1]))) if columns is None else columns
    arrays = {name: _decoded(y[:, i], name, columns) for i, name in enumerate(columns.names)}
    if labels is None:
        return arrays
    class_names = None if description is None else description.labels
    items = list(arrays.items())
    at = len(items) if columns.label_index is None else columns.label_index
    items.insert(at, ("label" if columns.label is None else columns.label, _class_column(labels, class_names)))
    return dict(items)


def _decoded(values: np.ndarray, name: str, columns: Columns) -> np.ndarray:
    if name in columns.categories:
        texts = columns.categories[name]
        return np.array(texts)[np.clip(np.rint(values), 0, len(texts) - 1).astype(np.int64)]
    return _integers(values) if name in columns.integers else values


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


def _whole(values: np.ndarray) -> bool:
    present = values[~np.isnan(values)]
    return bool(len(present)) and bool(np.all(present == np.rint(present)))


def arrow_table(columns: Mapping[str, np.ndarray]) -> Any:
    """Named columns as a ``pyarrow.Table``; text as strings.

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
        return pyarrow.array(column.tolist(), pyarrow.string()) if column.dtype.kind == "U" else pyarrow.array(column)

    return pyarrow.table({name: array(column) for name, column in columns.items()})
