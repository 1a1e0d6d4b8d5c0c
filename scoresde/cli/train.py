"""`scoresde train`: a model of some data, in a directory of checkpoints."""

from __future__ import annotations

from pathlib import Path

import typer

from scoresde.cli import options

__all__ = ["train"]


def train(
    data: str = options.DATA,
    out: Path = typer.Option(..., "--out", help="Directory for the checkpoints.", show_default=False),
    weighting: str = typer.Option(None, "--weighting", help='λ of the loss, e.g. "ELBO()", "MinSNR(gamma=5)".'),
    steps: int = typer.Option(None, "--steps", help="Updates of the weights."),
    batch_size: int = typer.Option(None, "--batch-size", help="Events per update."),
    lr: float = typer.Option(None, "--lr", help="Largest learning rate."),
    seed: int = typer.Option(0, "--seed", help="Of initial weights, data order and noise."),
    precision: str = typer.Option(None, "--precision", help="no, bf16 or fp16 (a GPU)."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run that is in --out."),
    save_every: int = typer.Option(1000, "--save-every", help="Updates between checkpoints."),
    network: str = options.NETWORK,
    schedule: str = options.SCHEDULE,
    process: str = options.PROCESS,
    parameterization: str = options.PARAMETERIZATION,
    times: str = options.TIMES,
    bins: int = options.BINS,
    test_fraction: float = options.TEST,
    split_seed: int = options.SPLIT,
    device: str = options.DEVICE,
    quiet: bool = options.QUIET,
) -> None:
    """Train a model.

    What is left out is chosen to suit the data's shape; `scoresde info` lists what there is.

    For example:

        scoresde train --data digits --out runs/digits

        scoresde train --data ring --out runs/ring --steps 2000 --weighting "MinSNR(gamma=5)"

        scoresde train --data faces.npy --bins 256 --network "UNet(channels=64)" --out runs/faces

        scoresde train --data digits --out runs/digits --resume
    """
    from scoresde.cli import show
    from scoresde.cli.objects import chosen_device, load_data
    from scoresde.cli.recipes import chosen
    from scoresde.training import train as run

    where = chosen_device(device)
    loaded = load_data(data, bins, test_fraction, split_seed)
    recipe = chosen(
        loaded.description,
        network=network,
        schedule=schedule,
        process=process,
        parameterization=parameterization,
        weighting=weighting,
        times=times,
        steps=steps,
        batch_size=batch_size,
        lr=lr,
        seed=seed,
        precision=precision,
    )
    model = recipe.build(loaded.description, seed)
    show.settings({"data": show.about(loaded), **show.recipe(recipe), "out": str(out)})
    settings = recipe.training
    trained = run(
        model,
        loaded,
        settings,
        run_dir=out,
        resume=resume,
        save_every=save_every,
        progress=not quiet,
        device=where,
    )
    loss = f"loss {trained.history[-1][1]:.4f}" if trained.history else "no update was due"
    show.done(f"{trained.step} updates, {loss}; saved in {trained.checkpoint}", f"scoresde sample {out} --out grid.png")
