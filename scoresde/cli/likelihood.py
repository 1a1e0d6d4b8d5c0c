"""`scoresde likelihood`: how likely are data under a trained model, and how far can the number be trusted?"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from scoresde.cli import options

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.data import Description
    from scoresde.distributed import Rank
    from scoresde.evaluation.bounds import BoundSettings
    from scoresde.evaluation.evaluate import Evaluation
    from scoresde.evaluation.likelihood import LikelihoodSettings
    from scoresde.likelihood import Dequantization, Trace
    from scoresde.model import ScoreModel

__all__ = ["likelihood"]


def likelihood(
    checkpoint: Path = typer.Argument(..., help="A run directory (its newest checkpoint), or one checkpoint."),
    data: str = typer.Option(
        None,
        "--data",
        help="Name or file; default: what the model was trained on, split and read as then.",
        show_default=False,
    ),
    part: str = typer.Option(
        None,
        "--part",
        help="test, train or all; default test, and all of --data that the model was not trained on.",
        show_default=False,
    ),
    limit: int = typer.Option(None, "--limit", min=1, help="Only the first so many."),
    trace: str = options.TRACE,
    stderr: float = options.STDERR,
    nodes: int = options.NODES,
    tolerance: float = options.TOLERANCE,
    max_nfe: int = options.MAX_NFE,
    strict: bool = options.STRICT,
    draws: int = options.DRAWS,
    dequantization: str = options.DEQUANTIZATION,
    bound: bool = options.BOUND,
    steps: list[int] = options.STEPS,
    evaluations: int = options.EVALUATIONS,
    seed: int = typer.Option(0, "--seed", help="Of dequantization, trace probes and the bounds' noise."),
    batch_size: int = typer.Option(512, "--batch-size", min=1, help="Events at once."),
    out: Path = typer.Option(None, "--out", help="A .csv with one line per event."),
    plot: Path = typer.Option(None, "--plot", help="A .png with the histogram."),
    raw: bool = typer.Option(False, "--raw", help="The weights as trained instead of their average."),
    average: float = options.AVERAGE,
    bins: int = options.BINS,
    read: list[str] = options.READ,
    test_fraction: float = options.TEST,
    split_seed: int = options.SPLIT,
    device: str = options.DEVICE,
    quiet: bool = options.QUIET,
) -> None:
    """Score data by the probability-flow ODE: bits per dimension of levels, nats otherwise.

    With the number comes its error budget: what the random trace, the path, the quadrature, the prior and the noise at
    tau_min may add. --bound puts the bounds in continuous time and along a chain of steps beside it.

    For example:

        scoresde likelihood runs/digits --limit 100

        scoresde likelihood runs/digits --draws 4 --bound --plot bits.png --out bits.csv

        scoresde likelihood runs/digits --trace "Hutchinson(probes=8)" --stderr 0.2

        scoresde likelihood runs/faces --data faces.npy --bins 256

        accelerate launch --multi_gpu --num_processes 8 -m scoresde likelihood runs/faces --bound
    """
    from scoresde.cli import console as show
    from scoresde.cli import likelihood_output as scores
    from scoresde.cli.held_out import check, check_part, chosen_events
    from scoresde.cli.parsing import check_writable, load_model
    from scoresde.distributed import launched
    from scoresde.evaluation.likelihood import LikelihoodSettings
    from scoresde.storage.checkpoint import read_checkpoint

    if out is not None and out.suffix != ".csv":
        raise ValueError(f"--out must end in .csv, got {out}; a picture goes to --plot.")
    if plot is not None and plot.suffix != ".png":
        raise ValueError(f"--plot must end in .png, got {plot}; numbers go to --out.")
    check_part(part, test_fraction)
    beside = chosen_bounds(bound, steps, evaluations)
    check_writable(out)
    check_writable(plot, "--plot")
    stored = read_checkpoint(checkpoint)
    model = load_model(stored, device or "cpu", raw, average)
    if model.data is None:
        raise ValueError(f"{checkpoint} does not say what its data were; score it in Python, by scoresde.log_prob.")
    law = chosen_law(dequantization, draws, model.data)
    how = LikelihoodSettings(
        chosen_trace(trace, stderr, model.data),
        tolerance,
        limit,
        batch_size,
        seed,
        1 if draws is None else draws,
        nodes,
        law,
        max_nfe,
        strict,
        beside,
    )
    if bins is not None and bins != model.data.bins:
        raise ValueError(
            f"--bins must be those that the model was trained with, {model.data.bins}, got {bins}; levels are stated "
            f"in training: scoresde train --bins {bins}."
        )
    said = {"data": data, "bins": bins, "test_fraction": test_fraction, "split_seed": split_seed, "read": read}
    events, name, how_many = chosen_events(checkpoint, stored, part, limit, said)
    check(model, events)
    with launched() as rank, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "stderr=.* was not met")  # said below, once for all batches and draws
        model.to(device or rank.device)
        found = shared(rank, model, events, how, None if quiet else lambda name: show.say(f"bound: {name}"))
    if found is None:  # not the main process
        return
    scores.report(found, about=f"{name}, {how_many}", asked=stderr, dims=model.data.dims)
    if out is not None:
        show.done(f"{scores.write(found, out)} lines in {out}")
    if plot is not None:
        scores.draw(found, plot, name)
        show.done(f"the histogram is {plot}")


def shared(
    rank: Rank, model: ScoreModel, events: Tensor, how: LikelihoodSettings, tell: Callable[[str], None] | None
) -> Evaluation | None:
    """The scores of all events, each process taking whole batches, gathered in the main one; None in the others.

    A batch has its own seed, made of ``how.seed`` and the number of its first event (the first batch has ``how.seed``),
    so that scores do not depend on how many processes there are.

    Args:
        rank: This process.
        model: Carries the data's description.
        events: Data units, ``(n, *D)``.
        how: The settings; its ``limit`` is not applied.
        tell: Is told the names of bounds, and asks for progress bars; the main process only shows any.
    """
    from rich.progress import track

    from scoresde.evaluation.evaluate import evaluate
    from scoresde.training.batches import derive

    rows, size = rank.rows(len(events), how.batch_size), how.batch_size
    if not len(events):
        return evaluate(model, events, how) if rank.main else None
    batches = -(-len(events) // size)
    if rank.main and batches < rank.count:
        asked = f"there are {batches} batches of {size} events for {rank.count} processes"
        warnings.warn(f"{asked}; lower --batch-size to give all of them work.", stacklevel=2)
    shown = tell is not None and rank.main
    alone = shown and len(rows) <= size  # one bar for the events of a batch, or one for all batches
    found = []
    for first in track(range(rows.start, rows.stop, size), "likelihood", disable=alone or not shown):
        own = replace(how, limit=None, seed=derive(how.seed, first) if first else how.seed)
        found.append(evaluate(model, events[first : min(first + size, rows.stop)], own, alone, tell if alone else None))
    return joined(rank, found)


def joined(rank: Rank, found: list[Evaluation]) -> Evaluation | None:
    """The scores of all batches of all processes, in their order, in the main one; None in the others."""
    import torch

    columns = [torch.stack(columns_of(each), 1) for each in found]
    rows = rank.gather(torch.cat(columns) if columns else torch.zeros(0, 0, dtype=torch.float64))
    return None if rows is None else scores_of(found[0], list(rows.unbind(1)))


def columns_of(found: Evaluation) -> list[Tensor]:
    """All that differs between events, float64 ``(n,)`` each; means over the events stand beside each of them."""
    import torch

    ode = found.ode
    columns = [ode.value, ode.low, ode.high, ode.stderr, ode.draw_stderr, ode.status, ode.nfe, ode.products]
    columns += ode.budget.values()
    for bound in found.bounds:
        columns += [bound.value, bound.stderr, *(torch.full_like(bound.value, x) for x in bound.terms.values())]
    return [column.double().cpu() for column in columns]


def scores_of(like: Evaluation, columns: list[Tensor]) -> Evaluation:
    """Scores with the columns of `columns_of`, and the settings and names of ``like``."""
    left = iter(columns)
    names = ("value", "low", "high", "stderr", "draw_stderr", "status", "nfe", "products")
    ode = {name: next(left) for name in names}
    ode |= {name: ode[name].long() for name in names[5:]}
    budget = {name: next(left) for name in like.ode.budget}
    bounds = [
        replace(b, value=next(left), stderr=next(left), terms={name: float(next(left).mean()) for name in b.terms})
        for b in like.bounds
    ]
    return replace(like, ode=replace(like.ode, **ode, budget=budget), bounds=bounds)


def chosen_bounds(asked: bool, steps: list[int] | None, evaluations: int | None) -> BoundSettings | None:
    """The bounds that were asked for, None where none were.

    Raises:
        ValueError: If their settings are said and they are not asked for, or out of their domain.
    """
    from scoresde.evaluation.bounds import BoundSettings

    said = {"--steps": steps or None, "--evaluations": evaluations}
    given = [name for name, value in said.items() if value is not None]
    if given and not asked:
        raise ValueError(f"{' and '.join(given)} say how bounds are made, and none are asked for; add --bound.")
    if not asked:
        return None
    how = BoundSettings() if evaluations is None else BoundSettings(evaluations)
    return replace(how, steps=tuple(steps)) if steps else how


def chosen_law(text: str | None, draws: int | None, about: Description) -> Dequantization | None:
    """The dequantization that was asked for, None where none was.

    Raises:
        ValueError, TypeError: If the text is none, or the data are no levels.
    """
    from scoresde.cli.parsing import parse
    from scoresde.likelihood import Dequantization

    if about.bins is None and (text is not None or draws is not None):
        raise ValueError(
            "bits per dimension need quantized data with their bins and scale, and only such levels are dequantized, "
            f"got {about.name!r} with bins=None; train on levels (a file with --bins 256), or leave --draws and "
            "--dequantization out and read nats."
        )
    return None if text is None else parse(text, Dequantization)


def chosen_trace(text: str | None, stderr: float | None, about: Description) -> Trace:
    """The trace that was asked for, or the one that suits the dimension; with a requested standard error.

    Raises:
        ValueError, TypeError: If the text is no trace, or an exact one is asked for an error.
    """
    from scoresde.cli.parsing import parse
    from scoresde.likelihood import Hutchinson, Trace
    from scoresde.likelihood.ode.trace import default_trace

    trace = default_trace(about.dims) if text is None else parse(text, Trace)
    if stderr is None:
        return trace
    if isinstance(trace, Hutchinson):
        return replace(trace, stderr=stderr)
    if text is not None:
        raise ValueError(f"--stderr asks for random probes, got --trace {text!r}, which has no error; leave one out.")
    return trace
