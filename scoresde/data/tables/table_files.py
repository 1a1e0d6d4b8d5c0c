"""Data from tables, text files and Parquet: columns are features, each with its kind, in ``float64``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde.data.dataset import Data
from scoresde.data.description import Description
from scoresde.data.split import split
from scoresde.data.tables.arrow import ArrowTable, read_parquet
from scoresde.data.tables.column_names import several_names
from scoresde.data.tables.missing_cells import MISSING_TEXTS
from scoresde.data.tables.table_to_data import Table, table_to_data
from scoresde.data.tables.text_table import TextTable

__all__ = ["load_table", "split_table"]


def load_table(
    path: str | Path,
    seed: int = 0,
    test_fraction: float = 0.2,
    *,
    columns: str | Sequence[str] | None = None,
    label: str | None = None,
    condition: str | Sequence[str] | None = None,
    categories: str | Sequence[str] = (),
    kinds: Mapping[str, str] | None = None,
    missing: str = "refuse",
    missing_texts: str | Sequence[str] = MISSING_TEXTS,
    header: bool | None = None,
    delimiter: str | None = None,
    encoding: str | None = None,
    decimal: str = ".",
    shuffle: bool = True,
    one_hot: bool = False,
    like: Description | None = None,
) -> Data:
    """Reads a table, ``.csv``, ``.tsv``, ``.txt`` (also gzipped) or ``.parquet``: continuous events of shape ``(D,)``.

    Args:
        path: The file. Text files are UTF-8, or what their byte order mark states, and numbers are written as in
            Python. Parquet needs pyarrow (``pip install scoresde[parquet]``).
        seed, test_fraction: The split.
        columns: Name or names of the features, in order; ``None`` takes all columns except ``label`` and those of
            ``condition``, in the file's order, and except a column without a name that only counts the rows (a written
            index), with a warning.
        label: The column of class labels, numbers or text; its values, sorted, become the classes 0, 1, ...
        condition: Name or names of columns on which the model is conditioned; they are no features. Categories become
            classes, numbers and dates vectors of one entry. The condition has the name of its column, with ``_`` for
            signs that no Python name has.
        categories: Name or names of features that are categories, whatever they hold. ``Data.categories`` has the texts
            of their codes 0, 1, ..., which are in sorted order.
        kinds: Kinds of columns, each one of numeric, integer, category, date, constant and identifier, such as
            ``{"zip": "category", "year": "numeric"}``. ``None`` finds the kind of every column in the file.
        missing: ``"refuse"`` raises an error if a cell is missing, ``"drop"`` leaves its row out, with a warning.
            ``"mask"`` keeps features that are missing as NaN: training counts observed cells only, and the network
            receives the mask. It leaves out rows without any value.
        missing_texts: Texts that stand for a missing cell, in upper or lower case; a blank cell always does.
        header: Whether the first line of a text file names the columns. ``None`` decides: a line of numbers is data,
            with a warning, and the columns are then called x0, x1, ...; a line that could be either is refused.
        delimiter: Separator of the fields of a text file; ``None`` finds a comma, tab, semicolon, bar or space.
        encoding: Encoding of a text file, such as ``"latin-1"``.
        decimal: Decimal mark of a text file, ``"."`` or ``","``.
        shuffle: Draw the test part at random; ``False`` takes the last rows (for time series).
        one_hot: Categories become one-hot entries of a Gaussian process, in place of codes, which the default recipe
            noises as categories beside the numbers (`scoresde.process.Mixed`). The probability-flow ODE, exact
            densities, calibrated samplers and few-step students need it.
        like: Description of an earlier table: this one is read with its columns, kinds and codes, and gets that
            description. So a trained model scores other rows, ``load_data(path, like=model.data)``.

    Returns:
        Data with ``columns``. The description has the kind of each column and its map to model units, which is fitted
        to the train part. Columns of one value, and those that only identify rows, are no features, with a warning.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If pyarrow is missing.
        TypeError: If an option is of the wrong kind.
        ValueError: If a column is unknown (the error suggests the nearest), constant in the train part, without a
            name, has a missing cell, or cells of several kinds; if names are equal, a row has another number of
            fields, or the layout is ambiguous.
    """
    options = {"path": path, "test_fraction": test_fraction, "shuffle": shuffle, "one_hot": one_hot, "like": like}
    check_arguments(load_table, options)
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
    split_rows = partial(split_table, test_fraction=test_fraction, seed=seed if shuffle else None)
    return table_to_data(table, stem, split_rows, columns, label, categories, missing, kinds, like, condition, one_hot)


def split_table(rows: np.ndarray, test_fraction: float, seed: int | None) -> tuple[Tensor | slice, Tensor | slice]:
    """The indices of train and test part among the rows that are used; see `scoresde.data.split.split`."""
    return split(len(rows), test_fraction, seed)
