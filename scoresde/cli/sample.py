"""``scoresde sample``: samples of a trained model, as a grid of images or as numbers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scoresde.cli import options

if TYPE_CHECKING:
    from scoresde.distributed import Rank
    from scoresde.model import ScoreModel
    from scoresde.sampling import Sampler, Samples
    from scoresde.storage.checkpoint import Checkpoint

__all__ = ["sample"]


def sample(
    checkpoint: Path = options.CHECKPOINT,
    n: int = typer.Option(None, "-n", "--number", min=0, help="Number of samples; default 64.", show_default=False),
    sampler: str = typer.Option(
        "DDPM(steps=1000)", "--sampler", help='E.g. "DDIM(steps=50)", "ODE()", "EulerMaruyama()".'
    ),
    out: Path = typer.Option(
        None, "--out", help="Output file: .png for a grid of images, .npz for numbers in data units."
    ),
    seed: int = typer.Option(
        None,
        "--seed",
        help="Random seed; default 0. With several processes, each sample gets a seed derived from it.",
        show_default=False,
    ),
    seeds: str = typer.Option(
        None,
        "--seeds",
        help='One random seed per sample, e.g. "0-63" or "3,5,8"; replaces -n and --seed.',
        show_default=False,
    ),
    labels: str = typer.Option(
        None,
        "--labels",
        help='Classes, assigned to the samples in turn, e.g. "0-9" or "bag,coat"; default: no class.',
        show_default=False,
    ),
    trajectory: bool = typer.Option(False, "--trajectory", help="Also write the states of all steps (.npz)."),
    denoise: bool = typer.Option(
        False, "--denoise", help="Finish with one more network call, which removes the remaining noise."
    ),
    calibrated: bool = typer.Option(
        False, "--calibrated", help="Use the fit that `scoresde calibrate` stored for --sampler and this checkpoint."
    ),
    batch_size: int = typer.Option(None, "--batch-size", min=1, help="Samples per batch; default all."),
    raw: bool = options.RAW,
    average: float = options.AVERAGE,
    imports: list[str] = options.IMPORT,
    device: str = options.DEVICE,
    quiet: bool = options.QUIET,
) -> None:
    """Sample from a trained model.

    For example:

        scoresde sample runs/digits -n 64 --out grid.png

        scoresde sample runs/digits --sampler "DDIM(steps=50)" --seeds 0-63 --out samples.npz

        scoresde sample runs/digits --sampler "Adams(steps=10)" --calibrated --out grid.png

        scoresde sample runs/classes -n 80 --labels 0-9 --out grid.png

        scoresde sample runs/ring -n 1000 --sampler "EulerMaruyama(steps=500)" --trajectory --out trajectories.npz

        accelerate launch --multi_gpu --num_processes 8 -m scoresde sample runs/faces -n 50000 --out x.npz
    """
    from scoresde.cli.parsing import known, parse
    from scoresde.cli.recorded_config import import_recorded
    from scoresde.sampling import Sampler

    _check_options(n, out, seed, seeds, trajectory, calibrated, average)
    modules = import_recorded(checkpoint, imports)
    requested = parse(sampler, Sampler, modules)

    import time

    from scoresde.cli import console
    from scoresde.cli.loading import load_model
    from scoresde.cli.outputs import check_writable
    from scoresde.cli.parse_lists import parse_integers, parse_labels
    from scoresde.cli.sample_output import check_image_output, default_output, write_samples
    from scoresde.distributed import process_group
    from scoresde.storage.checkpoint import read_checkpoint
    from scoresde.storage.setting_labels import short_text

    check_writable(out)
    stored = read_checkpoint(checkpoint)
    used = calibrated_sampler(stored, requested, raw) if calibrated else requested
    sample_seeds = (seed or 0) if seeds is None else parse_integers(seeds)
    count = len(sample_seeds) if isinstance(sample_seeds, list) else 64 if n is None else n
    with process_group() as rank:
        model = load_model(stored, device or str(rank.device), raw, average, known(modules=modules))
        check_image_output(out, model)
        begin = time.perf_counter()
        classes = None if labels is None else parse_labels(labels, model)
        settings = {"denoise": denoise, "batch_size": batch_size, "trajectory": trajectory, "progress": not quiet}
        samples = sample_in_processes(rank, model, used, count, sample_seeds, settings, classes)
        seconds = time.perf_counter() - begin
    if samples is None:  # not the main process
        return
    label = sampler.strip() + ", calibrated" if calibrated else short_text(used)
    console.print_settings({"sampler": label, "network calls": str(samples.nfe), "seconds": f"{seconds:.2f}"})
    if out is None:
        console.print_done(
            f"{len(samples.x)} samples drawn, none saved; to save them add --out {default_output(model)}"
        )
        return
    write_samples(out, samples)
    console.print_done(f"{len(samples.x)} samples in {out}")


def _check_options(
    n: int | None,
    out: Path | None,
    seed: int | None,
    seeds: str | None,
    trajectory: bool,
    calibrated: bool,
    average: float | None,
) -> None:
    if out is not None and out.suffix not in (".png", ".npz"):
        raise ValueError(f"--out must end in .png or .npz, got {out}; .npz takes data of every shape.")
    if trajectory and (out is None or out.suffix != ".npz"):
        raise ValueError(f"--trajectory is written as .npz, got --out {out}; name a .npz file.")
    if calibrated and average is not None:
        raise ValueError(
            f"a calibrated sampler was fitted to the run's default average, got --average {average}; leave one of them "
            "out."
        )
    if seeds is not None and (n is not None or seed is not None):
        other = "-n" if seed is None else "--seed"
        raise ValueError(f"--seeds sets the number of samples and the seed of each, got {other} too; leave it out.")


def sample_in_processes(
    rank: Rank,
    model: ScoreModel,
    sampler: Sampler,
    n: int,
    seeds: int | list[int],
    settings: dict[str, Any],
    labels: list[int] | None = None,
) -> Samples | None:
    """Samples ``n`` events, each process its share, and gathers them in the main process.

    Args:
        rank: This process.
        model: On its device.
        sampler: The sampler.
        n: Number of samples of all processes together.
        seeds: One per sample; or one number, which seeds a generator for all samples of a single process, and from
            which several processes derive a seed for each sample.
        settings: Options of `scoresde.sampling.sample`.
        labels: Sample ``i`` gets entry ``i`` modulo their number; None for no labels.

    Returns:
        All samples, on the CPU if there are several processes; None in all but the main one.
    """
    import torch

    from scoresde.sampling import sample
    from scoresde.training.batches import derive

    rows = rank.rows(n, settings["batch_size"])
    source: dict[str, Any] = {}
    if isinstance(seeds, list):
        source["seeds"] = seeds[rows.start : rows.stop]
    elif rank.count > 1:
        source["seeds"] = [derive(seeds, row) for row in rows]
    else:
        source["generator"] = torch.Generator(next(model.parameters()).device).manual_seed(seeds)
    if labels is not None:
        source["cond"] = torch.tensor([labels[row % len(labels)] for row in rows])
    settings = {**settings, "progress": settings["progress"] and rank.main}
    samples = sample(model, len(rows), sampler, **source, **settings)
    return gather_samples(rank, samples, trajectory=settings["trajectory"])


def gather_samples(rank: Rank, samples: Samples, *, trajectory: bool) -> Samples | None:
    """The samples of all processes, on the CPU if there are several; None in all but the main process.

    Raises:
        ValueError: If trajectories are requested and the times differ between processes.
    """
    import dataclasses

    import torch

    if rank.count == 1:
        return samples
    x, nfe, states = rank.gather(samples.x), rank.gather(torch.tensor([samples.nfe])), None
    if trajectory:
        own = samples.x.unsqueeze(1) if samples.trajectory is None else samples.trajectory.transpose(0, 1)
        states = rank.gather(own)
        taus = rank.gather(torch.tensor([samples.taus or ()], dtype=torch.float64)[: len(own)])
        if taus is not None and len(taus) and bool((taus != taus[0]).any()):
            raise ValueError(
                "a trajectory needs the same times in every process, got different ones; use a sampler with fixed "
                "steps."
            )
    if x is None or nfe is None:
        return None
    gathered = None if states is None else states.transpose(0, 1)
    return dataclasses.replace(samples, x=x, nfe=int(nfe.max()), trajectory=gathered)


def calibrated_sampler(stored: Checkpoint, sampler: Sampler, raw: bool) -> Sampler:
    """The sampler as `scoresde calibrate` fitted it to these weights.

    Raises:
        TypeError: If it has no time grid.
        ValueError, FileNotFoundError: If it was not fitted to these weights.
    """
    from scoresde.sampling import StepSampler
    from scoresde.storage.checkpoint import load_calibration

    if not isinstance(sampler, StepSampler):
        raise TypeError(
            f"--calibrated needs a sampler with a time grid, got {sampler}; use one such as Adams(steps=10)."
        )
    return load_calibration(stored, sampler, raw=raw).sampler
