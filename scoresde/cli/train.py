"""``scoresde train``: trains a model and writes a run directory of checkpoints."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import typer

from scoresde.cli import options

__all__ = ["train"]

_LOSS, _RUN = "Loss and averages", "Run"


def train(
    data: str = typer.Option(
        None, "--data", help=options.DATA.help, rich_help_panel=options.DATA.rich_help_panel, show_default=False
    ),
    out: Path = typer.Option(..., "--out", help="Run directory to write.", show_default=False),
    config: Path = typer.Option(
        None, "--config", help="Repeat the run of this config.json (or run directory).", show_default=False
    ),
    steps: int = typer.Option(None, "--steps", help="Number of training steps."),
    minutes: float = typer.Option(
        None,
        "--minutes",
        help="Train for about this time, in place of --steps: the pace is measured first; warmup, learning rate and "
        "EMA fit the number of steps that follows.",
        show_default=False,
    ),
    batch_size: int = typer.Option(None, "--batch-size", help="Events per training step, of all processes together."),
    optimizer: str = typer.Option(None, "--optimizer", help="adamw, or muon (orthogonalized steps for matrices)."),
    lr: float = typer.Option(None, "--lr", help="Largest learning rate."),
    warmup: int = typer.Option(None, "--warmup", help="Training steps over which the learning rate increases."),
    lr_end: float = typer.Option(
        None, "--lr-end", help="Final learning rate of the cosine decay, as a fraction of --lr; 1 for no decay."
    ),
    seed: int = typer.Option(None, "--seed", help="Random seed of initial weights, data order and noise; default 0."),
    precision: str = typer.Option(None, "--precision", help="Mixed precision: no, bf16 or fp16 (needs a GPU)."),
    accumulate: int = typer.Option(
        None, "--accumulate", help="Split each batch into this many parts and accumulate gradients; saves memory."
    ),
    loss: str = typer.Option(
        None,
        "--loss",
        help='Loss, e.g. "CrossEntropy()" for categories; default PathKL() for these, else Loss().',
        show_default=False,
        rich_help_panel=_LOSS,
    ),
    weighting: str = typer.Option(
        None, "--weighting", help='Loss weighting λ, e.g. "ELBO()", "MinSNR(gamma=5)".', rich_help_panel=_LOSS
    ),
    hybrid: float = typer.Option(
        None,
        "--hybrid",
        help='Learn the reverse variance, with this loss weight (0.001); needs --timesteps "DiscreteTimesteps()" and a '
        "network with two outputs.",
        rich_help_panel=_LOSS,
    ),
    ema: float = typer.Option(
        None, "--ema", help="Decay of the exponential moving average (EMA) of the weights.", rich_help_panel=_LOSS
    ),
    lengths: str = typer.Option(
        None,
        "--lengths",
        help='Keep more averages of the weights, by relative length, e.g. "0.05,0.1".',
        rich_help_panel=_LOSS,
    ),
    dequantize: bool = typer.Option(
        None,
        "--dequantize/--centers",
        help="Integer data: add uniform noise inside each bin, or train on the bin centers; default: what the network "
        "needs.",
        rich_help_panel=_LOSS,
        show_default=False,
    ),
    augment: str = typer.Option(
        None,
        "--augment",
        help='Transform images and pass the transform to the network, e.g. "Augment(p=0.12)"; needs --network '
        '"UNet(augment=9)".',
        rich_help_panel=_LOSS,
    ),
    condition_dropout: str = typer.Option(
        None,
        "--condition-dropout",
        help="Fraction of the events whose conditions are replaced by their nulls, for classifier-free guidance: a "
        'number for each condition, or "text=0.1,label=0.2"; default 0.1.',
        rich_help_panel=_LOSS,
        show_default=False,
    ),
    start: Path = typer.Option(
        None,
        "--from",
        help="Start from the network and weights of this run, on other --data or with a further --condition.",
        show_default=False,
        rich_help_panel=_RUN,
    ),
    freeze: list[str] = typer.Option(
        [],
        "--freeze",
        metavar="PATTERN",
        help='Do not train the weights whose names match, e.g. "blocks.*"; repeatable.',
        show_default=False,
        rich_help_panel=_RUN,
    ),
    lora: int = typer.Option(
        None,
        "--lora",
        min=1,
        help="With --from: train low-rank adapters of this rank in place of the weights (needs peft).",
        show_default=False,
        rich_help_panel=_RUN,
    ),
    resume: bool = typer.Option(False, "--resume", help="Continue the run in --out.", rich_help_panel=_RUN),
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
    network: str = options.NETWORK,
    schedule: str = options.SCHEDULE,
    process: str = options.PROCESS,
    parameterization: str = options.PARAMETERIZATION,
    timesteps: str = options.TIMESTEPS,
    bins: int = options.BINS,
    classes: int = options.CLASSES,
    read: list[str] = options.READ,
    condition: str = options.CONDITION,
    test_fraction: float = options.TEST,
    split_seed: int = options.SPLIT,
    imports: list[str] = options.IMPORT,
    device: str = options.DEVICE,
    quiet: bool = options.QUIET,
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
    from scoresde.cli.conditions import used_conditions, with_conditions
    from scoresde.cli.loading import check_device, load_data
    from scoresde.cli.overrides import parse_overrides
    from scoresde.cli.parse_lists import parse_shares
    from scoresde.cli.parsing import import_modules
    from scoresde.cli.recorded_config import data_options, source_record
    from scoresde.cli.train_options import monitoring, parse_augment, parse_lengths
    from scoresde.cli.train_recipe import build_model, check_length, training_recipe, with_kinds_of
    from scoresde.cli.train_start import begin_training, earlier_run, start_record

    check_device(device)
    check_length(steps, minutes)
    read = [*read, *([] if classes is None else [f"classes={classes}"])]
    old = earlier_run(config, start, out if resume and data is None else None)
    record = {} if old is None else old["about"]
    source = data_options(record, data=data, bins=bins, test_fraction=test_fraction, split_seed=split_seed, read=read)
    if source["data"] is None:
        raise ValueError(
            "training needs data, got neither --data nor --config nor a run to --resume in --out; try --data digits."
        )
    imports = [*record.get("imports", []), *imports]
    modules = import_modules(imports)
    overrides = parse_overrides(
        network=network,
        schedule=schedule,
        process=process,
        parameterization=parameterization,
        loss=loss,
        weighting=weighting,
        timesteps=timesteps,
        modules=modules,
    )
    training = {
        "steps": steps,
        "minutes": minutes,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "lr": lr,
        "warmup": warmup,
    }
    training |= {"lr_end": lr_end, "seed": seed, "precision": precision, "accumulate": accumulate, "ema": ema}
    training |= {
        "lengths": parse_lengths(lengths),
        "dequantize": dequantize,
        "augment": parse_augment(augment, modules),
    }
    training |= {"condition_dropout": parse_shares(condition_dropout)}
    source = with_conditions(source, condition)
    loaded = load_data(**source)

    from scoresde.cli import console
    from scoresde.cli.sample_output import default_output
    from scoresde.cli.training_time import announce_training_time
    from scoresde.training import train as run

    names = used_conditions(loaded.description, condition)
    begun = start_record(record, start, freeze, lora, resume)
    given = condition is not None
    if begun and old is not None:
        loaded = with_kinds_of(old, loaded)
    recipe = training_recipe(loaded, old, overrides, training, hybrid, modules, resume, names, begun, given)
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
    if not main_process:
        return
    last = f"loss {result.history[-1][1]:.4f}" if result.history else "no step was left to do"
    command = shlex.join(["scoresde", "sample", str(out), "--out", default_output(model)])
    console.print_done(f"{result.step} steps, {last}; saved in {result.checkpoint}", command)
