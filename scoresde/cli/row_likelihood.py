"""The bound on the likelihood of rows of numbers and categories: evaluated, printed, written and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from scoresde.cli.scored_events import Histogram, ScoredEvents, decimals, formatted, interval

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.data import Description
    from scoresde.distributed import Rank
    from scoresde.evaluation import BoundSettings
    from scoresde.likelihood import Bound
    from scoresde.model import ScoreModel

__all__ = ["BoundOfRows", "bound_of_rows"]

_LABEL = "lower bound on log p (nats in data units; higher is better)"
_PARTS = {"numeric": "numbers", "categorical": "categories"}


def bound_of_rows(
    rank: Rank,
    model: ScoreModel,
    rows: Tensor,
    cond: Mapping[str, Tensor],
    settings: BoundSettings,
    seed: int,
    batch_size: int,
) -> BoundOfRows | None:
    r"""The bound on $-\log p$ of each row, in data units; it does not depend on processes or batches.

    Args:
        rank: This process.
        model: Of numbers and categories, with the description of its table.
        rows: Data units, ``(n, D)``. Columns on a grid are dequantized once.
        cond: Conditions of the rows in data units, by name.
        settings: Its ``evaluations``.
        seed: Each row has its own, derived from it.
        batch_size: Rows at once.

    Returns:
        The bound, of whose terms "numeric units" leads from model units to data units; None in all but the main
        process.
    """
    from scoresde.cli.category_likelihood import bound_in_batches
    from scoresde.evaluation.model_units import in_model_units
    from scoresde.likelihood import continuous_vlb

    assert model.data is not None
    x = in_model_units(model.data, rows, seed)

    def call(part: Tensor, **rest: Any) -> Bound:
        return continuous_vlb(model, part, evaluations=settings.evaluations, **rest)

    bound = bound_in_batches(rank, model, x, cond, call, seed, batch_size)
    if bound is None:
        return None
    units = -model.data.log_det(x)
    return BoundOfRows(replace(bound, nats=bound.nats + units, terms={**bound.terms, "numeric units": units}))


@dataclass(frozen=True, eq=False)
class BoundOfRows(ScoredEvents):
    """A bound on -log p of each row, in data units."""

    bound: Bound

    def report(self, data: str, description: Description) -> None:  # with the parts of numbers and of categories
        from scoresde.cli import console

        bound = self.bound
        console.print_settings({"data": data, "number": _LABEL, "of a table": description.density_note()})
        low, high = bound.mean_interval()
        errors = map(decimals, (bound.mean_stderr, bound.mean_draw_stderr))
        columns = ("held out", "log p, nats", "95 % interval", "± events", "± draws", "calls")
        row = ("bound, continuous time", decimals(-bound.mean), interval(-high, -low), *errors, str(bound.nfe))
        console.print_table(columns, [row])
        lines = []
        for part, name in _parts(description).items():
            terms = {key: float(term.mean()) for key, term in bound.terms.items() if key.startswith(part)}
            lines.append((name, decimals(-sum(terms.values()))))
            lines += [(f"  {key.removeprefix(part + ' ')}", decimals(-value)) for key, value in terms.items()]
        console.print_table(("parts of the bound", "nats/row"), lines)
        self.histogram().show()

    def columns(self) -> dict[str, Sequence[object]]:
        low, high = self.bound.interval()
        numbers = {_LABEL: -self.bound.nats, "low": -high, "high": -low}
        for part, name in _PARTS.items():
            terms = [term for key, term in self.bound.terms.items() if key.startswith(part)]
            if terms:
                numbers[f"part of {name}"] = -sum(terms[1:], terms[0])
        return formatted(numbers)

    def histogram(self) -> Histogram:
        return Histogram(-self.bound.nats, _LABEL, {"mean": -self.bound.mean})


def _parts(description: Description) -> dict[str, str]:
    """The parts that a table has."""
    numbers = description.dims > len(description.codes or ())
    return _PARTS if numbers else {key: name for key, name in _PARTS.items() if key != "numeric"}
