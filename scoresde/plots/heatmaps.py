"""The heat map of a matrix in [-1, 1] with the same rows and columns, such as the dependence of a table's columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scoresde.plots.style import INK, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_heatmap"]

_WRITTEN = 8  # columns up to which every number is written
_LETTERS = 16


def draw_heatmap(axes: Axes, matrix: np.ndarray, names: Sequence[str]) -> None:
    """Draws a matrix: -1 in orange, 0 transparent, 1 in blue.

    Args:
        axes: To draw into.
        matrix: ``(D, D)``.
        names: Of rows and columns, ``D``.
    """
    from matplotlib.colors import LinearSegmentedColormap

    ends = [tuple(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)) for color in (SERIES[1], SERIES[0])]
    colors = [(*ends[0], 1.0), (*ends[0], 0.0), (*ends[1], 0.0), (*ends[1], 1.0)]
    shades = LinearSegmentedColormap.from_list("signed", list(zip((0.0, 0.5, 0.5, 1.0), colors)))
    labels = [name if len(name) <= _LETTERS else name[: _LETTERS - 1] + "…" for name in names]
    axes.imshow(matrix, cmap=shades, vmin=-1, vmax=1)
    size = 7.5 if len(labels) <= 14 else 6 if len(labels) <= 24 else 4.5
    axes.set_xticks(range(len(labels)), labels, rotation=90, fontsize=size)
    axes.set_yticks(range(len(labels)), labels, fontsize=size)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    if len(labels) > _WRITTEN:
        return
    for row, values in enumerate(matrix):
        for column, value in enumerate(values):
            text = f"{value:.2f}".replace("-", "−").replace("0.", ".") if row != column else ""
            axes.text(column, row, text, ha="center", va="center", fontsize=7, color=INK)
