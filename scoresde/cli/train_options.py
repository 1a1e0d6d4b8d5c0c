"""Options of ``scoresde train``: the settings of the training, its loss, and the weights it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from scoresde.cli.parsing import Modules

__all__ = ["LossOptions", "StartOptions", "TrainingOptions", "check_length"]

_LOSS, _RUN = "Loss and averages", "Run"


def check_length(steps: int | None, minutes: float | None) -> None:
    """Refuses two lengths of one run.

    Raises:
        ValueError: If both are given.
    """
    if steps is not None and minutes is not None:
        raise ValueError(
            f"--steps or --minutes states how long to train, got {steps} and {minutes:g}; leave one of them out."
        )


@dataclass(frozen=True)
class TrainingOptions:
    """The fields of `Training`, by name; None keeps the default."""

    steps: Annotated[int | None, typer.Option("--steps", help="Number of training steps.")] = None
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes",
            help="Train for about this time, in place of --steps: the pace is measured first; warmup, learning rate "
            "and EMA fit the number of steps that follows.",
            show_default=False,
        ),
    ] = None
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Events per training step, of all processes together.")
    ] = None
    optimizer: Annotated[
        str | None, typer.Option("--optimizer", help="adamw, or muon (orthogonalized steps for matrices).")
    ] = None
    lr: Annotated[float | None, typer.Option("--lr", help="Largest learning rate.")] = None
    warmup: Annotated[
        int | None, typer.Option("--warmup", help="Training steps over which the learning rate increases.")
    ] = None
    lr_end: Annotated[
        float | None,
        typer.Option(
            "--lr-end", help="Final learning rate of the cosine decay, as a fraction of --lr; 1 for no decay."
        ),
    ] = None
    seed: Annotated[
        int | None,
        typer.Option("--seed", help="Random seed of initial weights, data order and noise; default 0."),
    ] = None
    precision: Annotated[
        str | None, typer.Option("--precision", help="Mixed precision: no, bf16 or fp16 (needs a GPU).")
    ] = None
    accumulate: Annotated[
        int | None,
        typer.Option(
            "--accumulate", help="Split each batch into this many parts and accumulate gradients; saves memory."
        ),
    ] = None
    ema: Annotated[
        float | None,
        typer.Option(
            "--ema", help="Decay of the exponential moving average (EMA) of the weights.", rich_help_panel=_LOSS
        ),
    ] = None
    lengths: Annotated[
        str | None,
        typer.Option(
            "--lengths",
            help='Keep more averages of the weights, by relative length, e.g. "0.05,0.1".',
            rich_help_panel=_LOSS,
        ),
    ] = None
    dequantize: Annotated[
        bool | None,
        typer.Option(
            "--dequantize/--centers",
            help="Integer data: add uniform noise inside each bin, or train on the bin centers; default: what the "
            "network needs.",
            rich_help_panel=_LOSS,
            show_default=False,
        ),
    ] = None
    augment: Annotated[
        str | None,
        typer.Option(
            "--augment",
            help='Transform images and pass the transform to the network, e.g. "Augment(p=0.12)"; needs --network '
            '"UNet(augment=9)".',
            rich_help_panel=_LOSS,
        ),
    ] = None
    condition_dropout: Annotated[
        str | None,
        typer.Option(
            "--condition-dropout",
            help="Fraction of the events whose conditions are replaced by their nulls, for classifier-free guidance: "
            'a number for each condition, or "text=0.1,label=0.2"; default 0.1.',
            rich_help_panel=_LOSS,
            show_default=False,
        ),
    ] = None

    def __post_init__(self) -> None:
        check_length(self.steps, self.minutes)

    def settings(self, modules: Modules) -> dict[str, Any]:
        """The fields, with texts as objects; None keeps the default.

        Raises:
            ValueError, TypeError: If a text cannot be read.
        """
        from scoresde.cli.parse_lists import parse_shares
        from scoresde.cli.parsing import parse
        from scoresde.data import Augment

        augment = None if self.augment is None else parse(self.augment, Augment, modules)
        shares = parse_shares(self.condition_dropout)
        return {**vars(self), "lengths": self._lengths(), "augment": augment, "condition_dropout": shares}

    def _lengths(self) -> tuple[float, ...] | None:
        try:
            return None if self.lengths is None else tuple(float(part) for part in self.lengths.split(","))
        except ValueError:
            raise ValueError(
                f'--lengths are numbers separated by commas, such as "0.05,0.1", got {self.lengths!r}.'
            ) from None


@dataclass(frozen=True)
class LossOptions:
    """The loss and its weighting, as text, and the weight of a learned reverse variance."""

    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            help='Loss, e.g. "CrossEntropy()" for categories; default PathKL() for these, else Loss().',
            show_default=False,
            rich_help_panel=_LOSS,
        ),
    ] = None
    weighting: Annotated[
        str | None,
        typer.Option("--weighting", help='Loss weighting λ, e.g. "ELBO()", "MinSNR(gamma=5)".', rich_help_panel=_LOSS),
    ] = None
    hybrid: Annotated[
        float | None,
        typer.Option(
            "--hybrid",
            help='Learn the reverse variance, with this loss weight (0.001); needs --timesteps "DiscreteTimesteps()" '
            "and a network with two outputs.",
            rich_help_panel=_LOSS,
        ),
    ] = None


@dataclass(frozen=True)
class StartOptions:
    """The weights that a run starts from, and which of them are trained."""

    run: Annotated[
        Path | None,
        typer.Option(
            "--from",
            help="Start from the network and weights of this run, on other --data or with a further --condition.",
            show_default=False,
            rich_help_panel=_RUN,
        ),
    ] = None
    freeze: Annotated[
        list[str],
        typer.Option(
            "--freeze",
            metavar="PATTERN",
            help='Do not train the weights whose names match, e.g. "blocks.*"; repeatable.',
            show_default=False,
            rich_help_panel=_RUN,
        ),
    ] = field(default_factory=list)
    lora: Annotated[
        int | None,
        typer.Option(
            "--lora",
            min=1,
            help="With --from: train low-rank adapters of this rank in place of the weights (needs peft).",
            show_default=False,
            rich_help_panel=_RUN,
        ),
    ] = None
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.", rich_help_panel=_RUN)] = False

    def record(self, earlier: Mapping[str, Any]) -> dict[str, Any]:
        """What ``config.json`` says of the start: ``from``, ``freeze`` and ``lora``; empty for a run from new weights.

        Args:
            earlier: The entry ``about`` of the earlier run; empty for none.

        Raises:
            ValueError: If a resumed run names weights to train, adapters come with frozen weights, or without
                ``--from``.
        """
        if self.resume:
            if self.freeze or self.lora is not None:
                option = "--freeze" if self.freeze else "--lora"
                raise ValueError(f"--resume trains the same weights as before, got {option}; leave it out.")
            return {name: earlier[name] for name in ("from", "freeze", "new", "lora") if name in earlier}
        if self.lora is not None and (self.run is None or self.freeze):
            got = "--freeze too" if self.freeze else "no --from"
            raise ValueError(f"--lora trains adapters of the weights of another run, and freezes the rest, got {got}.")
        record: dict[str, Any] = {} if self.run is None else {"from": str(self.run.absolute())}
        record |= {} if self.lora is None else {"lora": self.lora}
        return {**record, "freeze": list(self.freeze)} if self.freeze else record
