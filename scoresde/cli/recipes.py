"""How do options change the default recipe? Only what was asked for is replaced."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from scoresde.cli.objects import parse, parse_network
from scoresde.compare import Recipe, recipe_for
from scoresde.data import Description
from scoresde.parameterization import Parameterization
from scoresde.schedule import Schedule
from scoresde.sde import SDE
from scoresde.times import Times
from scoresde.weighting import Weighting

__all__ = ["chosen"]


def chosen(
    description: Description,
    *,
    network: str | None,
    schedule: str | None,
    process: str | None,
    parameterization: str | None,
    weighting: str | None,
    times: str | None,
    **training: Any,
) -> Recipe:
    """The recipe for the data, with the options that were given.

    Args:
        description: Of the data.
        network, schedule, process, parameterization, weighting, times: Texts, or None.
        **training: Fields of `Training`; None keeps the recipe's, but ``dequantize`` follows the network.

    Raises:
        ValueError, TypeError: If a text is not what it should be.
    """
    recipe = recipe_for(description)
    sde = recipe.sde if process is None else parse(process, SDE)
    if schedule is not None:
        sde = replace(sde, schedule=parse(schedule, Schedule))
    loss = recipe.training.loss
    if weighting is not None:
        loss = replace(loss, weighting=parse(weighting, Weighting))
    if times is not None:
        loss = replace(loss, times=parse(times, Times))
    settings = {name: value for name, value in training.items() if value is not None}
    net = recipe.network
    if network is not None:
        net = parse_network(network, description.shape)
        settings.setdefault("dequantize", not getattr(net, "on_centres", False))
    return Recipe(
        net,
        sde,
        recipe.parameterization if parameterization is None else parse(parameterization, Parameterization),
        replace(recipe.training, loss=loss, **settings),
    )
