"""`scoresde train`: a model of some data, in a directory of checkpoints."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scoresde.cli import options

if TYPE_CHECKING:
    from scoresde.data import Augment, Data, Description
    from scoresde.model import ScoreModel
    from scoresde.training import Callback
    from scoresde.training.defaults import Recipe

__all__ = ["train"]

_LOSS, _RUN = "Loss and averages", "Run"


def train(
    data: str = typer.Option(None, "--data", help=options.DATA.help, rich_help_panel="Data"),
    out: Path = typer.Option(..., "--out", help="Directory for the run.", show_default=False),
    config: Path = typer.Option(None, "--config", help="Repeat the run of this config.json (or run directory)."),
    steps: int = typer.Option(None, "--steps", help="Updates of the weights."),
    batch_size: int = typer.Option(None, "--batch-size", help="Events per update, of all processes together."),
    optimizer: str = typer.Option(None, "--optimizer", help="adamw, or muon: orthogonal steps for matrices."),
    lr: float = typer.Option(None, "--lr", help="Largest learning rate."),
    warmup: int = typer.Option(None, "--warmup", help="Updates over which the learning rate rises."),
    lr_end: float = typer.Option(None, "--lr-end", help="Where it ends along half a cosine, as a fraction of --lr."),
    seed: int = typer.Option(None, "--seed", help="Of initial weights, data order and noise; default 0."),
    precision: str = typer.Option(None, "--precision", help="no, bf16 or fp16 (a GPU)."),
    accumulate: int = typer.Option(None, "--accumulate", help="Parts of each batch, one after another: less memory."),
    weighting: str = typer.Option(
        None, "--weighting", help='λ of the loss, e.g. "ELBO()", "MinSNR(gamma=5)".', rich_help_panel=_LOSS
    ),
    hybrid: float = typer.Option(
        None,
        "--hybrid",
        help='Learn the reverse variance, with this weight (0.001); needs --timesteps "DiscreteTimesteps()" and two outputs.',
        rich_help_panel=_LOSS,
    ),
    ema: float = typer.Option(None, "--ema", help="Decay of the averaged weights.", rich_help_panel=_LOSS),
    lengths: str = typer.Option(
        None, "--lengths", help='More averages by relative length, e.g. "0.05,0.1".', rich_help_panel=_LOSS
    ),
    dequantize: bool = typer.Option(
        None,
        "--dequantize/--centers",
        help="Spread levels over their cells, or train on the cells' centers; default as the network wants it.",
        rich_help_panel=_LOSS,
        show_default=False,
    ),
    augment: str = typer.Option(
        None,
        "--augment",
        help='Change pictures and tell the network how, e.g. "Augment(p=0.12)"; needs --network "UNet(augment=9)".',
        rich_help_panel=_LOSS,
    ),
    label_dropout: float = typer.Option(
        None, "--label-dropout", help="Share of labels that are hidden, for guidance.", rich_help_panel=_LOSS
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run that is in --out.", rich_help_panel=_RUN),
    save_every: int = typer.Option(
        1000, "--save-every", min=1, help="Updates between checkpoints.", rich_help_panel=_RUN
    ),
    watch_every: int = typer.Option(
        1000,
        "--watch-every",
        min=0,
        help="Updates between samples and losses by log-SNR; 0: none.",
        rich_help_panel=_RUN,
    ),
    track: str = typer.Option(
        None, "--track", help="Send metrics to these too, e.g. tensorboard.", rich_help_panel=_RUN
    ),
    network: str = options.NETWORK,
    schedule: str = options.SCHEDULE,
    process: str = options.PROCESS,
    parameterization: str = options.PARAMETERIZATION,
    timesteps: str = options.TIMESTEPS,
    bins: int = options.BINS,
    read: list[str] = options.READ,
    test_fraction: float = options.TEST,
    split_seed: int = options.SPLIT,
    device: str = options.DEVICE,
    quiet: bool = options.QUIET,
) -> None:
    """Train a model.

    What is left out is chosen to suit the data's shape; `scoresde info` lists what there is. Ctrl-C saves.

    For example:

        scoresde train --data digits --out runs/digits

        scoresde train --data ring --out runs/ring --steps 2000 --weighting "MinSNR(gamma=5)"

        scoresde train --data faces.npy --bins 256 --network "UNet(channels=64)" --out runs/faces

        scoresde train --resume --out runs/digits

        scoresde train --config runs/digits --out runs/again

        accelerate launch --multi_gpu --num_processes 8 -m scoresde train --data faces.npy --bins 256 --out runs/faces
    """
    from scoresde.cli import console as show
    from scoresde.cli.parsing import chosen_device, load_data
    from scoresde.cli.recorded_config import columns_of, located, read_config, source
    from scoresde.cli.sample import usual
    from scoresde.training import train as run

    where = chosen_device(device)
    if resume and data is None and config is None and (out / "config.json").is_file():
        config = out
    old = None if config is None else read_config(config)
    said = {"data": data, "bins": bins, "test_fraction": test_fraction, "split_seed": split_seed, "read": read}
    about = source({} if old is None else old["about"], **said)
    if about["data"] is None:
        raise ValueError(
            "what to train on must be named, got neither --data nor --config nor a run to --resume in --out; try "
            "--data digits."
        )
    loaded = load_data(**about)
    texts: dict[str, str | None] = {"network": network, "schedule": schedule, "process": process}
    texts |= {"parameterization": parameterization, "weighting": weighting, "timesteps": timesteps}
    numbers = {"steps": steps, "batch_size": batch_size, "optimizer": optimizer, "lr": lr, "seed": seed}
    numbers |= {"precision": precision, "accumulate": accumulate, "ema": ema, "lengths": _floats(lengths)}
    numbers |= {"warmup": warmup, "lr_end": lr_end, "dequantize": dequantize, "augment": _augment(augment)}
    numbers |= {"label_dropout": label_dropout}
    recipe = _recipe(loaded.description, old, texts, numbers, hybrid)
    model = _model(recipe, loaded)
    main = os.environ.get("RANK", "0") == "0"  # of the launcher's processes the one that speaks
    if main:
        show.settings({"data": show.about(loaded), **show.recipe(recipe), "out": str(out)})
    trained = run(
        model,
        loaded,
        recipe.training,
        run_dir=out,
        resume=resume,
        save_every=save_every,
        callbacks=_watch(out, loaded, watch_every, recipe.training.dequantize),
        trackers=[] if track is None else [name.strip() for name in track.split(",")],
        about={**about, "data": located(about["data"]), **columns_of(loaded)},
        progress=not quiet,
        device=where,
    )
    loss = f"loss {trained.history[-1][1]:.4f}" if trained.history else "no update was due"
    if not main:
        return
    then = shlex.join(["scoresde", "sample", str(out), "--out", usual(model)])
    show.done(f"{trained.step} updates, {loss}; saved in {trained.checkpoint}", then)


def _recipe(
    description: Description,
    old: dict[str, Any] | None,
    texts: dict[str, str | None],
    numbers: dict[str, Any],
    hybrid: float | None,
) -> Recipe:
    """The data's recipe, or a recorded one, with what was asked for."""
    from dataclasses import replace

    from scoresde.cli.overrides import chosen
    from scoresde.cli.recorded_config import recorded

    if old is None:
        recipe = chosen(description, **texts, **numbers)
    else:
        given = [f"--{name}" for name, text in texts.items() if text is not None]
        if given:
            raise ValueError(
                f"--config, or --resume without --data, says what the model is, got {', '.join(given)} too; leave one "
                "of them out."
            )
        recipe = recorded(old)
        asked = {name: value for name, value in numbers.items() if value is not None}
        recipe = replace(recipe, training=replace(recipe.training, **asked))
    if hybrid is None:
        return recipe
    loss = replace(recipe.training.loss, hybrid=hybrid)
    return replace(recipe, training=replace(recipe.training, loss=loss))


def _model(recipe: Recipe, data: Data) -> ScoreModel:
    from scoresde.model import ScoreModel

    model = recipe.build(data, recipe.training.seed)
    learned = recipe.training.loss.hybrid > 0
    return ScoreModel(model.net, model.sde, model.parameterization, model.event_shape, model.data, learned)


def _watch(out: Path, data: Data, every: int, dequantize: bool) -> list[Callback]:
    from scoresde.plots.image_grid import is_image, save_image_grid
    from scoresde.training import Callback, Monitor

    if every == 0:
        return []
    pictures = is_image(data.description.shape)
    show = (lambda path, x, about: save_image_grid(path.with_suffix(".png"), x, about)) if pictures else None
    return [Callback(every, Monitor(out, data, show=show, dequantize=dequantize))]


def _augment(text: str | None) -> Augment | None:
    from scoresde.cli.parsing import parse
    from scoresde.data import Augment

    return None if text is None else parse(text, Augment)


def _floats(text: str | None) -> tuple[float, ...] | None:
    try:
        return None if text is None else tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ValueError(f'--lengths are numbers with commas between, such as "0.05,0.1", got {text!r}.') from None
