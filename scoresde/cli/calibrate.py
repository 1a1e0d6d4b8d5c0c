"""``scoresde calibrate``: fits a sampler to a trained model and stores the fit next to the checkpoint."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from scoresde.cli import options

if TYPE_CHECKING:
    from scoresde.sampling import Calibration, StepSampler, Whitened

__all__ = ["calibrate"]


def calibrate(
    checkpoint: Path = options.CHECKPOINT,
    sampler: str = typer.Option(
        "Adams()", "--sampler", help='A sampler that draws no noise, e.g. "Adams()", "UniPC()", "DDIM()".'
    ),
    steps: int = typer.Option(
        None, "--steps", min=1, help="Number of steps; default: the sampler's own.", show_default=False
    ),
    noises: int = typer.Option(
        128, "--noises", min=1, help="Initial noises to fit to; as many more are held out and choose the best fit."
    ),
    iterations: int = typer.Option(20, "--iterations", min=1, help="Maximal number of iterations of a descent."),
    starts: int = typer.Option(1, "--starts", min=1, max=4, help="Number of initial time grids for the descent."),
    search: int = typer.Option(
        0,
        "--search",
        min=0,
        help="Rounds of an evolution strategy after the descent, e.g. 60 for data in well separated clusters.",
    ),
    pool: int = typer.Option(
        1,
        "--pool",
        min=1,
        help="Draw this many times --noises and fit mostly to the hard ones, e.g. 8 for well separated clusters.",
    ),
    whiten: bool = typer.Option(
        True,
        "--whiten/--no-whiten",
        help="Solve the part that the data's mean and covariance determine in closed form.",
    ),
    batch_size: int = typer.Option(None, "--batch-size", min=1, help="Noises per network call; default all."),
    seed: int = typer.Option(0, "--seed", min=0, max=options.MOST_SEED, help="Random seed of the noises."),
    raw: bool = options.RAW,
    imports: list[str] = options.IMPORT,
    device: str = options.DEVICE,
) -> None:
    """Fit a sampler to a trained model, at the same number of network calls.

    The fit chooses the times of the steps and the orders that the sampler leaves open. It also chooses whether the
    data's mean and covariance are handled in closed form. `scoresde sample --calibrated` uses it.

    For example:

        scoresde calibrate runs/digits --sampler "Adams()" --steps 10

        scoresde sample runs/digits --sampler "Adams(steps=10)" --calibrated --out grid.png
    """
    from scoresde.cli.parsing import known, parse
    from scoresde.cli.recorded_config import import_recorded
    from scoresde.sampling import StepSampler

    modules = import_recorded(checkpoint, imports)
    requested = parse(sampler, StepSampler, modules)

    import time

    import torch

    from scoresde.cli import console
    from scoresde.cli.loading import load_model
    from scoresde.sampling import calibrate as fit
    from scoresde.storage.checkpoint import read_checkpoint, save_calibration
    from scoresde.storage.setting_labels import short_text

    stored = read_checkpoint(checkpoint)
    model = load_model(stored, device, raw, known=known(modules=modules))
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    begin = time.perf_counter()
    settings = {"iterations": iterations, "starts": starts, "search": search, "pool": pool, "whiten": whiten}
    calibration = fit(model, requested, steps, noises=noises, batch_size=batch_size, generator=generator, **settings)
    seconds = time.perf_counter() - begin
    original = short_text(calibration.original)
    unchanged = calibration.sampler == calibration.original
    console.print_settings(
        {
            "sampler": original,
            "calibrated": "unchanged" if unchanged else _without_times(calibration.sampler),
            "checkpoint": str(stored.path),
            "seconds": f"{seconds:.1f}",
        }
    )
    console.print_table(["final error, rms", "original", "calibrated", "ratio"], _errors(calibration, noises))
    file = save_calibration(stored, calibration, raw=raw)
    outcome = "no fit was better than the original sampler" if unchanged else "the calibrated sampler is saved"
    command = ["scoresde", "sample", str(checkpoint), "--sampler", original, "--calibrated", *["--raw"] * raw]
    console.print_done(f"{outcome}, in {file}", shlex.join(command))


def _errors(calibration: Calibration, noises: int) -> list[list[str]]:
    error, before = calibration.error, calibration.original_error
    ratio = f"{error / before:.2f}" if before else "–"
    return [
        [f"{noises} noises held out", f"{before:.3g}", f"{error:.3g}", ratio],
        [f"{noises} noises fitted to", "", f"{calibration.fit_error:.3g}", ""],
    ]


def _without_times(sampler: StepSampler | Whitened) -> str:
    """A calibrated sampler as text, without the times of its steps."""
    from scoresde.sampling import DenseEnds, Whitened
    from scoresde.storage.setting_labels import short_text

    inner = sampler.sampler if isinstance(sampler, Whitened) else sampler
    text = short_text(replace(inner, grid=DenseEnds()))
    return f"{text}, {sampler.moments}" if isinstance(sampler, Whitened) else text
