"""How do events look? The forward process as a film strip, samples beside real data, ways back in the plane."""

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
from scoresde.plots import image_grid as tiles
from scoresde.plots.style import GRAY, INK, SERIES

__all__ = ["film", "plane", "samples"]

_SHOWN = 25  # pictures in one sheet
_WALKS = 10  # trajectories in one panel


def film(results: Results, story: Summary) -> Figure:
    """A column per frame: its times above, the events below."""
    states, labels = results.arrays["film"], story.said["film"]
    frames = len(states)
    rows = states.shape[1] if story.kind == "picture" else 1
    wide = WIDTH / (frames + 0.75)
    figure = Figure(figsize=(WIDTH, wide * rows + 0.72))
    top, left = 1 - 0.66 / figure.get_figheight(), 0.75 / (frames + 0.75)
    for i in range(frames):
        step = (1 - left) / frames
        axes = figure.add_axes((left + i * step, 0.0, step * 0.94, top - 0.01))
        _bare(axes)
        _frame(axes, story, states, i, labels)
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


def _frame(axes: Axes, story: Summary, states: np.ndarray, i: int, labels: dict[str, list[float]]) -> None:
    if story.kind == "picture":
        first, sigma = states[0], labels["sigma"][i]
        low, high = float(first.min()) - 1.2 * sigma, float(first.max()) + 1.2 * sigma
        column = tiles.enlarged(tiles.to_bytes(states[i], low, high), target=80)
        axes.imshow(tiles.grid(column, columns=1, gap=5), aspect="equal")
        axes.set_anchor("N")
    elif story.kind == "plane":
        axes.scatter(*states[i, :800].T, s=1.2, color=SERIES[0], alpha=0.6, linewidths=0)
        half = 1.05 * float(np.abs(states[[0, -1]]).max())
        axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
    else:
        half = 1.05 * float(np.abs(states[[0, -1]]).max())
        axes.hist(states[i].reshape(-1), bins=30, range=(-half, half), color=SERIES[0], alpha=0.8)


def samples(results: Results, story: Summary) -> Figure:
    """A row per weighting: real data, then each sampler's draws by the first seed's model."""
    weightings, samplers = story.said["weightings"], story.said["samplers"]
    columns = 1 + len(samplers)
    size = WIDTH / columns
    figure = Figure(figsize=(WIDTH, size * len(weightings) + 0.5), layout="constrained")
    grid = figure.subplots(len(weightings), columns, squeeze=False)
    real = results.arrays["real"]
    for i, weighting in enumerate(weightings):
        start = i * _SHOWN if len(real) >= (i + 1) * _SHOWN and story.kind == "picture" else 0
        _panel(grid[i, 0], real[start:], story, real, GRAY)
        for j, drawn in enumerate(story.runs(weighting)[0]["samples"]):
            _panel(grid[i, j + 1], results.arrays[drawn["array"]], story, real, SERIES[i % len(SERIES)])
        grid[i, 0].set_ylabel(weighting, fontsize=9.5, fontweight="bold", color=INK)
    for axes, name in zip(grid[0], ["real, held out", *samplers]):
        axes.set_title("\n".join(textwrap.wrap(name, 24)), fontsize=9, loc="center")
    return figure


def _panel(axes: Axes, x: np.ndarray, story: Summary, real: np.ndarray, color: str) -> None:
    _bare(axes)
    if story.kind == "picture":
        bins = story.said["data"]["bins"]
        low, high = (0.0, bins - 1.0) if bins else (float(real.min()), float(real.max()))
        shown = x[:_SHOWN]
        axes.imshow(tiles.grid(tiles.enlarged(tiles.to_bytes(shown, low, high))))
    elif story.kind == "plane":
        axes.scatter(*x[:1000].T, s=2.5, color=color, alpha=0.6, linewidths=0)
        half = 1.15 * float(np.abs(real).max())
        axes.set(xlim=(-half, half), ylim=(-half, half), aspect="equal")
    else:
        place = np.arange(real[0].size)
        for values, shade in ((real, GRAY), (x, color)):
            rows = values.reshape(len(values), -1)
            middle, spread = rows.mean(0), rows.std(0)
            axes.plot(place, middle, color=shade)
            axes.fill_between(place, middle - spread, middle + spread, color=shade, alpha=0.25, linewidth=0)


def plane(results: Results, story: Summary) -> Figure | None:
    """For points in the plane: the model's density, and every sampler's trajectories over it; None for other data."""
    if story.kind != "plane":
        return None
    weightings, samplers = story.said["weightings"], story.said["samplers"]
    columns = 1 + len(samplers)
    size = WIDTH / columns
    figure = Figure(figsize=(WIDTH, size * len(weightings) + 0.5), layout="constrained")
    grid = figure.subplots(len(weightings), columns, squeeze=False)
    for i, weighting in enumerate(weightings):
        run, color = story.runs(weighting)[0], SERIES[i % len(SERIES)]
        for j, axes in enumerate(grid[i]):
            _bare(axes)
            _density(axes, results, f"{run['name']}/density", color, strong=j == 0)
            if j:
                array = run["samples"][j - 1]["array"]
                _trajectories(axes, results.arrays[f"{array}/path_tau"], results.arrays[f"{array}/path_x"])
        grid[i, 0].set_ylabel(weighting, fontsize=9.5, fontweight="bold", color=INK)
    for axes, name in zip(grid[0], ["density of the model", *samplers]):
        axes.set_title("\n".join(textwrap.wrap(name, 24)), fontsize=9, loc="center")
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
    """Walks from rings to dots, drawn the fainter the less signal is in them."""
    for part in np.array_split(np.arange(len(x) - 1), min(len(x) - 1, 12)):
        rows = slice(part[0], part[-1] + 2)
        lines = LineCollection(list(x[rows, :_WALKS].swapaxes(0, 1)), colors=INK, linewidths=0.7)
        lines.set_alpha(0.08 + 0.72 * float(np.exp(-3 * taus[rows].mean())))
        axes.add_collection(lines)
    axes.scatter(*x[0, :_WALKS].T, s=10, facecolors="none", edgecolors=INK, linewidths=0.7)
    axes.scatter(*x[-1, :_WALKS].T, s=10, color=INK, linewidths=0, zorder=3)


def _bare(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
