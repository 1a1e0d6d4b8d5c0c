"""Options that several commands share, as types of parameters; `data_options` and `model_options` have groups."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "DATA_PANEL",
    "MOST_SEED",
    "Bins",
    "Checkpoint",
    "Condition",
    "Data",
    "Device",
    "Image",
    "Imports",
    "Label",
    "Method",
    "OptionalData",
    "Quiet",
    "Raw",
    "Read",
    "Sampler",
    "Seed",
]

DATA_PANEL = "Data"

MOST_SEED = 2**63 - 1
"""The largest seed, see `scoresde._core.checks.check_seed`."""

Checkpoint = Annotated[Path, typer.Argument(help="A run directory (its newest checkpoint is used), or one checkpoint.")]
Image = Annotated[Path, typer.Argument(help="The image; or a .npy file of events in data units.")]
Raw = Annotated[bool, typer.Option("--raw", help="Use the trained weights instead of their moving average (EMA).")]
Imports = Annotated[
    list[str],
    typer.Option(
        "--import",
        metavar="MODULE",
        help="Import a Python module of yours, whose classes can then be written like those of scoresde; repeatable.",
        show_default=False,
    ),
]
Device = Annotated[str | None, typer.Option("--device", help="cpu, cuda, cuda:1 …; default: a GPU if there is one.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bars.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=MOST_SEED, help="Random seed.")]

_DATA_OPTION = typer.Option(
    "--data",
    help="digits, fashion-mnist, a toy such as ring, a folder of images, hf:NAME, or a file: .npy, .csv, .parquet …",
    show_default=False,
    rich_help_panel=DATA_PANEL,
)
Data = Annotated[str, _DATA_OPTION]
OptionalData = Annotated[str | None, _DATA_OPTION]
Bins = Annotated[
    int | None,
    typer.Option(
        "--bins", help="The values in a file are integers 0 … bins-1 (8-bit images: 256).", rich_help_panel=DATA_PANEL
    ),
]
Read = Annotated[
    list[str],
    typer.Option(
        "--read",
        metavar="NAME=VALUE",
        help="Option of the data reader, e.g. size=32 for a folder of images, label=kind or columns=age,income for a "
        "table; repeatable. scoresde info --data lists them all.",
        show_default=False,
        rich_help_panel=DATA_PANEL,
    ),
]
Sampler = Annotated[
    str | None,
    typer.Option(
        "--sampler", help='E.g. "DDIM(steps=50)", "Adams(steps=40)"; default as in Python.', show_default=False
    ),
]
Method = Annotated[
    str | None,
    typer.Option(
        "--method",
        help='How the model is conditioned on what is known: "MMPS(iterations=10)", "PiGDM()", "TwistedSMC()" …',
        show_default=False,
    ),
]
Label = Annotated[
    str | None,
    typer.Option(
        "--label",
        help='Class, or classes in turn, by number or name, e.g. "3", "0-9" or "bag,coat"; default: no class.',
        show_default=False,
    ),
]
Condition = Annotated[
    list[str],
    typer.Option(
        "--condition",
        metavar="FILE|NAME=VALUE",
        help="Conditions in the units of the data: age=35, city=Rome, or a .npz file with arrays named as the "
        "conditions, one row for all results or one for each; repeatable. What is not given has no condition.",
        show_default=False,
    ),
]
