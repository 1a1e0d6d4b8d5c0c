"""Apache Arrow tables and Parquet files, with columns read as numbers or as text by `parse_columns`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scoresde.data.parse_columns import check_all_finite, encode_classes, raise_missing

__all__ = ["ArrowTable", "read_parquet"]


class ArrowTable:
    """Columns of a ``pyarrow.Table``.

    Args:
        table: The table.
        class_names: For columns that are already encoded as 0, 1, ...: the names of their classes.
    """

    def __init__(self, table: Any, class_names: Mapping[str, Sequence[str]] | None = None) -> None:
        self.names: list[str] = list(table.column_names)
        self._table, self._class_names = table, class_names or {}

    def numbers(self, name: str) -> np.ndarray:
        """A column of integers, floats, decimals or booleans (as 0 and 1), converted to ``float64``, ``(N,)``."""
        import pyarrow

        column, kinds = self._column(name), pyarrow.types
        if kinds.is_boolean(column.type):
            column = column.cast(pyarrow.uint8())
        for is_number in (kinds.is_integer, kinds.is_floating, kinds.is_decimal):
            if is_number(column.type):
                return check_all_finite(name, column.cast(pyarrow.float64(), safe=False).to_numpy())
        raise ValueError(
            f"a column must hold numbers, {name!r} holds {column.type}; leave it out of columns=, convert it, or, if "
            f"it is text, read it as classes with label={name!r} or encode it with categories=({name!r},)."
        )

    def texts(self, name: str) -> list[str]:
        """A column as text, one per row."""
        return [str(value).strip() for value in self._column(name).to_pylist()]

    def classes(self, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """A column as class codes 0, 1, ..., ``(N,)``, and the names of the classes."""
        if name not in self._class_names:
            return encode_classes(name, self.texts(name))
        labels, names = self.numbers(name).astype(np.int64), tuple(self._class_names[name])
        bad = np.flatnonzero((labels < 0) | (labels >= len(names)))
        if len(bad):
            raise ValueError(
                f"a class must be one of 0 ... {len(names) - 1}, got {labels[bad[0]]} in column {name!r} at row "
                f"{bad[0]} (rows count from 0); leave label= or that part out."
            )
        return labels, names

    def _column(self, name: str) -> Any:
        column = self._table.column(name)
        if column.null_count:
            missing = np.flatnonzero(column.is_null().to_numpy())
            raise_missing(name, int(missing[0]), None, len(missing))
        return column


def read_parquet(path: Path) -> Any:
    """Reads a Parquet file as a ``pyarrow.Table``.

    Raises:
        ModuleNotFoundError: If pyarrow is missing.
        ValueError: If it is not a complete Parquet file.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ModuleNotFoundError(
            f"reading {path} needs pyarrow, which is missing; pip install 'scoresde[parquet]'."
        ) from None
    try:
        return pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} must be a complete Parquet file, got: {error}; write it again.") from error
