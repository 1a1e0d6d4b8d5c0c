"""Charts: likelihoods and bounds with error bars, paired differences, error by noise level, cost, training curves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, LogLocator, NullFormatter, StrMethodFormatter

from scoresde.experiments.report.difference import Difference
from scoresde.experiments.report.pictures import Key, Panel, Picture, Values, shown
from scoresde.experiments.report.summary import Summary
from scoresde.plots.style import FAINT, GRAY, INK, MARKERS, PAPER, SERIES

__all__ = ["bounds", "cost", "curves_of_loss", "differences", "error_by_noise", "likelihoods", "training"]

_DASHES = ("-", "--", "-.", ":")


def likelihoods(summary: Summary) -> Picture:
    """One row per weighting: the mean with its error, and each seed as a dot; baselines as vertical lines."""
    height = 1.35 + 0.42 * len(summary.weightings)
    panel = Panel(f"held out, {summary.quantity.label}", partial(_likelihoods, summary), size=(4.2, height))
    return Picture("Held-out likelihood of each weighting.", [panel])


def _likelihoods(summary: Summary, axes: Axes) -> list[Values]:
    lines, read = summary.likelihood_rows, []
    for i, line in enumerate(lines):
        color, y = SERIES[i % len(SERIES)], len(lines) - 1 - i
        mean, error = line.value.value, line.value.error or 0.0
        if mean is None:
            continue
        values = np.asarray([run["likelihood"]["value"] for run in summary.runs(line.name)], dtype=float)
        axes.plot(values, np.full(len(values), y), "o", color=color, alpha=0.35, markersize=5, markeredgewidth=0)
        axes.errorbar(mean, y, xerr=error, fmt="o", color=color, capsize=4, markersize=7, elinewidth=1.8)
        read.append(Values(line.name, [mean], [y], [f"{line.value.text(4)} {line.value.error_text(4)}"]))
    known = [(each.value.value, each) for each in summary.baseline_rows if each.value.value is not None]
    for level, (x, baseline) in enumerate(sorted(known, key=lambda pair: pair[0])):
        axes.axvline(x, color=GRAY, linewidth=1.0, linestyle=(0, (4, 3)))
        style: dict[str, Any] = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axes.annotate(
            baseline.name, (x, 1.0), (0, 4 + 11 * level), ha="center", va="bottom", fontsize=8, color=GRAY, **style
        )
        read.append(Values(baseline.name, [x], [len(lines) - 0.6], [f"{baseline.value.text(4)}"]))
    _name_rows(axes, [line.name for line in lines])
    axes.margins(x=0.2)
    axes.set_xlabel("← better" if summary.lower_is_better else "better →")
    return read


def bounds(summary: Summary) -> Picture | None:
    """One row per estimate, one color per weighting: thin bars over events (or seeds), thick bars over draws."""
    lines = summary.bound_rows
    if not lines:
        return None
    names = list(dict.fromkeys(line.name for line in lines))
    known = {line.weighting for line in lines if line.value.value is not None}
    keys = [_key(summary, weighting, marker=True) for weighting in summary.weightings if weighting in known]
    panel = Panel(summary.quantity.label, partial(_bounds, summary, names), size=(4.2, 0.9 + 0.42 * len(names)))
    return Picture("Likelihood by the ODE next to variational bounds.", [panel], keys)


def _bounds(summary: Summary, names: list[str], axes: Axes) -> list[Values]:
    read = []
    for i, weighting in enumerate(summary.weightings):
        color, shift = SERIES[i % len(SERIES)], 0.2 * (i - 0.5 * (len(summary.weightings) - 1))
        own = [line for line in summary.bound_rows if line.weighting == weighting and line.value.value is not None]
        if not own:
            continue
        values = np.asarray([line.value.value for line in own], dtype=float)
        rows = [len(names) - 1 - names.index(line.name) - shift for line in own]
        thin, thick = ([part.error or 0.0 for part in parts] for parts in zip(*((row.value, row.draws) for row in own)))
        axes.errorbar(values, rows, xerr=thick, fmt="none", ecolor=color, elinewidth=5, alpha=0.4)
        style: dict[str, Any] = {"fmt": MARKERS[i % len(MARKERS)], "color": color}
        axes.errorbar(values, rows, xerr=thin, capsize=3, markersize=6, elinewidth=1.4, **style)
        texts = [f"{line.name}, {line.value.text(4)} {line.value.error_text(4)}" for line in own]
        read.append(Values(weighting, values, rows, texts))
    _name_rows(axes, names)
    axes.set_xlabel("← better" if summary.lower_is_better else "better →")
    return read


def differences(entries: Sequence[Difference], label: str, title: str) -> Picture | None:
    """Paired differences with their joint intervals, one row each; None if there are none.

    Args:
        entries: To the same reference.
        label: Of the picture.
        title: Of the panel: what is compared with what, in which unit.
    """
    known = [entry for entry in entries if entry.value is not None]
    if not known:
        return None
    return Picture(label, [Panel(title, partial(_differences, known), size=(4.2, 0.8 + 0.36 * len(known)))])


def _differences(entries: Sequence[Difference], axes: Axes) -> list[Values]:
    axes.axvline(0.0, color=INK, linewidth=1.0)
    rows, values = np.arange(len(entries))[::-1], np.asarray([entry.value for entry in entries], dtype=float)
    for entry, y, x in zip(entries, rows, values):
        color = GRAY if entry.sign == 0 else SERIES[0]
        axes.plot(x, y, "o", color=color, markersize=6)
        if entry.low is not None and entry.high is not None:
            axes.plot([entry.low, entry.high], [y, y], color=color, linewidth=2.0)
    _name_rows(axes, [entry.name for entry in entries])
    axes.set_xlabel("difference, joint 95 % intervals")
    texts = [f"{entry.number.text(4)}, interval {entry.interval(4)}" for entry in entries]
    return [Values(e.name, [x], [y], [text]) for e, x, y, text in zip(entries, values, rows, texts)]


def error_by_noise(summary: Summary) -> Picture:
    """The error of each weighting's model by log-SNR, and the weightings; categories have no curve of a weighting."""
    keys = [_key(summary, weighting) for weighting in summary.weightings]
    title = "error of the noise estimate, per value"
    if summary.by_bound:
        title = f"{'error of numbers and ' if summary.mixed else ''}cross-entropy of categories, per value"
    panels = [Panel(title, partial(_errors, summary))]
    if any(curve is not None for curve in summary.content["weights"].values()):
        panels.append(Panel("weight of each noise level, largest = 1", partial(_weights, summary)))
    noise = () if summary.by_bound else (Key("pure noise", GRAY, "--"),)
    return Picture("Error and weight by log-SNR:", panels, [*keys, *noise])


