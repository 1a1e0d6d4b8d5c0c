"""Tables with missing cells: all rows in the columns of an earlier table, and the same table with the cells filled."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from scoresde.data.conditions.fit import LABEL, condition_name
from scoresde.data.description import Description
from scoresde.data.tables.arrow import ArrowTable, arrow_of, read_parquet
from scoresde.data.tables.condition_columns import read_classes, read_conditions
from scoresde.data.tables.filled_table import filled_arrow, filled_frame
from scoresde.data.tables.missing_cells import MISSING_TEXTS
from scoresde.data.tables.read_like import columns_of, read_like
from scoresde.data.tables.text_table import TextTable

__all__ = ["IncompleteTable"]


class IncompleteTable:
    """A table whose cells may be missing, read as an earlier table was, without dropping a row.

    Args:
        source: Path of a file as `load_table` reads it, or a table in memory as `load_frame` does.
        like: Description of the earlier table.
        missing_texts: Texts that stand for a missing cell; a blank cell always does.
        **layout: Options of a text file, as in `load_table`: delimiter, encoding, header, decimal.

    Attributes:
        values: Data units, ``(N, D)`` float64, NaN where missing.

    Raises:
        FileNotFoundError, ModuleNotFoundError, TypeError, ValueError: As `load_table` with ``like=``.
    """

    values: np.ndarray

    def __init__(
        self, source: Any, like: Description, missing_texts: Sequence[str] = MISSING_TEXTS, **layout: Any
    ) -> None:
        self._columns, self._description, self._source = columns_of(like), like, source
        self.table = _opened(source, missing_texts, layout)
        found = read_like(self.table, np.arange(self.table.rows), self._columns)
        self.values = np.stack([column.values for column in found if column.modeled], axis=1)

    def conditions(self, names: Collection[str]) -> dict[str, Tensor]:
        """The conditions of these names that the earlier table had and that this one has a column for, in data units.

        Args:
            names: Of conditions.

        Returns:
            Classes ``(N,)`` and numbers ``(N, 1)``, NaN where missing.

        Raises:
            ValueError: If a class is missing or unknown.
        """
        label, rows = self._columns.label, np.arange(self.table.rows)
        known = self._description.conditions.keys() & set(names)
        columns = [name for name in self.table.names if name != label and condition_name(name) in known]
        cond, *_ = read_conditions(self.table, columns, rows, {}, self._description)
        if label in self.table.names and LABEL in known:
            cond[LABEL] = read_classes(self.table, label, rows, self._description.conditions[LABEL])[0]
        return cond

    def filled(self, arrays: Mapping[str, np.ndarray]) -> dict[str, list[Any]]:
        """All columns of the table with missing cells of the features filled; every other cell is as it was read.

        Args:
            arrays: Values of the features, ``(N,)`` each, as `table_arrays` gives them.

        Returns:
            Name -> cells: of a text file texts, else Python values.
        """
        result = {}
        for name in self.table.names:
            cells = self.table.cells(name)
            if name in arrays:
                rows = np.flatnonzero(self.table.missing(name))
                for row, value in zip(rows.tolist(), arrays[name][rows].tolist(), strict=True):
                    cells[row] = self._as_cell(value, arrays[name].dtype)
            result[name] = cells
        return result

    def arrow(self, arrays: Mapping[str, np.ndarray]) -> Any:
        """As `filled`, as a ``pyarrow.Table``; see `filled_arrow`."""
        return filled_arrow(self.table, arrays)

    def frame(self, arrays: Mapping[str, np.ndarray]) -> Any:
        """As `filled`, as the kind of table that came in, with its index; see `filled_frame`."""
        return filled_frame(self._source, self.table, arrays)

    def _as_cell(self, value: Any, kind: np.dtype) -> Any:
        if not isinstance(self.table, TextTable):
            return value
        text = str(np.array(value, kind)[()]) if kind.kind == "M" else str(value)
        return text.replace(".", ",") if self.table.decimal == "," and kind.kind == "f" else text


def _opened(source: Any, missing_texts: Sequence[str], layout: Mapping[str, Any]) -> TextTable | ArrowTable:
    if isinstance(source, (str, Path)):
        path = Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}; check the path (relative to {Path.cwd()}).")
        if path.suffix.lower() == ".parquet":
            return ArrowTable(read_parquet(path), missing_texts=missing_texts)
        return TextTable(path, missing_texts=missing_texts, **layout)
    return ArrowTable(arrow_of(source), missing_texts=missing_texts)
