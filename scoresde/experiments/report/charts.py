"""Charts: likelihoods and bounds with error bars, error by noise level, distance against network calls."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, StrMethodFormatter

from scoresde.experiments.report.summary import Summary
from scoresde.plots.style import FAINT, GRAY, INK, MARKERS, PAPER, SERIES

__all__ = ["bounds", "cost", "error_by_noise", "likelihoods"]

WIDTH = 10.0
"""Width of every figure, inches."""

_DASHES = ("-", "--", "-.", ":")


def likelihoods(summary: Summary) -> Figure:
    """One row per weighting: the mean with its error, and each seed as a dot; baselines as vertical lines."""
    lines = summary.likelihood_rows
    figure = Figure(figsize=(WIDTH, 1.35 + 0.42 * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    for i, line in enumerate(lines):
        color, y = SERIES[i % len(SERIES)], len(lines) - 1 - i
        mean, error = line.value.value, line.value.error or 0.0
        if mean is None:
            continue
        values = np.asarray([run["likelihood"]["value"] for run in summary.runs(line.weighting)], dtype=float)
        axes.plot(values, np.full(len(values), y), "o", color=color, alpha=0.35, markersize=5, markeredgewidth=0)
        axes.errorbar(mean, y, xerr=error, fmt="o", color=color, capsize=4, markersize=7, elinewidth=1.8)
        text = f"{line.value.text(3)} {line.value.error_text(3)}"
        axes.annotate(text, (mean, y), (0, 9), textcoords="offset points", ha="center", fontsize=9)
    for baseline in summary.baseline_rows:
        if baseline.value.value is None:
            continue
        axes.axvline(baseline.value.value, color=GRAY, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.annotate(
            f"{baseline.name}\n{baseline.value.text(2)}",
            (baseline.value.value, 1.0),
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
    better = "← better" if summary.lower_is_better else "better →"
    axes.set_xlabel(f"held out, {summary.quantity.label}\u2003{better}")
    return figure


def bounds(summary: Summary) -> Figure | None:
    """One row per estimate, one color per weighting: thin bars over events (or seeds), thick bars over draws."""
    lines = summary.bound_rows
    if not lines:
        return None
    names, weightings = list(dict.fromkeys(line.name for line in lines)), summary.content["weightings"]
    figure = Figure(figsize=(WIDTH, 0.9 + 0.42 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    for i, weighting in enumerate(weightings):
        color, shift = SERIES[i % len(SERIES)], 0.2 * (i - 0.5 * (len(weightings) - 1))
        own = [line for line in lines if line.weighting == weighting and line.value.value is not None]
        if not own:
            continue
        values = np.asarray([line.value.value for line in own], dtype=float)
        rows = [len(names) - 1 - names.index(line.name) - shift for line in own]
        thin, thick = ([part.error or 0.0 for part in parts] for parts in zip(*((row.value, row.draws) for row in own)))
        axes.errorbar(values, rows, xerr=thick, fmt="none", ecolor=color, elinewidth=5, alpha=0.4)
        style: dict[str, Any] = {"fmt": MARKERS[i % len(MARKERS)], "color": color, "label": weighting}
        axes.errorbar(values, rows, xerr=thin, capsize=3, markersize=6, elinewidth=1.4, **style)
    axes.set_yticks(range(len(names)), list(reversed(names)))
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"{summary.quantity.label}\u2003{'← better' if summary.lower_is_better else 'better →'}")
    figure.legend(loc="outside right upper")
    return figure


def error_by_noise(summary: Summary) -> Figure:
    """Left, the error of each weighting's model by log-SNR; right, the weightings."""
    figure = Figure(figsize=(WIDTH, 3.7), layout="constrained")
    error, weight = figure.subplots(1, 2, gridspec_kw={"width_ratios": [1.25, 1.0]})
    for i, name in enumerate(summary.content["weightings"]):
        _error_curve(error, summary, name, i)
        curve = summary.content["weights"][name]
        if curve is not None:
            values = np.asarray([math.nan if v is None else v for v in curve["weight"]])
            style: dict[str, Any] = {"color": SERIES[i % len(SERIES)], "linestyle": _DASHES[i % 4], "label": name}
            weight.plot(curve["log_snr"], values / np.nanmax(values), **style)
    log_snr = np.asarray(summary.content["runs"][0]["error_by_noise"]["log_snr"])
    error.plot(log_snr, 1 / (1 + np.exp(-log_snr)), color=GRAY, linewidth=1.1, linestyle=(0, (4, 3)))
    error.annotate("pure noise", (-1.6, 0.5), color=GRAY, fontsize=8.5, ha="right")
    error.set_title("Error of the network")
    error.set_ylabel("error of the noise estimate, per value")
    error.set_ylim(0, None)
    error.legend(loc="upper left")
    weight.set_title("Weight of each noise level")
    weight.set_ylabel("weight w, largest = 1")
    weight.legend(loc="best")
    for axes in (error, weight):
        axes.set_xlim(left=max(-12.0, float(log_snr.min())))
        axes.set_xlabel("← noise\u2003log-SNR, nats\u2003data →")
    return figure


def _error_curve(axes: Axes, summary: Summary, weighting: str, i: int) -> None:
    runs = [run["error_by_noise"] for run in summary.runs(weighting)]
    log_snr, values = np.asarray(runs[0]["log_snr"]), np.asarray([run["error"] for run in runs], dtype=float)
    spread = values.std(0, ddof=1) if len(runs) > 1 else np.asarray(runs[0]["stderr"], dtype=float)
    middle, color = values.mean(0), SERIES[i % len(SERIES)]
    axes.plot(log_snr, middle, color=color, linestyle=_DASHES[i % 4], label=weighting)
    axes.fill_between(log_snr, middle - spread, middle + spread, color=color, alpha=0.25, linewidth=0)
    if i == 0:
        axes.fill_between(log_snr, middle, 1 / (1 + np.exp(-log_snr)), color=color, alpha=0.1, linewidth=0)


def cost(summary: Summary) -> Figure:
    """Distance in units of the floor against network calls: one marker per sampler, one color per weighting."""
    figure = Figure(figsize=(WIDTH, 3.5), layout="constrained")
    axes = figure.add_subplot()
    axes.axhline(1.0, color=INK, linewidth=1.0)
    gaussian = summary.reference_rows[1].ratio.value
    if gaussian is not None:
        axes.axhline(gaussian, color=GRAY, linewidth=1.0, linestyle=(0, (4, 3)))
    for i, weighting in enumerate(summary.content["weightings"]):
        for j, row in enumerate(row for row in summary.sampler_rows if row.weighting == weighting):
            if row.ratio.value is None:
                continue
            shift = 1.0 + 0.03 * (i - 0.5 * (len(summary.content["weightings"]) - 1))
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
    for j, sampler in enumerate(summary.content["samplers"]):
        axes.plot([], [], MARKERS[j % len(MARKERS)], color=GRAY, label=sampler)
    axes.set_xscale("log")
    calls = sorted({row.nfe.value or 1.0 for row in summary.sampler_rows})
    wide = calls[-1] > 3 * calls[0]
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else FixedLocator(calls))
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
        apart = 0.0 if abs(gaussian - 1.0) > 0.15 * axes.get_ylim()[1] else 18.0 if gaussian >= 1.0 else -18.0
        axes.annotate("Gaussian", (right, gaussian), (5, apart), color=GRAY, **note)
    figure.legend(loc="outside right upper")
    axes.grid(axis="x", color=FAINT)
    return figure
