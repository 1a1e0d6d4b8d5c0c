"""How long a training takes on this machine, said before it starts, and commands that take less time."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from scoresde.data import Data
    from scoresde.model import ScoreModel
    from scoresde.training.defaults import Recipe

__all__ = ["announce_training_time", "changed_command", "smaller_network"]

_LONG = 900.0  # seconds: a shorter training is not worth an offer
_MINUTES, _SMALL_MINUTES = 20, 10  # of the offers


def announce_training_time(recipe: Recipe, data: Data, model: ScoreModel, out: Path, device: str | None) -> None:
    """Prints how long the training of images, series or volumes takes here, and shorter ways if that is long.

    A few updates are measured and undone. Nothing is printed for other data, for a run of minutes, and under a launcher
    of several processes.

    Args:
        recipe: Of the run; it has a reason if its network is the default.
        data: What is trained on.
        model: Built by the recipe.
        out: The run directory; each offer has its own.
        device: Where to train, or None.
    """
    from scoresde._core.durations import about
    from scoresde.cli import console
    from scoresde.training.run_length import estimate_seconds_per_update

    steps = recipe.training.steps
    about_data = data.description
    if (len(about_data.shape) < 2 and about_data.classes is None) or recipe.training.minutes is not None or not steps:
        return
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return
    per_step = estimate_seconds_per_update(model, data, recipe.training, device)
    console.print_status(f"{steps} steps take about {about(steps * per_step)} here, {per_step:.2g} s each (measured)")
    if steps * per_step < _LONG:
        return
    arguments = sys.argv[1:] if sys.argv[1:2] == ["train"] else ["train", "--data", data.description.name]
    shorter = changed_command(arguments, out=f"{out}-{_MINUTES}min", minutes=_MINUTES)
    count = round_down(60 * _MINUTES / per_step)
    console.print_command(f"in {_MINUTES} minutes, about {count} steps", shorter)
    network = smaller_network(recipe.network) if recipe.reason else None
    if network is None:
        return
    small = dataclasses.replace(recipe, network=network)
    per_step = estimate_seconds_per_update(small.build(data), data, small.training, device)
    count = round_down(60 * _SMALL_MINUTES / per_step)
    command = changed_command(arguments, out=f"{out}-small", network=network_text(network), minutes=_SMALL_MINUTES)
    console.print_command(f"a smaller network in {_SMALL_MINUTES} minutes, about {count} steps", command)


def smaller_network(network: nn.Module) -> nn.Module | None:
    """The network with half the channels and one block per resolution, also inside a wrapper; None if it is no UNet."""
    from scoresde.nn import QuantizedSkip, UNet

    if isinstance(network, QuantizedSkip):
        inner = smaller_network(network.net)
        return None if inner is None else QuantizedSkip(inner, network.bins, network.low, network.high)
    if not isinstance(network, UNet):
        return None
    return dataclasses.replace(network, channels=max(8, network.channels // 2), blocks=1)


def network_text(network: nn.Module) -> str:
    """A network as an option, without the shape of the data, which is filled in."""
    from scoresde.storage.setting_labels import short_text

    return re.sub(r"event_shape=\([^)]*\)(, )?", "", short_text(network))


def changed_command(arguments: Sequence[str], **options: Any) -> str:
    """A command line of ``scoresde`` with other values of some options, and one length of the run.

    Args:
        arguments: Its words after ``scoresde``.
        **options: Name to value; if ``minutes`` is among them, ``--steps`` is left out.
    """
    names = {f"--{name}" for name in options} | ({"--steps"} if "minutes" in options else set())
    words, skip = [], False
    for word in arguments:
        if not skip and word.partition("=")[0] not in names:
            words.append(word)
        skip = not skip and word in names
    added = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return shlex.join(["scoresde", *words, *added])


def round_down(number: float) -> int:
    """A number with its first two digits; at least 1."""
    whole = max(1, int(number))
    unit = 10 ** max(0, len(str(whole)) - 2)
    return whole // unit * unit
