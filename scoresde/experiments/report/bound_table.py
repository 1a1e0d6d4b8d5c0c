"""Which side of the ODE's likelihood do the bounds lie on? Lines of a table, and a clause of a sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from scoresde.experiments.report.numbers import Number, mean

__all__ = ["ODE", "BoundRow", "in_words", "bound_rows"]

ODE = "probability-flow ODE"
"""Name of the ODE in the table of bounds."""


@dataclass(frozen=True)
class BoundRow:
    """One line of the table of bounds: the ODE, or a bound, of one weighting; ``each`` is ``over`` run by run."""

    weighting: str
    name: str
    settings: str
    value: Number
    held_out: Number
    drawn: Number
    over: Number
    nfe: Number
    each: tuple[Number, ...]


def bound_rows(weighting: str, runs: Sequence[dict[str, Any]]) -> list[BoundRow]:
    """Of one weighting, whose runs differ in the seed alone, so that all have the same bounds; empty without any."""
    several = [run.get("bounds") or [] for run in runs]
    if not all(several):
        return []
    ode = [run["likelihood"] for run in runs]
    found = [_line(weighting, {"name": ODE, "settings": ode[0].get("settings", "")}, ode)]
    return found + [_line(weighting, each[0], list(each)) for each in zip(*several, strict=True)]


def in_words(table: Sequence[BoundRow], lower_is_better: bool) -> str:
    """Where the bounds lie in every model: beyond the ODE, on its other side, or neither by two standard errors.

    Args:
        table: Lines of all weightings.
        lower_is_better: Whether they are bits; else nats.
    """
    above, below, level = [], [], []
    for name in dict.fromkeys(line.name for line in table if line.name != ODE):
        over = [each for line in table if line.name == name for each in line.each]
        ratios = [(each.value or 0.0) / (each.error or math.inf) for each in over]
        (above if min(ratios) > 2 else below if max(ratios) < -2 else level).append(name)
    sides = [("above", above), ("below", below)]
    said = []
    for where, names in sides if lower_is_better else reversed(sides):
        if names:
            verb = "lies" if len(names) == 1 else "lie"
            said.append(f"{_listed(names)} {verb} {where} the ODE in every model, by more than two standard errors")
    if level:
        said.append(f"{_listed(level)} {'is' if len(level) == 1 else 'are'} neither clearly above nor below it")
    return "; ".join(said)


def _line(weighting: str, about: dict[str, Any], entries: list[dict[str, Any]]) -> BoundRow:
    drawn = [e["draw_stderr"] if e.get("draw_stderr") is not None else e.get("probe_stderr") for e in entries]
    over = [e.get("over_ode") for e in entries]
    return BoundRow(
        weighting,
        about["name"],
        about["settings"],
        mean([dict(e) for e in entries]),
        Number(None, mean([e["stderr"] for e in entries]).value),
        Number(None, mean(drawn).value),
        mean(over),
        Number(mean([e["nfe"] for e in entries]).value),
        tuple(mean([e]) for e in over),
    )


def _listed(names: list[str]) -> str:
    """Names in quotes, with an "and" before the last."""
    quoted = [f"“{name}”" for name in names]
    return " and ".join(filter(None, (", ".join(quoted[:-1]), quoted[-1])))
