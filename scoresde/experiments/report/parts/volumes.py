"""Volumes: slices through their middle along each axis, power spectrum, and the distribution of their values."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from scoresde.experiments.report.parts.curves import curves, histogram, histogram_edges, power_spectrum
from scoresde.experiments.report.parts.images import images_per_sheet, value_range
from scoresde.experiments.report.parts.part import DataPart, frame_title, sample_panels
from scoresde.experiments.report.pictures import SQUARE, Panel, Picture
from scoresde.experiments.results import Results
from scoresde.plots.image_grid import grid, to_bytes

if TYPE_CHECKING:
    from scoresde.experiments.report.summary import Summary

__all__ = ["PART", "middle_slices"]

_VOLUMES = 4  # in a sheet


def middle_slices(x: np.ndarray) -> np.ndarray:
    """The slices through the middle of each volume, the three axes in turn.

    Args:
        x: ``(n, C, D, H, W)``; the first channel is shown.

    Returns:
        ``(n, 3, S, S)`` with the longest side S; smaller slices have a border of their least value.
    """
    side = max(x.shape[2:])
    slices = np.full((len(x), 3, side, side), x.min(), dtype=x.dtype)
    for axis in range(3):
        plane = np.take(x[:, 0], x.shape[2 + axis] // 2, axis=1 + axis)
        slices[:, axis, : plane.shape[1], : plane.shape[2]] = plane
    return slices


def forward(results: Results) -> Picture:
    """The slices of the first volume in every frame."""
    states, sigmas = results.arrays["forward"], results.content["forward"]["sigma"]
    low, high = float(states[0].min()), float(states[0].max())
    panels = []
    for i, (x, sigma) in enumerate(zip(states, sigmas, strict=True)):
        column = _sheet(x[:1], low - 1.2 * sigma, high + 1.2 * sigma)
        panels.append(Panel(frame_title(results, i), sheet=column, size=(1.3, 3.9)))
    return Picture("Slices of a noised volume, from data to noise.", panels, columns=len(panels))


def samples(results: Results, summary: Summary) -> dict[str, Picture]:
    """A sheet of slices of held-out volumes, then one per sampler, for each weighting."""
    low, high = value_range(results)
    sheets = len(summary.weightings) * (1 + len(summary.samplers))
    count = min(_VOLUMES, images_per_sheet(9 * max(results.arrays["real"].shape[2:]) ** 2, sheets))

    def panel(title: str, x: np.ndarray, _: int | None) -> Panel:
        return Panel(title, sheet=_sheet(x[:count], low, high), size=SQUARE)

    panels = sample_panels(results, summary, panel)
    label = "Slices through the middle of volumes, one volume per column:"
    return {"samples": Picture(label, panels, columns=1 + len(summary.samplers))}


def statistics(results: Results, summary: Summary) -> dict[str, Picture]:
    """Power spectrum and values."""
    edges = histogram_edges(results.arrays["real"], results.content["data"]["bins"])
    spectrum, values = partial(power_spectrum, axes=3), partial(histogram, edges=edges)
    names = ("spatial frequency, cycles per voxel", "power")
    return {
        "spectrum": curves(results, summary, spectrum, "Power by spatial frequency.", names, log=True),
        "values": curves(results, summary, values, "Distribution of voxel values.", ("voxel value", "share")),
    }


def _sheet(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """One column per volume, one row per axis."""
    slices = middle_slices(x).swapaxes(0, 1)
    return grid(to_bytes(slices.reshape(-1, *slices.shape[2:]), low, high), columns=len(x), gap=1)


PART = DataPart(
    event="volume",
    events="volumes",
    advice="Each column shows one volume: its middle slices across depth, height and width. A click enlarges a sheet.",
    forward=forward,
    samples=samples,
    statistics=statistics,
    statistics_title="Sharpness and contrast",
    statistics_text="The power spectrum shows sharpness: too little power at high frequencies is blur, too much is "
    "noise.",
)
