"""``scoresde likelihood``: likelihoods of data under a trained model, their error budget, variational bounds."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from scoresde.cli import options

if TYPE_CHECKING:
    from scoresde.cli.parsing import Modules
    from scoresde.data import Description
    from scoresde.evaluation import BoundSettings
    from scoresde.likelihood import Dequantization, Trace

__all__ = ["likelihood"]

_Result = TypeVar("_Result")  # an evaluation, or bounds


def likelihood(
    checkpoint: Path = options.CHECKPOINT,
    data: str = typer.Option(
        None,
        "--data",
        help="Name or path of the data; default: what the model was trained on, read and split in the same way.",
        show_default=False,
    ),
    part: str = typer.Option(
        None,
        "--part",
        help="test, train or all; default test, and all for --data that the model was not trained on.",
        show_default=False,
    ),
    label: str = typer.Option(
        None,
        "--label",
        help="Class under which all events are scored, by number or name; default: the class of each event.",
        show_default=False,
    ),
    limit: int = typer.Option(None, "--limit", min=1, help="Score only this many events, the first ones."),
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
    seed: int = typer.Option(
        0,
        "--seed",
        min=0,
        max=options.MOST_SEED,
        help="Random seed of dequantization, trace probes and the noise of the bounds.",
    ),
    batch_size: int = typer.Option(512, "--batch-size", min=1, help="Events per batch."),
    out: Path = typer.Option(None, "--out", help="Output file, .csv, with one line per event."),
    plot: Path = typer.Option(None, "--plot", help="Output file, .png, with a histogram."),
    raw: bool = options.RAW,
    average: float = options.AVERAGE,
    bins: int = options.BINS,
    read: list[str] = options.READ,
    test_fraction: float = options.TEST,
    split_seed: int = options.SPLIT,
    imports: list[str] = options.IMPORT,
    device: str = options.DEVICE,
    quiet: bool = options.QUIET,
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
    from scoresde.cli import console
    from scoresde.cli.held_out import check_events, check_part, select_events
    from scoresde.cli.outputs import check_writable
    from scoresde.cli.parsing import known
    from scoresde.cli.recorded_config import import_recorded

    _check_files(out, plot)
    check_part(part, test_fraction)
    modules = import_recorded(checkpoint, imports)
    bounds = bound_settings(bound, steps, evaluations)
    dequantizer = parse_dequantization(dequantization, modules)
    requested_trace = parse_trace(trace, stderr, modules)
    check_writable(out)
    check_writable(plot, "--plot")

    from scoresde.cli.category_likelihood import (
        bounds_of_categories,
        check_category_options,
        draw_bits,
        print_bounds,
        write_bounds,
    )
    from scoresde.cli.likelihood_batches import evaluate_in_processes
    from scoresde.cli.likelihood_output import draw_histogram, print_report, write_events
    from scoresde.cli.loading import as_score_model, load_model
    from scoresde.cli.parse_lists import one_label
    from scoresde.cli.row_likelihood import bound_of_rows, check_row_options, draw_rows, print_rows, write_rows
    from scoresde.distributed import process_group
    from scoresde.evaluation import BoundSettings, LikelihoodSettings
    from scoresde.storage.checkpoint import read_checkpoint
    from scoresde.training.condition_checks import checked_cond, conditions_of

    stored = read_checkpoint(checkpoint)
    model = as_score_model(load_model(stored, device or "cpu", raw, average, known(modules=modules)))
    if model.data is None:
        raise ValueError(f"{checkpoint} has no description of its data; score it in Python, by scoresde.log_prob.")
    categories, rows = model.data.classes is not None, bool(model.data.codes)
    given = {"trace": trace, "stderr": stderr, "draws": draws, "dequantization": dequantization, "bins": bins}
    if categories:
        check_category_options(model.data, **given)
    if rows:
        check_row_options(model.data, **given, steps=steps)
    check_integer_options(model.data, bins, draws, dequantization)
    settings = LikelihoodSettings(
        requested_trace or default_trace_for(model.data, stderr),
        tolerance,
        limit,
        batch_size,
        seed,
        1 if draws is None else draws,
        nodes,
        dequantizer,
        max_nfe,
        strict,
        bounds,
    )
    source = {"data": data, "bins": bins, "test_fraction": test_fraction, "split_seed": split_seed, "read": read}
    held_out = select_events(checkpoint, stored, part, limit, source)
    events, name = held_out.events, held_out.name
    check_events(model, events)
    cond = held_out.cond if label is None else {**held_out.cond, "label": one_label(label, model, len(events))}
    checked_cond(model.net, cond, model.data)
    count = held_out.count + (f"; given {', '.join(conditions_of(model.net))}" if conditions_of(model.net) else "")
    with process_group() as rank, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "stderr=.* nats was not")  # reported below, once for all batches and draws
        model.to(device or rank.device)
        report = None if quiet else lambda bound_name: console.print_status(f"bound: {bound_name}")
        if categories:
            chosen = bounds or BoundSettings()
            found = bounds_of_categories(rank, model, events, cond, chosen, bound, seed, batch_size, report)
            if found is not None:
                print_bounds(found, f"{name}, {count}", model.data)
                _store(found, name, out, plot, write_bounds, draw_bits)
            return
        if rows:
            chosen = bounds or BoundSettings()
            bound_of_all = bound_of_rows(rank, model, events, cond, chosen, seed, batch_size)
            if bound_of_all is not None:
                print_rows(bound_of_all, f"{name}, {count}", model.data)
                _store(bound_of_all, name, out, plot, write_rows, draw_rows)
            return
        evaluation = evaluate_in_processes(rank, model, events, settings, report, cond)
    if evaluation is None:  # not the main process
        return
    print_report(evaluation, f"{name}, {count}", stderr, model.data.dims, model.data.density_note())
    _store(evaluation, name, out, plot, write_events, draw_histogram)


def _store(
    result: _Result,
    name: str,
    out: Path | None,
    plot: Path | None,
    write: Callable[[_Result, Path], int],
    draw: Callable[[_Result, Path, str], None],
) -> None:
    """Writes the file and the figure that were asked for, and says so."""
    from scoresde.cli import console

    if out is not None:
        console.print_done(f"{write(result, out)} lines in {out}")
    if plot is not None:
        draw(result, plot, name)
        console.print_done(f"the histogram is {plot}")


def _check_files(out: Path | None, plot: Path | None) -> None:
    if out is not None and out.suffix != ".csv":
        raise ValueError(f"--out must end in .csv, got {out}; a figure goes to --plot.")
    if plot is not None and plot.suffix != ".png":
        raise ValueError(f"--plot must end in .png, got {plot}; numbers go to --out.")


def bound_settings(bound: bool, steps: list[int] | None, evaluations: int | None) -> BoundSettings | None:
    """The settings of the variational bounds; None without ``--bound``.

    Raises:
        ValueError: If there are settings without ``--bound``, or they are out of range.
    """
    values = {"--steps": steps or None, "--evaluations": evaluations}
    names = [name for name, value in values.items() if value is not None]
    if names and not bound:
        raise ValueError(f"{' and '.join(names)} are settings of the bounds, which are not requested; add --bound.")
    if not bound:
        return None
    from scoresde.evaluation import BoundSettings

    settings = BoundSettings() if evaluations is None else BoundSettings(evaluations)
    return replace(settings, steps=tuple(steps)) if steps else settings


def check_integer_options(
    description: Description, bins: int | None, draws: int | None, dequantization: str | None
) -> None:
    """Refuses other bins than those of training, and dequantization of data that are not integers.

    Raises:
        ValueError: If an option does not fit the model's data.
    """
    if description.bins is None and (dequantization is not None or draws is not None):
        raise ValueError(
            "bits per dimension need quantized data with their bins and scale, and only integer values are "
            f"dequantized, got {description.name!r} with bins=None; train on integers (a file with --bins 256), or "
            "leave --draws and --dequantization out to get nats."
        )
    if bins is not None and bins != description.bins:
        raise ValueError(
            f"--bins must be those that the model was trained with, {description.bins}, got {bins}; bins are set in "
            f"training: scoresde train --bins {bins}."
        )


def parse_dequantization(text: str | None, modules: Modules = ()) -> Dequantization | None:
    """The dequantization; None for the default.

    Raises:
        ValueError, TypeError: If the text does not write one.
    """
    from scoresde.cli.parsing import parse
    from scoresde.likelihood import Dequantization

    return None if text is None else parse(text, Dequantization, modules)


def parse_trace(text: str | None, stderr: float | None, modules: Modules = ()) -> Trace | None:
    """The trace, with a requested standard error; None for the default.

    Raises:
        ValueError, TypeError: If the text does not write a trace, or a standard error is requested of an exact one.
    """
    from scoresde.cli.parsing import parse
    from scoresde.likelihood import Hutchinson, Trace

    if text is None:
        return None
    trace = parse(text, Trace, modules)
    if stderr is None:
        return trace
    if isinstance(trace, Hutchinson):
        return replace(trace, stderr=stderr)
    raise ValueError(f"--stderr needs random probes, got --trace {text!r}, which has no error; leave one of them out.")


def default_trace_for(description: Description, stderr: float | None) -> Trace:
    """The trace that suits the dimension, with a requested standard error if it is random."""
    from scoresde.likelihood import Hutchinson
    from scoresde.likelihood.ode.trace import default_trace

    trace = default_trace(description.model_dims)
    return replace(trace, stderr=stderr) if stderr is not None and isinstance(trace, Hutchinson) else trace
