"""``scoresde train``: trains a model and writes a run directory of checkpoints."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from scoresde.cli import options
from scoresde.cli.data_options import TrainingDataOptions
from scoresde.cli.model_options import RecipeOptions
from scoresde.cli.train_options import LossOptions, StartOptions, TrainingOptions

if TYPE_CHECKING:
    from scoresde.model import ScoreModel
    from scoresde.training.loop import TrainingResult

__all__ = ["train"]

_RUN = "Run"


def train(
    *,
    data: options.OptionalData = None,
    out: Path = typer.Option(..., "--out", help="Run directory to write.", show_default=False),
    config: Path = typer.Option(
        None, "--config", help="Repeat the run of this config.json (or run directory).", show_default=False
    ),
    training: TrainingOptions,
    objective: LossOptions,
    start: StartOptions,
    save_every: int = typer.Option(
        1000, "--save-every", min=1, help="Training steps between checkpoints.", rich_help_panel=_RUN
    ),
    monitor_every: int = typer.Option(
        1000,
        "--monitor-every",
        min=0,
        help="Training steps between monitoring samples and losses by log-SNR; 0 turns monitoring off.",
        rich_help_panel=_RUN,
    ),
    track: str = typer.Option(
        None, "--track", help="Also send metrics to these trackers, e.g. tensorboard.", rich_help_panel=_RUN
    ),
    parts: RecipeOptions,
    reader: TrainingDataOptions,
    imports: options.Imports = [],
    device: options.Device = None,
    quiet: options.Quiet = False,
) -> None:
    """Train a model.

    Settings that are not given have defaults that suit the data; `scoresde info` lists the choices. Ctrl-C saves a
    checkpoint, and --resume continues from it.

    For example:

        scoresde train --data digits --out runs/digits

        scoresde train --data ring --out runs/ring --steps 2000 --weighting "MinSNR(gamma=5)"

        scoresde train --data fashion-mnist --out runs/fashion --minutes 20

        scoresde train --data faces.npy --bins 256 --network "UNet(channels=64)" --out runs/faces

        scoresde train --data book.txt --out runs/book

        scoresde train --data codes.npy --classes 27 --out runs/codes

        scoresde train --data digits --condition label --out runs/classes

        scoresde train --data people.csv --condition age,income --out runs/people

        scoresde train --from runs/digits --condition label --out runs/digit-classes

        scoresde train --resume --out runs/digits

        scoresde train --config runs/digits --out runs/again

        scoresde train --data digits --import mypackage.networks --network "MyNet()" --out runs/mine

        accelerate launch --multi_gpu --num_processes 8 -m scoresde train --data faces.npy --bins 256 --out runs/faces
    """
    from scoresde.cli.conditions import used_conditions
    from scoresde.cli.loading import check_device, load_data
    from scoresde.cli.parsing import import_modules
    from scoresde.cli.recorded_config import source_record
    from scoresde.cli.train_recipe import build_model, training_recipe, with_kinds_of
    from scoresde.cli.train_start import begin_training, earlier_run

    check_device(device)
    resume = start.resume
    old = earlier_run(config, start.run, out if resume and data is None else None)
    record = {} if old is None else old["about"]
    imports = [*record.get("imports", []), *imports]
    modules = import_modules(imports)
    overrides = parts.overrides(modules, objective.loss, objective.weighting)
    settings = training.settings(modules)
    source = reader.source(data, record)
    loaded = load_data(**source)

    from scoresde.cli import console
    from scoresde.cli.train_monitor import monitoring
    from scoresde.cli.training_time import announce_training_time
    from scoresde.training import train as run

    names = used_conditions(loaded.description, reader.condition)
    begun = start.record(record)
    stated = reader.condition is not None
    if begun and old is not None:
        loaded = with_kinds_of(old, loaded)
    recipe = training_recipe(loaded, old, overrides, settings, objective.hybrid, modules, resume, names, begun, stated)
    model = build_model(recipe, loaded)
    main_process = os.environ.get("RANK", "0") == "0"  # only one of the launcher's processes prints
    if main_process:
        summary = {"data": console.describe_data(loaded), **console.recipe_settings(recipe), "out": str(out)}
        console.print_settings(summary)
        console.print_columns(loaded.description)
    begin_training(model, begun, recipe.training.seed, resume, console.print_status if main_process else None)
    if main_process and not resume:
        announce_training_time(recipe, loaded, model, out, device)
    result = run(
        model,
        loaded,
        recipe.training,
        run_dir=out,
        resume=resume,
        save_every=save_every,
        callbacks=monitoring(out, loaded, monitor_every, recipe.training.dequantize),
        trackers=[] if track is None else [name.strip() for name in track.split(",")],
        about={**source_record(source, loaded, imports), **begun},
        progress=not quiet,
        status=console.print_status,
        device=device,
    )
    if main_process:
        _print_result(result, model, out)


def _print_result(result: TrainingResult, model: ScoreModel, out: Path) -> None:
    """Prints the last loss, where the run is, and the command that samples it."""
    from scoresde.cli import console
    from scoresde.cli.sample_output import default_output

    last = f"loss {result.history[-1][1]:.4f}" if result.history else "no step was left to do"
    command = shlex.join(["scoresde", "sample", str(out), "--out", default_output(model)])
    console.print_done(f"{result.step} steps, {last}; saved in {result.checkpoint}", command)
