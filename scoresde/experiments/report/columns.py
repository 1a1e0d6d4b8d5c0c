"""Tables of the report: columns that round their numbers and name the definition that explains them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from scoresde.experiments.report.number_format import Number

__all__ = ["Cell", "Column", "ReportTable"]


@dataclass(frozen=True)
class Cell:
    """One cell: its text, its error, and the number by which the column is sorted; None for text."""

    text: str
    error: str = ""
    number: float | None = None


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        label: Its heading.
        field: Attribute of a row, or a function of the row: a `Number`, a number, or text. A row without it has an
            empty cell.
        how: Name of the `definitions.Definition` of the numbers.
        digits: Decimal places.
        factor: Multiplies the numbers.
        shows: The value, its error, or both.
    """

    label: str
    field: str | Callable[[Any], Number | float | str | None]
    how: str = ""
    digits: int = 3
    factor: float = 1.0
    shows: Literal["value", "error", "both"] = "value"

    @property
    def is_text(self) -> bool:
        """Whether the column holds text: those are the columns whose numbers nothing explains."""
        return not self.how

    def cell(self, row: Any) -> Cell:
        """The cell of a row."""
        value = getattr(row, self.field, None) if isinstance(self.field, str) else self.field(row)
        if isinstance(value, (int, float)):
            value = Number(value)
        if not isinstance(value, Number):
            return Cell(value or "")
        text, error = value.text(self.digits, self.factor), value.error_text(self.digits, self.factor)
        if self.shows == "error":
            return Cell(error, number=value.error)
        return Cell(text, error if self.shows == "both" else "", value.value)


@dataclass(frozen=True)
class ReportTable:
    """A table of the report.

    Attributes:
        label: What it shows.
        columns: The first names the rows.
        rows: Objects with the columns' fields.
        references: Number of leading rows that are no models, such as real data.
        note: Text below.
    """

    label: str
    columns: Sequence[Column]
    rows: Sequence[Any]
    references: int = 0
    note: str = ""

    @property
    def cells(self) -> list[list[Cell]]:
        """Row by row."""
        return [[column.cell(row) for column in self.columns] for row in self.rows]
