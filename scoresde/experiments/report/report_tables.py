"""The tables of a comparison's report, by name."""

from __future__ import annotations

from typing import Any

from scoresde.experiments.report.bound_table import BoundRow
from scoresde.experiments.report.columns import Column, ReportTable
from scoresde.experiments.report.difference import Difference
from scoresde.experiments.report.parts.tables import column_rows, table_rows
from scoresde.experiments.report.summary import Summary

__all__ = ["tables"]


def tables(summary: Summary) -> dict[str, ReportTable]:
    """All tables that are not empty."""
    found = {
        "distances": _distances(summary),
        "sampler-differences": _differences(summary, "samples", "sampler", "× floor", 2),
        "likelihoods": _likelihoods(summary),
        "likelihood-differences": _differences(summary, "likelihood", "weighting", summary.unit, 4),
        "bounds": _bounds(summary),
        "scores": _scores(summary),
        "columns": _columns(summary),
    }
    return {name: table for name, table in found.items() if table.rows}


def _distances(summary: Summary) -> ReportTable:
    calibration = [
        Column("calibration, s", "calibration_seconds", "calibration", 1),
        Column("its error, ×", "calibration_ratio", "calibration", 2),
    ]
    columns = [
        Column("sampler", "name"),
        Column("weighting", "weighting"),
        Column("network calls", "nfe", "nfe", 0),
        Column("seconds", "seconds", "seconds", 1),
        *(calibration if summary.calibrated else []),
        Column("sliced Wasserstein", "distance", "sw", 4, shows="both"),
        Column("× floor", "ratio", "ratio", 2, shows="both"),
        Column("kernel distance, 10⁻³", "kernel", "mmd", 2, 1000, "both"),
        Column("classifier accuracy, %", "classifier", "classifier", 1, 100, "both"),
        Column(f"nearest training {summary.part.event}", "near", "copies", 2),
        Column("too near, %", "copies", "copies", 1, 100),
    ]
    content, part = summary.content, summary.part
    bins = content["data"]["bins"]
    rounded = f", rounded to the {bins} integer values of the data" if bins else ""
    rounded += ", each category as the indicators of its classes" if summary.by_bound else ""
    seeds = len(content["seeds"])
    error = f"± over {seeds} seeds." if seeds > 1 else "± is the standard error of one evaluation."
    note = f"{content['n']} samples against {content['n']} held-out {part.events}, in model units{rounded}. {error}"
    rows = [*summary.reference_rows, *summary.sampler_rows]
    return ReportTable("Distance of the samples to real data", columns, rows, len(summary.reference_rows), note)


def _differences(summary: Summary, name: str, kind: str, unit: str, digits: int) -> ReportTable:
    entries = summary.differences(name)
    reference = entries[0].reference if entries else ""
    how = "difference"
    columns = [
        Column(kind, "name"),
        Column(f"minus {reference}, {unit}", "number", how, digits),
        Column("lower end", "low", how, digits),
        Column("upper end", "high", how, digits),
        Column("result", _verdict(summary, name)),
    ]
    return ReportTable(f"Paired differences to {reference}, with joint 95 % intervals", columns, entries)


def _verdict(summary: Summary, name: str) -> Any:
    words = {0: "not distinguishable", -1: "closer to the data", 1: "farther from the data"}
    if name == "likelihood":
        sign = 1 if summary.lower_is_better else -1
        words = {0: "not distinguishable", -sign: "better", sign: "worse"}

    def verdict(entry: Difference) -> str:
        return words[entry.sign]

    return verdict


def _likelihoods(summary: Summary) -> ReportTable:
    columns = [
        Column("weighting", "name"),
        Column(f"{summary.quantity.name}, {summary.quantity.direction}", "value", "likelihood", shows="both"),
        Column("over held-out data", "held_out", "held-out", shows="error"),
        Column("over draws" if summary.by_bound else "over probes", "probes", "probes", 4, shows="error"),
        Column(summary.part.events, "events", "events", 0),
        Column("network calls", "nfe", "nfe", 0),
        Column("training, s", "train_seconds", "train", 1),
    ]
    rows = [*summary.baseline_rows, *summary.likelihood_rows]
    seeds = len(summary.content["seeds"])
    note = (
        f"± next to the value: standard deviation over {seeds} training seeds."
        if seeds > 1
        else f"± next to the value: standard error over held-out {summary.part.events}. One training seed does not "
        "show the variation between trainings: try --seeds 3."
    )
    return ReportTable(f"Likelihood of held-out {summary.part.events}", columns, rows, len(summary.baseline_rows), note)


def _bounds(summary: Summary) -> ReportTable:
    columns = [
        Column("estimate", "name"),
        Column("weighting", "weighting"),
        Column(f"{summary.quantity.name}, {summary.quantity.direction}", "value", "bound", shows="both"),
        Column("over held-out data", "held_out", "held-out", shows="error"),
        Column("over draws", "draws", "draws", 4, shows="error"),
        Column("minus the ODE", _over_ode, "over-ode", shows="both"),
        Column("network calls", "nfe", "nfe", 0),
        Column("settings", "settings"),
    ]
    note = (
        f"All estimates use the same {summary.part.events}, so “minus the ODE” is known better than either number. The "
        "continuous bounds use antithetic noise and draw more timesteps where the integrand is harder to estimate; "
        "chains have uniform steps in log-SNR."
    )
    return ReportTable("Likelihood by the ODE, and bounds", columns, summary.bound_rows, 0, note)


def _over_ode(row: BoundRow) -> Any:
    return None if row.over_ode.value is None else row.over_ode


def _scores(summary: Summary) -> ReportTable:
    columns = [
        Column("sampler", "name"),
        Column("weighting", "weighting"),
        Column("classifier AUC", "auc", "auc", shows="both"),
        Column("columns within 1.5 × floor, %", "within", "within", 0, 100),
        Column("difference of dependence, mean", "association", "association"),
        Column("largest", "largest", "association", 2),
        Column("repeat a training row, %", "repeated", "repeated", 1, 100, "both"),
        Column("nearer to training than held-out rows, %", "nearer", "repeated", 1, 100, "both"),
    ]
    note = "“Real against real” is the same for as many training rows."
    return ReportTable("Scores of the rows", columns, table_rows(summary), 2, note)


def _columns(summary: Summary) -> ReportTable:
    sampler = summary.samplers[0]
    columns = [
        Column("column", "name"),
        Column("kind", "kind"),
        Column("floor", "floor", "column"),
        *(
            Column(f"{name}, {sampler}", lambda row, i=i: row.distances[i], "column")
            for i, name in enumerate(summary.weightings)
        ),
    ]
    return ReportTable("Distance of every column", columns, column_rows(summary))
