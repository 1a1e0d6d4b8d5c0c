"""Apache Arrow tables and Parquet files, with columns read as numbers or as text by `parse_columns`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scoresde.data.tables.column_names import check_unique, name_blanks
from scoresde.data.tables.dates import parse_dates, warn_of_zone
from scoresde.data.tables.missing_cells import MISSING_TEXTS, is_missing
from scoresde.data.tables.parse_columns import check_exact_integers, check_finite_cells, encode_classes

__all__ = ["ArrowTable", "arrow_of", "read_parquet"]


class ArrowTable:
    """Columns of a ``pyarrow.Table``.

    Args:
        table: The table.
        class_names: For columns that are already encoded as 0, 1, ...: the names of their classes.
        missing_texts: Texts that stand for a missing cell, beside null and NaN.

    Raises:
        ValueError: If two columns have the same name.
    """

    def __init__(
        self,
        table: Any,
        class_names: Mapping[str, Sequence[str]] | None = None,
        missing_texts: Sequence[str] = MISSING_TEXTS,
    ) -> None:
        self.names: list[str] = name_blanks(list(table.column_names))
        check_unique(self.names)
        self.rows: int = table.num_rows
        self.metadata: Mapping[bytes, bytes] | None = table.schema.metadata
        self._columns = dict(zip(self.names, table.columns))
        self._class_names, self._missing_texts = class_names or {}, missing_texts

    def missing(self, name: str) -> np.ndarray:
        """Whether each cell of a column is null, NaN or a text that stands for a missing cell, ``(N,)``."""
        import pyarrow

        column = self._columns[name]
        if pyarrow.types.is_floating(column.type):
            return np.isnan(column.to_numpy())  # null becomes NaN
        if _holds_text(column.type):
            return is_missing(column.to_pylist(), self._missing_texts)
        return np.asarray(column.is_null().to_numpy(), dtype=bool)

    def numbers(self, name: str) -> np.ndarray:
        """A column of integers, floats, decimals or bools (as 0 and 1), as ``float64`` ``(N,)``; NaN if missing.

        Raises:
            ValueError: If it holds something else, or a value that is not finite or not exact in ``float64``.
        """
        import pyarrow

        column, kinds = self._columns[name], pyarrow.types
        missing = self.missing(name)
        if missing.all():
            return np.full(self.rows, np.nan)
        if kinds.is_boolean(column.type):
            column = column.cast(pyarrow.uint8())
        if kinds.is_integer(column.type) and column.type.bit_width == 64:
            texts = column.to_pylist()
            check_exact_integers(name, ((i, v) for i, v in enumerate(texts) if v is not None and abs(v) > 2**53))
        for is_number in (kinds.is_integer, kinds.is_floating, kinds.is_decimal):
            if is_number(column.type):
                values = column.cast(pyarrow.float64(), safe=False).to_numpy()
                return check_finite_cells(name, values, missing)
        raise ValueError(
            f"a column must hold numbers, {name!r} holds {column.type}; leave it out of columns=, convert it, or, if "
            f"it is text, state kinds={{{name!r}: 'category'}} or label={name!r}."
        )

    def texts(self, name: str) -> list[str]:
        """A column as text, one per row; a null is the text ``None``. Encoded classes are their names."""
        if name in self._class_names:
            names = list(self._class_names[name])
            codes = self._columns[name].to_pylist()
            return [str(code) if code is None or not 0 <= code < len(names) else names[code] for code in codes]
        return [str(value).strip() for value in self._columns[name].to_pylist()]

    def column(self, name: str) -> Any:
        """A column as a ``pyarrow.ChunkedArray``."""
        return self._columns[name]

    def cells(self, name: str) -> list[Any]:
        """The cells of a column as Python values; None for null."""
        return self._columns[name].to_pylist()

    def type_of(self, name: str) -> str:
        """The type of a column: "bool", "integer", "float", "date", "text", or "other"."""
        import pyarrow

        kind, kinds = self._columns[name].type, pyarrow.types
        if _holds_text(kind) or name in self._class_names:
            return "text"
        named = {"bool": kinds.is_boolean, "integer": kinds.is_integer, "date": _holds_dates}
        numeric = kinds.is_floating(kind) or kinds.is_decimal(kind)
        return next((name for name, holds in named.items() if holds(kind)), "float" if numeric else "other")

    def dates(self, name: str) -> tuple[np.ndarray, str]:
        """A column of dates, timestamps or texts as days or seconds, ``(N,)``, and their unit; see `parse_dates`."""
        import pyarrow

        column, kinds = self._columns[name], pyarrow.types
        if not _holds_dates(column.type):
            return parse_dates(name, self.texts(name), self.missing(name))
        if kinds.is_timestamp(column.type) and column.type.tz is not None:
            warn_of_zone(name)
        days = kinds.is_date(column.type)
        plain = column.cast(pyarrow.date32() if days else pyarrow.timestamp("us"), safe=False)
        whole = plain.cast(pyarrow.int32() if days else pyarrow.int64())
        present = whole.drop_null().to_numpy()
        values = np.full(self.rows, np.nan)
        values[~self.missing(name)] = present / (1 if days else 1e6)
        units = {"D": 1} if days else {"s": 10**6, "ms": 10**3}
        return values, next((unit for unit, count in units.items() if not np.any(present % count)), "us")

    def classes(self, name: str, rows: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
        """The class codes 0, 1, ... of the given rows, ``(M,)``, and the names of the classes."""
        if name not in self._class_names:
            return encode_classes(name, self.texts(name), rows)
        labels, names = self.numbers(name)[rows].astype(np.int64), tuple(self._class_names[name])
        bad = np.flatnonzero((labels < 0) | (labels >= len(names)))
        if len(bad):
            raise ValueError(
                f"a class must be one of 0 ... {len(names) - 1}, got {labels[bad[0]]} in column {name!r} at row "
                f"{rows[bad[0]]} (rows count from 0); leave label= or that part out."
            )
        return labels, names


def _holds_dates(kind: Any) -> bool:
    from pyarrow import types

    return types.is_date(kind) or types.is_timestamp(kind)


def _holds_text(kind: Any) -> bool:
    from pyarrow import types

    kind = kind.value_type if types.is_dictionary(kind) else kind
    return types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)


def arrow_of(source: Any) -> Any:
    """A table in memory as a ``pyarrow.Table``.

    Raises:
        ModuleNotFoundError: If pyarrow is missing.
    """
    try:
        import pyarrow
    except ImportError:
        raise ModuleNotFoundError(
            f"reading a {type(source).__name__} needs pyarrow, which is missing; pip install 'scoresde[parquet]'."
        ) from None
    is_pandas = type(source).__module__.partition(".")[0] == "pandas"
    return pyarrow.Table.from_pandas(source, preserve_index=False) if is_pandas else pyarrow.table(source)


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
        return pyarrow.parquet.ParquetFile(path).read()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} must be a complete Parquet file, got: {error}; write it again.") from error
