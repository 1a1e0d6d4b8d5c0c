"""Points in the plane: samples, the model's density, and trajectories that can be played."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap

from scoresde.experiments.report.parts.part import DataPart, frame_title, sample_panels
from scoresde.experiments.report.pictures import SQUARE, Motion, Panel, Picture, bare
from scoresde.experiments.results import Results
from scoresde.plots.style import GRAY, INK, SERIES

if TYPE_CHECKING:
    from scoresde.experiments.report.summary import Summary

__all__ = ["PART"]

_DOTS = 500  # in a panel
_TRAJECTORIES = 10  # drawn lines


def forward(results: Results) -> Picture:
    """One panel per frame."""
    states = results.arrays["forward"]
    half = 1.05 * float(np.abs(states[[0, -1]]).max())
    panels = [
        Panel(frame_title(results, i), partial(_scatter, x, half, SERIES[0]), size=(1.6, 1.6), framed=False)
        for i, x in enumerate(states)
    ]
    return Picture("Noised points, from data to noise.", panels, columns=len(panels))


def samples(results: Results, summary: Summary) -> dict[str, Picture]:
    """Held-out points, then those of each sampler, for each weighting."""
    half = 1.15 * float(np.abs(results.arrays["real"]).max())

    def panel(title: str, x: np.ndarray, i: int | None) -> Panel:
        color = GRAY if i is None else SERIES[i % len(SERIES)]
        return Panel(title, partial(_scatter, x, half, color), size=SQUARE, framed=False)

    panels = sample_panels(results, summary, panel)
    return {"samples": Picture("Points in the plane:", panels, columns=1 + len(summary.samplers))}


def statistics(results: Results, summary: Summary) -> dict[str, Picture]:
    """The density of each model with the trajectories of each sampler; none where they were not computed."""
    panels = []
    for i, weighting in enumerate(summary.weightings):
        run, color = summary.runs(weighting)[0], SERIES[i % len(SERIES)]
        density = f"{run['name']}/density"
        if f"{density}/extent" not in results.arrays:
            return {}
        extent, log_prob = (results.arrays[f"{density}/{name}"] for name in ("extent", "log_prob"))
        values = np.exp(log_prob.astype(float))
        panels.append(
            Panel(f"{weighting}, density", partial(_density, extent, values, color, 1.0), size=SQUARE, framed=False)
        )
        for measured in run["samples"]:
            tau, x = (results.arrays[f"{measured['array']}/trajectory_{name}"] for name in ("tau", "x"))
            draw = partial(_trajectories, extent, values, color, tau, x)
            title = f"{weighting}, {measured['sampler']}"
            panels.append(Panel(title, draw, size=SQUARE, motion=Motion(tau, x), framed=False))
    label = "Density of the model and trajectories:"
    return {"plane": Picture(label, panels, columns=1 + len(summary.samplers))}


def _scatter(x: np.ndarray, half: float, color: str, axes: Axes) -> None:
    bare(axes)
    dots = np.stack([x[:_DOTS], x[:_DOTS], np.full_like(x[:_DOTS], np.nan)], 1).reshape(-1, 2)
    (line,) = axes.plot(*dots.T, color=color, alpha=0.7, linewidth=2.4, solid_capstyle="round")
    line.get_path().should_simplify = False  # points are segments of length 0: one path instead of an element for each
    axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")


def _density(extent: np.ndarray, values: np.ndarray, color: str, strength: float, axes: Axes) -> None:
    bare(axes)
    rgb = tuple(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    shades = LinearSegmentedColormap.from_list("shade", [(*rgb, 0.0), (*rgb, strength)])
    left, right, bottom, top = map(float, extent)
    limit = float(np.quantile(values, 0.995))
    axes.imshow(values, origin="lower", extent=(left, right, bottom, top), cmap=shades, vmin=0, vmax=limit)
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")


def _trajectories(
    extent: np.ndarray, values: np.ndarray, color: str, taus: np.ndarray, x: np.ndarray, axes: Axes
) -> None:
    """From rings (noise) to dots (data); the more noise a state has, the fainter it is drawn."""
    _density(extent, values, color, 0.45, axes)
    for part in np.array_split(np.arange(len(x) - 1), min(len(x) - 1, 12)):
        rows = slice(part[0], part[-1] + 2)
        lines = LineCollection(list(x[rows, :_TRAJECTORIES].swapaxes(0, 1)), colors=INK, linewidths=0.7)
        lines.set_alpha(0.08 + 0.72 * float(np.exp(-3 * taus[rows].mean())))
        axes.add_collection(lines)
    axes.scatter(*x[0, :_TRAJECTORIES].T, s=10, facecolors="none", edgecolors=INK, linewidths=0.7)
    axes.scatter(*x[-1, :_TRAJECTORIES].T, s=10, color=INK, linewidths=0, zorder=3)


PART = DataPart(
    event="point",
    events="points",
    advice="Look for gaps, bridges between separate clusters, and the spread.",
    forward=forward,
    samples=samples,
    statistics=statistics,
    statistics_title="Trajectories in the plane",
    statistics_text="The density of each model by the probability-flow ODE, and ten trajectories of each sampler from "
    "noise (rings) to data (dots). Those of the ODE are smooth curves that never cross at the same time. Those of the "
    "chain and of the SDE are random, most of all far from the data, where they are drawn fainter. Play moves thirty "
    "points on every panel at the same noise level.",
)
