"""Output files of ``impute``: completed tables, and mean and interval of each missing cell."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoresde.cli.outputs import atomic_output

if TYPE_CHECKING:
    from scoresde.data.tables.incomplete_table import IncompleteTable
    from scoresde.inverse import Imputed

__all__ = ["check_target", "write_filled", "write_intervals"]

_TEXT = (".csv", ".tsv", ".txt")
_PLACE, _DRAW = "{draw}", "draw"


def check_target(out: Path, intervals: Path | None) -> None:
    """Refuses output files of other kinds, before any work is done.

    Raises:
        ValueError: If ``out`` is no table, or ``intervals`` no .csv.
    """
    if out.suffix.lower() not in (*_TEXT, ".parquet"):
        raise ValueError(f"--out must end in .csv, .tsv, .txt or .parquet, got {out}.")
    if intervals is not None and intervals.suffix.lower() != ".csv":
        raise ValueError(f"--intervals must end in .csv, got {intervals}.")


def write_filled(out: Path, table: IncompleteTable, result: Imputed) -> list[Path]:
    """Writes the completed tables: one file with a column ``draw`` if there are several, or one file for each.

    Args:
        out: The file, or one name for several, with ``{draw}`` where their number from 1 goes.
        table: The table that was read, with all its columns. Text is written with its separator, cell by cell as it
            was read; a Parquet file has types.
        result: The draws.

    Returns:
        The files.

    Raises:
        ValueError: If a column of the table is called draw, and so would be another one.
    """
    draws, parquet = result.data.shape[1], out.suffix.lower() == ".parquet"
    if draws > 1 and _PLACE not in out.name and "draw" in table.table.names:
        raise ValueError(
            f'the table has a column "draw" itself; write one file per draw: --out "{out.stem}-{_PLACE}{out.suffix}".'
        )
    write = _write_parquet if parquet else partial(_write_text, separator=_separator(out, table))
    tables = [(table.arrow if parquet else table.filled)(result.columns(draw)) for draw in range(draws)]
    if _PLACE in out.name:
        files = [out.with_name(out.name.replace(_PLACE, str(draw + 1))) for draw in range(draws)]
        for path, filled in zip(files, tables, strict=True):
            write(path, [filled])
        return files
    write(out, tables)
    return [out]


def write_intervals(path: Path, result: Imputed, level: float) -> None:
    """Writes one line for each missing cell: row (from 0), column, mean, low and high.

    The mean of a category is the text that was drawn most often, with its share in the column ``share``; it has no
    interval. Dates and numbers have no share.
    """
    import numpy as np

    from scoresde.data.tables.columns import table_arrays

    description, (low, high), mean = result.description, result.interval(level), result.mean()
    assert description is not None
    assert description.columns is not None
    columns = description.columns
    decoded = [table_arrays(values.cpu().numpy(), _as_numbers(description)) for values in (mean, low, high)]
    texts = table_arrays(mean.cpu().numpy(), description)
    with atomic_output(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["row", "column", "mean", "low", "high", "share"])
        for row, index in result.missing.nonzero().tolist():
            name = columns.names[index]
            if name in columns.categories:
                share = float((result.data[row, :, index] == mean[row, index]).double().mean())
                writer.writerow([row, name, texts[name][row], "", "", f"{share:.4g}"])
            else:
                writer.writerow([row, name, *(np.asarray(part[name])[row] for part in decoded), ""])


def _as_numbers(description: Any) -> Any:
    """The description with integers as real numbers, whose mean need not be whole."""
    from dataclasses import replace

    return replace(description, columns=replace(description.columns, integers=()))


def _separator(out: Path, table: IncompleteTable) -> str:
    """The separator of the file that was read; a tab for .tsv, and a comma where none was read."""
    if out.suffix.lower() == ".tsv":
        return "\t"
    return getattr(table.table, "delimiter", ",")


def _write_parquet(path: Path, tables: Sequence[Any]) -> None:
    """Arrow tables in one file, with their number in a column if there are several; a number may become a float."""
    import pyarrow
    import pyarrow.parquet

    if len(tables) > 1:
        numbers = [pyarrow.array([draw] * table.num_rows, pyarrow.int64()) for draw, table in enumerate(tables, 1)]
        tables = [table.add_column(0, _DRAW, number) for table, number in zip(tables, numbers, strict=True)]
    joined = tables[0] if len(tables) == 1 else pyarrow.concat_tables(tables, promote_options="permissive")
    with atomic_output(path) as temporary:
        pyarrow.parquet.write_table(joined, temporary)


def _write_text(path: Path, tables: Sequence[dict[str, list[Any]]], separator: str) -> None:
    """Columns of cells in one file, with their number in a column if there are several."""
    with atomic_output(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter=separator, lineterminator="\n")
        several = len(tables) > 1
        writer.writerow([*([_DRAW] if several else []), *tables[0]])
        for draw, columns in enumerate(tables, 1):
            first = [draw] if several else []
            writer.writerows([*first, *map(_cell, row)] for row in zip(*columns.values(), strict=True))


def _cell(cell: Any) -> Any:
    """A cell as text; what is missing is empty."""
    return "" if cell is None or cell != cell else cell