def _errors(summary: Summary, axes: Axes) -> list[Values]:
    log_snr, read = np.asarray(summary.content["runs"][0]["error_by_noise"]["log_snr"]), []
    noise = 1 / (1 + np.exp(-log_snr))
    for i, weighting in enumerate(summary.weightings):
        runs = [run["error_by_noise"] for run in summary.runs(weighting)]
        values = np.asarray([run["error"] for run in runs], dtype=float)
        spread = values.std(0, ddof=1) if len(runs) > 1 else np.asarray(runs[0]["stderr"], dtype=float)
        middle, color = values.mean(0), SERIES[i % len(SERIES)]
        axes.plot(log_snr, middle, color=color, linestyle=_DASHES[i % 4])
        axes.fill_between(log_snr, middle - spread, middle + spread, color=color, alpha=0.25, linewidth=0)
        if i == 0 and not summary.by_bound:
            axes.fill_between(log_snr, middle, noise, color=color, alpha=0.1, linewidth=0)
        read.append(_read(weighting, log_snr, middle, spread))
    if not summary.by_bound:
        axes.plot(log_snr, noise, color=GRAY, linewidth=1.1, linestyle=(0, (4, 3)))
    axes.set_ylim(0, None)
    _name_log_snr(summary, axes)
    return read


