"""What ``scoresde likelihood`` computes, as it is shown: a report, a CSV line per event, and a histogram."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.data import Description

__all__ = ["Histogram", "ScoredEvents", "decimals", "formatted", "interval"]


@dataclass(frozen=True, eq=False)
class Histogram:
    """A histogram over the events.

    Args:
        values: One per event, ``(n,)``.
        label: Their name and unit.
        marks: Means that are marked in a figure, by name.
    """

    values: Tensor
    label: str
    marks: Mapping[str, float]

    def show(self) -> None:
        """Prints the histogram."""
        from scoresde.cli import console

        console.print_histogram(self.values.tolist(), self.label)

    def save(self, plot: Path, data: str) -> None:
        """Draws the histogram as PNG, with the name of the data."""
        from scoresde.cli.outputs import atomic_output
        from scoresde.plots.histogram import save_histogram

        with atomic_output(plot) as path:
            save_histogram(path, self.values.cpu().numpy(), f"{data}, {self.label}", self.marks)


class ScoredEvents(ABC):
    """Likelihoods or bounds of many events, in the form of one kind of data."""

    @abstractmethod
    def report(self, data: str, description: Description) -> None:
        """Prints the values with their errors and their parts, and the histogram.

        Args:
            data: The data and the number of their events, in words.
            description: Of the data.
        """

    @abstractmethod
    def columns(self) -> dict[str, Sequence[object]]:
        """The columns of a CSV file with a line per event; intervals hold with 95 %, by Student's t."""

    @abstractmethod
    def histogram(self) -> Histogram:
        """The histogram over the events."""

    def store(self, out: Path | None, plot: Path | None, data: str, rows: Tensor | None = None) -> None:
        """Writes the requested file and figure, and prints their paths.

        Args:
            out, plot: The files; None writes none.
            data: Name of the data.
            rows: Index of each event in the file; default 0, 1, ...
        """
        from scoresde.cli import console
        from scoresde.cli.outputs import write_columns

        if out is not None:
            columns = self.columns()
            lines = range(len(next(iter(columns.values())))) if rows is None else rows.tolist()
            write_columns({"index": lines, **columns}, out)
            console.print_done(f"{len(lines)} lines in {out}")
        if plot is not None:
            self.histogram().save(plot, data)
            console.print_done(f"the histogram is {plot}")


def formatted(numbers: Mapping[str, Tensor]) -> dict[str, Sequence[object]]:
    """Columns of numbers as text with 9 significant digits."""
    return {name: [f"{value:.9g}" for value in values.tolist()] for name, values in numbers.items()}


def decimals(value: float, digits: int = 4) -> str:
    """A number for a table of the terminal: with decimals, from a million on with six significant digits."""
    if math.isnan(value):
        return "unknown"
    return f"{value:.6g}" if abs(value) >= 1e6 else f"{round(value, digits) + 0.0:.{digits}f}"


def interval(low: float, high: float) -> str:
    """An interval for a table of the terminal."""
    return "unknown" if math.isnan(low) else f"{decimals(low)} … {decimals(high)}"
