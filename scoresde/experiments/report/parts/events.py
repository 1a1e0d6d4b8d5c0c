"""Events of any other shape: histograms of their values."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from scoresde.experiments.report.parts.curves import curves, histogram, histogram_edges
from scoresde.experiments.report.parts.part import DataPart, frame_title
from scoresde.experiments.report.pictures import Panel, Picture
from scoresde.experiments.results import Results
from scoresde.plots.style import SERIES

if TYPE_CHECKING:
    from scoresde.experiments.report.summary import Summary

__all__ = ["PART", "forward"]


def forward(results: Results) -> Picture:
    """One histogram of all values per frame."""
    states = results.arrays["forward"]
    half = 1.05 * float(np.abs(states[[0, -1]]).max())
    panels = [
        Panel(frame_title(results, i), partial(_histogram, x, half), size=(1.6, 1.3)) for i, x in enumerate(states)
    ]
    return Picture("Values of the noised events, from data to noise.", panels, columns=len(panels))


def samples(results: Results, summary: Summary) -> dict[str, Picture]:
    """Histograms of all values."""
    edges = histogram_edges(results.arrays["real"], results.content["data"]["bins"])
    curve = partial(histogram, edges=edges)
    return {"samples": curves(results, summary, curve, "Distribution of all values.", ("value", "share"))}


def _histogram(x: np.ndarray, half: float, axes: Axes) -> None:
    axes.hist(x.reshape(-1), bins=30, range=(-half, half), color=SERIES[0], alpha=0.8)
    axes.set_yticks([])
    axes.grid(visible=False)


PART = DataPart("event", "events", "Look for values that are missed or invented.", forward, samples)
