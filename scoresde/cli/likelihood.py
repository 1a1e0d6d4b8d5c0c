"""``scoresde likelihood``: likelihoods of data under a trained model, their error budget, variational bounds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from scoresde.cli import options
from scoresde.cli.data_options import HeldOutOptions
from scoresde.cli.likelihood_options import BoundOptions, ODEOptions, check_options
from scoresde.cli.model_options import ModelOptions

if TYPE_CHECKING:
    from torch import Tensor

    from scoresde.cli.scored_events import ScoredEvents
    from scoresde.distributed import Rank
    from scoresde.evaluation import LikelihoodSettings
    from scoresde.model import ScoreModel

__all__ = ["likelihood"]


def likelihood(
    checkpoint: options.Checkpoint,
    *,
    source: HeldOutOptions,
    label: str = typer.Option(
        None,
        "--label",
        help="Class under which all events are scored, by number or name; default: the class of each event.",
        show_default=False,
    ),
    limit: int = typer.Option(None, "--limit", min=1, help="Score only this many events, the first ones."),
    ode: ODEOptions,
    bound: BoundOptions,
    seed: int = typer.Option(
        0,
        "--seed",
        min=0,
        max=options.MOST_SEED,
        help="Random seed of dequantization, trace probes and the noise of the bounds.",
    ),
    batch_size: int = typer.Option(512, "--batch-size", min=1, help="Events per batch."),
    out: Path = typer.Option(
        None, "--out", help="Output file, .csv, with one line per event; index is its row in a table, from 0."
    ),
    plot: Path = typer.Option(None, "--plot", help="Output file, .png, with a histogram."),
    weights: ModelOptions,
    quiet: options.Quiet = False,
) -> None:
    """Compute the likelihood of data by the probability-flow ODE.

    The number is bits per dimension for integer data (lower is better), otherwise log p in nats, in the units of the
    data (higher is better). An error budget comes with it: the errors of the random trace, the ODE solver, the
    quadrature, the prior, and the noise at tau_min. --bound adds variational bounds, in continuous time and for chains
    of steps. Categories have bounds only, in bits and perplexity; a table with categories has one bound, in nats.

    For example:

        scoresde likelihood runs/digits --limit 100

        scoresde likelihood runs/digits --draws 4 --bound --plot bits.png --out bits.csv

        scoresde likelihood runs/digits --trace "Hutchinson(probes=8)" --stderr 0.2

        scoresde likelihood runs/faces --data faces.npy --bins 256

        scoresde likelihood runs/classes --label 3

        accelerate launch --multi_gpu --num_processes 8 -m scoresde likelihood runs/faces --bound
    """
    from scoresde.cli.outputs import check_writable

    _check_files(out, plot)
    modules = weights.modules(checkpoint)
    settings = ode.settings(modules, bound.settings(), seed, batch_size)
    check_writable(out)
    check_writable(plot, "--plot")

    from scoresde.cli import console
    from scoresde.cli.held_out import check_events
    from scoresde.cli.loading import as_score_model
    from scoresde.cli.parse_lists import one_label
    from scoresde.distributed import process_group
    from scoresde.storage.checkpoint import read_checkpoint
    from scoresde.training.condition_checks import checked_cond, conditions_of

    stored = read_checkpoint(checkpoint)
    model = as_score_model(weights.load(stored, modules, "cpu"))
    if model.data is None:
        raise ValueError(f"{checkpoint} has no description of its data; score it in Python, by scoresde.log_prob.")
    check_options(model.data, ode, bound, source.bins)
    settings = ode.for_data(settings, model.data)
    held_out = source.select(checkpoint, stored, limit)
    events = held_out.events
    check_events(model, events)
    cond = held_out.cond if label is None else {**held_out.cond, "label": one_label(label, model, len(events))}
    checked_cond(model.net, cond, model.data)
    conditions = conditions_of(model.net)
    count = held_out.count + (f"; given {', '.join(conditions)}" if conditions else "")
    with process_group() as rank, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "stderr=.* nats was not")  # reported below, once for all batches and draws
        model.to(weights.device or rank.device)
        report = None if quiet else lambda name: console.print_status(f"bound: {name}")
        scored = _scored(rank, model, events, cond, settings, ode.stderr, report)
    if scored is not None:  # in the main process
        scored.report(f"{held_out.name}, {count}", model.data)
        scored.store(out, plot, held_out.name, held_out.rows)


def _scored(
    rank: Rank,
    model: ScoreModel,
    events: Tensor,
    cond: Mapping[str, Tensor],
    settings: LikelihoodSettings,
    stderr: float | None,
    report: Callable[[str], None] | None,
) -> ScoredEvents | None:
    """The likelihoods or bounds that suit the data; None in all but the main process."""
    from scoresde.cli.category_likelihood import bounds_of_categories
    from scoresde.cli.likelihood_batches import evaluate_in_processes
    from scoresde.cli.likelihood_output import LikelihoodReport
    from scoresde.cli.row_likelihood import bound_of_rows
    from scoresde.evaluation import BoundSettings

    assert model.data is not None
    bounds, seed, size = settings.bounds or BoundSettings(), settings.seed, settings.batch_size
    if model.data.classes is not None:
        chains = settings.bounds is not None
        return bounds_of_categories(rank, model, events, cond, bounds, chains, seed, size, report)
    if model.data.codes:
        return bound_of_rows(rank, model, events, cond, bounds, seed, size)
    evaluation = evaluate_in_processes(rank, model, events, settings, report, cond)
    return None if evaluation is None else LikelihoodReport(evaluation, stderr)


def _check_files(out: Path | None, plot: Path | None) -> None:
    if out is not None and out.suffix != ".csv":
        raise ValueError(f"--out must end in .csv, got {out}; a figure goes to --plot.")
    if plot is not None and plot.suffix != ".png":
        raise ValueError(f"--plot must end in .png, got {plot}; numbers go to --out.")
