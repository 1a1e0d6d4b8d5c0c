"""Data from tables, text files and Parquet: columns are features, each standardized, in ``float64``."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from scoresde.data.arrow import ArrowTable, read_parquet
from scoresde.data.column_names import check_names, feature_names, one_name, several_names
from scoresde.data.dataset import Data
from scoresde.data.description import Description
from scoresde.data.missing_cells import MISSING_TEXTS, complete_rows
from scoresde.data.parse_columns import encode_classes
from scoresde.data.split import split
from scoresde.data.standardize import standardization
from scoresde.data.table_columns import Columns
from scoresde.data.text_table import TextTable

__all__ = ["Table", "load_table", "table_to_data"]


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

    def classes(self, name: str, rows: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """The class codes 0, 1, ... of the given rows, ``(M,)``, and the class names."""
        ...


def load_table(
    path: str | Path,
    seed: int = 0,
    test_fraction: float = 0.2,
    *,
    columns: str | Sequence[str] | None = None,
    label: str | None = None,
    categories: str | Sequence[str] = (),
    missing: str = "refuse",
    missing_texts: str | Sequence[str] = MISSING_TEXTS,
    header: bool | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    decimal: str = ".",
    shuffle: bool = True,
) -> Data:
    """Reads a table, ``.csv``, ``.tsv``, ``.txt`` (also gzipped) or ``.parquet``: continuous events of shape ``(D,)``.

    Args:
        path: The file. Text files are UTF-8, or what their byte order mark states, and numbers are written as in
            Python. Parquet needs pyarrow (``pip install scoresde[parquet]``).
        seed, test_fraction: The split.
        columns: Name or names of the features, in order; ``None`` takes all columns except ``label``, in the file's
            order, and except a column without a name that only counts the rows (a written index), with a warning.
        label: The column of class labels, numbers or text; its values, sorted, become the classes 0, 1, ...
        categories: Name or names of features that hold text and are encoded as 0, 1, ... in sorted order. The model
            then treats that order as numeric. ``Data.categories`` has the code.
        missing: ``"refuse"`` raises an error if a cell is missing, ``"drop"`` leaves its row out, with a warning.
        missing_texts: Texts that stand for a missing cell, in upper or lower case; a blank cell always does.
        header: Whether the first line of a text file names the columns. ``None`` decides: a line of numbers is data,
            with a warning, and the columns are then called x0, x1, ...; a line that could be either is refused.
        delimiter: Separator of the fields of a text file; ``None`` finds a comma, tab, semicolon, bar or space.
        encoding: Encoding of a text file, such as ``"latin-1"``.
        decimal: Decimal mark of a text file, ``"."`` or ``","``.
        shuffle: Draw the test part at random; ``False`` takes the last rows (for time series).

    Returns:
        Data with ``columns``, whose description has offset and scale per column: mean and standard deviation of the
        train part.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If pyarrow is missing.
        TypeError: If an option is of the wrong kind.
        ValueError: If a column is unknown (the error suggests the nearest), constant, without a name, or has a missing
            cell or text; if names are equal, a row has another number of fields, or the layout is ambiguous.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; check the path (relative to {Path.cwd()}).")
    markers = several_names("missing_texts", missing_texts) or ()
    stem = re.sub(r"\.[^.]+(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    if path.suffix.lower() == ".parquet":
        text_only = {"header": header, "delimiter": delimiter, "encoding": encoding}
        text_only["decimal"] = None if decimal == "." else decimal
        if stated := [name for name, value in text_only.items() if value is not None]:
            raise ValueError(f"{stated[0]}= is an option of text files, got a Parquet file {path}; leave it out.")
        table: Table = ArrowTable(read_parquet(path), missing_texts=markers)
    else:
        table = TextTable(path, delimiter, encoding, header, decimal, markers)
    split_rows = partial(_split_rows, test_fraction=test_fraction, seed=seed if shuffle else None)
    return table_to_data(table, stem, split_rows, columns, label, categories, missing)


def _split_rows(rows: np.ndarray, test_fraction: float, seed: int | None) -> tuple[Tensor | slice, Tensor | slice]:
    return split(len(rows), test_fraction, seed)


def table_to_data(
    table: Table,
    name: str,
    split_rows: Callable[[np.ndarray], tuple[Tensor | slice, Tensor | slice]],
    columns: str | Sequence[str] | None = None,
    label: str | None = None,
    categories: str | Sequence[str] = (),
    missing: str = "refuse",
) -> Data:
    """Converts a table to `Data`.

    Args:
        table: The table.
        name: Name of the data.
        split_rows: Takes the numbers of the ``n`` rows that are used, and returns the indices, in 0 ... n - 1, of the
            train and the test part.
        columns, label, categories, missing: As in `load_table`.

    Raises:
        TypeError, ValueError: As in `load_table`.
    """
    label, coded = one_name("label", label), several_names("categories", categories) or ()
    if label is not None and label not in table.names:
        check_names(table, table.names, label, (), _layout_hint(table))
    selected = several_names("columns", columns)
    features = feature_names(table, label) if selected is None else list(selected)
    check_names(table, features, label, coded, _layout_hint(table))
    rows = complete_rows(table, [*features, *([] if label is None else [label])], table.rows, missing)
    labels, class_names = None, None
    if label is not None:
        classes, class_names = table.classes(label, rows)
        labels = torch.from_numpy(classes)
    category_names: dict[str, tuple[str, ...]] = {}
    values = []
    for feature in features:
        if feature in coded:
            codes, category_names[feature] = encode_classes(feature, table.texts(feature), rows)
            values.append(codes.astype(np.float64))
        else:
            values.append(table.numbers(feature)[rows])
    events = torch.from_numpy(np.stack(values, axis=1))
    train, test = split_rows(rows)
    offset, scale = standardization(events[train], per_feature=True, names=features)
    kinds = Columns.of_table(features, values, category_names, label, table.names)
    description = Description(name, (len(features),), offset=offset, scale=scale, labels=class_names, columns=kinds)
    parts = (None, None) if labels is None else (labels[train], labels[test])
    return Data(events[train], events[test], description, *parts, columns=tuple(features), categories=category_names)


def _layout_hint(table: Table) -> str:
    """What may be wrong if a text file does not have the columns that are asked for."""
    if not isinstance(table, TextTable):
        return ""
    return f" The file was split at {table.delimiter!r}; if that is wrong, pass delimiter=, or header= for its names."
