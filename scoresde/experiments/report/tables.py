"""The report's part on tables: rows of scores, marginals of the columns, and their pairwise dependence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from scoresde.data.tables.dates import dates_of
from scoresde.experiments.report.charts import WIDTH
from scoresde.experiments.report.number_format import Number, mean
from scoresde.experiments.report.summary import Summary
from scoresde.experiments.results import Results
from scoresde.metrics import association_matrix
from scoresde.plots.heatmaps import draw_heatmaps
from scoresde.plots.marginals import ColumnValues, draw_marginals

__all__ = ["ColumnRow", "TableRow", "best_samples", "column_rows", "dependence", "marginals", "table_rows"]

_PANELS = 24  # columns whose marginals are drawn
_MATRIX = 40  # columns whose dependence is drawn


@dataclass(frozen=True)
class TableRow:
    """Scores of one sampler with one weighting, or of real data.

    Attributes:
        name: Label of the row.
        weighting: Label of the weighting; None for real data and the Gaussian.
        auc: Of a classifier of samples and held-out rows.
        within: Share of columns whose distance is at most 1.5 floors; None for real data.
        association: Mean absolute difference of the pairwise dependence.
        largest: The largest difference.
        repeated: Share of rows that equal a training row.
        nearer: Share of rows nearer to training than to held-out rows; None for real data.
    """

    name: str
    weighting: str | None
    auc: Number
    within: Number
    association: Number
    largest: Number
    repeated: Number
    nearer: Number


@dataclass(frozen=True)
class ColumnRow:
    """A column: its kind, the floor of its distance, and the distance of each weighting's best samples."""

    name: str
    kind: str
    floor: Number
    distances: tuple[Number, ...]


def table_rows(summary: Summary) -> list[TableRow]:
    """Real data, a Gaussian, then every sampler, weighting by weighting; empty for other data."""
    table = summary.content.get("table")
    if table is None:
        return []
    floors, first = table["floors"], summary.content["runs"][0]["samples"][0]["table"]
    real = TableRow(
        "real against real",
        None,
        mean([floors["auc"]]),
        Number(None),
        Number(floors["association"]["mean"]),
        Number(floors["association"]["largest"]),
        mean([first["copies"]["repeated_real"]]),
        Number(None),
    )
    weightings, samplers = summary.content["weightings"], summary.content["samplers"]
    gaussian = _row("Gaussian, full covariance", None, [table["gaussian"]])
    rows = [
        _row(sampler, weighting, [measured["table"] for measured in summary.measurements(weighting, sampler)])
        for weighting in weightings
        for sampler in samplers
    ]
    return [real, gaussian, *rows]


def _row(name: str, weighting: str | None, entries: list[dict[str, Any]]) -> TableRow:
    def over_seeds(*keys: str) -> Number:
        values: list[Any] = entries
        for key in keys:
            values = [value[key] for value in values]
        return mean(values)

    return TableRow(
        name,
        weighting,
        over_seeds("auc"),
        over_seeds("within"),
        over_seeds("association", "mean"),
        over_seeds("association", "largest"),
        over_seeds("copies", "repeated"),
        over_seeds("copies", "nearer_train"),
    )


def best_samples(summary: Summary) -> dict[str, dict[str, Any]]:
    """For each weighting the measurement, of the first seed, whose classifier has the AUC nearest to 1/2."""

    def error(measured: dict[str, Any]) -> float:
        value = measured["table"]["auc"]["value"]
        return 1.0 if value is None else abs(value - 0.5)

    return {name: min(summary.runs(name)[0]["samples"], key=error) for name in summary.content["weightings"]}


def column_rows(summary: Summary) -> list[ColumnRow]:
    """One row per column; empty for other data."""
    table = summary.content.get("table")
    if table is None:
        return []
    best = [measured["table"]["distances"] for measured in best_samples(summary).values()]
    floors = table["floors"]["distances"]
    return [
        ColumnRow(name, kind, Number(floors[i]), tuple(Number(distances[i]) for distances in best))
        for i, (name, kind) in enumerate(table["kinds"].items())
    ]


def marginals(results: Results, summary: Summary) -> Figure | None:
    """Marginals of the first columns, held out beside each weighting's best samples; None for other data."""
    table = results.content.get("table")
    if table is None:
        return None
    best = best_samples(summary)
    real = results.arrays["table/real"]
    sets = {f"{name}, {m['sampler']}": results.arrays[f"{m['array']}/table"] for name, m in best.items()}
    panels = []
    for i, (name, kind) in enumerate(list(table["kinds"].items())[:_PANELS]):
        unit = table["dates"].get(name)
        columns = [rows[:, i] if unit is None else dates_of(rows[:, i], unit) for rows in (real, *sets.values())]
        texts = tuple(table["categories"].get(name, ()))
        panels.append(ColumnValues(name, kind, columns[0], dict(zip(sets, columns[1:], strict=True)), texts))
    return draw_marginals(panels, WIDTH)


def dependence(results: Results, summary: Summary) -> Figure | None:
    """The pairwise dependence of held-out rows and the best samples, and its difference; None for other data."""
    table = results.content.get("table")
    if table is None or len(table["kinds"]) < 2:
        return None
    weighting, measured = min(best_samples(summary).items(), key=lambda item: abs(_auc(item[1]) - 0.5))
    categorical = [kind == "category" for kind in table["kinds"].values()][:_MATRIX]

    def matrix(rows: np.ndarray) -> np.ndarray:
        return association_matrix(torch.from_numpy(rows[:, :_MATRIX].copy()), categorical).numpy()

    real, drawn = matrix(results.arrays["table/real"]), matrix(results.arrays[f"{measured['array']}/table"])
    titles = ("held out", f"samples: {weighting}, {measured['sampler']}", "samples minus held out")
    return draw_heatmaps(dict(zip(titles, (real, drawn, drawn - real))), list(table["kinds"])[:_MATRIX], WIDTH)


def _auc(measured: dict[str, Any]) -> float:
    value = measured["table"]["auc"]["value"]
    return 1.0 if value is None else value
