"""Images: sheets of samples, power spectrum, and the distribution of pixel values."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from scoresde.experiments.report.parts.curves import curves, histogram, histogram_edges, power_spectrum
from scoresde.experiments.report.parts.part import DataPart, frame_title, sample_panels
from scoresde.experiments.report.pictures import SQUARE, Panel, Picture
from scoresde.experiments.results import Results
from scoresde.plots.image_grid import grid, to_bytes

if TYPE_CHECKING:
    from scoresde.experiments.report.summary import Summary

__all__ = ["PART", "images_per_sheet", "value_range"]

_BYTES = 1_200_000  # of all sheets of the page before compression, which noise resists
_COUNTS = (36, 25, 16, 9, 4, 1)  # images of a sheet


def images_per_sheet(values: int, sheets: int) -> int:
    """The largest square number of images with which all sheets fit the page.

    Args:
        values: Of one image.
        sheets: Of the page.
    """
    return next((count for count in _COUNTS if count * values * sheets <= _BYTES), 1)


def value_range(results: Results) -> tuple[float, float]:
    """The values that are shown as black and white."""
    bins, real = results.content["data"]["bins"], results.arrays["real"]
    return (0.0, bins - 1.0) if bins else (float(real.min()), float(max(real.max(), real.min() + 1e-12)))


def forward(results: Results) -> Picture:
    """One column per frame; black and white widen with the noise."""
    states, sigmas = results.arrays["forward"], results.content["forward"]["sigma"]
    low, high = float(states[0].min()), float(states[0].max())
    panels = []
    for i, (x, sigma) in enumerate(zip(states, sigmas, strict=True)):
        column = grid(_thinned(to_bytes(x, low - 1.2 * sigma, high + 1.2 * sigma), 96), columns=1, gap=1)
        size = (1.0, column.shape[0] / column.shape[1])  # so narrow that all frames fit one row of a wide page
        panels.append(Panel(frame_title(results, i), sheet=column, size=size))
    return Picture("Noised images, from data to noise.", panels, columns=len(panels))


def samples(results: Results, summary: Summary) -> dict[str, Picture]:
    """A sheet of held-out images, then one per sampler, for each weighting."""
    low, high = value_range(results)
    real, limit = results.arrays["real"], _BYTES / (len(summary.weightings) * (1 + len(summary.samplers)))
    shape = to_bytes(real[:1], low, high).shape
    side = int((limit / 3) ** 0.5)  # of one image that alone fills the budget
    count = images_per_sheet(min(int(np.prod(shape)), 3 * side**2), round(_BYTES / limit))

    def panel(title: str, x: np.ndarray, _: int | None) -> Panel:
        return Panel(title, sheet=grid(_thinned(to_bytes(x[:count], low, high), side), gap=1), size=SQUARE)

    panels = sample_panels(results, summary, panel)
    return {"samples": Picture("A sheet of images:", panels, columns=1 + len(summary.samplers))}


def statistics(results: Results, summary: Summary) -> dict[str, Picture]:
    """Power spectrum and pixel values."""
    edges = histogram_edges(results.arrays["real"], results.content["data"]["bins"])
    spectrum, values = partial(power_spectrum, axes=2), partial(histogram, edges=edges)
    names = ("spatial frequency, cycles per pixel", "power")
    return {
        "spectrum": curves(results, summary, spectrum, "Power by spatial frequency.", names, log=True),
        "values": curves(results, summary, values, "Distribution of pixel values.", ("pixel value", "share")),
    }


def _thinned(images: np.ndarray, side: int) -> np.ndarray:
    """Images whose sides are at most about ``side`` pixels: of larger ones every second, third, … pixel."""
    step = -(-max(images.shape[1:3]) // side)
    return images[:, ::step, ::step]


PART = DataPart(
    event="image",
    events="images",
    advice="Look for broken or smeared strokes, and for variety. A click enlarges a sheet.",
    forward=forward,
    samples=samples,
    statistics=statistics,
    statistics_title="Sharpness and contrast",
    statistics_text="The power spectrum shows sharpness: too little power at high frequencies is blur, too much is "
    "noise. The pixel values show contrast and background.",
)
