"""`scoresde sample`: draws from a trained model, as a picture or as numbers."""

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
    checkpoint: Path = typer.Argument(..., help="A run directory (its newest checkpoint), or one checkpoint."),
    n: int = typer.Option(None, "-n", "--number", min=0, help="How many; default 64.", show_default=False),
    sampler: str = typer.Option(
        "DDPM(steps=1000)", "--sampler", help='E.g. "DDIM(steps=50)", "ODE()", "EulerMaruyama()".'
    ),
    out: Path = typer.Option(None, "--out", help=".png: a sheet of pictures; .npz: the numbers, in the data's units."),
    seed: int = typer.Option(
        None,
        "--seed",
        help="Of all randomness, default 0; where several processes draw, a seed for each sample is made of it.",
        show_default=False,
    ),
    seeds: str = typer.Option(
        None, "--seeds", help='One per sample instead, e.g. "0-63" or "3,5,8".', show_default=False
    ),
    labels: str = typer.Option(
        None,
        "--labels",
        help='Classes, dealt to the samples in turn, e.g. "0-9" or "bag,coat"; default: none.',
        show_default=False,
    ),
    trajectory: bool = typer.Option(False, "--trajectory", help="Also write the states along the way (.npz)."),
    denoise: bool = typer.Option(False, "--denoise", help="End with one network call that takes the last noise out."),
    calibrated: bool = typer.Option(
        False, "--calibrated", help="On the grid that `scoresde calibrate` fitted to this checkpoint for --sampler."
    ),
    batch_size: int = typer.Option(None, "--batch-size", min=1, help="Samples at once; default all."),
    raw: bool = typer.Option(False, "--raw", help="The weights as trained instead of their average."),
    average: float = options.AVERAGE,
    device: str = options.DEVICE,
    quiet: bool = options.QUIET,
) -> None:
    """Draw samples.

    For example:

        scoresde sample runs/digits -n 64 --out grid.png

        scoresde sample runs/digits --sampler "DDIM(steps=50)" --seeds 0-63 --out samples.npz

        scoresde sample runs/digits --sampler "Adams(steps=10)" --calibrated --out grid.png

        scoresde sample runs/classes -n 80 --labels 0-9 --out grid.png

        scoresde sample runs/ring -n 1000 --sampler "EulerMaruyama(steps=500)" --trajectory --out paths.npz

        accelerate launch --multi_gpu --num_processes 8 -m scoresde sample runs/faces -n 50000 --out x.npz
    """
    import time

    from scoresde.cli import console as show
    from scoresde.cli.parsing import check_writable, load_model, parse
    from scoresde.distributed import launched
    from scoresde.sampling import Sampler
    from scoresde.storage.checkpoint import read_checkpoint
    from scoresde.storage.labels import short_text

    if out is not None and out.suffix not in (".png", ".npz"):
        raise ValueError(f"--out must end in .png or .npz, got {out}; .npz takes data of every shape.")
    if trajectory and (out is None or out.suffix != ".npz"):
        raise ValueError(f"--trajectory is written as .npz, got --out {out}; name a .npz file.")
    if calibrated and average is not None:
        raise ValueError(
            f"a calibrated grid was fitted to the run's own average, got --average {average}; leave one of them out."
        )
    if seeds is not None and (n is not None or seed is not None):
        said = "-n" if seed is None else "--seed"
        raise ValueError(f"--seeds says how many samples there are and the seed of each, got {said} too; leave it out.")
    check_writable(out)
    way = parse(sampler, Sampler)
    stored = read_checkpoint(checkpoint)
    if calibrated:
        way = fitted(stored, way, raw)
    n, each = (64 if n is None else n), (seed or 0 if seeds is None else numbers(seeds))
    with launched() as rank:
        model = load_model(stored, device or str(rank.device), raw, average)
        check_out(out, model)
        begin = time.perf_counter()
        dealt = None if labels is None else classes(labels, model)
        options = {"denoise": denoise, "batch_size": batch_size, "trajectory": trajectory, "progress": not quiet}
        drawn = draw(rank, model, way, len(each) if isinstance(each, list) else n, each, options, dealt)
        seconds = time.perf_counter() - begin
    if drawn is None:  # not the main process
        return
    said = sampler.strip() + ", calibrated" if calibrated else short_text(way)
    show.settings({"sampler": said, "network calls": str(drawn.nfe), "seconds": f"{seconds:.2f}"})
    if out is None:
        show.done(f"{len(drawn.x)} samples drawn and not kept; to keep them add --out {usual(model)}")
        return
    write(out, drawn)
    show.done(f"{len(drawn.x)} samples in {out}")


def draw(
    rank: Rank,
    model: ScoreModel,
    way: Sampler,
    n: int,
    seeds: int | list[int],
    options: dict[str, Any],
    labels: list[int] | None = None,
) -> Samples | None:
    """This process's share of n samples, gathered in the main one.

    Args:
        rank: This process.
        model: On its device.
        way: The sampler.
        n: How many, of all processes.
        seeds: One per sample; or one number: of a generator for all in a single process, else of a seed for each.
        options: Of `scoresde.sampling.sample`.
        labels: Sample i has the one at i modulo their number; None for no labels.

    Returns:
        All samples, on the CPU where there are several processes; None in all but the main one.
    """
    import torch

    from scoresde.sampling import sample
    from scoresde.training.batches import derive

    rows = rank.rows(n, options["batch_size"])
    given: dict[str, Any] = {"seeds": seeds[rows.start : rows.stop]} if isinstance(seeds, list) else {}
    if isinstance(seeds, int) and rank.count > 1:
        given = {"seeds": [derive(seeds, row) for row in rows]}
    elif isinstance(seeds, int):
        given = {"generator": torch.Generator(next(model.parameters()).device).manual_seed(seeds)}
    if labels is not None:
        given["cond"] = torch.tensor([labels[row % len(labels)] for row in rows])
    options = {**options, "progress": options["progress"] and rank.main}
    return whole(rank, sample(model, len(rows), way, **given, **options), trajectory=options["trajectory"])


