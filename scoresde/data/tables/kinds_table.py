"""What is known of a table's columns, in words: a line for each, and which part of its log p is a density."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from scoresde.data.tables.column_maps import CategoryColumn, NumberColumn
from scoresde.data.tables.dates import dates_of

if TYPE_CHECKING:
    from scoresde.data.description import Description

__all__ = ["column_lines", "density_note"]

_SHOWN = 4


def column_lines(description: Description) -> list[tuple[str, str, str, str]]:
    """For each column its name, its kind, its values, and what becomes of it in model units; empty for other data.

    Args:
        description: Of a table that was read by name.
    """
    columns, encoding = description.columns, description.encoding
    if columns is None or encoding is None:
        return []
    maps = dict(zip(columns.names, encoding.columns, strict=True))
    return [(name, kind, *_line(name, kind, description, maps.get(name))) for name, kind in columns.kinds.items()]


def _line(
    name: str, kind: str, description: Description, each: NumberColumn | CategoryColumn | None
) -> tuple[str, str]:
    columns = description.columns
    assert columns is not None
    if isinstance(each, CategoryColumn):
        texts = columns.categories[name]
        more = ", …" if len(texts) > _SHOWN else ""
        form = "code" if description.codes else f"one-hot, {len(texts)} entries"
        return f"{len(texts)}: {', '.join(texts[:_SHOWN])}{more}", form
    if each is None:
        return (str(columns.constants[name]), "not modeled, comes back") if kind == "constant" else ("", "left out")
    ends = np.array([each.low, each.high])
    shown = [str(end) for end in dates_of(ends, columns.dates[name])] if kind == "date" else [f"{v:.6g}" for v in ends]
    step = f", steps of {each.step:g}" if each.step and kind == "numeric" else ""
    return " … ".join(shown) + step, "standardized" if each.standardized else "normal scores"


def density_note(description: Description) -> str:
    """One sentence about log p of a table's rows; empty for other data.

    Args:
        description: Of the data.
    """
    columns, encoding = description.columns, description.encoding
    if columns is None or encoding is None:
        return ""
    binned = [
        name
        for name, each in zip(columns.names, encoding.columns, strict=True)
        if isinstance(each, CategoryColumn) or each.step
    ]
    dense = [name for name in columns.names if name not in binned]
    if not binned:
        return f"log p is the log-density of all {len(dense)} columns, in their units."
    averaged = ", on average over dequantization," if encoding.dequantizes else ""
    bound = f"a lower bound{averaged} of the log-probability of"
    if not dense:
        return f"log p is {bound} all {len(binned)} columns; it is no density."
    return f"log p is the log-density of {_listed(dense)}, in their units, plus {bound} {_listed(binned)}."


def _listed(names: list[str]) -> str:
    return (
        ", ".join(names) if len(names) <= 2 * _SHOWN else f"{', '.join(names[:_SHOWN])} and {len(names) - _SHOWN} more"
    )
