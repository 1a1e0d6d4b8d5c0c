"""How does a table become data? Its columns are the features, each standardized by itself, in ``float64``."""

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
from scoresde.data.arrays import standardization
from scoresde.data.arrow import ArrowTable, read_parquet
from scoresde.data.columns import codes, numbers
from scoresde.data.dataset import Data, split
from scoresde.data.description import Description

__all__ = ["Table", "load_table", "tabulate"]

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Table(Protocol):
    """What a table is here: named columns, each read as numbers or as text."""

    names: list[str]

    def numbers(self, name: str) -> np.ndarray:
        """A column as ``float64``, ``(N,)``; refuses what is missing or no number."""
        ...

    def texts(self, name: str) -> list[str]:
        """A column as text, one per row; refuses what is missing."""
        ...

    def classes(self, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """A column as classes ``0 ...``, ``(N,)``, and what they are called; refuses what is missing."""
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
    """Reads a ``.csv``, ``.tsv`` or ``.parquet`` file into memory: ``(D,)``, continuous.

    Args:
        path: The file. Text is UTF-8 and its first line names the columns; a number is written as in Python. Parquet
            needs pyarrow (``pip install scoresde[parquet]``).
        seed, test_fraction: The split.
        columns: The features in the order wanted; ``None`` takes all columns but ``label``, in the file's order.
        label: The column of class labels, numbers or text; its values, sorted, become the classes 0, 1, ...
        categories: Columns among the features that hold text and are coded as 0, 1, ... in sorted order, for all that
            such an order means. ``Data.categories`` has the code.
        delimiter: Between the fields of a text; ``None`` is a comma, in a ``.tsv`` a tab.
        shuffle: Draw the test part at random; ``False`` takes the last rows (a series in time).

    Returns:
        Data whose description has offset and scale per column, mean and standard deviation of the train part, and
        whose ``columns`` are their names.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If pyarrow is missing.
        ValueError: If a column is unknown (the nearest is named), constant, has a missing value or text; if a row has
            another number of fields, or the first line is no header.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; check the path (here: {Path.cwd()}).")
    if path.suffix == ".parquet":
        table: Table = ArrowTable(read_parquet(path))
    else:
        table = _Text(path, delimiter or _DELIMITERS.get(path.suffix, ","))
    divide = partial(split, test_fraction=test_fraction, seed=seed if shuffle else None)
    return tabulate(table, path.stem, divide, columns, label, categories)


def tabulate(
    table: Table,
    name: str,
    divide: Callable[[int], tuple[Tensor | slice, Tensor | slice]],
    columns: Sequence[str] | None = None,
    label: str | None = None,
    categories: Sequence[str] = (),
) -> Data:
    """Data of any table; ``divide(n)`` tells which of ``n`` rows are train and test, the rest is as in `load_table`."""
    features = [n for n in table.names if n != label] if columns is None else list(columns)
    _check_names(table, features, [] if label is None else [label], categories)
    labels, classes = None, None
    if label is not None:
        whole, classes = table.classes(label)
        labels = torch.from_numpy(whole)
    code: dict[str, tuple[str, ...]] = {}
    values = []
    for feature in features:
        if feature in categories:
            whole, code[feature] = codes(feature, table.texts(feature))
            values.append(whole.astype(np.float64))
        else:
            values.append(table.numbers(feature))
    events = torch.from_numpy(np.stack(values, axis=1))
    train, test = divide(len(events))
    offset, scale = standardization(events[train], per_feature=True, names=features)
    about = Description(name, (len(features),), offset=offset, scale=scale, labels=classes)
    parts = (None, None) if labels is None else (labels[train], labels[test])
    return Data(events[train], events[test], about, *parts, columns=tuple(features), categories=code)


def _check_names(table: Table, features: list[str], label: list[str], categories: Sequence[str]) -> None:
    if not features:
        raise ValueError(f"a table needs at least one feature, got columns=(); it has {', '.join(table.names)}.")
    for name in (*features, *label, *categories):
        if name not in table.names:
            raise ValueError(unknown_name("column", name, table.names))
    for name in features:
        if features.count(name) > 1 or name in label:
            raise ValueError(f"each column is read once, {name!r} is named twice; name it in columns= or as label=.")
    for name in categories:
        if name not in features:
            raise ValueError(f"categories= names features to be coded, {name!r} is none; add it to columns=.")


class _Text:
    """A text file with a header, as columns of text."""

    def __init__(self, path: Path, delimiter: str) -> None:
        with path.open(newline="", encoding="utf-8-sig") as file:
            try:
                rows = csv.reader(file, delimiter=delimiter, strict=True)
                self.names = [name.strip() for name in next(rows, [])]
                _check_header(path, self.names)
                kept = [row for row in rows if row or len(self.names) == 1]  # a blank line is no row
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(f"{path} must be a table in UTF-8, got: {error}; check delimiter=.") from error
        for i, row in enumerate(kept):
            if len(row) != len(self.names):
                raise ValueError(
                    f"every row of {path} must have {len(self.names)} fields, got {len(row)} at row {i} (the first is "
                    "0); check delimiter= and quotes."
                )
        self._columns = dict(zip(self.names, zip(*kept))) if kept else dict.fromkeys(self.names, ())

    def numbers(self, name: str) -> np.ndarray:
        return numbers(name, self._columns[name])

    def texts(self, name: str) -> list[str]:
        return [value.strip() for value in self._columns[name]]

    def classes(self, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
        return codes(name, self.texts(name))


def _check_header(path: Path, names: list[str]) -> None:
    if not any(names):
        raise ValueError(f"the first line of {path} must name the columns, got nothing; write a header.")
    if len(set(names)) < len(names) or all(_numeric(name) for name in names):
        raise ValueError(f"the first line of {path} must name the columns, got {names[:5]}; write a header.")


def _numeric(text: str) -> bool:
    return text.replace(".", "", 1).lstrip("+-").isdigit()
