"""How do numbers look? Likelihoods as dots with error bars, errors by noise level, distance against cost."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from scoresde.experiments.report.summary import Summary
from scoresde.plots.style import FAINT, GRAY, INK, MARKERS, PAPER, SERIES

__all__ = ["bounds", "cost", "likelihoods", "noise_levels"]

WIDTH = 10.0
"""Of every figure, inches."""

_DASHES = ("-", "--", "-.", ":")


def likelihoods(story: Summary) -> Figure:
    """One line per weighting: the mean with its error, each seed as a dot; models without a network as marks."""
    lines = story.likelihoods
    figure = Figure(figsize=(WIDTH, 1.35 + 0.42 * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    for i, line in enumerate(lines):
        color, y = SERIES[i % len(SERIES)], len(lines) - 1 - i
        place, error = line.value.value, line.value.error or 0.0
        if place is None:
            continue
        values = np.asarray([run["likelihood"]["value"] for run in story.runs(line.weighting)], dtype=float)
        axes.plot(values, np.full(len(values), y), "o", color=color, alpha=0.35, markersize=5, markeredgewidth=0)
        axes.errorbar(place, y, xerr=error, fmt="o", color=color, capsize=4, markersize=7, elinewidth=1.8)
        text = f"{line.value.text(3)} {line.value.error_text(3)}"
        axes.annotate(text, (place, y), (0, 9), textcoords="offset points", ha="center", fontsize=9)
    for mark in story.references:
        if mark.value.value is None:
            continue
        axes.axvline(mark.value.value, color=GRAY, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.annotate(
            f"{mark.name}\n{mark.value.text(2)}",
            (mark.value.value, 1.0),
            (0, 4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8.5,
            color=GRAY,
        )
    axes.set_yticks(range(len(lines)), [line.weighting for line in reversed(lines)])
    axes.set_ylim(-0.6, len(lines) - 0.25)
    axes.margins(x=0.12)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    better = "← better" if story.lower_is_better else "better →"
    axes.set_xlabel(f"held-out likelihood, {story.unit}\u2003{better}")
    return figure


def bounds(story: Summary) -> Figure | None:
    """One line per estimate, one color per weighting: thin bars over events (or seeds), thick ones over draws."""
    lines = story.bounds
    if not lines:
        return None
    names, weightings = list(dict.fromkeys(line.name for line in lines)), story.said["weightings"]
    figure = Figure(figsize=(WIDTH, 0.9 + 0.42 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    for i, weighting in enumerate(weightings):
        color, shift = SERIES[i % len(SERIES)], 0.2 * (i - 0.5 * (len(weightings) - 1))
        own = [line for line in lines if line.weighting == weighting and line.value.value is not None]
        if not own:
            continue
        places = np.asarray([line.value.value for line in own], dtype=float)
        rows = [len(names) - 1 - names.index(line.name) - shift for line in own]
        thin, thick = ([part.error or 0.0 for part in parts] for parts in zip(*((e.value, e.drawn) for e in own)))
        axes.errorbar(places, rows, xerr=thick, fmt="none", ecolor=color, elinewidth=5, alpha=0.4)
        style: dict[str, Any] = {"fmt": MARKERS[i % len(MARKERS)], "color": color, "label": weighting}
        axes.errorbar(places, rows, xerr=thin, capsize=3, markersize=6, elinewidth=1.4, **style)
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"{story.unit}\u2003{'← better' if story.lower_is_better else 'better →'}")
    figure.legend(loc="outside right upper")
    return figure


def noise_levels(story: Summary) -> Figure:
    """Left the error of each weighting's model by log-SNR, right where each weighting looks."""
    figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    error, weight = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.25, 1.0]})
    for i, name in enumerate(story.said["weightings"]):
        _error_curve(error, story, name, i)
        curve = story.said["weights"][name]
        if curve is not None:
            values = np.asarray([math.nan if v is None else v for v in curve["weight"]])
            style: dict[str, Any] = {"color": SERIES[i % len(SERIES)], "linestyle": _DASHES[i % 4], "label": name}
            weight.plot(curve["log_snr"], values / np.nanmax(values), **style)
    levels = np.asarray(story.said["runs"][0]["error_by_noise"]["log_snr"])
    error.plot(levels, 1 / (1 + np.exp(-levels)), color=GRAY, linewidth=1.1, linestyle=(0, (4, 3)))
    error.annotate("pure noise", (-1.6, 0.5), color=GRAY, fontsize=8.5, ha="right")
    error.set_title("What the network gets wrong")
    error.set_ylabel("error of the noise estimate, per value")
    error.set_ylim(0, None)
    error.legend(loc="upper left")
    weight.set_title("Where each weighting looks")
    weight.set_ylabel("weight w, largest = 1")
    weight.legend(loc="best")
    for axes in (error, weight):
        axes.set_xlim(left=max(-12.0, float(levels.min())))
        axes.set_xlabel("← noise\u2003log-SNR, nats\u2003data →")
    return figure


def _error_curve(axes: Axes, story: Summary, weighting: str, i: int) -> None:
    runs = [run["error_by_noise"] for run in story.runs(weighting)]
    levels, values = np.asarray(runs[0]["log_snr"]), np.asarray([run["error"] for run in runs], dtype=float)
    spread = values.std(0, ddof=1) if len(runs) > 1 else np.asarray(runs[0]["stderr"], dtype=float)
    middle, color = values.mean(0), SERIES[i % len(SERIES)]
    axes.plot(levels, middle, color=color, linestyle=_DASHES[i % 4], label=weighting)
    axes.fill_between(levels, middle - spread, middle + spread, color=color, alpha=0.25, linewidth=0)
    if i == 0:
        axes.fill_between(levels, middle, 1 / (1 + np.exp(-levels)), color=color, alpha=0.1, linewidth=0)


def cost(story: Summary) -> Figure:
    """Network calls against the distance in floors: one marker per sampler, one color per weighting."""
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(1.0, color=INK, linewidth=1.0)
    gaussian = story.marks[1].ratio.value
    if gaussian is not None:
        axes.axhline(gaussian, color=GRAY, linewidth=1.0, linestyle=(0, (4, 3)))
    for i, weighting in enumerate(story.said["weightings"]):
        for j, row in enumerate(row for row in story.rows if row.weighting == weighting):
            if row.ratio.value is None:
                continue
            shift = 1.0 + 0.03 * (i - 0.5 * (len(story.said["weightings"]) - 1))
            axes.errorbar(
                (row.nfe.value or 1.0) * shift,
                row.ratio.value,
                yerr=row.ratio.error or 0.0,
                fmt=MARKERS[j % len(MARKERS)],
                color=SERIES[i % len(SERIES)],
                markersize=7.5,
                markeredgecolor=PAPER,
                markeredgewidth=0.8,
                elinewidth=1.2,
                capsize=3,
                label=weighting if j == 0 else None,
            )
    for j, sampler in enumerate(story.said["samplers"]):
        axes.plot([], [], MARKERS[j % len(MARKERS)], color=GRAY, label=sampler)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.1)
    axes.set_ylim(0, None)
    axes.set_xlabel("network calls per sample")
    axes.set_ylabel("distance to held-out data, × floor")
    right = axes.get_xlim()[1]
    note: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8.5}
    axes.annotate("real\nagainst real", (right, 1.0), (5, 0), color=INK, **note)
    if gaussian is not None:
        axes.annotate("Gaussian", (right, gaussian), (5, 0), color=GRAY, **note)
    figure.legend(loc="outside right upper")
    axes.grid(axis="x", color=FAINT)
    return figure
