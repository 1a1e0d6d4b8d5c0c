"""How do results look in a terminal? Tables and closing lines."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from scoresde.data import Data
    from scoresde.training.defaults import Recipe

__all__ = ["about", "done", "histogram", "recipe", "say", "settings", "table"]


def settings(lines: Mapping[str, str]) -> None:
    """Names and values, one to a line."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in lines.items():
        grid.add_row(name, Text(value))
    Console().print(grid)


def table(columns: Iterable[str], rows: Iterable[Iterable[str]], title: str | None = None) -> None:
    """A table; the first column is left-aligned and folds where there is little room, the others right-aligned."""
    shown = Table(title=title, title_justify="left", title_style="bold", box=None, header_style="dim", padding=(0, 1))
    for i, name in enumerate(columns):
        least = None if i else 16
        shown.add_column(name, justify="right" if i else "left", no_wrap=i > 0, overflow="fold", min_width=least)
    for row in rows:
        shown.add_row(*(Text(cell) for cell in row))
    Console().print(shown)


def say(text: str) -> None:
    """One line about what is going on."""
    Console().print(Text.assemble(("● ", "cyan"), text))


def done(text: str, then: str | None = None) -> None:
    """The last line, and what one may do next."""
    console = Console(soft_wrap=True)
    console.print(Text.assemble(("✓ ", "bold green"), text))
    if then:
        console.print(Text.assemble(("  next: ", "dim"), then))


def histogram(values: Sequence[float], unit: str, rows: int = 12) -> None:
    """How values are spread: one bar per interval of equal width, with its count."""
    import numpy as np

    if not len(values):
        return
    counts, edges = np.histogram(values, bins=min(rows, max(1, len(values))))
    digits = max(0, 2 - math.floor(math.log10(max(edges[1] - edges[0], 1e-12))) - 1)
    grid = Table.grid(padding=(0, 1))
    grid.add_column(justify="right", style="dim", no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(justify="right", style="dim")
    for count, low, high in zip(counts.tolist(), edges, edges[1:]):
        bar = Text("█" * round(40 * count / max(counts)), style="cyan")
        grid.add_row(f"{low:.{digits}f} … {high:.{digits}f}", bar, str(count))
    console = Console()
    console.print(Text(f"events by {unit}", style="dim"))
    console.print(grid)


def about(data: Data) -> str:
    """One line about a data set."""
    shape = " × ".join(map(str, data.description.shape)) or "numbers"
    levels = f", {data.description.bins} levels" if data.description.bins else ""
    return f"{data.description.name}, {shape}{levels}; {len(data.train)} to train on, {len(data.test)} held out"


def recipe(recipe: Recipe) -> dict[str, str]:
    """A recipe's parts as text."""
    from scoresde.storage.labels import short_text

    return {
        "process": short_text(recipe.sde),
        "network": short_text(recipe.network),
        "gives": short_text(recipe.parameterization),
        "training": short_text(recipe.training),
    }
