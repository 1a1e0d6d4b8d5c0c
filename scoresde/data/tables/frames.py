"""Data from tables in memory: pandas and polars frames, and all others that give their columns as Apache Arrow does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from scoresde.data.dataset import Data
from scoresde.data.description import Description
from scoresde.data.tables.arrow import ArrowTable, arrow_of
from scoresde.data.tables.column_names import several_names
from scoresde.data.tables.missing_cells import MISSING_TEXTS
from scoresde.data.tables.table_files import split_table
from scoresde.data.tables.table_to_data import table_to_data

__all__ = ["is_frame", "load_frame"]


def is_frame(source: object) -> bool:
    """Whether ``source`` is a table in memory: it has the method of Arrow's C stream interface and names of columns."""
    if isinstance(source, type) or not hasattr(source, "__arrow_c_stream__"):
        return False
    return hasattr(source, "columns") or hasattr(source, "column_names")


def load_frame(
    source: Any,
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
    shuffle: bool = True,
    one_hot: bool = False,
    like: Description | None = None,
) -> Data:
    """Reads a table in memory, such as a pandas or polars frame or a ``pyarrow.Table``; the index is no column.

    Args:
        source: The table.
        seed, test_fraction: The split.
        columns, label, condition, categories, kinds, missing, missing_texts: As in `load_table`.
        shuffle, one_hot, like: As in `load_table`.

    Returns:
        Data as of `load_table`.

    Raises:
        ModuleNotFoundError: If pyarrow is missing.
        TypeError, ValueError: As `load_table`.
    """
    table = ArrowTable(arrow_of(source), missing_texts=several_names("missing_texts", missing_texts) or ())
    split_rows = partial(split_table, test_fraction=test_fraction, seed=seed if shuffle else None)
    return table_to_data(
        table, "table", split_rows, columns, label, categories, missing, kinds, like, condition, one_hot
    )
