"""The bound on the likelihood of rows of numbers and categories: evaluated, printed, written and drawn."""

from __future__ import annotations

from collections.abc import Mapping
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

__all__ = ["bound_of_rows", "check_row_options", "draw_rows", "print_rows", "write_rows"]

_LABEL = "lower bound on log p (nats in data units; higher is better)"
_PARTS = {"numeric": "numbers", "categorical": "categories"}


def check_row_options(description: Description, **options: Any) -> None:
    """Refuses options of the ODE's likelihood and of chains, which rows of numbers and categories do not have.

    Args:
        description: Of a table with codes.
        **options: By name; None where it was not given.

    Raises:
        ValueError: Names the options.
    """
    given = [f"--{name.replace('_', '-')}" for name, value in options.items() if value]
    if given:
        raise ValueError(
            f"{description.name!r} holds numbers and categories, whose likelihood has a bound in continuous time and "
            f"no probability-flow ODE, got {', '.join(given)}; leave {'it' if len(given) == 1 else 'them'} out, or "
            "train on one-hot categories: --read one_hot=true. --bound --evaluations 256 makes the bound more exact."
        )


def bound_of_rows(
    rank: Rank,
    model: ScoreModel,
    rows: Tensor,
    cond: Mapping[str, Tensor],
    settings: BoundSettings,
    seed: int,
    batch_size: int,
) -> Bound | None:
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
    from dataclasses import replace

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
    return replace(bound, nats=bound.nats + units, terms={**bound.terms, "numeric units": units})


def print_rows(bound: Bound, data: str, description: Description) -> None:
    """Prints the bound with its errors, the parts of numbers and of categories, and a histogram over the rows.

    Args:
        bound: On -log p in data units.
        data: The data and the number of its rows, in words.
        description: Of the table.
    """
    from scoresde.cli import console

    console.print_settings({"data": data, "number": _LABEL, "of a table": description.density_note()})
    low, high = bound.mean_interval()
    interval = "unknown" if low != low else f"{-high:.4f} … {-low:.4f}"
    errors = [_error(bound.mean_stderr), _error(bound.mean_draw_stderr)]
    columns = ("held out", "log p, nats", "95 % interval", "± events", "± draws", "calls")
    console.print_table(columns, [("bound, continuous time", f"{-bound.mean:.4f}", interval, *errors, str(bound.nfe))])
    lines = []
    for part, name in _PARTS.items():
        terms = {key: float(term.mean()) for key, term in bound.terms.items() if key.startswith(part)}
        lines.append((name, f"{0.0 - sum(terms.values()):.4f}"))
        lines += [(f"  {key.removeprefix(part + ' ')}", f"{0.0 - value:.4f}") for key, value in terms.items()]
    console.print_table(("parts of the bound", "nats/row"), lines)
    console.print_histogram((-bound.nats).tolist(), _LABEL)


def _error(error: float) -> str:
    return "unknown" if error != error else f"{error:.4f}"


def write_rows(bound: Bound, out: Path) -> int:
    """Writes a CSV line per row: the bound on log p, its 95 % interval over the draws by Student's t, and its parts.

    Returns:
        The number of rows.
    """
    low, high = bound.interval()
    numbers = {_LABEL: -bound.nats, "low": -high, "high": -low}
    for part, name in _PARTS.items():
        terms = [term for key, term in bound.terms.items() if key.startswith(part)]
        numbers[f"part of {name}"] = -sum(terms[1:], terms[0])
    columns: dict[str, list[Any]] = {"index": list(range(len(bound.nats)))}
    columns |= {name: [f"{value:.9g}" for value in values.tolist()] for name, values in numbers.items()}
    write_columns(columns, out)
    return len(bound.nats)


def draw_rows(bound: Bound, plot: Path, name: str) -> None:
    """Draws a histogram of the bound over the rows as PNG; its mean is marked."""
    from scoresde.plots.histogram import save_histogram

    with atomic_output(plot) as path:
        save_histogram(path, (-bound.nats).cpu().numpy(), f"{name}, {_LABEL}", {"mean": -bound.mean})
