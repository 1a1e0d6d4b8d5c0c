"""Tables: rows of scores, marginals of the columns, and their pairwise dependence.

The figures show the samples of the plan's first sampler, for each weighting.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.axes import Axes

from scoresde.data.tables.dates import dates_of
from scoresde.experiments.report.number_format import Number, mean
from scoresde.experiments.report.parts import events
from scoresde.experiments.report.parts.categories import colored_rows
from scoresde.experiments.report.parts.part import DataPart, frame_title
from scoresde.experiments.report.pictures import Key, Panel, Picture, Values, shown
from scoresde.experiments.results import Results
from scoresde.metrics import association_matrix
from scoresde.plots.heatmaps import draw_heatmap
from scoresde.plots.marginals import ColumnValues, draw_marginal
from scoresde.plots.style import GRAY, SERIES

if TYPE_CHECKING:
    from scoresde.experiments.report.summary import Summary

__all__ = ["PART", "ColumnRow", "TableRow", "column_rows", "samples", "statistics", "table_rows"]

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
    """A column: its kind, the floor of its distance, and that of the first sampler's samples for each weighting."""

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
    gaussian = _row("Gaussian, full covariance", None, [table["gaussian"]])
    rows = [
        _row(sampler, weighting, [measured["table"] for measured in summary.measurements(weighting, sampler)])
        for weighting in summary.weightings
        for sampler in summary.samplers
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


def column_rows(summary: Summary) -> list[ColumnRow]:
    """One row per column; empty for other data."""
    table = summary.content.get("table")
    if table is None:
        return []
    sets = [measured["table"]["distances"] for measured in _shown(summary).values()]
    floors = table["floors"]["distances"]
    return [
        ColumnRow(name, kind, Number(floors[i]), tuple(Number(distances[i]) for distances in sets))
        for i, (name, kind) in enumerate(table["kinds"].items())
    ]


def forward(results: Results) -> Picture:
    """The noised numbers as histograms; of rows of categories alone strips of their codes."""
    codes, states = results.content["data"].get("codes") or [], results.arrays["forward"]
    if not codes:
        return events.forward(results)
    numbers = states[..., : states.shape[-1] - len(codes)]
    if numbers.shape[-1]:
        arrays = {**results.arrays, "forward": numbers}
        picture = events.forward(replace(results, arrays=arrays))
        return replace(picture, label="Values of the noised numbers, from data to noise.")
    panels = [
        Panel(frame_title(results, i), sheet=colored_rows(x.astype(np.int64), max(codes)), size=(1.6, 1.6))
        for i, x in enumerate(states)
    ]
    return Picture("Noised rows of categories, a color for each, from data to noise.", panels, columns=len(panels))


def samples(results: Results, summary: Summary) -> dict[str, Picture]:
    """Marginals of the first columns."""
    table, sets = results.content["table"], _shown(summary)
    rows = [results.arrays["table/real"], *(results.arrays[f"{m['array']}/table"] for m in sets.values())]
    panels = []
    for i, (name, kind) in enumerate(list(table["kinds"].items())[:_PANELS]):
        unit = table["dates"].get(name)
        real, *drawn = [x[:, i] if unit is None else dates_of(x[:, i], unit) for x in rows]
        column = ColumnValues(name, kind, real, dict(zip(sets, drawn, strict=True)), table["categories"].get(name, ()))
        panels.append(Panel(name, partial(_marginal, column), size=(3.4, 2.1)))
    keys = [Key("held out", GRAY, "-")]
    keys += [Key(name, SERIES[i % len(SERIES)], "-") for i, name in enumerate(sets)]
    return {"marginals": Picture("Distribution of the column", panels, keys, columns=min(3, len(panels)))}


def statistics(results: Results, summary: Summary) -> dict[str, Picture]:
    """Pairwise dependence of held-out rows and samples, and the difference; none for a single column."""
    kinds, arrays = results.content["table"]["kinds"], results.arrays
    if len(kinds) < 2:
        return {}
    names, categorical = list(kinds)[:_MATRIX], [kind == "category" for kind in kinds.values()][:_MATRIX]

    def matrix(rows: np.ndarray) -> np.ndarray:
        return association_matrix(torch.from_numpy(rows[:, :_MATRIX].copy()), categorical).numpy()

    real = matrix(arrays["table/real"])
    matrices = {"held out": real}
    for name, measured in _shown(summary).items():
        drawn = matrix(arrays[f"{measured['array']}/table"])
        matrices |= {name: drawn, f"{name}, minus held out": drawn - real}
    size = (4.0, 3.8) if len(names) <= 14 else (5.2, 5.0)
    panels = [Panel(title, partial(_heatmap, matrix, names), size=size) for title, matrix in matrices.items()]
    return {"dependence": Picture("Pairwise dependence of the columns:", panels, columns=min(3, len(panels)))}


def _shown(summary: Summary) -> dict[str, dict[str, Any]]:
    """The measurement of the first sampler and seed, for each weighting."""
    runs = {name: summary.runs(name)[0]["samples"][0] for name in summary.weightings}
    return {f"{name}, {measured['sampler']}": measured for name, measured in runs.items()}


def _marginal(column: ColumnValues, axes: Axes) -> list[Values]:
    return [Values(name, shares.x, shares.y, shares.texts) for name, shares in draw_marginal(axes, column).items()]


def _heatmap(matrix: np.ndarray, names: list[str], axes: Axes) -> list[Values]:
    draw_heatmap(axes, matrix, names)
    at = [(i, j) for i in range(len(names)) for j in range(len(names)) if i != j]
    texts = [f"{names[i]}, {names[j]}: {shown(float(matrix[i, j]), 2)}" for i, j in at]
    return [Values("", [j for _, j in at], [i for i, _ in at], texts)]


PART = DataPart(
    event="row",
    events="rows",
    advice="Look for ranges that are missed or invented, for spikes, and for categories that are too frequent or too "
    "rare. The outermost bins count everything beyond them.",
    forward=forward,
    samples=samples,
    statistics=statistics,
    statistics_title="Dependence of the columns",
    statistics_text="Pairwise dependence of the columns. Numbers: Spearman’s rank correlation. A number and a "
    "category: correlation ratio. Two categories: Cramér’s V. The difference shows what the samples get wrong.",
)
