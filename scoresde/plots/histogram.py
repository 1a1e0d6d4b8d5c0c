"""How are values of events spread? One histogram, with means as marks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from scoresde.plots import style as ink

__all__ = ["draw_histogram", "save_histogram"]

_DASHES = ("-", "--", "-.", ":")


def draw_histogram(values: np.ndarray, label: str, marks: Mapping[str, float]) -> Figure:
    """Counts by value.

    Args:
        values: ``(n,)``, finite.
        label: What they are, with their unit.
        marks: Name -> a mean, drawn as a vertical line; what is not finite is left out.
    """
    figure = Figure(figsize=(7.5, 3.4), layout="constrained")
    axes = figure.add_subplot()
    axes.hist(values, bins=min(40, max(5, round(math.sqrt(len(values))))), color=ink.GRAY, alpha=0.45)
    for i, (name, place) in enumerate(marks.items()):
        if math.isfinite(place):
            color, dash = ink.SERIES[i % len(ink.SERIES)], _DASHES[i % len(_DASHES)]
            axes.axvline(place, color=color, linestyle=dash, label=f"{name}: mean {place:.3f}")
    axes.set_xlabel(label)
    axes.set_ylabel("events")
    axes.grid(axis="x", visible=False)
    if axes.lines:
        figure.legend(loc="outside upper left", ncols=2)
    return figure


def save_histogram(path: Path, values: np.ndarray, label: str, marks: Mapping[str, float]) -> None:
    """Writes the histogram as PNG; see `histogram`."""
    with ink.style("draw_histogram"):
        ink.png(draw_histogram(values, label, marks), path)
