"""``scoresde sample``: samples of a trained model, as a grid of images, as a table or as numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scoresde.cli import options
from scoresde.cli.guidance_options import GuidanceOptions
from scoresde.cli.model_options import ModelOptions

if TYPE_CHECKING:
    from scoresde.cli.chosen_sampler import ChosenSampler
    from scoresde.model import Model
    from scoresde.sampling import Samples
    from scoresde.storage.checkpoint import Checkpoint

__all__ = ["sample"]

_SHOWN = 5  # texts that are printed where no file is named


def sample(
    checkpoint: options.Checkpoint,
    *,
    n: int = typer.Option(None, "-n", "--number", min=0, help="Number of samples; default 64.", show_default=False),
    sampler: str = typer.Option(
        None,
        "--sampler",
        help='E.g. "DDIM(steps=50)", "ODE()", "EulerMaruyama()"; default DDPM(steps=1000), of categories '
        "Ancestral(steps=250), MixedSampler(), Jumps() for a student, or that of an opened model's own code base.",
        show_default=False,
    ),
    out: Path = typer.Option(
        None,
        "--out",
        help="Output file: .png for a grid of images or strips of categories; .txt for text; .csv, .tsv or .parquet "
        "for a table, with the names and texts of its columns; .npz or .npy for numbers in data units.",
    ),
    file_format: str = typer.Option(
        None,
        "--format",
        help="png, txt, csv, tsv, npz, npy or parquet, whatever the suffix of --out.",
        show_default=False,
    ),
    grid: str = typer.Option(None, "--grid", help='Rows x columns of a .png, e.g. "8x8"; sets -n.', show_default=False),
    seed: int = typer.Option(
        None,
        "--seed",
        min=0,
        max=options.MOST_SEED,
        help="Random seed; default 0. With several processes, each sample gets a seed derived from it.",
        show_default=False,
    ),
    seeds: str = typer.Option(
        None,
        "--seeds",
        help='One random seed per sample, e.g. "0-63" or "3,5,8"; replaces -n and --seed.',
        show_default=False,
    ),
    label: options.Label = None,
    condition: options.Condition = [],
    trajectory: bool = typer.Option(False, "--trajectory", help="Also write the states of all steps (.npz)."),
    denoise: bool = typer.Option(
        False, "--denoise", help="Finish with one more network call, which removes the remaining noise."
    ),
    guidance: GuidanceOptions,
    calibrated: bool = typer.Option(
        False, "--calibrated", help="Use the fit that `scoresde calibrate` stored for --sampler and this checkpoint."
    ),
    batch_size: int = typer.Option(None, "--batch-size", min=1, help="Samples per batch; default all."),
    weights: ModelOptions,
    quiet: options.Quiet = False,
) -> None:
    """Sample from a trained model.

    For example:

        scoresde sample runs/digits -n 64 --out grid.png

        scoresde sample runs/customers -n 1000 --out new.csv

        scoresde sample runs/book -n 20 --out text.txt

        scoresde sample runs/digits --sampler "DDIM(steps=50)" --seeds 0-63 --out samples.npz

        scoresde sample runs/digits --sampler "Adams(steps=10)" --calibrated --out grid.png

        scoresde sample runs/classes -n 80 --label 0-9 --out grid.png

        scoresde sample runs/people -n 100 --condition age=35 --condition city=Rome --out new.csv

        scoresde sample runs/captions --condition texts.npz --out images.npz

        scoresde sample runs/classes -n 80 --label 0-9 --guidance 3 --guidance-interval 0.2,1.5 --out grid.png

        scoresde sample runs/ring -n 1000 --sampler "EulerMaruyama(steps=500)" --trajectory --out trajectories.npz

        accelerate launch --multi_gpu --num_processes 8 -m scoresde sample runs/faces -n 50000 --out x.npz
    """
    from scoresde.cli.parsing import parse
    from scoresde.cli.sample_output import check_output, output_format, parse_grid
    from scoresde.sampling import Sampler

    kind, shape = output_format(out, file_format), parse_grid(grid)
    _check_options(n, kind, seed, seeds, trajectory, calibrated, weights.average)
    if calibrated and guidance.scale is not None:
        raise ValueError("a calibrated sampler was fitted to the model without guidance; leave out one of the two.")
    modules = weights.modules(checkpoint)
    requested = None if sampler is None else parse(sampler, Sampler, modules)

    import time

    from scoresde.cli.calibration_hint import print_hint
    from scoresde.cli.chosen_sampler import chosen_sampler
    from scoresde.cli.given_conditions import given_conditions, repeated
    from scoresde.cli.outputs import check_writable
    from scoresde.cli.parse_lists import parse_integers
    from scoresde.cli.sample_in_processes import sample_in_processes
    from scoresde.distributed import process_group
    from scoresde.storage.checkpoint import read_checkpoint

    check_writable(out)
    stored = read_checkpoint(checkpoint)
    chosen = chosen_sampler(stored, requested, calibrated, weights.raw)
    sample_seeds = (seed or 0) if seeds is None else parse_integers(seeds)
    count = len(sample_seeds) if isinstance(sample_seeds, list) else n
    settings: dict[str, Any] = {"denoise": denoise, "batch_size": batch_size, "trajectory": trajectory}
    settings |= {"progress": not quiet, "start": chosen.start}
    with process_group() as rank:
        own_device = str(rank.device)
        model = weights.load(stored, modules, own_device)
        check_output(kind, model)
        cond = given_conditions(model, label, condition)
        rows = max((len(value) for value in cond.values() if value.is_floating_point()), default=1)
        count = _checked_count(rows if count is None and rows > 1 else count, kind, shape)
        cond = repeated(cond, count)
        begin = time.perf_counter()
        guided = guidance.guided(
            model, bool(cond), lambda length: weights.load_average(stored, modules, length, own_device)
        )
        samples = sample_in_processes(rank, guided, chosen.sampler, count, sample_seeds, settings, cond)
        seconds = time.perf_counter() - begin
    if samples is None:  # not the main process
        return
    if not calibrated and weights.average is None and not quiet:
        print_hint(checkpoint, stored, chosen.sampler, weights.raw)
    _print_summary(stored, chosen, samples, seconds, guidance)
    _write(samples, model, out, kind, shape)


def _print_summary(
    stored: Checkpoint, chosen: ChosenSampler, samples: Samples, seconds: float, guidance: GuidanceOptions
) -> None:
    from scoresde.cli import console
    from scoresde.cli.opened_run import clipping_line

    summary = {"sampler": chosen.name, "network calls": str(samples.nfe), "seconds": f"{seconds:.2f}"}
    console.print_settings(summary | guidance.summary())
    if (line := clipping_line(stored)) is not None:
        console.print_status(line)


def _write(samples: Samples, model: Model, out: Path | None, kind: str | None, shape: tuple[int, int] | None) -> None:
    """Writes the samples to a file; without one, prints the first texts and a file name that suits."""
    from scoresde.cli import console
    from scoresde.cli.sample_output import default_output, joined_texts, write_samples

    if out is not None:
        write_samples(out, samples, kind, shape)
        console.print_done(f"{len(samples.x)} samples in {out}")
        return
    if model.data is not None and model.data.alphabet is not None and len(model.data.shape) == 1:
        typer.echo(joined_texts(samples.texts()[:_SHOWN]), nl=False)
    console.print_done(f"{len(samples.x)} samples drawn, none saved; to save them add --out {default_output(model)}")


def _check_options(
    n: int | None,
    kind: str | None,
    seed: int | None,
    seeds: str | None,
    trajectory: bool,
    calibrated: bool,
    average: float | None,
) -> None:
    if trajectory and kind != "npz":
        raise ValueError(f"--trajectory is written as .npz, got {kind or 'no --out'}; name a .npz file by --out.")
    if calibrated and average is not None:
        raise ValueError(
            f"a calibrated sampler was fitted to the run's default average, got --average {average}; leave one of them "
            "out."
        )
    if seeds is not None and (n is not None or seed is not None):
        other = "-n" if seed is None else "--seed"
        raise ValueError(f"--seeds sets the number of samples and the seed of each, got {other} too; leave it out.")


def _checked_count(count: int | None, kind: str | None, grid: tuple[int, int] | None) -> int:
    """The number of samples; by default what the grid holds, or 64."""
    if grid is None:
        return 64 if count is None else count
    if kind != "png":
        raise ValueError(f"--grid arranges the images of a .png, got {kind or 'no --out'}; name a .png file by --out.")
    cells = grid[0] * grid[1]
    if count is not None and count > cells:
        raise ValueError(
            f"--grid {grid[0]}x{grid[1]} holds {cells} images, got {count} samples; draw fewer or enlarge it."
        )
    return cells if count is None else count
