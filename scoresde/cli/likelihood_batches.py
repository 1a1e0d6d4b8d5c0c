"""Likelihoods of many events, batch by batch, shared among the processes of a launcher."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.distributed import Rank
    from scoresde.evaluation import Evaluation, LikelihoodSettings
    from scoresde.model import ScoreModel

__all__ = ["evaluate_in_processes"]

_INTEGERS = ("status", "nfe", "products")
_COLUMNS = ("value", "low", "high", "stderr", "draw_stderr", *_INTEGERS)


def evaluate_in_processes(
    rank: Rank,
    model: ScoreModel,
    events: Tensor,
    settings: LikelihoodSettings,
    report: Callable[[str], None] | None,
    cond: Mapping[str, Tensor] | None = None,
) -> Evaluation | None:
    """Evaluates all events, each process whole batches, and gathers the results in the main process.

    Each batch has its own seed, derived from ``settings.seed`` and the index of its first event. (The first batch uses
    ``settings.seed``.) So the results do not depend on the number of processes.

    Args:
        rank: This process.
        model: Carries the data's description.
        events: Data units, ``(n, *D)``.
        settings: The settings; ``limit`` is not applied.
        cond: Conditions of the events in data units, by name; the network's must be among them.
        report: Receives the name of each bound, and turns on progress bars, both in the main process only.

    Returns:
        The evaluation of all events; None in all but the main process.
    """
    from rich.progress import track

    from scoresde.evaluation import evaluate
    from scoresde.training.batches import derive

    rows, size = rank.rows(len(events), settings.batch_size), settings.batch_size
    if not len(events):
        return evaluate(model, events, settings, cond=cond) if rank.main else None
    batches = -(-len(events) // size)
    if rank.main and batches < rank.count:
        warnings.warn(
            f"there are {batches} batches of {size} events for {rank.count} processes; lower --batch-size to give all "
            "of them work.",
            stacklevel=2,
        )
    visible = report is not None and rank.main
    single = visible and len(rows) <= size  # one bar for the events of a batch, or one for all batches
    evaluations = []
    for first in track(range(rows.start, rows.stop, size), "likelihood", disable=single or not visible):
        batch_settings = replace(settings, limit=None, seed=derive(settings.seed, first) if first else settings.seed)
        part = slice(first, min(first + size, rows.stop))
        given = {name: values[part] for name, values in (cond or {}).items()}
        shown = report if single else None
        evaluations.append(evaluate(model, events[part], batch_settings, single, shown, cond=given))
    return _gather(rank, evaluations)


def _gather(rank: Rank, evaluations: list[Evaluation]) -> Evaluation | None:
    """The evaluations of all batches of all processes, in their order; None in all but the main process."""
    import torch

    parts = [torch.stack(_columns(evaluation), 1) for evaluation in evaluations]
    rows = rank.gather(torch.cat(parts) if parts else torch.zeros(0, 0, dtype=torch.float64))
    return None if rows is None else _from_columns(evaluations[0], list(rows.unbind(1)))


def _columns(evaluation: Evaluation) -> list[Tensor]:
    """Every number that differs between events, float64 ``(n,)`` each; means over events are repeated for each."""
    import torch

    ode = evaluation.ode
    columns = [getattr(ode, name) for name in _COLUMNS] + list(ode.budget.values())
    for bound in evaluation.bounds:
        columns += [
            bound.value,
            bound.stderr,
            bound.low,
            bound.high,
            *(torch.full_like(bound.value, x) for x in bound.terms.values()),
        ]
    return [column.double().cpu() for column in columns]


def _from_columns(template: Evaluation, columns: list[Tensor]) -> Evaluation:
    """The evaluation that has these columns, with the names and settings of ``template``."""
    rest = iter(columns)
    ode = {name: next(rest) for name in _COLUMNS}
    ode |= {name: ode[name].long() for name in _INTEGERS}
    budget = {name: next(rest) for name in template.ode.budget}
    bounds = [
        replace(
            bound,
            **{name: next(rest) for name in ("value", "stderr", "low", "high")},
            terms={name: float(next(rest).mean()) for name in bound.terms},
        )
        for bound in template.bounds
    ]
    return replace(template, ode=replace(template.ode, **ode, budget=budget), bounds=bounds)