def _weights(summary: Summary, axes: Axes) -> list[Values]:
    read = []
    for i, weighting in enumerate(summary.weightings):
        curve = summary.content["weights"][weighting]
        if curve is not None:
            values = np.asarray([math.nan if v is None else v for v in curve["weight"]])
            values = values / np.nanmax(values)
            axes.plot(curve["log_snr"], values, color=SERIES[i % len(SERIES)], linestyle=_DASHES[i % 4])
            rows = slice(None, None, max(1, len(values) // 24))
            read.append(_read(weighting, np.asarray(curve["log_snr"])[rows], values[rows]))
    _name_log_snr(summary, axes)
    return read


def _read(name: str, log_snr: np.ndarray, values: np.ndarray, errors: np.ndarray | None = None) -> Values:
    ends = [""] * len(values) if errors is None else [f" ± {shown(float(e), 2)}" for e in errors]
    texts = [f"log-SNR {shown(float(x))}, {shown(float(v))}{end}" for x, v, end in zip(log_snr, values, ends)]
    return Values(name, log_snr, values, texts)


def _name_log_snr(summary: Summary, axes: Axes) -> None:
    lowest = min(summary.content["runs"][0]["error_by_noise"]["log_snr"])
    axes.set_xlim(left=max(-12.0, lowest))
    axes.set_xlabel("← noise\u2003log-SNR, nats\u2003data →")


def cost(summary: Summary) -> Picture:
    """Distance in units of the floor against network calls: one marker per sampler, one color per weighting."""
    keys = [_key(summary, weighting) for weighting in summary.weightings]
    keys += [Key(name, GRAY, MARKERS[j % len(MARKERS)]) for j, name in enumerate(summary.samplers)]
    panel = Panel("distance to held-out data, × floor", partial(_cost, summary), size=(4.2, 3.2))
    return Picture("Distance to held-out data against network calls.", [panel], keys)


def _cost(summary: Summary, axes: Axes) -> list[Values]:
    axes.axhline(1.0, color=INK, linewidth=1.0)
    gaussian, read = summary.reference_rows[1].ratio.value, []
    if gaussian is not None:
        axes.axhline(gaussian, color=GRAY, linewidth=1.0, linestyle=(0, (4, 3)))
    for i, weighting in enumerate(summary.weightings):
        for j, row in enumerate(row for row in summary.sampler_rows if row.weighting == weighting):
            if row.ratio.value is None:
                continue
            x = (row.nfe.value or 1.0) * (1.0 + 0.03 * (i - 0.5 * (len(summary.weightings) - 1)))
            style: dict[str, Any] = {"color": SERIES[i % len(SERIES)], "markersize": 7.5, "markeredgecolor": PAPER}
            style |= {"fmt": MARKERS[j % len(MARKERS)], "elinewidth": 1.2, "capsize": 3}
            axes.errorbar(x, row.ratio.value, yerr=row.ratio.error or 0.0, **style)
            text = f"{row.nfe.text(0)} calls, {row.ratio.text(2)} {row.ratio.error_text(2)} × floor"
            read.append(Values(f"{weighting}, {row.name}", [x], [row.ratio.value], [text]))
    axes.set_xscale("log")
    calls = sorted({row.nfe.value or 1.0 for row in summary.sampler_rows})
    wide = calls[-1] > 3 * calls[0]
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if wide else FixedLocator(calls))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.1)
    axes.set_ylim(0, None)
    axes.set_xlabel("network calls per sample")
    right = axes.get_xlim()[1]
    note: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 8.5}
    axes.annotate("real", (right, 1.0), (5, 0), color=INK, **note)
    if gaussian is not None:
        apart = 0.0 if abs(gaussian - 1.0) > 0.1 * axes.get_ylim()[1] else 12.0 if gaussian >= 1.0 else -12.0
        axes.annotate("Gaussian", (right, gaussian), (5, apart), color=GRAY, **note)
    axes.grid(axis="x", color=FAINT)
    return read


def training(summary: Summary) -> Picture | None:
    """The training loss of each weighting, one line per seed; None if nothing was recorded."""
    histories = {
        weighting: {f"seed {run['seed']}": run["history"] for run in summary.runs(weighting) if run["history"]}
        for weighting in summary.weightings
    }
    panels = [curves_of_loss(name, lines) for name, lines in histories.items() if lines]
    seeds = [f"seed {seed}" for seed in summary.content["seeds"]]
    keys = [Key(name, SERIES[i % len(SERIES)], _DASHES[i % 4]) for i, name in enumerate(seeds)]
    return Picture("Training loss by step.", panels, keys if len(keys) > 1 else ()) if panels else None


def curves_of_loss(title: str, lines: dict[str, Sequence[tuple[float, float]]]) -> Panel:
    """A panel of curves (step, loss), by name; the loss on a logarithmic axis."""
    return Panel(title, partial(_losses, lines), size=(4.2, 2.5))


def _losses(lines: dict[str, Sequence[tuple[float, float]]], axes: Axes) -> list[Values]:
    read = []
    for i, (name, line) in enumerate(lines.items()):
        steps, losses = np.asarray(line, dtype=float).T
        axes.plot(steps, losses, color=SERIES[i % len(SERIES)], linestyle=_DASHES[i % 4], linewidth=1.4)
        rows = np.unique(np.linspace(0, len(steps) - 1, 40).round().astype(int))
        texts = [f"step {steps[k]:.0f}, loss {shown(float(losses[k]), 4)}" for k in rows]
        read.append(Values(name, steps[rows], losses[rows], texts))
    losses = np.concatenate([np.asarray(line, dtype=float)[:, 1] for line in lines.values()])
    if losses.min() > 0 and losses.max() > 10 * losses.min():
        axes.set_yscale("log")
    axes.set_xlabel("training step")
    axes.set_ylabel("loss per value")
    return read


def _key(summary: Summary, weighting: str, marker: bool = False) -> Key:
    i = summary.weightings.index(weighting)
    return Key(weighting, SERIES[i % len(SERIES)], MARKERS[i % len(MARKERS)] if marker else _DASHES[i % 4])


def _name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Names of rows from top to bottom, in place of the vertical axis."""
    labels = [name if len(name) <= 34 else name.replace("(", "\n(", 1) for name in names]
    axes.set_yticks(range(len(names)), list(reversed(labels)))
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
