"""Output of likelihoods: a report in the terminal, a CSV file with one line per event, and a histogram as PNG."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoresde.cli.outputs import atomic_output, write_columns

if TYPE_CHECKING:
    from scoresde.evaluation import Evaluation

__all__ = ["draw_histogram", "print_report", "write_events"]

ODE = "probability-flow ODE"

_BUDGET_TERMS = {
    "trace": "random probes, standard error",
    "solver": "ODE solver (corrected)",
    "quadrature": "quadrature of the divergence",
    "prior": "final state, its shift from the prior, of either sign",
    "truncation": "noise that remains at tau_min",
    "dequantization": "gap to the K-draw bound",
}


def print_report(evaluation: Evaluation, data: str, stderr: float | None, dims: int, note: str = "") -> None:
    """Prints the values with their errors, the error budget, the solver's failures, and a histogram.

    Args:
        evaluation: The likelihoods and bounds.
        data: The data and the number of its events, in words.
        stderr: The requested standard error of the trace, nats; None if none was requested.
        dims: Dimension of one event, to convert nats to bits.
        note: Which columns of a table enter the number as a density; empty for other data.
    """
    from scoresde.cli import console

    summary = evaluation.to_json()
    ode, bounds = summary["likelihood"], summary["bounds"]
    failures = ", ".join(f"{count} {name}" for name, count in ode["lost"].items())
    label = evaluation.ode.quantity.label
    lines = {"data": data, "number": label, "of a table": note, "solver failed": failures}
    console.print_settings({name: text for name, text in lines.items() if text})
    columns = ("held out", evaluation.ode.quantity.name, "95 % interval", "± events", "± draws", "calls")
    columns += ("bound − ODE",) if bounds else ()
    rows = [_value_row(ODE, ode), *((*_value_row(b["name"], b), _difference(b["over_ode"])) for b in bounds)]
    console.print_table(columns, rows)
    bits_per_nat = 1.0 / (dims * math.log(2)) if ode["unit"] == "bits/dim" else None
    if not ode["events"]:
        return
    columns = ("error budget, mean over events", "nats", *(() if bits_per_nat is None else ("bits/dim",)))
    console.print_table(columns, [_budget_row(name, value, bits_per_nat) for name, value in ode["budget"].items()])
    console.print_settings({"Jacobian products": f"{ode['products']:.0f} per event"})
    if stderr is not None:
        console.print_status(_requested_error(evaluation, stderr))
    console.print_histogram(evaluation.ode.value[~evaluation.ode.value.isnan()].tolist(), label)


def write_events(evaluation: Evaluation, out: Path) -> int:
    """Writes a CSV line per event: value and interval, errors (the budget in nats), status and calls.

    The head of the value's column says what it is and which direction is better.

    Intervals hold with 95 %: that of the ODE over the probes, that of each bound over its draws, by Student's t.

    Returns:
        The number of events.
    """
    from scoresde.likelihood import Status

    ode = evaluation.ode
    columns: dict[str, list[Any]] = {"index": list(range(len(ode.value)))}
    numbers = {ode.quantity.label: ode.value, "low": ode.low, "high": ode.high, "stderr": ode.stderr}
    numbers |= {f"{name}_nats": term for name, term in ode.budget.items()}
    for bound in evaluation.bounds:
        name = f"bound, {bound.name}"
        numbers |= {name: bound.value, f"{name}, low": bound.low, f"{name}, high": bound.high}
    columns |= {name: [f"{value:.9g}" for value in values.tolist()] for name, values in numbers.items()}
    columns |= {"status": [Status(code).name for code in ode.status.tolist()], "nfe": ode.nfe.tolist()}
    write_columns(columns, out)
    return len(ode.value)


def draw_histogram(evaluation: Evaluation, plot: Path, name: str) -> None:
    """Draws the histogram as PNG; the means of the ODE and of the bounds are marked."""
    from scoresde.plots.histogram import save_histogram

    values = evaluation.ode.value[~evaluation.ode.value.isnan()].cpu().numpy()
    marks = {ODE: float(values.mean()) if len(values) else math.nan}
    marks |= {f"bound, {bound.name}": float(bound.value.mean()) for bound in evaluation.bounds}
    with atomic_output(plot) as path:
        save_histogram(path, values, f"{name}, {evaluation.ode.quantity.label}", marks)


def _value_row(name: str, entry: dict[str, Any]) -> tuple[str, ...]:
    """A value, the interval of its mean over events by Student's t, and its standard errors.

    They are over events, and over draws if there are several, else over probes.
    """
    draws = entry.get("draw_stderr")
    errors = entry["stderr"], entry["probe_stderr"] if draws is None else draws
    interval = "unknown" if math.isnan(entry["interval"][0]) else "{:.4f} … {:.4f}".format(*entry["interval"])
    return name, f"{entry['value']:.4f}", interval, *map(_error, errors), str(entry["nfe"])


def _error(error: float) -> str:
    return "unknown" if math.isnan(error) else f"{error:.4f}"


def _difference(entry: dict[str, float]) -> str:
    return f"{entry['value']:+.4f} ± {_error(entry['stderr'])}"


def _budget_row(name: str, value: float, bits_per_nat: float | None) -> tuple[str, ...]:
    row = (f"{name}: {_BUDGET_TERMS[name]}", f"{value:.4f}")
    return row if bits_per_nat is None else (*row, f"{bits_per_nat * value:.5f}")


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
