"""How are the columns of an Arrow table read? As numbers or as text, by the rules of `columns`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scoresde.data.columns import codes, finite, refuse_missing

__all__ = ["ArrowTable", "read_parquet"]


class ArrowTable:
    """A table of Apache Arrow (``pyarrow.Table``); ``named`` has the classes of columns that are coded already."""

    def __init__(self, table: Any, named: Mapping[str, Sequence[str]] | None = None) -> None:
        self.names: list[str] = list(table.column_names)
        self._table, self._named = table, named or {}

    def numbers(self, name: str) -> np.ndarray:
        """A column as ``float64``, ``(N,)``: of whole numbers, floats, decimals, or truth values as 0 and 1."""
        import pyarrow

        column, kinds = self._whole(name), pyarrow.types
        if kinds.is_boolean(column.type):
            column = column.cast(pyarrow.uint8())
        for is_number in (kinds.is_integer, kinds.is_floating, kinds.is_decimal):
            if is_number(column.type):
                return finite(name, column.cast(pyarrow.float64(), safe=False).to_numpy())
        raise ValueError(
            f"a column must hold numbers, {name!r} holds {column.type}; leave it out of columns=, convert it, or, if "
            f"it is text, read it as classes with label={name!r} or code it with categories=({name!r},)."
        )

    def texts(self, name: str) -> list[str]:
        """A column as text, one per row."""
        return [str(value).strip() for value in self._whole(name).to_pylist()]

    def classes(self, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
        """A column as classes ``0 ...``, ``(N,)``, and what they are called."""
        if name not in self._named:
            return codes(name, self.texts(name))
        labels, names = self.numbers(name).astype(np.int64), tuple(self._named[name])
        bad = np.flatnonzero((labels < 0) | (labels >= len(names)))
        if len(bad):
            raise ValueError(
                f"a class must be one of 0 ... {len(names) - 1}, got {labels[bad[0]]} in column {name!r} at row "
                f"{bad[0]} (the first is 0); leave label= or that part out."
            )
        return labels, names

    def _whole(self, name: str) -> Any:
        column = self._table.column(name)
        if column.null_count:
            missing = np.flatnonzero(column.is_null().to_numpy())
            refuse_missing(name, int(missing[0]), None, len(missing))
        return column


def read_parquet(path: Path) -> Any:
    """A Parquet file as a ``pyarrow.Table``.

    Raises:
        ModuleNotFoundError: If pyarrow is missing.
        ValueError: If it is no whole Parquet file.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ModuleNotFoundError(
            f"{path} is read by pyarrow, which is missing; pip install 'scoresde[parquet]'."
        ) from None
    try:
        return pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} must be a whole Parquet file, got: {error}; write it again.") from error
