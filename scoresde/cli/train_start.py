"""The start of ``scoresde train``: new weights, those of another run, or an earlier state; and which are trained."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from scoresde.model import ScoreModel

__all__ = ["begin_training", "earlier_run", "freeze_weights"]

_SHOWN = 6


def earlier_run(config: Path | None, start: Path | None, resumed: Path | None) -> dict[str, Any] | None:
    """The settings of the run that is repeated (``--config``), continued (``--resume``) or started from (``--from``).

    Args:
        config: A ``config.json``, or a run directory, or None.
        start: A run directory or checkpoint, or None.
        resumed: The run directory that is continued with its own data, or None.

    Returns:
        As of a ``config.json``: ``model``, ``training`` and ``about``; None for a run of its own.

    Raises:
        ValueError: If ``--from`` comes with one of the others, or its run does not record its settings.
    """
    from scoresde.cli.recorded_config import read_config, recorded_source

    if start is not None and (resumed is not None or config is not None):
        other = "--config" if resumed is None else "--resume"
        raise ValueError(f"--from starts a new run, got {other} too; leave one of them out.")
    if start is None:
        if resumed is not None and config is None and (resumed / "config.json").is_file():
            config = resumed
        return None if config is None else read_config(config)
    from scoresde.storage.checkpoint import read_checkpoint

    meta = read_checkpoint(start).meta
    if not isinstance(meta.get("model"), dict) or meta["model"].get("net") is None or "training" not in meta:
        raise ValueError(
            f"--from takes a run whose network and training are recorded, {start} has "
            f"{', '.join(sorted(meta)) or 'nothing'}; start in Python: sd.start_from(model, path), then sd.train."
        )
    return {"model": meta["model"], "training": meta["training"], "about": recorded_source(start)}


def begin_training(
    model: ScoreModel, record: dict[str, Any], seed: int, resume: bool, report: Callable[[str], None] | None
) -> None:
    """Gives a model the weights it starts from, and freezes those that are not trained.

    Args:
        model: With new weights.
        record: As of `StartOptions.record`; gets the names of new weights beside adapters, ``new``.
        seed: Of the adapters.
        resume: Whether its weights come from its own checkpoint.
        report: Receives sentences about what was copied.

    Raises:
        ValueError: If weights do not fit, or a pattern matches none, or all.
    """
    if "from" in record and not resume:
        from scoresde.storage.checkpoint import start_from

        copied = start_from(model, record["from"])
        record |= {"new": list(copied.new)} if "lora" in record else {}
        if report is not None:
            report(f"started from {record['from']}: {len(copied.copied)} weights copied")
            for text, names in (
                ("new, with initial weights", copied.new),
                ("with zeros for new input channels", copied.widened),
                ("of that run, not used", copied.unused),
            ):
                if names:
                    report(f"{text}: {_listed(names)}")
    if "lora" in record:
        from scoresde.training.adapters import add_adapters

        layers = add_adapters(model.net, record["lora"], trained=record["new"], seed=seed)
        if report is not None:
            trained = sum(p.numel() for p in model.net.parameters() if p.requires_grad)
            total = sum(p.numel() for p in model.net.parameters())
            report(
                f"adapters of rank {record['lora']} in {len(layers)} layers: {trained:,} of {total:,} numbers trained"
            )
    if "freeze" in record:
        frozen = freeze_weights(model.net, record["freeze"])
        if report is not None:
            report(f"{len(frozen)} weights are not trained: {_listed(frozen)}")


def freeze_weights(net: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Turns training off for the parameters whose names match a pattern; returns their names.

    Args:
        net: The network.
        patterns: As of file names: ``*`` stands for anything, such as ``blocks.0.*``.

    Raises:
        ValueError: If a pattern matches no parameter, or no parameter is left to train.
    """
    from scoresde._core.suggest import nearest

    weights = dict(net.named_parameters())
    frozen: list[str] = []
    for pattern in patterns:
        names = [name for name in weights if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            modules = {name.partition(".")[0] + ".*" for name in weights}
            raise ValueError(f"--freeze {pattern!r} matches no weight; {nearest(pattern, modules)}")
        frozen += [name for name in names if name not in frozen]
    if len(frozen) == len(weights):
        raise ValueError(f"some weights must be trained, --freeze {' '.join(patterns)} matches all; narrow it.")
    for name in frozen:
        weights[name].requires_grad_(False)
    return frozen


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
