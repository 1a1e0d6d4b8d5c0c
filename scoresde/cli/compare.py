"""`scoresde compare`: weightings and samplers on one data set, as a report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from scoresde.cli import options

if TYPE_CHECKING:
    from scoresde.experiments.plan import Comparison
    from scoresde.experiments.report.bound_table import BoundRow
    from scoresde.experiments.report.summary import SamplerRow

__all__ = ["compare"]


def compare(
    data: str = options.DATA,
    out: Path = typer.Option(..., "--out", help="Folder for report, numbers and models.", show_default=False),
    weighting: list[str] = typer.Option(None, "--weighting", help="Once for each; default ELBO() and Simple()."),
    sampler: list[str] = typer.Option(None, "--sampler", help="Once for each; default the three walks and DDIM."),
    seeds: int = typer.Option(1, "--seeds", help="Training seeds; 3 tell a difference from chance."),
    n: int = typer.Option(None, "-n", "--number", help="Samples per sampler; default as many as are held out."),
    limit: int = typer.Option(None, "--limit", min=1, help="Held-out events that are scored; default at most 1000."),
    trace: str = typer.Option(None, "--trace", help='For likelihoods, e.g. "Hutchinson(probes=8)".'),
    bounds: bool = typer.Option(True, "--bounds/--no-bounds", help="Bounds beside the ODE's likelihood."),
    steps: int = typer.Option(None, "--steps", help="Updates of the weights, per model."),
    batch_size: int = typer.Option(None, "--batch-size", help="Events per update."),
    lr: float = typer.Option(None, "--lr", help="Largest learning rate."),
    network: str = options.NETWORK,
    schedule: str = options.SCHEDULE,
    process: str = options.PROCESS,
    parameterization: str = options.PARAMETERIZATION,
    timesteps: str = options.TIMESTEPS,
    bins: int = options.BINS,
    read: list[str] = options.READ,
    test_fraction: float = options.TEST,
    split_seed: int = options.SPLIT,
    workers: int = typer.Option(None, "--workers", help="Models side by side; default one per core, 1 on a GPU."),
    fresh: bool = typer.Option(False, "--fresh", help="Train anew, also what --out holds already."),
    quick: bool = typer.Option(
        False, "--quick", help="All that is not asked for short, to see that it runs; the numbers mean little."
    ),
    device: str = options.DEVICE,
    quiet: bool = options.QUIET,
) -> None:
    """Compare weightings and samplers, and write a report.

    One model is trained per weighting and seed; every sampler draws from each, held-out data are scored, and distances
    stand beside what real data and a Gaussian would get. Models that --out holds already, of the same settings, are
    kept: an interrupted comparison goes on.

    For example:

        scoresde compare --data digits --out runs/demo

        scoresde compare --data ring --weighting "ELBO()" --weighting "MinSNR(gamma=5)" --seeds 3 --out runs/ring

        scoresde compare --data digits --sampler "DDPM(steps=100)" --sampler "DDIM(steps=20)" --out runs/short
    """
    from scoresde.cli import console as show
    from scoresde.cli.overrides import chosen
    from scoresde.cli.parsing import chosen_device, load_data
    from scoresde.cli.recorded_config import columns_of, located, source
    from scoresde.experiments.compare import compare as run
    from scoresde.experiments.plan import Comparison, quick_settings
    from scoresde.experiments.report.html import write_report

    where = chosen_device(device)
    said = {"data": data, "bins": bins, "test_fraction": test_fraction, "split_seed": split_seed, "read": read}
    about = source({}, **said)
    loaded = load_data(**about)
    recipe = chosen(
        loaded.description,
        network=network,
        schedule=schedule,
        process=process,
        parameterization=parameterization,
        weighting=None,
        timesteps=timesteps,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
    )
    start = Comparison()
    if quick:
        short, start = quick_settings(recipe, start)
        recipe = short if steps is None else recipe
    plan = planned(start, weighting, sampler, seeds, n, limit, trace, bounds)
    show.settings({"data": show.about(loaded), **show.recipe(recipe), "out": str(out)})
    command = "scoresde " + shlex.join(sys.argv[1:]) if sys.argv[1:2] == ["compare"] else "scoresde compare"
    run(
        loaded,
        recipe,
        plan,
        out=out,
        command=command,
        about={**about, "data": located(data), **columns_of(loaded)},
        fresh=fresh,
        device=where,
        workers=side_by_side(workers, where),
        progress=not quiet,
        say=show.say,
    )
    page = write_report(out)
    _table(out)
    show.done(f"the report is {page.resolve()}")


def planned(
    plan: Comparison,
    weightings: list[str] | None,
    samplers: list[str] | None,
    seeds: int,
    n: int | None,
    limit: int | None,
    trace: str | None,
    bounds: bool,
) -> Comparison:
    """What is compared: a plan with what was asked for.

    Raises:
        ValueError, TypeError: If a text is not what it should be, or there is no seed.
    """
    from dataclasses import replace

    from scoresde.cli.parsing import parse
    from scoresde.likelihood import Trace
    from scoresde.objective.weighting import Weighting
    from scoresde.sampling import Sampler

    if seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {seeds}.")
    plan = replace(plan, seeds=tuple(range(seeds)), n=n)
    if weightings:
        plan = replace(plan, weightings=tuple(parse(text, Weighting) for text in weightings))
    if samplers:
        plan = replace(plan, samplers=tuple(parse(text, Sampler) for text in samplers))
    scoring = plan.scoring if bounds else replace(plan.scoring, bounds=None)
    if limit is not None:
        scoring = replace(scoring, limit=limit)
    if trace is not None:
        scoring = replace(scoring, trace=parse(trace, Trace))
    return replace(plan, scoring=scoring)


def side_by_side(asked: int | None, device: str | None) -> int:
    """How many models are examined at once: as asked, else one per core, and one on a GPU."""
    import torch

    from scoresde.storage.environment import cores

    if asked is not None:
        return asked
    return 1 if torch.cuda.is_available() and device != "cpu" else cores()


def _table(out: Path) -> None:
    from scoresde.cli import console as show
    from scoresde.experiments.report.summary import summarize
    from scoresde.experiments.results import read

    story = summarize(read(out).said)
    columns = ("likelihood", story.unit, "±", "training, s")
    lines = [
        (e.weighting, e.value.text(3), e.held_out.error_text(3), e.train_seconds.text(1)) for e in story.likelihoods
    ]
    marks = [(mark.name, mark.value.text(3), mark.value.error_text(3), "") for mark in story.references]
    show.table(columns, [*lines, *marks])
    if story.bounds:
        columns = ("bounds beside it", story.unit, "± events", "± draws", "bound − ODE")
        show.table(columns, [_bound(line) for line in story.bounds])
    columns = ("samples", "calls", "s", "× floor", "told apart, %")
    show.table(
        columns,
        [
            (_named(r), r.nfe.text(0), r.seconds.text(1), r.ratio.text(2), r.classifier.text(1, 100))
            for r in [*story.rows, *story.marks]
        ],
    )


def _named(row: SamplerRow) -> str:
    return row.name if row.weighting is None else f"{row.weighting} {row.name}"


def _bound(line: BoundRow) -> tuple[str, ...]:
    over = "" if line.over.value is None else f"{line.over.text(3)} {line.over.error_text(3)}"
    errors = line.held_out.error_text(3), line.drawn.error_text(4)
    return f"{line.weighting} {line.name}", line.value.text(3), *(text.removeprefix("± ") for text in errors), over
