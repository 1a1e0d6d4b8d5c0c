"""A histogram of one value per event, with means as vertical lines."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scoresde._core.annotations import check_arguments
from scoresde.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_histogram", "save_histogram"]

_DASHES = ("-", "--", "-.", ":")


def draw_histogram(values: np.ndarray, label: str, marks: Mapping[str, float]) -> Figure:
    """Draws the number of events by value.

    Args:
        values: ``(n,)``, finite.
        label: What the values are, with their unit.
        marks: Name to mean, drawn as a vertical line. Values that are not finite are left out.
    """
    check_arguments(draw_histogram, locals())
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.hist(values, bins=min(40, max(5, round(math.sqrt(len(values))))), color=style.GRAY, alpha=0.45)
    for i, (name, mean) in enumerate(marks.items()):
        if math.isfinite(mean):
            color, dash = style.SERIES[i % len(style.SERIES)], _DASHES[i % len(_DASHES)]
            axes.axvline(mean, color=color, linestyle=dash, label=f"{name}: mean {mean:.3f}")
    axes.set_xlabel(label)
    axes.set_ylabel("events")
    axes.grid(axis="x", visible=False)
    if axes.lines:
        figure.legend(loc="outside upper left", ncols=2)
    return figure


def save_histogram(path: Path, values: np.ndarray, label: str, marks: Mapping[str, float]) -> None:
    """Writes the figure of `draw_histogram` as PNG."""
    check_arguments(save_histogram, locals())
    with style.figure_style("draw_histogram"):
        style.save_png(draw_histogram(values, label, marks), path)
