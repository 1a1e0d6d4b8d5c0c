"""Likelihoods by the ODE, as ``scoresde likelihood`` shows them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scoresde.cli.scored_events import Histogram, ScoredEvents, decimals, formatted, interval

if TYPE_CHECKING:
    from scoresde.data import Description
    from scoresde.evaluation import Evaluation

__all__ = ["LikelihoodReport"]

ODE = "probability-flow ODE"

_BUDGET_TERMS = {
    "trace": "random probes, standard error",
    "solver": "ODE solver (corrected)",
    "quadrature": "quadrature of the divergence",
    "prior": "final state, its shift from the prior, of either sign",
    "truncation": "noise that remains at tau_min",
    "dequantization": "gap to the K-draw bound",
}


@dataclass(frozen=True, eq=False)
class LikelihoodReport(ScoredEvents):
    """Likelihoods by the ODE, with bounds if they were requested.

    Args:
        evaluation: The likelihoods and bounds.
        stderr: The requested standard error of the trace, nats; None if none was requested.
    """

    evaluation: Evaluation
    stderr: float | None

    def report(self, data: str, description: Description) -> None:  # with the error budget and the solver's failures
        from scoresde.cli import console

        evaluation = self.evaluation
        summary = evaluation.to_json()
        ode, bounds = summary["likelihood"], summary["bounds"]
        failures = ", ".join(f"{count} {name}" for name, count in ode["lost"].items())
        lines = {"data": data, "number": evaluation.ode.quantity.label, "of a table": description.density_note()}
        lines |= {"solver failed": failures}
        console.print_settings({name: text for name, text in lines.items() if text})
        columns = ("held out", evaluation.ode.quantity.name, "95 % interval", "± events", "± draws", "calls")
        columns += ("bound − ODE",) if bounds else ()
        rows = [_value_row(ODE, ode), *((*_value_row(b["name"], b), _difference(b["over_ode"])) for b in bounds)]
        console.print_table(columns, rows)
        if not ode["events"]:
            return
        bits_per_nat = 1.0 / (description.dims * math.log(2)) if ode["unit"] == "bits/dim" else None
        columns = ("error budget, mean over events", "nats", *(() if bits_per_nat is None else ("bits/dim",)))
        console.print_table(columns, [_budget_row(name, value, bits_per_nat) for name, value in ode["budget"].items()])
        console.print_settings({"Jacobian products": f"{ode['products']:.0f} per event"})
        if self.stderr is not None:
            console.print_status(_requested_error(evaluation, self.stderr))
        self.histogram().show()

    def columns(self) -> dict[str, Sequence[object]]:  # value, errors (the budget in nats), bounds, status and calls
        from scoresde.likelihood import Status

        ode = self.evaluation.ode
        numbers = {ode.quantity.label: ode.value, "low": ode.low, "high": ode.high, "stderr": ode.stderr}
        numbers |= {f"{name}_nats": term for name, term in ode.budget.items()}
        for bound in self.evaluation.bounds:
            name = f"bound, {bound.name}"
            numbers |= {name: bound.value, f"{name}, low": bound.low, f"{name}, high": bound.high}
        status = [Status(code).name for code in ode.status.tolist()]
        return {**formatted(numbers), "status": status, "nfe": ode.nfe.tolist()}

    def histogram(self) -> Histogram:
        ode = self.evaluation.ode
        values = ode.value[~ode.value.isnan()]
        marks = {ODE: float(values.mean()) if len(values) else math.nan}
        marks |= {f"bound, {bound.name}": float(bound.value.mean()) for bound in self.evaluation.bounds}
        return Histogram(values, ode.quantity.label, marks)


def _value_row(name: str, entry: dict[str, Any]) -> tuple[str, ...]:
    """A value, the interval of its mean over events by Student's t, and its standard errors.

    They are over events, and over draws if there are several, else over probes.
    """
    draws = entry.get("draw_stderr")
    errors = entry["stderr"], entry["probe_stderr"] if draws is None else draws
    return name, decimals(entry["value"]), interval(*entry["interval"]), *map(decimals, errors), str(entry["nfe"])


def _difference(entry: dict[str, float]) -> str:
    return f"{entry['value']:+.4f} ± {decimals(entry['stderr'])}"


def _budget_row(name: str, value: float, bits_per_nat: float | None) -> tuple[str, ...]:
    row = (f"{name}: {_BUDGET_TERMS[name]}", decimals(value))
    return row if bits_per_nat is None else (*row, decimals(bits_per_nat * value, 5))


def _requested_error(evaluation: Evaluation, stderr: float) -> str:
    """A sentence: whether the standard error of the trace is as small as requested, for each event."""
    errors = evaluation.ode.budget["trace"] * math.sqrt(max(evaluation.ode.draws, 1))  # of one draw
    errors = errors[~evaluation.ode.value.isnan()]
    too_large = int((errors > stderr).sum())
    if too_large:
        return (
            f"the requested standard error of {stderr:g} nats was not met for {too_large} of {len(errors)} events; "
            'allow more products: --trace "Hutchinson(max_products=100000)".'
        )
    return f"the requested standard error of {stderr:g} nats was met for all events"
