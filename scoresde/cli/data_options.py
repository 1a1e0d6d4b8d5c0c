"""Groups of options of data: those that are scored, and those that a model is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scoresde.cli import options
from scoresde.cli.options import DATA_PANEL

if TYPE_CHECKING:
    from scoresde.cli.held_out import HeldOut
    from scoresde.storage.checkpoint import Checkpoint

__all__ = ["HeldOutOptions", "TrainingDataOptions"]

_TestFraction = Annotated[
    float | None,
    typer.Option(
        "--test-fraction",
        help="Fraction of the events that is held out, for data without a test part; default 0.2.",
        rich_help_panel=DATA_PANEL,
    ),
]
_SplitSeed = Annotated[
    int | None,
    typer.Option(
        "--split-seed",
        min=0,
        help="Random seed of the choice of held-out events; default 0.",
        rich_help_panel=DATA_PANEL,
    ),
]


@dataclass(frozen=True)
class HeldOutOptions:
    """Which events are scored: the data, their part, and how they are read and split."""

    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="Name or path of the data; default: what the model was trained on, read and split in the same way.",
            show_default=False,
        ),
    ] = None
    part: Annotated[
        str | None,
        typer.Option(
            "--part",
            help="test, train or all; default test (verify: all where it has fewer than 64 events), and all for --data "
            "that the model was not trained on.",
            show_default=False,
        ),
    ] = None
    bins: options.Bins = None
    read: options.Read = field(default_factory=list)
    test_fraction: _TestFraction = None
    split_seed: _SplitSeed = None

    def __post_init__(self) -> None:
        from scoresde.cli.held_out import check_part

        check_part(self.part, self.test_fraction)

    def select(self, checkpoint: Path, stored: Checkpoint, limit: int | None) -> HeldOut:
        """The events, at most ``limit``; see `select_events`."""
        from scoresde.cli.held_out import select_events

        source = {name: value for name, value in vars(self).items() if name != "part"}
        return select_events(checkpoint, stored, self.part, limit, source)


@dataclass(frozen=True)
class TrainingDataOptions:
    """How the data of a training are read and split, and which conditions they give."""

    bins: options.Bins = None
    classes: Annotated[
        int | None,
        typer.Option(
            "--classes",
            help="The values in a file are categories 0 … classes-1, without an order (bits: 2).",
            rich_help_panel=DATA_PANEL,
        ),
    ] = None
    read: options.Read = field(default_factory=list)
    condition: Annotated[
        str | None,
        typer.Option(
            "--condition",
            help="What the model is conditioned on: label for the classes of the data, names of entries of a .npz "
            "file, of columns of a table, or a second folder of images with the same file names; known for "
            "any part of the event itself, for imputation; separated by commas.",
            show_default=False,
            rich_help_panel=DATA_PANEL,
        ),
    ] = None
    test_fraction: _TestFraction = None
    split_seed: _SplitSeed = None

    def source(self, data: str | None, recorded: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of `load_data`: those of an earlier run, or none, replaced by the options.

        Raises:
            ValueError: If neither names data, or they have none of the conditions.
        """
        from scoresde.cli.conditions import with_conditions
        from scoresde.cli.recorded_config import data_options

        read = [*self.read, *([] if self.classes is None else [f"classes={self.classes}"])]
        split = {"test_fraction": self.test_fraction, "split_seed": self.split_seed}
        source = data_options(recorded, data=data, bins=self.bins, **split, read=read)
        if source["data"] is None:
            raise ValueError(
                "training needs data, got neither --data nor --config nor a run to --resume in --out; try --data "
                "digits."
            )
        return with_conditions(source, self.condition)
