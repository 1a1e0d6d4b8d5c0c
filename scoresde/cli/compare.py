"""``scoresde compare``: compares weightings and samplers on one data set and writes a report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from scoresde.cli import options
from scoresde.cli.data_options import TrainingDataOptions
from scoresde.cli.model_options import RecipeOptions

if TYPE_CHECKING:
    from scoresde.experiments.report.bound_table import BoundRow
    from scoresde.experiments.report.parts.tables import TableRow
    from scoresde.experiments.report.summary import SamplerRow

__all__ = ["compare"]


def compare(
    data: options.Data,
    out: Path = typer.Option(..., "--out", help="Folder for report, results and models.", show_default=False),
    weighting: list[str] = typer.Option(
        None,
        "--weighting",
        help="Loss weighting; repeatable; default ELBO() and Simple(), of categories Simple() alone, their bound.",
        show_default=False,
    ),
    sampler: list[str] = typer.Option(
        None,
        "--sampler",
        help="Sampler; repeatable; default: DDPM chain, reverse SDE, ODE, DDIM, Adams and calibrated Adams; of "
        "categories the chain at several steps, and leaping.",
        show_default=False,
    ),
    calibrated: bool = typer.Option(
        None,
        "--calibrated/--no-calibrated",
        help="Add a row for each sampler without noise, fitted to each model; default: only for the default samplers.",
        show_default=False,
    ),
    seeds: int = typer.Option(
        1, "--seeds", help="Number of training seeds; 3 or more show whether a difference is more than chance."
    ),
    n: int = typer.Option(
        None, "-n", "--number", help="Samples per sampler; default: as many as events are held out, at most 1000."
    ),
    limit: int = typer.Option(
        None, "--limit", min=1, help="Number of held-out events whose likelihood is computed; default at most 1000."
    ),
    trace: str = typer.Option(None, "--trace", help='Divergence of the ODE, e.g. "Hutchinson(probes=8)".'),
    bounds: bool = typer.Option(True, "--bounds/--no-bounds", help="Also compute variational bounds."),
    steps: int = typer.Option(None, "--steps", help="Number of training steps per model."),
    batch_size: int = typer.Option(None, "--batch-size", help="Events per training step."),
    lr: float = typer.Option(None, "--lr", help="Largest learning rate."),
    *,
    parts: RecipeOptions,
    reader: TrainingDataOptions,
    workers: int = typer.Option(
        None, "--workers", help="Models trained in parallel; default one per core, or 1 on a GPU."
    ),
    fresh: bool = typer.Option(False, "--fresh", help="Train every model again, also those already in --out."),
    quick: bool = typer.Option(
        False, "--quick", help="Shorten everything that is not set: a test that it runs, without meaningful numbers."
    ),
    imports: options.Imports = [],
    device: options.Device = None,
    quiet: options.Quiet = False,
) -> None:
    """Compare weightings and samplers, and write a report.

    One model is trained per weighting and seed. Every sampler draws from every model, and the likelihood of held-out
    data is computed, given their conditions if there are any. Distances are shown next to those of real data and of a
    Gaussian. Finished models in --out with the same settings are used again, so an interrupted comparison continues.

    For example:

        scoresde compare --data digits --out runs/demo

        scoresde compare --data ring --weighting "ELBO()" --weighting "MinSNR(gamma=5)" --seeds 3 --out runs/ring

        scoresde compare --data digits --sampler "DDPM(steps=100)" --sampler "DDIM(steps=20)" --out runs/short
    """
    from scoresde.cli.conditions import used_conditions
    from scoresde.cli.loading import check_device, load_data
    from scoresde.cli.parsing import import_modules
    from scoresde.cli.plan_options import parse_plan_options
    from scoresde.cli.recorded_config import source_record

    check_device(device)
    modules = import_modules(imports)
    overrides = parts.overrides(modules)
    plan_options = parse_plan_options(
        weighting, sampler, trace, modules, calibrated=calibrated, seeds=seeds, n=n, limit=limit, bounds=bounds
    )
    source = reader.source(data, {})
    loaded = load_data(**source)

    from scoresde.cli import console
    from scoresde.experiments.compare import compare as run
    from scoresde.experiments.plan import default_comparison, quick_settings
    from scoresde.experiments.report.html import write_report

    names = used_conditions(loaded.description, reader.condition)
    recipe = overrides.recipe(loaded.description, len(loaded.train), names, steps=steps, batch_size=batch_size, lr=lr)
    default = default_comparison(recipe.sde)
    if quick:
        short, default = quick_settings(recipe, default)
        recipe = short if steps is None else recipe
    plan = plan_options.plan(default)
    console.print_settings({"data": console.describe_data(loaded), **console.recipe_settings(recipe), "out": str(out)})
    console.print_columns(loaded.description)
    command = "scoresde " + shlex.join(sys.argv[1:]) if sys.argv[1:2] == ["compare"] else "scoresde compare"
    run(
        loaded,
        recipe,
        plan,
        out=out,
        command=command,
        about=source_record(source, loaded, imports),
        fresh=fresh,
        device=device,
        workers=worker_count(workers, device),
        progress=not quiet,
        status=console.print_status,
    )
    page = write_report(out)
    print_tables(out)
    console.print_done(f"the report is {page.resolve()}")


def worker_count(workers: int | None, device: str | None) -> int:
    """The number of models trained in parallel: as given, otherwise one per core, and one on a GPU."""
    import torch

    from scoresde.storage.environment import cores

    if workers is not None:
        return workers
    return 1 if torch.cuda.is_available() and device != "cpu" else cores()


def print_tables(out: Path) -> None:
    """Prints the tables of likelihoods, bounds and samples of the results in a folder."""
    from scoresde.cli import console
    from scoresde.experiments.report.parts.tables import table_rows
    from scoresde.experiments.report.summary import Summary
    from scoresde.experiments.results import read_results

    summary = Summary(read_results(out).content)
    rows = [
        (row.name, row.value.text(3), row.held_out.error_text(3), row.train_seconds.text(1))
        for row in summary.likelihood_rows
    ]
    rows += [(row.name, row.value.text(3), row.value.error_text(3), "") for row in summary.baseline_rows]
    console.print_table((f"likelihood, {summary.quantity.direction}", summary.quantity.name, "±", "training, s"), rows)
    if summary.bound_rows:
        columns = ("variational bounds", summary.quantity.name, "± events", "± draws", "bound − ODE")
        console.print_table(columns, map(_bound_row, summary.bound_rows))
    fit = ("fit, s", "fit, × error") if summary.calibrated else ()
    columns = ("samples", "calls", "s", *fit, "× floor", "classifier, %")
    samples = [*summary.sampler_rows, *summary.reference_rows]
    console.print_table(columns, [_sampler_row(row, summary.calibrated) for row in samples])
    if rows := table_rows(summary):
        columns = ("rows of the table", "AUC", "±", "columns ≤ 1.5 × floor, %", "repeated, %")
        console.print_table(columns, map(_table_row, rows))


def _sampler_row(row: SamplerRow, calibrated: bool) -> tuple[str, ...]:
    name = row.name if row.weighting is None else f"{row.weighting} {row.name}"
    is_fitted = row.calibration_seconds.value is not None
    fit = (row.calibration_seconds.text(1), row.calibration_ratio.text(2)) if is_fitted else ("", "")
    seconds = (row.seconds.text(1), *(fit if calibrated else ()))
    return name, row.nfe.text(0), *seconds, row.ratio.text(2), row.classifier.text(1, 100)


def _table_row(row: TableRow) -> tuple[str, ...]:
    name = row.name if row.weighting is None else f"{row.weighting} {row.name}"
    auc = row.auc.text(3), row.auc.error_text(3).removeprefix("± ")
    return name, *auc, row.within.text(0, 100), row.repeated.text(1, 100)


def _bound_row(row: BoundRow) -> tuple[str, ...]:
    difference = "" if row.over_ode.value is None else f"{row.over_ode.text(3)} {row.over_ode.error_text(3)}"
    errors = row.held_out.error_text(3), row.draws.error_text(4)
    return f"{row.weighting} {row.name}", row.value.text(3), *(text.removeprefix("± ") for text in errors), difference
