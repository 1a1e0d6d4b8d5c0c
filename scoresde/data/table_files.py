"""Data from tables, ``.csv``, ``.tsv`` and ``.parquet``: columns are features, each standardized, in ``float64``."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from scoresde._core.suggest import unknown_name
from scoresde.data.arrow import ArrowTable, read_parquet
from scoresde.data.dataset import Data
from scoresde.data.description import Description
from scoresde.data.parse_columns import encode_classes, parse_numbers
from scoresde.data.split import split
from scoresde.data.standardize import standardization

__all__ = ["Table", "load_table", "table_to_data"]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Table(Protocol):
    """A table: named columns, each readable as numbers, text or classes."""

    names: list[str]

    def numbers(self, name: str) -> np.ndarray:
        """A column as ``float64``, ``(N,)``; a missing or non-numeric value raises a ValueError."""
        ...

    def texts(self, name: str) -> list[str]:
        """A column as text, one per row; a missing value raises a ValueError."""
        ...

    def classes(self, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """A column as class codes 0, 1, ..., ``(N,)``, and the class names; a missing value raises a ValueError."""
        ...


def load_table(
    path: str | Path,
    seed: int = 0,
    test_fraction: float = 0.2,
    *,
    columns: Sequence[str] | None = None,
    label: str | None = None,
    categories: Sequence[str] = (),
    delimiter: str | None = None,
    shuffle: bool = True,
) -> Data:
    """Reads a ``.csv``, ``.tsv`` or ``.parquet`` file into memory: continuous events of shape ``(D,)``.

    Args:
        path: The file. Text files are UTF-8, their first line names the columns, and numbers are written as in Python.
            Parquet needs pyarrow (``pip install scoresde[parquet]``).
        seed, test_fraction: The split.
        columns: Names of the features, in order; ``None`` takes all columns except ``label``, in the file's order.
        label: The column of class labels, numbers or text; its values, sorted, become the classes 0, 1, ...
        categories: Features that hold text and are encoded as 0, 1, ... in sorted order. The model then treats that
            order as numeric. ``Data.categories`` has the code.
        delimiter: Separator of the fields of a text file; ``None`` is a comma, in a ``.tsv`` a tab.
        shuffle: Draw the test part at random; ``False`` takes the last rows (for time series).

    Returns:
        Data with ``columns``, whose description has offset and scale per column: mean and standard deviation of the
        train part.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If pyarrow is missing.
        ValueError: If a column is unknown (the error suggests the nearest), constant, or has a missing value or text;
            if a row has another number of fields, or the first line is not a header.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; check the path (relative to {Path.cwd()}).")
    if path.suffix == ".parquet":
        table: Table = ArrowTable(read_parquet(path))
    else:
        table = _TextTable(path, delimiter or _DELIMITERS.get(path.suffix, ","))
    split_rows = partial(split, test_fraction=test_fraction, seed=seed if shuffle else None)
    return table_to_data(table, path.stem, split_rows, columns, label, categories)


def table_to_data(
    table: Table,
    name: str,
    split_rows: Callable[[int], tuple[Tensor | slice, Tensor | slice]],
    columns: Sequence[str] | None = None,
    label: str | None = None,
    categories: Sequence[str] = (),
) -> Data:
    """Converts a table to `Data`.

    Args:
        table: The table.
        name: Name of the data.
        split_rows: Returns the train and the test indices of ``n`` rows.
        columns, label, categories: As in `load_table`.

    Raises:
        ValueError: As in `load_table`.
    """
    features = [n for n in table.names if n != label] if columns is None else list(columns)
    _check_names(table, features, [] if label is None else [label], categories)
    labels, class_names = None, None
    if label is not None:
        classes, class_names = table.classes(label)
        labels = torch.from_numpy(classes)
    category_names: dict[str, tuple[str, ...]] = {}
    values = []
    for feature in features:
        if feature in categories:
            codes, category_names[feature] = encode_classes(feature, table.texts(feature))
            values.append(codes.astype(np.float64))
        else:
            values.append(table.numbers(feature))
    events = torch.from_numpy(np.stack(values, axis=1))
    train, test = split_rows(len(events))
    offset, scale = standardization(events[train], per_feature=True, names=features)
    description = Description(name, (len(features),), offset=offset, scale=scale, labels=class_names)
    parts = (None, None) if labels is None else (labels[train], labels[test])
    return Data(events[train], events[test], description, *parts, columns=tuple(features), categories=category_names)


def _check_names(table: Table, features: list[str], label: list[str], categories: Sequence[str]) -> None:
    if not features:
        raise ValueError(f"a table needs at least one feature, got columns=(); it has {', '.join(table.names)}.")
    for name in (*features, *label, *categories):
        if name not in table.names:
            raise ValueError(unknown_name("column", name, table.names))
    for name in features:
        if features.count(name) > 1 or name in label:
            raise ValueError(
                f"each column may be used once, {name!r} is named twice; name it in columns= or as label=."
            )
    for name in categories:
        if name not in features:
            raise ValueError(f"categories= must name features, {name!r} is not one of them; add it to columns=.")


class _TextTable:
    """A delimited text file with a header line, as columns of text."""

    def __init__(self, path: Path, delimiter: str) -> None:
        with path.open(newline="", encoding="utf-8-sig") as file:
            try:
                lines = csv.reader(file, delimiter=delimiter, strict=True)
                self.names = [name.strip() for name in next(lines, [])]
                _check_header(path, self.names)
                rows = [line for line in lines if line or len(self.names) == 1]  # a blank line is not a row
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(f"{path} must be a table in UTF-8, got: {error}; check delimiter=.") from error
        for i, row in enumerate(rows):
            if len(row) != len(self.names):
                raise ValueError(
                    f"every row of {path} must have {len(self.names)} fields, got {len(row)} at row {i} (rows count "
                    "from 0); check delimiter= and quotes."
                )
        self._columns = dict(zip(self.names, zip(*rows))) if rows else dict.fromkeys(self.names, ())

    def numbers(self, name: str) -> np.ndarray:
        return parse_numbers(name, self._columns[name])

    def texts(self, name: str) -> list[str]:
        return [value.strip() for value in self._columns[name]]

    def classes(self, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
        return encode_classes(name, self.texts(name))


def _check_header(path: Path, names: list[str]) -> None:
    if not any(names):
        raise ValueError(f"the first line of {path} must name the columns, got nothing; write a header.")
    if len(set(names)) < len(names) or all(_is_decimal(name) for name in names):
        raise ValueError(f"the first line of {path} must name the columns, got {names[:5]}; write a header.")


def _is_decimal(text: str) -> bool:
    return text.replace(".", "", 1).lstrip("+-").isdigit()
