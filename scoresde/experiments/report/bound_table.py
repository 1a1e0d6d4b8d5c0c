"""The table of variational bounds, and a sentence about their position relative to the ODE's likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scoresde.experiments.report.number_format import Number, mean

__all__ = ["ODE", "BoundRow", "bound_clause", "bound_rows"]

ODE = "probability-flow ODE"
"""Name of the ODE in the table of bounds."""


@dataclass(frozen=True)
class BoundRow:
    """One row: the ODE, or a bound, of one weighting.

    Attributes:
        weighting: Label of the weighting.
        name: Name of the estimate.
        settings: Its settings as text.
        value: In the unit of the likelihoods.
        held_out: Standard error over held-out events.
        draws: Standard error over random draws.
        over_ode: Difference to the ODE.
        nfe: Network calls per event.
        over_ode_by_seed: Difference to the ODE for each seed.
    """

    weighting: str
    name: str
    settings: str
    value: Number
    held_out: Number
    draws: Number
    over_ode: Number
    nfe: Number
    over_ode_by_seed: tuple[Number, ...]


def bound_rows(weighting: str, runs: Sequence[dict[str, Any]]) -> list[BoundRow]:
    """The rows of one weighting, the ODE first; empty if no bounds were estimated.

    Args:
        weighting: Label of the weighting.
        runs: Its runs, which differ in the seed alone, so that all have the same bounds.
    """
    bounds = [run.get("bounds") or [] for run in runs]
    if not all(bounds):
        return []
    ode = [run["likelihood"] for run in runs]
    rows = [_row(weighting, {"name": ODE, "settings": ode[0].get("settings", "")}, ode)]
    return rows + [_row(weighting, entries[0], list(entries)) for entries in zip(*bounds, strict=True)]


def bound_clause(table: Sequence[BoundRow], lower_is_better: bool) -> str:
    """A clause: which bounds lie above or below the ODE in every model, by more than two standard errors.

    Args:
        table: Rows of all weightings.
        lower_is_better: True for bits, False for nats; decides which side is named first.
    """
    above, below, unclear = [], [], []
    for name in dict.fromkeys(row.name for row in table if row.name != ODE):
        differences = [number for row in table if row.name == name for number in row.over_ode_by_seed]
        ratios = [(number.value or 0.0) / (number.error or math.inf) for number in differences]
        (above if min(ratios) > 2 else below if max(ratios) < -2 else unclear).append(name)
    sides = [("above", above), ("below", below)]
    clauses = []
    for side, names in sides if lower_is_better else reversed(sides):
        if names:
            verb = "lies" if len(names) == 1 else "lie"
            clauses.append(f"{_listed(names)} {verb} {side} the ODE in every model, by more than two standard errors")
    if unclear:
        clauses.append(f"{_listed(unclear)} {'is' if len(unclear) == 1 else 'are'} neither clearly above nor below it")
    return "; ".join(clauses)


def _row(weighting: str, first: dict[str, Any], entries: list[dict[str, Any]]) -> BoundRow:
    draws = [e["draw_stderr"] if e.get("draw_stderr") is not None else e.get("probe_stderr") for e in entries]
    over_ode = [e.get("over_ode") for e in entries]
    return BoundRow(
        weighting,
        first["name"],
        first["settings"],
        mean([dict(e) for e in entries]),
        Number(None, mean([e["stderr"] for e in entries]).value),
        Number(None, mean(draws).value),
        mean(over_ode),
        Number(mean([e["nfe"] for e in entries]).value),
        tuple(mean([difference]) for difference in over_ode),
    )


def _listed(names: list[str]) -> str:
    """Names in quotes, with an "and" before the last."""
    quoted = [f"“{name}”" for name in names]
    return " and ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))
