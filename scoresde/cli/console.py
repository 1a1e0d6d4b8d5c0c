"""Terminal output: settings, tables, a text histogram, status lines and the closing line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from scoresde.data import Data, Description
    from scoresde.training.defaults import Recipe

__all__ = [
    "classes_text",
    "describe_data",
    "print_command",
    "print_columns",
    "print_done",
    "print_histogram",
    "print_settings",
    "print_status",
    "print_table",
    "recipe_settings",
    "same_classes",
]


_MOST_COLUMNS = 40  # of a table that are listed
_MOST_SYMBOLS = 100  # of an alphabet that are shown


def print_settings(settings: Mapping[str, str]) -> None:
    """Prints names and values, one pair per line."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in settings.items():
        grid.add_row(name, Text(value))
    Console().print(grid)


def print_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Prints a table; the first column is left-aligned and wraps on a narrow terminal, the others are right-aligned."""
    table = Table(box=None, header_style="dim", padding=(0, 1))
    for i, name in enumerate(columns):
        justify, min_width = ("right", None) if i else ("left", 16)
        table.add_column(name, justify=justify, no_wrap=i > 0, overflow="fold", min_width=min_width)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def print_columns(description: Description) -> None:
    """Prints the columns of a table that was read by name: kind, values, model units; nothing for other data."""
    from scoresde.data.tables.kinds import KINDS
    from scoresde.data.tables.kinds_table import column_lines

    lines = column_lines(description)
    if not lines:
        return
    table = Table("column", "kind", "values", "model units", box=None, header_style="dim", padding=(0, 1))
    for line in lines[:_MOST_COLUMNS]:
        table.add_row(*(Text(cell, overflow="fold") for cell in line))
    if len(lines) > _MOST_COLUMNS:
        table.add_row(f"… and {len(lines) - _MOST_COLUMNS} more")
    Console().print(table)
    example = f'to change a kind: --read kinds="{lines[0][0]}=category"; kinds are {", ".join(KINDS)}'
    Console(soft_wrap=True).print(Text(example, style="dim"))


def print_status(text: str) -> None:
    """Prints one line about the work in progress."""
    Console().print(Text.assemble(("● ", "cyan"), text))


def print_done(text: str, next_command: str | None = None) -> None:
    """Prints the closing line, and a command that the user may run next."""
    console = Console(soft_wrap=True)
    console.print(Text.assemble(("✓ ", "bold green"), text))
    if next_command:
        console.print(Text.assemble(("  next: ", "dim"), next_command))


def print_command(label: str, command: str) -> None:
    """Prints a command that the user may run instead, in one line that can be copied."""
    Console(soft_wrap=True).print(Text.assemble((f"  {label}: ", "dim"), command))


def print_histogram(values: Sequence[float], unit: str, rows: int = 12) -> None:
    """Prints a histogram: one bar with its count for each of up to ``rows`` intervals of equal width."""
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


def describe_data(data: Data) -> str:
    """One line about a data set: name, shape of an event, bins, sizes of its parts, missing values, conditions."""
    shape = " × ".join(map(str, data.description.shape)) or "numbers"
    bins = f", {data.description.bins} bins" if data.description.bins else ""
    bins = bins if data.description.classes is None else f", {classes_text(data.description)}"
    sizes = f"{len(data.train)} for training, {len(data.test)} held out"
    missing = ""
    if data.description.missing:
        share = float(data.train.isnan().double().mean())
        missing = f"; {100 * share:.3g} % of the values for training are missing, only observed ones count"
    kinds = {name: kind for name, kind in data.description.conditions.items() if name in data.train_cond}
    conditions = f"; conditions: {', '.join(f'{name} ({kind.describe()})' for name, kind in kinds.items())}"
    return f"{data.description.name}, {shape}{bins}; {sizes}{missing}{conditions if kinds else ''}"


def classes_text(description: Description) -> str:
    """The classes of categories and what they stand for, in a few words; "numbers" for other data."""
    if description.classes is None:
        return "numbers"
    text = f"{description.classes} classes"
    if description.alphabet is None:
        return text
    symbols = "".join(description.alphabet.symbols)
    kind = type(description.alphabet).__name__.lower()
    shown = symbols if len(symbols) <= _MOST_SYMBOLS else f"{symbols[:_MOST_SYMBOLS]}…"
    return f"{text} ({kind if kind == 'bytes' else repr(shown)})"


def same_classes(first: Description, second: Description) -> bool:
    """Whether two data sets have the same number of classes, which do not stand for different things."""
    alphabets = {first.alphabet, second.alphabet} - {None}
    return first.classes == second.classes and len(alphabets) < 2


def recipe_settings(recipe: Recipe) -> dict[str, str]:
    """A recipe's parts as text, for `print_settings`; a network that was chosen by default with its reason."""
    from scoresde.storage.setting_labels import short_text, without_long_lists

    network = without_long_lists(short_text(recipe.network))
    return {
        "process": without_long_lists(short_text(recipe.sde)),
        "network": network + (f": {recipe.reason}" if recipe.reason else ""),
        "output": short_text(recipe.parameterization),
        "training": short_text(recipe.training),
    }
