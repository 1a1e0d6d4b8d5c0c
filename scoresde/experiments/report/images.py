"""Figures of events: frames of the forward process, samples next to real data, trajectories in the plane."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from scoresde.experiments.report.charts import WIDTH
from scoresde.experiments.report.summary import Summary
from scoresde.experiments.results import Results
from scoresde.plots.image_grid import enlarged, grid, to_bytes
from scoresde.plots.style import GRAY, INK, SERIES

__all__ = ["forward_process", "plane", "samples"]

_IMAGES = 25  # images in one panel
_TRAJECTORIES = 10  # trajectories in one panel


def forward_process(results: Results, summary: Summary) -> Figure:
    """One column per frame: its time above, the events below."""
    states, labels = results.arrays["forward"], summary.content["forward"]
    frames = len(states)
    rows = states.shape[1] if summary.kind == "image" else 1
    width = WIDTH / (frames + 0.75)
    figure = Figure(figsize=(WIDTH, width * rows + 0.72))
    top, left = 1 - 0.66 / figure.get_figheight(), 0.75 / (frames + 0.75)
    for i in range(frames):
        step = (1 - left) / frames
        axes = figure.add_axes((left + i * step, 0.0, step * 0.94, top - 0.01))
        _bare(axes)
        _frame(axes, summary, states, i, labels)
        x = left + (i + 0.47) * step
        for j, text in enumerate(_times(labels, i)):
            figure.text(x, 1 - (0.14 + 0.2 * j) / figure.get_figheight(), text, ha="center", va="center", fontsize=8.5)
    for j, text in enumerate(("τ", "α", "log-SNR")):
        y = 1 - (0.14 + 0.2 * j) / figure.get_figheight()
        figure.text(left - 0.01, y, text, ha="right", va="center", fontsize=8.5, color=GRAY)
    return figure


def _times(labels: dict[str, list[float | None]], i: int) -> tuple[str, str, str]:
    log_snr = labels["log_snr"][i]
    shown = "∞" if log_snr is None else f"{log_snr:.1f}".replace("-", "−")
    return f"{labels['tau'][i]:.2g}", f"{labels['alpha'][i]:.2f}", shown


def _frame(axes: Axes, summary: Summary, states: np.ndarray, i: int, labels: dict[str, list[float]]) -> None:
    if summary.kind == "image":
        first, sigma = states[0], labels["sigma"][i]
        low, high = float(first.min()) - 1.2 * sigma, float(first.max()) + 1.2 * sigma
        column = enlarged(to_bytes(states[i], low, high), target=80)
        axes.imshow(grid(column, columns=1, gap=5), aspect="equal")
        axes.set_anchor("N")
    elif summary.kind == "point":
        axes.scatter(*states[i, :800].T, s=1.2, color=SERIES[0], alpha=0.6, linewidths=0)
        half = 1.05 * float(np.abs(states[[0, -1]]).max())
        axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
    else:
        half = 1.05 * float(np.abs(states[[0, -1]]).max())
        axes.hist(states[i].reshape(-1), bins=30, range=(-half, half), color=SERIES[0], alpha=0.8)


def samples(results: Results, summary: Summary) -> Figure | None:
    """One row per weighting: real data, then the samples of each sampler, for the first seed; None for a table."""
    if summary.kind == "row":
        return None
    weightings, samplers = summary.content["weightings"], summary.content["samplers"]
    columns = 1 + len(samplers)
    size = WIDTH / columns
    figure = Figure(figsize=(WIDTH, size * len(weightings) + 0.5), layout="constrained")
    panels = figure.subplots(len(weightings), columns, squeeze=False)
    real = results.arrays["real"]
    for i, weighting in enumerate(weightings):
        start = i * _IMAGES if len(real) >= (i + 1) * _IMAGES and summary.kind == "image" else 0
        _panel(panels[i, 0], real[start:], summary, real, GRAY)
        for j, measured in enumerate(summary.runs(weighting)[0]["samples"]):
            _panel(panels[i, j + 1], results.arrays[measured["array"]], summary, real, SERIES[i % len(SERIES)])
        panels[i, 0].set_ylabel(weighting, fontsize=9.5, fontweight="bold", color=INK)
    for axes, name in zip(panels[0], ["real, held out", *samplers]):
        axes.set_title(_wrapped(name, round(120 / columns)), fontsize=9, loc="center")
    return figure


def _panel(axes: Axes, x: np.ndarray, summary: Summary, real: np.ndarray, color: str) -> None:
    _bare(axes)
    if summary.kind == "image":
        bins = summary.content["data"]["bins"]
        low, high = (0.0, bins - 1.0) if bins else (float(real.min()), float(real.max()))
        axes.imshow(grid(enlarged(to_bytes(x[:_IMAGES], low, high))))
    elif summary.kind == "point":
        axes.scatter(*x[:1000].T, s=2.5, color=color, alpha=0.6, linewidths=0)
        half = 1.15 * float(np.abs(real).max())
        axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
    else:
        index = np.arange(real[0].size)
        for values, shade in ((real, GRAY), (x, color)):
            rows = values.reshape(len(values), -1)
            middle, spread = rows.mean(0), rows.std(0)
            axes.plot(index, middle, color=shade)
            axes.fill_between(index, middle - spread, middle + spread, color=shade, alpha=0.25, linewidth=0)


def plane(results: Results, summary: Summary) -> Figure | None:
    """For points in the plane, the model's density with each sampler's trajectories; None for other data."""
    if summary.kind != "point":
        return None
    weightings, samplers = summary.content["weightings"], summary.content["samplers"]
    columns = 1 + len(samplers)
    size = WIDTH / columns
    figure = Figure(figsize=(WIDTH, size * len(weightings) + 0.5), layout="constrained")
    panels = figure.subplots(len(weightings), columns, squeeze=False)
    for i, weighting in enumerate(weightings):
        run, color = summary.runs(weighting)[0], SERIES[i % len(SERIES)]
        for j, axes in enumerate(panels[i]):
            _bare(axes)
            _density(axes, results, f"{run['name']}/density", color, strong=j == 0)
            if j:
                array = run["samples"][j - 1]["array"]
                _trajectories(axes, results.arrays[f"{array}/trajectory_tau"], results.arrays[f"{array}/trajectory_x"])
        panels[i, 0].set_ylabel(weighting, fontsize=9.5, fontweight="bold", color=INK)
    for axes, name in zip(panels[0], ["density of the model", *samplers]):
        axes.set_title(_wrapped(name, round(120 / columns)), fontsize=9, loc="center")
    return figure


def _density(axes: Axes, results: Results, name: str, color: str, strong: bool) -> None:
    extent = tuple(float(v) for v in results.arrays[f"{name}/extent"])
    values = np.exp(results.arrays[f"{name}/log_prob"].astype(float))
    rgb = tuple(int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    shades = LinearSegmentedColormap.from_list("shade", [(*rgb, 0.0), (*rgb, 1.0 if strong else 0.45)])
    top = float(np.quantile(values, 0.995))
    axes.imshow(values, origin="lower", extent=extent, cmap=shades, vmin=0, vmax=top, interpolation="bilinear")  # pyright: ignore[reportArgumentType]
    axes.set(xlim=extent[:2], ylim=extent[2:], aspect="equal")


def _trajectories(axes: Axes, taus: np.ndarray, x: np.ndarray) -> None:
    """Trajectories from rings (noise) to dots (data); the more noise a state has, the fainter it is drawn."""
    for part in np.array_split(np.arange(len(x) - 1), min(len(x) - 1, 12)):
        rows = slice(part[0], part[-1] + 2)
        lines = LineCollection(list(x[rows, :_TRAJECTORIES].swapaxes(0, 1)), colors=INK, linewidths=0.7)
        lines.set_alpha(0.08 + 0.72 * float(np.exp(-3 * taus[rows].mean())))
        axes.add_collection(lines)
    axes.scatter(*x[0, :_TRAJECTORIES].T, s=10, facecolors="none", edgecolors=INK, linewidths=0.7)
    axes.scatter(*x[-1, :_TRAJECTORIES].T, s=10, color=INK, linewidths=0, zorder=3)


def _wrapped(name: str, width: int) -> str:
    """A title in lines of at most about ``width`` letters; a longer call is broken before its parenthesis."""
    lines = textwrap.wrap(name, width, break_long_words=False)
    return "\n".join(line if len(line) <= width else line.replace("(", "\n(", 1) for line in lines)


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
