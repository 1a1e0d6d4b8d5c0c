r"""Curves in which samples are compared with held-out events: power spectra, autocorrelations, histograms.

- Power spectrum: $E|\mathcal F(x - \bar x)|^2 / N$ over events and channels, averaged over shells of equal frequency.
- Autocorrelation: $E_t[x_t x_{t+k}] / E_t[x_t^2]$ after subtraction of the mean of all values of the channel.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from scoresde.experiments.report.pictures import Key, Panel, Picture, Values, shown
from scoresde.experiments.results import Results
from scoresde.plots.style import GRAY, SERIES

if TYPE_CHECKING:
    from scoresde.experiments.report.summary import Summary

__all__ = ["Curve", "autocorrelation", "curves", "histogram", "histogram_edges", "power_spectrum"]

Curve = tuple[np.ndarray, np.ndarray]
"""Positions and values, ``(n,)`` each."""

_DASHES = ("-", "--", "-.", ":")
_EVENTS = 500  # at most, of each set


def power_spectrum(x: np.ndarray, axes: int) -> Curve:
    """The mean power in shells of frequency, in cycles per sample.

    Args:
        x: Events, ``(n, *D)``.
        axes: Number of trailing axes that are space or time.

    Returns:
        Frequencies up to 1/2, without 0, and powers.
    """
    x = x.astype(np.float64)
    trailing = tuple(range(x.ndim - axes, x.ndim))
    sizes = [x.shape[axis] for axis in trailing]
    power = np.abs(np.fft.fftn(x - x.mean((0, *trailing), keepdims=True), axes=trailing)) ** 2 / np.prod(sizes)
    power = power.reshape(-1, *sizes).mean(0)
    radius = np.sqrt(sum(part**2 for part in np.meshgrid(*map(np.fft.fftfreq, sizes), indexing="ij")))
    shells = max(1, min(sizes) // 2)
    shell = np.rint(radius * 2 * shells).astype(int)
    counts, sums = (np.bincount(shell.ravel(), w, shells + 1)[1 : shells + 1] for w in (None, power.ravel()))
    return np.arange(1, shells + 1) / (2 * shells), sums / np.maximum(counts, 1)


def autocorrelation(x: np.ndarray) -> Curve:
    """The autocorrelation at lags 0 up to half the length.

    Args:
        x: Events, ``(n, *C, L)``.
    """
    x = x.astype(np.float64)
    x = x - x.mean((0, -1), keepdims=True)
    lags, variance = np.arange(x.shape[-1] // 2 + 1), np.mean(x**2)
    moments = [np.mean(x[..., : x.shape[-1] - k] * x[..., k:]) for k in lags]
    return lags, np.asarray(moments) / variance if variance > 0 else np.ones(len(lags))


def histogram_edges(real: np.ndarray, bins: int | None) -> np.ndarray:
    """One bin per integer value, at most 64; else 40 bins over the range of the real values."""
    if bins is not None:
        return np.linspace(-0.5, bins - 0.5, min(bins, 64) + 1)
    low, high = float(real.min()), float(real.max())
    return np.linspace(low, max(high, low + 1e-6), 41)


def histogram(x: np.ndarray, edges: np.ndarray) -> Curve:
    """The share of the values in each bin; the outermost bins count everything beyond them."""
    counts, _ = np.histogram(np.clip(x.astype(np.float64), edges[0], edges[-1]), edges)
    return 0.5 * (edges[1:] + edges[:-1]), counts / max(1, x.size)


def curves(
    results: Results,
    summary: Summary,
    curve: Callable[[np.ndarray], Curve],
    label: str,
    names: tuple[str, str],
    log: bool = False,
    unordered: bool = False,
) -> Picture:
    """One panel per weighting: the curve of held-out events in gray, those of the samplers' first samples in colors.

    Args:
        results: Of the comparison.
        summary: Of the same.
        curve: Of a set of events.
        label: Of the picture.
        names: Of the two axes.
        log: Whether the vertical axis is logarithmic.
        unordered: Whether neighbors on the horizontal axis are unrelated; bars and points then take the place of lines.
    """
    draw = _draw_shares if unordered else partial(_draw_lines, log)
    real = curve(results.arrays["real"][:_EVENTS])
    panels = []
    for weighting in summary.weightings:
        measured = summary.runs(weighting)[0]["samples"]
        sets = {entry["sampler"]: curve(results.arrays[entry["array"]][:_EVENTS]) for entry in measured}
        panels.append(Panel(weighting, partial(_draw, draw, {"held out": real, **sets}, names)))
    keys = [Key("held out", GRAY, "-")]
    keys += [Key(name, SERIES[i % len(SERIES)], _DASHES[i % 4]) for i, name in enumerate(summary.samplers)]
    return Picture(label, panels, keys, columns=min(2, len(panels)))


def _draw(
    draw: Callable[[dict[str, Curve], Axes], None], sets: dict[str, Curve], names: tuple[str, str], axes: Axes
) -> list[Values]:
    draw(sets, axes)
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    if all(np.array_equal(x, np.rint(x)) for x, _ in sets.values()):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return [
        Values(name, x, y, [f"{names[0]} {shown(a)}: {shown(b)}" for a, b in zip(x, y)])
        for name, (x, y) in sets.items()
    ]


def _draw_lines(log: bool, sets: dict[str, Curve], axes: Axes) -> None:
    for i, (x, y) in enumerate(sets.values()):
        color = GRAY if i == 0 else SERIES[(i - 1) % len(SERIES)]
        dash = "-" if i == 0 else _DASHES[(i - 1) % 4]
        axes.plot(x, y, color=color, linestyle=dash, linewidth=4.0 if i == 0 else 1.4, alpha=0.5 if i == 0 else 1.0)
    if log:
        axes.set_yscale("log")


def _draw_shares(sets: dict[str, Curve], axes: Axes) -> None:
    (x, real), *sampled = sets.values()
    axes.bar(x, real, width=0.8, color=GRAY, alpha=0.5)
    for i, (x, y) in enumerate(sampled):
        offset = 0.6 * ((i + 0.5) / len(sampled) - 0.5)  # beside each other within the bar
        axes.plot(x + offset, y, "o", color=SERIES[i % len(SERIES)], markersize=4)
