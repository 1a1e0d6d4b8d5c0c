"""`scoresde calibrate`: fits a sampler to a trained model, and keeps what was fitted beside its checkpoint."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from scoresde.cli.options import DEVICE

if TYPE_CHECKING:
    from scoresde.sampling import StepSampler, Whitened

__all__ = ["calibrate"]


def calibrate(
    checkpoint: Path = typer.Argument(..., help="A run directory (its newest checkpoint), or one checkpoint."),
    sampler: str = typer.Option(
        "Adams()", "--sampler", help='One that draws no noise, e.g. "Adams()", "UniPC()", "DDIM()".'
    ),
    steps: int = typer.Option(None, "--steps", min=1, help="Of the sampler; default its own.", show_default=False),
    noises: int = typer.Option(128, "--noises", min=1, help="Starts to fit to; as many more decide what is kept."),
    iterations: int = typer.Option(
        20, "--iterations", min=1, help="Of a descent, at most; it ends when it stands still."
    ),
    starts: int = typer.Option(1, "--starts", min=1, max=4, help="Grids to descend from."),
    search: int = typer.Option(
        0, "--search", min=0, help="Rounds of trials after a descent, for data in parts far from each other, e.g. 60."
    ),
    pool: int = typer.Option(
        1,
        "--pool",
        min=1,
        help="How many times the noises to draw, and mostly choose the hard ones, for the same, e.g. 8.",
    ),
    whiten: bool = typer.Option(
        True, "--whiten/--no-whiten", help="Leave the data's mean and covariance, which are known, out of the walk."
    ),
    batch_size: int = typer.Option(None, "--batch-size", min=1, help="Noises in a network call; default all."),
    seed: int = typer.Option(0, "--seed", help="Of the noises."),
    raw: bool = typer.Option(False, "--raw", help="The weights as trained instead of their average."),
    device: str = DEVICE,
) -> None:
    """Fit a sampler to a model: the times of its steps, the orders that it leaves open, the data's mean and covariance.

    For example:

        scoresde calibrate runs/digits --sampler "Adams()" --steps 10

        scoresde sample runs/digits --sampler "Adams(steps=10)" --calibrated --out grid.png
    """
    import time

    import torch

    from scoresde.cli import console as show
    from scoresde.cli.parsing import load_model, parse
    from scoresde.sampling import StepSampler
    from scoresde.sampling import calibrate as fit
    from scoresde.storage.checkpoint import read_checkpoint, save_calibration
    from scoresde.storage.labels import short_text

    way = parse(sampler, StepSampler)
    stored = read_checkpoint(checkpoint)
    model = load_model(stored, device, raw)
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    begin = time.perf_counter()
    options = {"iterations": iterations, "starts": starts, "search": search, "pool": pool, "whiten": whiten}
    found = fit(model, way, steps, noises=noises, batch_size=batch_size, generator=generator, **options)
    seconds = time.perf_counter() - begin
    said = short_text(found.original)
    same = found.sampler == found.original
    show.settings(
        {
            "sampler": said,
            "fitted": "as it was" if same else _shown(found.sampler),
            "checkpoint": str(stored.path),
            "seconds": f"{seconds:.1f}",
        }
    )
    show.table(
        ["error at the end, rms", "as it was", "fitted", "ratio"],
        [
            [
                f"{noises} noises held out",
                f"{found.original_error:.3g}",
                f"{found.error:.3g}",
                f"{found.error / found.original_error:.2f}" if found.original_error else "–",
            ],
            [f"{noises} fitted to", "", f"{found.fit_error:.3g}", ""],
        ],
    )
    file = save_calibration(stored, found, raw=raw)
    kept = "nothing was better than the sampler as it was" if same else "the fitted sampler is kept"
    then = shlex.join(["scoresde", "sample", str(checkpoint), "--sampler", said, "--calibrated", *["--raw"] * raw])
    show.done(f"{kept}, in {file}", then)


def _shown(sampler: StepSampler | Whitened) -> str:
    """A fitted sampler without its times."""
    from scoresde.sampling import DenseEnds, Whitened
    from scoresde.storage.labels import short_text

    inner = sampler.sampler if isinstance(sampler, Whitened) else sampler
    said = short_text(replace(inner, grid=DenseEnds()))
    return f"{said}, {sampler.moments}" if isinstance(sampler, Whitened) else said
