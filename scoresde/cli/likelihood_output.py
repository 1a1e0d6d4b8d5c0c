"""How do likelihoods look in a terminal, in a CSV and as a picture?"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scoresde.evaluation.evaluate import Evaluation

__all__ = ["draw", "report", "write"]

ODE = "probability-flow ODE"

_TERMS = {
    "trace": "random probes, standard error",
    "solver": "path, corrected for",
    "quadrature": "nodes along the path",
    "prior": "noise at the end is not the prior",
    "truncation": "noise at tau_min is not the data",
    "dequantization": "gap to the K-draw bound",
}


def report(found: Evaluation, about: str, asked: float | None, dims: int) -> None:
    """Values with their errors, the budget, what did not arrive, and the histogram.

    Args:
        found: What was found.
        about: The data, in words, with how many of them are scored.
        asked: The standard error that was asked for, nats.
        dims: Numbers in one event, for bits.
    """
    from scoresde.cli import console as show

    said = found.said()
    ode, bounds = said["likelihood"], said["bounds"]
    lost = ", ".join(f"{count} {name}" for name, count in ode["lost"].items())
    show.settings({"data": about, **({"did not arrive": lost} if lost else {})})
    columns = ("held out", ode["unit"], "± events", "± draws", "calls", *(("bound − ODE",) if bounds else ()))
    show.table(columns, [_line(ODE, ode), *((*_line(b["name"], b), _difference(b["over_ode"])) for b in bounds)])
    bits = 1.0 / (dims * math.log(2)) if ode["unit"] == "bits/dim" else None
    if not ode["events"]:
        return
    columns = ("error budget, mean over events", "nats", *(() if bits is None else ("bits/dim",)))
    show.table(columns, [_term(name, value, bits) for name, value in ode["budget"].items()])
    show.settings({"Jacobian products": f"{ode['products']:.0f} per event"})
    if asked is not None:
        show.say(_met(found, asked))
    show.histogram(found.ode.value[~found.ode.value.isnan()].tolist(), ode["unit"])


def write(found: Evaluation, out: Path) -> int:
    """One line per event: its value in the unit, the interval, the errors (the budget in nats), status and calls.

    Returns:
        The number of events.
    """
    from scoresde.cli.parsing import atomic_output
    from scoresde.likelihood import Status

    ode = found.ode
    columns: dict[str, list[Any]] = {"index": list(range(len(ode.value)))}
    numbers = {ode.unit: ode.value, "low": ode.low, "high": ode.high, "stderr": ode.stderr}
    numbers |= {f"{name}_nats": each for name, each in ode.budget.items()}
    numbers |= {f"bound, {bound.name}": bound.value for bound in found.bounds}
    columns |= {name: [f"{value:.9g}" for value in each.tolist()] for name, each in numbers.items()}
    columns |= {"status": [Status(code).name for code in ode.status.tolist()], "nfe": ode.nfe.tolist()}
    with atomic_output(out) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return len(ode.value)


def draw(found: Evaluation, plot: Path, name: str) -> None:
    """The histogram as PNG, with the means of the ODE and the bounds as marks."""
    from scoresde.cli.parsing import atomic_output
    from scoresde.plots.histogram import save_histogram

    values = found.ode.value[~found.ode.value.isnan()].cpu().numpy()
    marks = {ODE: float(values.mean()) if len(values) else math.nan}
    marks |= {f"bound, {bound.name}": float(bound.value.mean()) for bound in found.bounds}
    with atomic_output(plot) as part:
        save_histogram(part, values, f"{name}, {found.ode.unit} per event", marks)


def _line(name: str, entry: dict[str, Any]) -> tuple[str, ...]:
    """A value; the error over draws where there are several, else over probes."""
    drawn = entry.get("draw_stderr")
    errors = entry["stderr"], entry["probe_stderr"] if drawn is None else drawn
    return name, f"{entry['value']:.4f}", *map(_error, errors), str(entry["nfe"])


def _error(error: float) -> str:
    return "unknown" if math.isnan(error) else f"{error:.4f}"


def _difference(entry: dict[str, float]) -> str:
    return f"{entry['value']:+.4f} ± {_error(entry['stderr'])}"


def _term(name: str, value: float, bits: float | None) -> tuple[str, ...]:
    said = (f"{name}: {_TERMS[name]}", f"{value:.4f}")
    return said if bits is None else (*said, f"{bits * value:.5f}")


def _met(found: Evaluation, asked: float) -> str:
    """Whether the trace's standard error came down to what was asked, event by event."""
    errors = found.ode.budget["trace"] * math.sqrt(max(found.ode.draws, 1))  # of one draw
    errors = errors[~found.ode.value.isnan()]
    over = int((errors > asked).sum())
    if over:
        return (
            f"the requested standard error of {asked:g} nats was not met for {over} of {len(errors)} events; allow "
            'more products: --trace "Hutchinson(max_products=100000)".'
        )
    return f"the requested standard error of {asked:g} nats was met for all events"
