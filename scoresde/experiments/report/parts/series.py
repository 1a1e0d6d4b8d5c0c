"""Series: examples, mean and spread by position, power spectrum and autocorrelation."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from scoresde.experiments.report.parts.curves import Curve, autocorrelation, curves, power_spectrum
from scoresde.experiments.report.parts.part import DataPart, frame_title, sample_panels
from scoresde.experiments.report.pictures import Panel, Picture, bare
from scoresde.experiments.results import Results
from scoresde.plots.style import GRAY, SERIES

if TYPE_CHECKING:
    from scoresde.experiments.report.summary import Summary

__all__ = ["PART"]

_EXAMPLES = 4  # in a panel


def forward(results: Results) -> Picture:
    """The same two series in every frame, first channel."""
    states = results.arrays["forward"]
    half = 1.05 * float(np.abs(states[:, :2]).max())
    panels = [
        Panel(frame_title(results, i), partial(_lines, x[:2], (-half, half), SERIES[0]), size=(1.8, 1.2), framed=False)
        for i, x in enumerate(states)
    ]
    return Picture("Noised series, from data to noise.", panels, columns=len(panels))


def samples(results: Results, summary: Summary) -> dict[str, Picture]:
    """Some held-out series, then some of each sampler, for each weighting."""
    real = _first_channel(results.arrays["real"])
    low, high = float(real.min()), float(real.max())
    margin = 0.08 * (high - low) + 1e-9

    def panel(title: str, x: np.ndarray, i: int | None) -> Panel:
        color = GRAY if i is None else SERIES[i % len(SERIES)]
        limits = low - margin, high + margin
        return Panel(title, partial(_lines, x[:_EXAMPLES], limits, color), size=(3.0, 1.6), framed=False)

    panels = sample_panels(results, summary, panel)
    return {"samples": Picture("Four series:", panels, columns=1 + len(summary.samplers))}


def statistics(results: Results, summary: Summary) -> dict[str, Picture]:
    """Spread by position, spectrum, autocorrelation."""
    spectrum = partial(power_spectrum, axes=1)
    names = ("frequency, cycles per position", "power")
    return {
        "spectrum": curves(results, summary, spectrum, "Power by frequency.", names, log=True),
        "autocorrelation": curves(
            results, summary, autocorrelation, "Autocorrelation by lag.", ("lag", "autocorrelation")
        ),
        "mean": curves(results, summary, partial(_by_position, np.mean), "Mean by position.", ("position", "mean")),
        "spread": curves(
            results, summary, partial(_by_position, np.std), "Spread by position.", ("position", "standard deviation")
        ),
    }


def _by_position(statistic: Callable[..., Any], x: np.ndarray) -> Curve:
    rows = _first_channel(x)
    return np.arange(rows.shape[1]), statistic(rows, axis=0)


def _first_channel(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float64) if x.ndim == 2 else x[:, 0].astype(np.float64)


def _lines(x: np.ndarray, limits: tuple[float, float], color: str, axes: Axes) -> None:
    for i, row in enumerate(_first_channel(x)):
        axes.plot(row, color=color, linewidth=1.1, alpha=1.0 - 0.2 * i)
    bare(axes)
    axes.set_ylim(limits)


PART = DataPart(
    event="series",
    events="series",
    advice="Look for trends, steps and noise that only one of them has. The first channel is shown.",
    forward=forward,
    samples=samples,
    statistics=statistics,
    statistics_title="Spectra and autocorrelation",
    statistics_text="The power spectrum and the autocorrelation show how positions depend on each other. They are "
    "means over all channels. Mean and standard deviation by position show the first channel.",
)
