"""``scoresde calibrate``: fits a sampler to a trained model and stores the fit next to the checkpoint."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from scoresde.cli import options

if TYPE_CHECKING:
    from scoresde.sampling import Calibration, StepSampler, Whitened

__all__ = ["calibrate"]


def calibrate(
    checkpoint: options.Checkpoint,
    sampler: str = typer.Option(
        "Adams()", "--sampler", help='A sampler that draws no noise, e.g. "Adams()", "UniPC()", "DDIM()".'
    ),
    steps: str = typer.Option(
        None,
        "--steps",
        help='Number of steps, or several, e.g. "5,10,20": one fit each, with a common reference; default: the '
        "sampler's own.",
        show_default=False,
    ),
    noises: int = typer.Option(
        None,
        "--noises",
        min=1,
        help="Initial noises to fit to; as many more are held out. Default: 75; 200 for events of up to 16 values.",
        show_default=False,
    ),
    iterations: int = typer.Option(
        None,
        "--iterations",
        min=1,
        help="Maximal number of iterations of a descent on the network; default: 15 divided by the steps; 8 for "
        "events of up to 16 values.",
        show_default=False,
    ),
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
    raw: options.Raw = False,
    imports: options.Imports = [],
    device: options.Device = None,
    quiet: options.Quiet = False,
) -> None:
    """Fit a sampler to a trained model, at the same number of network calls.

    For Adams() the times and the weights of all steps are fitted, for other samplers the times. The fit also chooses
    whether the data's mean and covariance are handled in closed form. `scoresde sample --calibrated` uses it.

    For example:

        scoresde calibrate runs/digits --sampler "Adams()" --steps 5,10,20

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
    from scoresde.cli.given_conditions import recorded_conditions
    from scoresde.cli.loading import load_model
    from scoresde.cli.parse_lists import parse_integers
    from scoresde.distillation import FlowMap
    from scoresde.sampling import calibrate as fit
    from scoresde.sampling.calibration.preparation import default_noises
    from scoresde.storage.checkpoint import read_checkpoint, save_calibration
    from scoresde.storage.setting_labels import short_text

    counts = None if steps is None else parse_integers(steps, "steps")
    stored = read_checkpoint(checkpoint)
    model = load_model(stored, device, raw, known=known(modules=modules))
    generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
    begin = time.perf_counter()
    noises = default_noises(model) if noises is None else noises
    settings = {"iterations": iterations, "search": search, "pool": pool, "whiten": whiten, "progress": not quiet}
    cond = {} if isinstance(model, FlowMap) else recorded_conditions(checkpoint, stored, model, 2 * pool * noises)
    settings |= {"noises": noises, "batch_size": batch_size, "generator": generator}
    fits = fit(model, requested, counts, **settings, **cond)
    fits = fits if isinstance(fits, list) else [fits]
    console.print_settings(
        {
            "checkpoint": str(stored.path),
            "seconds": f"{time.perf_counter() - begin:.1f}",
            "network evaluations": f"{sum(each.evaluations for each in fits)}, fitted to {noises} noises",
        }
    )
    columns = ["final error, rms", "original", "calibrated", "ratio", "on fitted noises"]
    console.print_table(columns, map(_errors, fits))
    for each in fits:
        file = save_calibration(stored, each, raw=raw)
        if each.sampler != each.original:
            console.print_status(f"{short_text(each.original)} is fitted as {_without_times(each.sampler)}")
    changed = [each for each in fits if each.sampler != each.original]
    outcome = f"{len(changed)} of {len(fits)} fits are better than the original sampler; saved in {file}"
    original = short_text((changed or fits)[0].original)
    command = ["scoresde", "sample", str(checkpoint), "--sampler", original, "--calibrated", *["--raw"] * raw]
    console.print_done(outcome, shlex.join(command))


def _errors(calibration: Calibration) -> list[str]:
    from scoresde.storage.setting_labels import short_text

    error, before = calibration.error, calibration.original_error
    ratio = f"{error / before:.2f}" if before else "–"
    return [short_text(calibration.original), f"{before:.3g}", f"{error:.3g}", ratio, f"{calibration.fit_error:.3g}"]


def _without_times(sampler: StepSampler | Whitened) -> str:
    """A calibrated sampler as text, without the times and the weights of its steps."""
    from scoresde.sampling import DenseEnds, NonStationary, Whitened
    from scoresde.storage.setting_labels import short_text

    inner = sampler.sampler if isinstance(sampler, Whitened) else sampler
    plain = NonStationary(inner.steps) if isinstance(inner, NonStationary) else replace(inner, grid=DenseEnds())
    return f"{short_text(plain)}, {sampler.moments}" if isinstance(sampler, Whitened) else short_text(plain)
