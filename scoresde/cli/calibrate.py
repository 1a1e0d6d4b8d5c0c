"""`scoresde calibrate`: fits a sampler's steps to a trained model, and keeps them beside its checkpoint."""

from __future__ import annotations

import shlex
from pathlib import Path

import typer

from scoresde.cli import options

__all__ = ["calibrate"]


def calibrate(
    checkpoint: Path = typer.Argument(..., help="A run directory (its newest checkpoint), or one checkpoint."),
    sampler: str = typer.Option(
        "Adams()", "--sampler", help='One that draws no noise, e.g. "Adams()", "UniPC()", "DDIM()".'
    ),
    steps: int = typer.Option(None, "--steps", min=1, help="Of the sampler; default its own.", show_default=False),
    noises: int = typer.Option(
        128, "--noises", min=1, help="Starts to fit to; as many more decide which grid is kept."
    ),
    iterations: int = typer.Option(
        20, "--iterations", min=1, help="Of the fit, at most; it ends when it stands still."
    ),
    seed: int = typer.Option(0, "--seed", help="Of the noises."),
    raw: bool = typer.Option(False, "--raw", help="The weights as trained instead of their average."),
    device: str = options.DEVICE,
) -> None:
    """Fit the times of a sampler's steps to a model.

    For example:

        scoresde calibrate runs/digits --sampler "Adams()" --steps 10

        scoresde sample runs/digits --sampler "Adams(steps=10)" --calibrated --out grid.png
    """
    import time

    import torch

    from scoresde.checkpoint import load, save_calibration
    from scoresde.cli import show
    from scoresde.cli.objects import load_model, parse
    from scoresde.compare import brief
    from scoresde.sampler import StepSampler
    from scoresde.sampler import calibrate as fit

    way = parse(sampler, StepSampler)
    stored = load(checkpoint)
    model = load_model(stored, device, raw)
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    begin = time.perf_counter()
    found = fit(model, way, steps, noises=noises, iterations=iterations, generator=generator)
    seconds = time.perf_counter() - begin
    said = brief(found.original)
    show.settings({"sampler": said, "checkpoint": str(stored.path), "seconds": f"{seconds:.1f}"})
    show.table(
        ["error at the end, rms", "its own grid", "fitted", "ratio"],
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
    kept = "no grid was better than its own" if found.sampler == found.original else "the fitted grid is kept"
    then = shlex.join(["scoresde", "sample", str(checkpoint), "--sampler", said, "--calibrated", *["--raw"] * raw])
    show.done(f"{kept}, in {file}", then)