def usual(model: ScoreModel) -> str:
    """A name for samples of the model."""
    from scoresde.plots.image_grid import is_image

    return "grid.png" if is_image(model.event_shape or ()) else "samples.npz"


def check_out(out: Path | None, model: ScoreModel) -> None:
    """Refuses, before anything is drawn, a picture of what is none."""
    from scoresde.plots.image_grid import is_image

    if out is not None and out.suffix == ".png" and not is_image(model.event_shape or ()):
        raise ValueError(f"a .png shows pictures, got events of shape {model.event_shape}; write them as .npz.")


def whole(rank: Rank, drawn: Samples, *, trajectory: bool) -> Samples | None:
    """The samples of all processes in the main one, on the CPU where there are several; None in the others.

    Raises:
        ValueError: If trajectories are asked for and the times are not the same in every process.
    """
    import dataclasses

    import torch

    if rank.count == 1:
        return drawn
    x, calls, states = rank.gather(drawn.x), rank.gather(torch.tensor([drawn.nfe])), None
    if trajectory:
        along = drawn.x.unsqueeze(1) if drawn.trajectory is None else drawn.trajectory.transpose(0, 1)
        states = rank.gather(along)
        taus = rank.gather(torch.tensor([drawn.taus or ()], dtype=torch.float64)[: len(along)])
        if taus is not None and len(taus) and bool((taus != taus[0]).any()):
            raise ValueError("a trajectory needs the same times in every process, got others; fix the steps.")
    if x is None or calls is None:
        return None
    kept = None if states is None else states.transpose(0, 1)
    return dataclasses.replace(drawn, x=x, nfe=int(calls.max()), trajectory=kept)


def fitted(stored: Checkpoint, way: Sampler, raw: bool) -> Sampler:
    """The sampler on its calibrated grid.

    Raises:
        TypeError: If it has no grid.
        ValueError, FileNotFoundError: If none was fitted to these weights.
    """
    from scoresde.sampling import StepSampler
    from scoresde.storage.checkpoint import load_calibration

    if not isinstance(way, StepSampler):
        raise TypeError(f"--calibrated needs a sampler with a grid, got {way}; take one such as Adams(steps=10).")
    return load_calibration(stored, way, raw=raw).sampler


def classes(text: str, model: ScoreModel) -> list[int]:
    """Classes by name or, where names are no numbers themselves, by number, e.g. ``"0-3,bag"``.

    Raises:
        ValueError: If the network knows no classes, or not one of these.
    """
    from scoresde._core.suggest import nearest
    from scoresde.data.columns import is_number

    known = getattr(model.net, "num_classes", None)
    if known is None:
        raise ValueError(
            f"--labels needs a network that was trained on classes, got {text!r} for one without; train it with "
            'num_classes, such as --network "UNet(num_classes=10, null_class=True)".'
        )
    names = () if model.data is None or model.data.labels is None else model.data.labels
    found: list[int] = []
    for word in (part.strip() for part in text.split(",")):
        between = [(word[:i], word[i + 1 :]) for i, letter in enumerate(word) if letter == "-"]
        ends = [(names.index(a), names.index(b)) for a, b in between if a in names and b in names]
        if word in names:
            found.append(names.index(word))
        elif ends and ends[0][0] <= ends[0][1]:
            found += range(ends[0][0], ends[0][1] + 1)
        elif names and (not word.replace("-", "").isdigit() or any(map(is_number, names))):
            raise ValueError(f"no class is named {word!r}; {nearest(word, names)}")
        else:
            found += numbers(word, "labels")
    if wrong := [label for label in found if label >= known]:
        raise ValueError(f"labels must be one of 0 ... {known - 1}, got {wrong[0]}; leave --labels out for none.")
    return found


def numbers(text: str, what: str = "seeds") -> list[int]:
    """``"0-3,7"`` as [0, 1, 2, 3, 7]; ``what`` they are is said in the error.

    Raises:
        ValueError: If the text is not made of whole numbers and ranges.
    """
    found = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            some = range(int(first), int(last if dash else first) + 1)
            if not some:
                raise ValueError
            found += some
    except ValueError:
        raise ValueError(
            f'{what} are whole numbers and rising ranges, such as "0-63" or "3,5,8", got {text!r}.'
        ) from None
    return found


def write(out: Path, drawn: Samples) -> None:
    """A sheet, or numbers: ``x`` in the data's units, ``tau``, ``nfe``; trajectories in model units."""
    import numpy as np

    from scoresde.cli.parsing import atomic_output

    values = (drawn.x if drawn.description is None else drawn.data).cpu().numpy()
    if out.suffix == ".png":
        from scoresde.plots.image_grid import save_image_grid

        with atomic_output(out) as part:
            save_image_grid(part, values, drawn.description)
        return
    arrays = {"x": values, "tau": np.asarray(drawn.tau), "nfe": np.asarray(drawn.nfe)}
    if drawn.trajectory is not None:
        arrays |= {"trajectory": drawn.trajectory.cpu().numpy(), "taus": np.asarray(drawn.taus)}
    with atomic_output(out) as part:
        np.savez_compressed(part, allow_pickle=False, **arrays)
