"""``scoresde impute``: a table with its missing cells filled, once or several times."""

from __future__ import annotations

from pathlib import Path

import typer

from scoresde.cli import options
from scoresde.cli.model_options import ModelOptions

__all__ = ["impute"]


def impute(
    checkpoint: options.Checkpoint,
    table: Path = typer.Argument(..., help="The table: .csv, .tsv, .txt or .parquet, with the columns of the run."),
    draws: int = typer.Option(20, "--draws", min=1, help="Number of completed tables; 1 fills each cell once."),
    out: Path = typer.Option(
        ...,
        "--out",
        help='Output file, .csv, .tsv or .parquet. Several draws have a column "draw", or a file each if the name '
        'contains {draw}, such as "filled-{draw}.csv".',
        show_default=False,
    ),
    intervals: Path = typer.Option(
        None, "--intervals", help="Also write mean, low and high of each missing cell to this .csv.", show_default=False
    ),
    level: float = typer.Option(0.9, "--level", help="Probability that low and high enclose a cell."),
    method: options.Method = None,
    sampler: options.Sampler = None,
    read: options.Read = [],
    batch_size: int = typer.Option(200, "--batch-size", min=1, help="Rows at once."),
    seed: options.Seed = 0,
    *,
    weights: ModelOptions,
) -> None:
    """Fill the missing cells of a table.

    Each draw fills all missing cells of a row together, given its observed cells, so that the draws show how uncertain
    they are. Observed cells are written as they were read. The table has the layout of the training table, such as
    decimal commas, unless --read states another one.

    For example:

        scoresde impute runs/customers new.csv --draws 1 --out filled.csv

        scoresde impute runs/customers new.csv --draws 20 --out filled.csv --intervals cells.csv
    """
    from scoresde.cli.imputed_output import check_target, write_filled, write_intervals
    from scoresde.cli.loading import as_score_model
    from scoresde.cli.outputs import check_writable
    from scoresde.cli.parsing import parse
    from scoresde.cli.posterior_options import parse_method
    from scoresde.inverse.impute import check_interval
    from scoresde.sampling import Sampler

    check_target(out, intervals)
    for path, option in ((out, "--out"), (intervals, "--intervals")):
        check_writable(path, option)
    if intervals is not None:
        check_interval(level, draws)
    modules = weights.modules(checkpoint)
    chosen = None if sampler is None else parse(sampler, Sampler, modules)
    conditioning = None if method is None else parse_method(method, modules)

    import torch

    from scoresde.cli import console
    from scoresde.cli.edited_output import seeds_from
    from scoresde.cli.reader_options import layout_options
    from scoresde.cli.recorded_config import recorded_source
    from scoresde.data.tables.incomplete_table import IncompleteTable
    from scoresde.inverse import impute as impute_events

    model = as_score_model(weights.load(checkpoint, modules))
    if model.data is None or model.data.encoding is None:
        raise ValueError("this command takes a model of a table that was read by name; use scoresde.impute in Python.")
    recorded = recorded_source(checkpoint).get("read", ())
    incomplete = IncompleteTable(table, model.data, **layout_options(table, read, recorded))
    values = torch.from_numpy(incomplete.values)
    incomplete_rows = values.isnan().any(1)
    seeds = seeds_from(seed, len(values))
    result = impute_events(model, incomplete, draws, conditioning, chosen, seeds=seeds, batch_size=batch_size)
    console.print_settings(
        {
            "rows": f"{len(values)}, {int(incomplete_rows.sum())} of them incomplete",
            "missing cells": str(int(values.isnan().sum())),
            "network calls": f"{result.nfe} for each draw or particle of a row",
        }
    )
    files = write_filled(out, incomplete, result)
    if intervals is not None:
        write_intervals(intervals, result, level)
    console.print_done(f"{draws} draws in {', '.join(map(str, files[:3]))}{' …' if len(files) > 3 else ''}")
