"""`scoresde compare`: weightings and samplers on one data set, as a report."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from scoresde.cli import options

if TYPE_CHECKING:
    from scoresde.compare import Comparison
    from scoresde.report.bounds import Line

__all__ = ["compare"]


def compare(
    data: str = options.DATA,
    out: Path = typer.Option(..., "--out", help="Folder for report, numbers and models.", show_default=False),
    weighting: list[str] = typer.Option(None, "--weighting", help="Once for each; default ELBO() and Simple()."),
    sampler: list[str] = typer.Option(None, "--sampler", help="Once for each; default the three walks and DDIM."),
    seeds: int = typer.Option(1, "--seeds", help="Training seeds; 3 tell a difference from chance."),
    n: int = typer.Option(None, "-n", "--number", help="Samples per sampler; default as many as are held out."),
    limit: int = typer.Option(None, "--limit", help="Held-out events that are scored; default at most 1000."),
    trace: str = typer.Option(None, "--trace", help='For likelihoods, e.g. "Hutchinson(probes=8)".'),
    bounds: bool = typer.Option(True, "--bounds/--no-bounds", help="Bounds beside the ODE's likelihood."),
    steps: int = typer.Option(None, "--steps", help="Updates of the weights, per model."),
    batch_size: int = typer.Option(None, "--batch-size", help="Events per update."),
    lr: float = typer.Option(None, "--lr", help="Largest learning rate."),
    network: str = options.NETWORK,
    schedule: str = options.SCHEDULE,
    process: str = options.PROCESS,
    parameterization: str = options.PARAMETERIZATION,
    times: str = options.TIMES,
    bins: int = options.BINS,
    read: list[str] = options.READ,
    test_fraction: float = options.TEST,
    split_seed: int = options.SPLIT,
    workers: int = typer.Option(None, "--workers", help="Models side by side; default one per core, 1 on a GPU."),
    fresh: bool = typer.Option(False, "--fresh", help="Train anew, also what --out holds already."),
    quick: bool = typer.Option(
        False, "--quick", help="Everything short, to see that it runs; the numbers mean little."
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
    from scoresde.cli import show
    from scoresde.cli.objects import chosen_device, load_data
    from scoresde.cli.recipes import chosen
    from scoresde.compare import compare as run
    from scoresde.compare import forget, shorter
    from scoresde.report import write

    where = chosen_device(device)
    loaded = load_data(data, bins, test_fraction, split_seed, read)
    plan = planned(weighting, sampler, seeds, n, limit, trace, bounds)
    recipe = chosen(
        loaded.description,
        network=network,
        schedule=schedule,
        process=process,
        parameterization=parameterization,
        weighting=None,
        times=times,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
    )
    if quick:
        recipe, plan = shorter(recipe, plan, keep_samplers=bool(sampler))
    if fresh:
        forget(out)
    show.settings({"data": show.about(loaded), **show.recipe(recipe), "out": str(out)})
    command = "scoresde " + shlex.join(sys.argv[1:]) if sys.argv[1:2] == ["compare"] else "scoresde compare"
    run(
        loaded,
        recipe,
        plan,
        out=out,
        command=command,
        device=where,
        workers=side_by_side(workers, where),
        progress=not quiet,
        say=show.say,
    )
    page = write(out)
    _table(out)
    show.done(f"the report is {page.resolve()}")


def planned(
    weightings: list[str] | None,
    samplers: list[str] | None,
    seeds: int,
    n: int | None,
    limit: int | None,
    trace: str | None,
    bounds: bool,
) -> Comparison:
    """What is compared: the default plan with what was asked for.

    Raises:
        ValueError, TypeError: If a text is not what it should be, or there is no seed.
    """
    from dataclasses import replace

    from scoresde.cli.objects import parse
    from scoresde.compare import Comparison
    from scoresde.likelihood import Trace
    from scoresde.sampler import Sampler
    from scoresde.weighting import Weighting

    if seeds < 1:
        raise ValueError(f"--seeds must be at least 1, got {seeds}.")
    plan = Comparison(seeds=tuple(range(seeds)), n=n)
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
    import os

    import torch

    if asked is not None:
        return asked
    return 1 if torch.cuda.is_available() and device != "cpu" else os.cpu_count() or 1


def _table(out: Path) -> None:
    from scoresde.cli import show
    from scoresde.compare import read
    from scoresde.report import tell

    story = tell(read(out).said)
    columns = ("likelihood", story.unit, "±", "training, s")
    lines = [
        (e.weighting, e.value.text(3), e.held_out.error_text(3), e.train_seconds.text(1)) for e in story.likelihoods
    ]
    show.table(columns, [*lines, *((m["name"], f"{m['value']:.3f}", "", "") for m in story.said["references"])])
    if story.bounds:
        columns = ("bounds beside it", story.unit, "± events", "± draws", "bound − ODE")
        show.table(columns, [_bound(line) for line in story.bounds])
    columns = ("samples", "weighting", "calls", "s", "× floor", "told apart, %")
    show.table(
        columns,
        [
            (r.name, r.weighting or "", r.nfe.text(0), r.seconds.text(1), r.ratio.text(2), r.classifier.text(1, 100))
            for r in [*story.rows, *story.marks]
        ],
    )


def _bound(line: Line) -> tuple[str, ...]:
    over = "" if line.over.value is None else f"{line.over.text(3)} {line.over.error_text(3)}"
    errors = line.held_out.error_text(3), line.drawn.error_text(4)
    return f"{line.weighting} {line.name}", line.value.text(3), *(text.removeprefix("± ") for text in errors), over
