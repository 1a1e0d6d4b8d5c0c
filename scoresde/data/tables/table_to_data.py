"""`table_to_data`: the columns of a table as events, each with its kind and its map to model units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from scoresde.data.conditions.fit import LABEL
from scoresde.data.conditions.kinds import VectorCondition
from scoresde.data.conditions.parts import label_kind, select
from scoresde.data.dataset import Data
from scoresde.data.description import Description
from scoresde.data.tables.column_names import check_names, feature_names, one_name, several_names
from scoresde.data.tables.condition_columns import check_condition_columns, read_conditions
from scoresde.data.tables.describe_table import describe_table
from scoresde.data.tables.kinds import checked_kinds, find_kinds, read_column
from scoresde.data.tables.missing_cells import MissingCells, check_choice
from scoresde.data.tables.read_like import class_codes, columns_of, read_like
from scoresde.data.tables.text_table import TextTable

__all__ = ["Table", "table_to_data", "with_dates"]


class Table(Protocol):
    """A table: named columns, each readable as numbers, text or classes."""

    names: list[str]
    rows: int

    def missing(self, name: str) -> np.ndarray:
        """Whether each cell of a column is missing, ``(N,)``."""
        ...

    def numbers(self, name: str) -> np.ndarray:
        """A column as ``float64``, ``(N,)``, NaN in missing cells; a value that is no number raises a ValueError."""
        ...

    def texts(self, name: str) -> list[str]:
        """A column as text, one per row."""
        ...

    def type_of(self, name: str) -> str:
        """The type of a column that the file states: "text" where it states none."""
        ...

    def dates(self, name: str) -> tuple[np.ndarray, str]:
        """A column as days or seconds, ``(N,)``, and their unit; a value that is no date raises a ValueError."""
        ...

    def classes(self, name: str, rows: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """The class codes 0, 1, ... of the given rows, ``(M,)``, and the class names."""
        ...


SplitRows = Callable[[np.ndarray], tuple[Tensor | slice, Tensor | slice]]


def table_to_data(
    table: Table,
    name: str,
    split_rows: SplitRows,
    columns: str | Sequence[str] | None = None,
    label: str | None = None,
    categories: str | Sequence[str] = (),
    missing: str = "refuse",
    kinds: Mapping[str, str] | None = None,
    like: Description | None = None,
    condition: str | Sequence[str] | None = None,
    one_hot: bool = False,
) -> Data:
    """Converts a table to `Data`.

    Args:
        table: The table.
        name: Name of the data.
        split_rows: Takes the numbers of the ``n`` rows that are used, and returns the indices, in 0 ... n - 1, of the
            train and the test part.
        columns, label, categories, missing, kinds, like, condition, one_hot: As in `load_table`.

    Raises:
        TypeError, ValueError: As in `load_table`.
    """
    check_choice(missing)
    if kinds is not None and not isinstance(kinds, Mapping):
        checked_kinds(kinds, table.names)
    label, coded = one_name("label", label), several_names("categories", categories) or ()
    conditions = several_names("condition", condition) or ()
    if LABEL in conditions and (label is not None or LABEL in table.names):  # class labels are a condition already
        label, conditions = label or LABEL, tuple(name for name in conditions if name != LABEL)
    if label is not None and label not in table.names:
        check_names(table, table.names, label, (), _layout_hint(table))
    earlier = None if like is None else columns_of(like)
    selected = several_names("columns", columns) if earlier is None else earlier.names
    check_condition_columns(table, conditions, selected)
    names = feature_names(table, label, conditions) if selected is None else list(selected)
    check_names(table, names, label, coded if earlier is None else (), _layout_hint(table))
    if earlier is None and (
        others := [column for column in kinds or {} if column in table.names and column not in (*names, *conditions)]
    ):
        raise ValueError(
            f"kinds= must name features, {others[0]!r} is not one of them; add it to columns=, or leave it out."
        )
    stated = {**checked_kinds(kinds or {}, table.names), **dict.fromkeys(coded, "category")}
    found_kinds = find_kinds(table, names, stated) if earlier is None else earlier.kinds
    used = [n for n in names if found_kinds[n] not in ("constant", "identifier")]
    rows = _used_rows(table, [*used, *(() if missing == "mask" else conditions)], label, missing)
    labels, class_names = _labels(table, label, rows, like)
    cond, classes, dates = read_conditions(table, conditions, rows, stated, like)
    train, test = split_rows(rows)
    if like is None or earlier is None:
        found = [read_column(table, n, rows, found_kinds[n]) for n in names]
        order = _order([column.name for column in found if column.kind != "identifier"], label, table.names)
        described = {**label_kind(class_names), **classes}
        description = describe_table(name, found, train, label, described, order, _layout_hint(table), one_hot)
    else:
        found, description = read_like(table, rows, earlier), like
    about = description.columns
    assert about is not None
    events = torch.from_numpy(np.stack([column.values for column in found if column.modeled], axis=1))
    if earlier is not None and like is not None and like.encoding is not None:
        like.encoding.check_values(events, about.names)  # before the split, so that rows are named as in the table
    cond |= {} if labels is None else {LABEL: labels}
    parts = select(cond, train), select(cond, test)
    numbers = torch.from_numpy(rows)
    data = Data(
        events[train],
        events[test],
        description,
        *parts,
        columns=about.names,
        categories=about.categories,
        rows=(numbers[train], numbers[test]),
    )
    return data if like is not None else with_dates(data, dates)


def with_dates(data: Data, names: set[str]) -> Data:
    """The data, whose conditions of these names are described as dates."""
    if not names:
        return data
    kinds = {
        name: replace(kind, dates=True) if name in names and isinstance(kind, VectorCondition) else kind
        for name, kind in data.description.conditions.items()
    }
    return replace(data, description=replace(data.description, conditions=kinds))


def _used_rows(table: Table, features: list[str], label: str | None, missing: str) -> np.ndarray:
    absent = {feature: table.missing(feature) for feature in features}
    if not absent and label is None:
        return np.arange(table.rows)
    return MissingCells.of_columns(absent, label, None if label is None else table.missing(label)).rows(missing)


def _labels(
    table: Table, label: str | None, rows: np.ndarray, like: Description | None
) -> tuple[Tensor | None, tuple[str, ...] | None]:
    """The class codes of the rows, ``(n,)``, and the names of the classes; both None without labels."""
    if label is None:
        return None, None
    if like is not None and like.labels is not None:
        texts = table.texts(label)
        return torch.from_numpy(class_codes(label, [texts[row] for row in rows], like.labels)), like.labels
    classes, names = table.classes(label, rows)
    return torch.from_numpy(classes), names


def _order(names: list[str], label: str | None, file_names: Sequence[str]) -> tuple[str, ...]:
    """The columns that come back: the label in its place in the file if the others are in the file's order."""
    if label is None:
        return tuple(names)
    in_file = [name for name in file_names if name in names or name == label]
    return tuple(in_file if [name for name in in_file if name != label] == names else [*names, label])


def _layout_hint(table: Table) -> str:
    """What may be wrong if a text file does not have the columns that are asked for."""
    if not isinstance(table, TextTable):
        return ""
    return f" The file was split at {table.delimiter!r}; if that is wrong, pass delimiter=, or header= for its names."
