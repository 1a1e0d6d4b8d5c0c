"""Values of a table that lie far outside the range of its train part, where a model extrapolates."""

from __future__ import annotations

import warnings

import numpy as np
from torch import Tensor

from scoresde.data.description import Description
from scoresde.data.far_outside import far_outside
from scoresde.data.tables.column_maps import NumberColumn
from scoresde.data.tables.dates import dates_of

__all__ = ["refuse_far_values", "warn_of_far_values"]

_DATES = 1e12  # seconds, some 30,000 years: beyond, a number says more than a date


def warn_of_far_values(description: Description, y: Tensor, rows: Tensor | None = None) -> None:
    """Warns of numbers and dates that lie outside the train part's range by more than its width.

    Args:
        description: Of the train part; other data than tables that were read by name pass.
        y: Rows in data units, ``(N, D)``; missing cells (NaN) pass.
        rows: Their numbers in the file, ``(N,)``; default 0, 1, ...
    """
    if found := _found(description, y, rows, 1.0):
        warnings.warn(
            f"values lie far outside the train part, where the model extrapolates: {found}. Rows count from 0; check "
            "units, and leave out wrong rows.",
            stacklevel=3,
        )


def refuse_far_values(description: Description, y: Tensor) -> None:
    """Refuses known cells that are so far outside that nothing can be drawn given them.

    Args:
        description, y: As of `warn_of_far_values`.

    Raises:
        ValueError: If one lies outside the train part's range by more than 1000 times its width.
    """
    if found := _found(description, y, None, 1000.0):
        raise ValueError(
            f"known cells must be near those of the train part, {found}. Rows count from 0; correct these cells, or "
            "empty them, so that they are imputed."
        )


def _found(description: Description, y: Tensor, rows: Tensor | None, widths: float) -> str:
    """The first value of each column outside the range by more than some widths of it, in words; empty for none."""
    if description.encoding is None or description.columns is None:
        return ""
    found = []
    for place, column in enumerate(description.encoding.columns):
        if not isinstance(column, NumberColumn):
            continue
        values = y[:, place]
        far = far_outside(values, column.low, column.high, widths)
        if bool(far.any()):
            name, first = description.columns.names[place], int(far.nonzero()[0])
            shown, low, high = (
                _text(description, name, value) for value in (float(values[first]), column.low, column.high)
            )
            row = first if rows is None else int(rows[first])
            found.append(
                f"column {name!r} holds {shown} in row {row} ({int(far.sum())} such), the train part {low} to {high}"
            )
    return "; ".join(found)


def _text(description: Description, name: str, value: float) -> str:
    assert description.columns is not None
    unit = description.columns.dates.get(name)
    if unit is None or abs(value) > _DATES:
        return f"{value:g}"
    return str(dates_of(np.array([value]), unit)[0])
