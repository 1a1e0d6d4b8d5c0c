"""Bounds on the likelihood of categories: evaluated batch by batch, shared among processes, printed and written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from scoresde.cli.scored_events import Histogram, ScoredEvents, decimals, formatted, interval

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.data import Description
    from scoresde.distributed import Rank
    from scoresde.evaluation import BoundSettings
    from scoresde.likelihood import Bound
    from scoresde.model import ScoreModel

__all__ = ["BoundsOfCategories", "bound_in_batches", "bounds_of_categories"]

CONTINUOUS = "continuous time"


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
) -> BoundsOfCategories | None:
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
    bounds = {}
    for name, call in calls.items():
        if report is not None and rank.main:
            report(name)
        bound = bound_in_batches(rank, model, model.data.to_model(events), cond, call, seed, batch_size)
        bounds |= {} if bound is None else {name: bound}
    return BoundsOfCategories(bounds) if rank.main else None


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


@dataclass(frozen=True, eq=False)
class BoundsOfCategories(ScoredEvents):
    """Bounds on the log-probability of each event, by name; that in continuous time comes first."""

    bounds: Mapping[str, Bound]

    def report(self, data: str, description: Description) -> None:  # in all units, with the terms of the first bound
        from scoresde.cli import console

        assert description.classes is not None
        entry = "character" if type(description.alphabet).__name__ == "Characters" else "entry"
        uniform = f"{math.log2(description.classes):.4f} bits, of {description.classes} classes alike"
        number = f"upper bound on -log2 P, bits per {entry} (lower is better)"
        console.print_settings({"data": data, "number": number, "uniform": uniform})
        columns = ("held out", "bits", "95 % interval", "± events", "± draws", "calls")
        console.print_table(columns, [_row(name, bound) for name, bound in self.bounds.items()])
        columns = ("in other units", "bits/event", "nats/event", "perplexity")
        console.print_table(columns, [_other_units(name, bound) for name, bound in self.bounds.items()])
        name, first = next(iter(self.bounds.items()))
        means = {term: float(values.mean()) for term, values in first.terms.items()}
        rows = [(term, decimals(nats), decimals(nats / _nats_per_bit(first), 5)) for term, nats in means.items()]
        console.print_table((f"terms, {name}", "nats/event", "bits"), rows)
        self.histogram().show()

    def columns(self) -> dict[str, Sequence[object]]:
        numbers: dict[str, Tensor] = {}
        for name, bound in self.bounds.items():
            low, high = bound.interval()
            numbers |= {f"bound, {name}, nats": bound.nats, f"{name}, low": low, f"{name}, high": high}
        return formatted(numbers)

    def histogram(self) -> Histogram:
        first = next(iter(self.bounds.values()))
        marks = {name: bound.mean for name, bound in self.bounds.items()}
        return Histogram(first.nats / _nats_per_bit(first), "bits per entry (bound)", marks)


def _nats_per_bit(bound: Bound) -> float:
    """Nats of an event in one bit of each of its entries."""
    return bound.dims * math.log(2)


def _row(name: str, bound: Bound) -> tuple[str, ...]:
    errors = map(decimals, (bound.mean_stderr, bound.mean_draw_stderr))
    return name, decimals(bound.mean), interval(*bound.mean_interval()), *errors, str(bound.nfe)


def _other_units(name: str, bound: Bound) -> tuple[str, ...]:
    nats, perplexity = float(bound.nats.mean()), bound.mean_perplexity
    assert perplexity is not None
    return name, *map(decimals, (nats / math.log(2), nats, perplexity))
