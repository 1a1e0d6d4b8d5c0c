"""Tables whose missing cells are filled: index, order, types and all other cells are those of the table that came in.

A column changes its type only where a filled value does not fit into it, such as 1.5 among integers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from scoresde.data.tables.arrow import ArrowTable
from scoresde.data.tables.columns import arrow_table
from scoresde.data.tables.dates import are_dates, dates_of
from scoresde.data.tables.parse_columns import is_number
from scoresde.data.tables.text_table import TextTable

__all__ = ["filled_arrow", "filled_frame", "filled_numbers"]


def filled_arrow(table: TextTable | ArrowTable, arrays: Mapping[str, np.ndarray]) -> Any:
    """The table with its missing cells filled, as a ``pyarrow.Table`` of the same columns.

    Args:
        table: The table. Of a text file the columns get the types that their cells have.
        arrays: Values of some columns, ``(N,)`` each, as `table_arrays` gives them; others stay as they are.

    Raises:
        ModuleNotFoundError: If pyarrow is missing.
    """
    if isinstance(table, TextTable):
        return arrow_table(_typed(table, arrays))
    import pyarrow

    columns = {name: _filled_column(table, name, arrays.get(name)) for name in table.names}
    return pyarrow.table(columns).replace_schema_metadata(table.metadata)


def filled_frame(source: Any, table: TextTable | ArrowTable, arrays: Mapping[str, np.ndarray]) -> Any:
    """The table with its missing cells filled, as the kind of table that came in.

    Args:
        source: The table in memory, or the path of a file.
        table: The same, as it was read.
        arrays: As in `filled_arrow`.

    Returns:
        Of a pandas frame a pandas frame with the same index, of a polars frame a polars frame, of another table in
        memory a ``pyarrow.Table``. Of a file a pandas frame, or a ``pyarrow.Table`` where pandas is not installed.
    """
    library = type(source).__module__.partition(".")[0]
    if library == "pandas":
        return _filled_pandas(source, table, arrays)
    if library == "polars":
        return type(source)(filled_arrow(table, arrays))
    if hasattr(source, "__arrow_c_stream__"):
        return filled_arrow(table, arrays)
    try:
        import pandas
    except ImportError:
        return filled_arrow(table, arrays)
    return pandas.DataFrame(_typed(table, arrays)) if isinstance(table, TextTable) else _to_pandas(table, arrays)


def filled_numbers(source: Any, values: np.ndarray) -> Any:
    """A pandas frame of numbers with its missing cells filled from values ``(N, D)``, its index and types kept."""
    result = source.copy()
    for place in range(values.shape[1]):
        rows = np.flatnonzero(source.iloc[:, place].isna())
        if len(rows):
            result.iloc[rows, place] = values[rows, place]
    return result


def _to_pandas(table: ArrowTable, arrays: Mapping[str, np.ndarray]) -> Any:
    return filled_arrow(table, arrays).to_pandas()  # pandas' own metadata restore the index that it stored


def _filled_pandas(source: Any, table: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    result = source.copy()
    for place, name in enumerate(table.names):
        if name in arrays and len(rows := np.flatnonzero(table.missing(name))):
            filled = _filled_column(table, name, arrays[name])
            result.isetitem(place, _filled_series(source.iloc[:, place], rows, filled))
    return result


def _filled_series(series: Any, rows: np.ndarray, filled: Any) -> Any:
    """A pandas column with some cells set to those of an Arrow column."""
    cells, result = filled.take(rows).to_pylist(), series.copy()
    if hasattr(result, "cat"):
        known = set(result.cat.categories)
        result = result.cat.add_categories([cell for cell in dict.fromkeys(cells) if cell not in known])
    try:
        result.iloc[rows] = cells
    except (TypeError, ValueError):  # the type of the column does not hold them
        result = filled.to_pandas()
        result.index, result.name = series.index, series.name
    return result


def _filled_column(table: ArrowTable, name: str, values: np.ndarray | None) -> Any:
    """An Arrow column with its missing cells filled, of the same type if that holds the values."""
    import pyarrow

    column = table.column(name)
    rows = np.flatnonzero(table.missing(name)) if values is not None else ()
    if values is None or not len(rows):
        return column
    coded = pyarrow.types.is_dictionary(column.type)
    chunks = [_without_views(chunk.dictionary).take(chunk.indices) if coded else chunk for chunk in column.chunks]
    column = _without_views(pyarrow.chunked_array(chunks))
    fills = _in_type(values[rows], column.type)
    column = column if fills.type == column.type else column.cast(fills.type, safe=False)
    places = np.arange(table.rows)
    places[rows] = table.rows + np.arange(len(rows))
    filled = pyarrow.chunked_array([*column.chunks, fills]).take(pyarrow.array(places))
    return filled.dictionary_encode() if coded else filled


def _without_views(column: Any) -> Any:
    """Texts as plain strings where they are views, as in polars, of which pyarrow cannot take rows."""
    import pyarrow

    return column.cast(pyarrow.large_string()) if pyarrow.types.is_string_view(column.type) else column


def _in_type(values: np.ndarray, kind: Any) -> Any:
    """Values as an Arrow array of a type, or of their own if that type does not hold them."""
    import pyarrow

    if pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind):
        return pyarrow.array([str(value) for value in values], kind)
    array = pyarrow.array(values.tolist() if values.dtype.kind == "U" else values)
    try:
        return array.cast(kind)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError):
        return array


def _typed(table: TextTable, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All columns of a text file as arrays: the given ones, others by what their cells have in common."""
    return {name: _as_bools(arrays[name]) if name in arrays else _parsed(table, name) for name in table.names}


def _parsed(table: TextTable, name: str) -> np.ndarray:
    """Integers, floats, dates or bools where all cells are, else text; codes with zeros in front stay text."""
    missing, texts = table.missing(name), table.texts(name)
    present = [text for text, absent in zip(texts, missing, strict=True) if not absent]
    if are_dates(present):
        return dates_of(*table.dates(name))
    padded = any(re.fullmatch(r"[+-]?0\d+", text) for text in present)
    if present and len(present) == len(texts) and all(re.fullmatch(r"[+-]?\d{1,18}", text) for text in present):
        return np.array(texts) if padded else np.array([int(text) for text in texts], np.int64)
    points = [text.replace(table.decimal, ".") for text in present]
    large = any(re.fullmatch(r"[+-]?\d{16,}", text) for text in present)  # a float does not hold it
    if present and not padded and not large and all(map(is_number, points)):
        return table.numbers(name)
    return _as_bools(np.array(["" if absent else text for text, absent in zip(texts, missing, strict=True)], np.str_))


def _as_bools(values: np.ndarray) -> np.ndarray:
    """Texts that are all True or False as bools."""
    return values == "True" if values.dtype.kind == "U" and set(values.tolist()) in _BOOLS else values


_BOOLS = ({"True"}, {"False"}, {"True", "False"})
