"""Bounds on the likelihood of categories: evaluated batch by batch, shared among processes, printed and written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scoresde.cli.outputs import atomic_output, write_columns

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.data import Description
    from scoresde.distributed import Rank
    from scoresde.evaluation import BoundSettings
    from scoresde.likelihood import Bound
    from scoresde.model import ScoreModel

__all__ = [
    "NamedBound",
    "bound_in_batches",
    "bounds_of_categories",
    "check_category_options",
    "draw_bits",
    "print_bounds",
    "write_bounds",
]

CONTINUOUS = "continuous time"


@dataclass(frozen=True, eq=False)
class NamedBound:
    """A bound on the log-probability of each event, with a name for the report."""

    name: str
    bound: Bound


def check_category_options(description: Description, **options: Any) -> None:
    """Refuses options of the ODE's likelihood, which categories do not have.

    Args:
        description: Of categories.
        **options: By name; None where it was not given.

    Raises:
        ValueError: Names the options.
    """
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value is not None]
    if given:
        raise ValueError(
            f"{description.name!r} holds categories, whose likelihood has bounds and no probability-flow ODE, got "
            f"{', '.join(given)}; leave {'it' if len(given) == 1 else 'them'} out. --bound adds the bounds of chains, "
            "and with it --evaluations 256 makes all more exact."
        )


def bounds_of_categories(
    rank: Rank,
    model: ScoreModel,
    events: Tensor,
    cond: Mapping[str, Tensor],
    settings: BoundSettings,
    chains: bool,
    seed: int,
    batch_size: int,
    report: Callable[[str], None] | None,
) -> list[NamedBound] | None:
    """The bound in continuous time, and those of chains; the result does not depend on processes or batches.

    Args:
        rank: This process.
        model: Of categories, with the description of its data.
        events: Data units, ``(n, *D)``.
        cond: Conditions of the events in data units, by name.
        settings: Evaluations, and lengths of the chains.
        chains: Whether to compute the bounds of chains.
        seed: Each event has its own, derived from it.
        batch_size: Events at once.
        report: Receives the name of each bound, in the main process.

    Returns:
        The bounds; None in all but the main process.
    """
    from scoresde.likelihood import continuous_vlb, discrete_vlb

    assert model.data is not None

    def continuous(x: Tensor, **rest: Any) -> Bound:
        return continuous_vlb(model, x, evaluations=settings.evaluations, **rest)

    def chain(steps: int) -> Callable[..., Bound]:
        terms = settings.evaluations if steps > settings.evaluations else None
        return lambda x, **rest: discrete_vlb(model, x, steps, terms=terms, **rest)

    calls: dict[str, Callable[..., Bound]] = {CONTINUOUS: continuous}
    calls |= {f"{steps} steps": chain(steps) for steps in settings.steps} if chains else {}
    bounds = []
    for name, call in calls.items():
        if report is not None and rank.main:
            report(name)
        bounds.append((name, bound_in_batches(rank, model, model.data.to_model(events), cond, call, seed, batch_size)))
    return [NamedBound(name, bound) for name, bound in bounds if bound is not None] if rank.main else None


def bound_in_batches(
    rank: Rank,
    model: ScoreModel,
    events: Tensor,
    cond: Mapping[str, Tensor],
    call: Callable[..., Bound],
    seed: int,
    batch_size: int,
) -> Bound | None:
    """The bound of all events, batch by batch, shared among processes; None in all but the main process.

    Args:
        rank: This process.
        model: With the description of its data.
        events: Model units, ``(n, *D)``.
        cond: Conditions of the events in data units, by name.
        call: The bound of a batch, with ``seeds`` and the conditions of its events in model units.
        seed: Each event has its own, derived from it.
        batch_size: Events at once.
    """
    import torch

    from scoresde.training.batches import derive
    from scoresde.training.condition_checks import model_cond

    assert model.data is not None
    rows, parts = rank.rows(len(events), batch_size), []
    for first in range(rows.start, rows.stop, batch_size):
        part = slice(first, min(first + batch_size, rows.stop))
        x = events[part].to(rank.device)
        given = model_cond(model, cond, model.data, part, rank.device)
        parts.append(call(x, seeds=[derive(seed, i) for i in range(part.start, part.stop)], **given))
    columns = [_columns(bound) for bound in parts]
    gathered = rank.gather(torch.cat(columns) if columns else torch.zeros(0, 0, dtype=torch.float64))
    return None if gathered is None else _joined(parts[0], gathered)


def _columns(bound: Bound) -> Tensor:
    """Every number that differs between events, ``(n, columns)`` float64."""
    import torch

    return torch.stack([bound.nats, bound.stderr, bound.dof, *bound.terms.values()], 1).double()


def _joined(first: Bound, rows: Tensor) -> Bound:
    from dataclasses import replace

    nats, stderr, dof, *terms = rows.unbind(1)
    named = dict(zip(first.terms, terms, strict=True))
    return replace(first, nats=nats, stderr=stderr, dof=dof, terms=named, per_step=None)


def print_bounds(bounds: list[NamedBound], data: str, description: Description) -> None:
    """Prints the bounds in all units, the terms of the first, and a histogram over the events.

    Args:
        bounds: At least one.
        data: The data and the number of its events, in words.
        description: Of the data.
    """
    from scoresde.cli import console

    entry = "character" if type(description.alphabet).__name__ == "Characters" else "entry"
    console.print_settings(
        {"data": data, "number": f"upper bound on -log2 P, bits per {entry} (lower is better)", **_levels(description)}
    )
    columns = ("held out", "bits", "95 % interval", "± events", "± draws", "calls")
    console.print_table(columns, [_row(each.name, each.bound) for each in bounds])
    columns = ("in other units", "bits/event", "nats/event", "perplexity")
    console.print_table(columns, [_other_units(each.name, each.bound) for each in bounds])
    first = bounds[0].bound
    bits = 1.0 / (first.dims * math.log(2))
    rows = [(name, f"{float(t.mean()):.4f}", f"{bits * float(t.mean()):.5f}") for name, t in first.terms.items()]
    console.print_table((f"terms, {bounds[0].name}", "nats/event", "bits"), rows)
    console.print_histogram((first.nats * bits).tolist(), f"bits per {entry}")


def _levels(description: Description) -> dict[str, str]:
    assert description.classes is not None
    return {"uniform": f"{math.log2(description.classes):.4f} bits, of {description.classes} classes alike"}


def _row(name: str, bound: Bound) -> tuple[str, ...]:
    low, high = bound.mean_interval()
    interval = "unknown" if math.isnan(low) else f"{low:.4f} … {high:.4f}"
    errors = (_number(error) for error in (bound.mean_stderr, bound.mean_draw_stderr))
    return name, f"{bound.mean:.4f}", interval, *errors, str(bound.nfe)


def _other_units(name: str, bound: Bound) -> tuple[str, ...]:
    nats = float(bound.nats.mean())
    return name, f"{nats / math.log(2):.4f}", f"{nats:.4f}", f"{bound.mean_perplexity:.4f}"


def _number(error: float) -> str:
    return "unknown" if math.isnan(error) else f"{error:.4f}"


def write_bounds(bounds: list[NamedBound], out: Path) -> int:
    """Writes a CSV line per event: each bound in nats with its 95 % interval over the draws, by Student's t.

    Returns:
        The number of events.
    """
    count = len(bounds[0].bound.nats)
    columns: dict[str, list[Any]] = {"index": list(range(count))}
    for each in bounds:
        low, high = each.bound.interval()
        numbers = {f"bound, {each.name}, nats": each.bound.nats, f"{each.name}, low": low, f"{each.name}, high": high}
        columns |= {name: [f"{value:.9g}" for value in values.tolist()] for name, values in numbers.items()}
    write_columns(columns, out)
    return count


def draw_bits(bounds: list[NamedBound], plot: Path, name: str) -> None:
    """Draws a histogram of the bits of events as PNG; the means of the bounds are marked."""
    from scoresde.plots.histogram import save_histogram

    first = bounds[0].bound
    marks = {each.name: each.bound.mean for each in bounds}
    with atomic_output(plot) as path:
        values = (first.nats / (first.dims * math.log(2))).cpu().numpy()
        save_histogram(path, values, f"{name}, bits per entry (bound)", marks)
