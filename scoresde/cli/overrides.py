"""How do options change the default recipe? Only what was asked for is replaced."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from scoresde.cli.parsing import parse, parse_network
from scoresde.data import Description
from scoresde.objective.timesteps import Timesteps
from scoresde.objective.weighting import Weighting
from scoresde.process.parameterization import Parameterization
from scoresde.process.schedule import Schedule
from scoresde.process.sde import SDE
from scoresde.training.defaults import Recipe, default_recipe

__all__ = ["chosen"]


def chosen(
    description: Description,
    *,
    network: str | None,
    schedule: str | None,
    process: str | None,
    parameterization: str | None,
    weighting: str | None,
    timesteps: str | None,
    **training: Any,
) -> Recipe:
    """The recipe for the data, with the options that were given.

    Args:
        description: Of the data.
        network, schedule, process, parameterization, weighting, timesteps: Texts, or None.
        **training: Fields of `Training`; None keeps the recipe's, but ``dequantize`` follows the network.

    Raises:
        ValueError, TypeError: If a text is not what it should be.
    """
    recipe = default_recipe(description)
    sde = recipe.sde if process is None else parse(process, SDE)
    if schedule is not None:
        sde = replace(sde, schedule=parse(schedule, Schedule))
    loss = recipe.training.loss
    if weighting is not None:
        loss = replace(loss, weighting=parse(weighting, Weighting))
    if timesteps is not None:
        loss = replace(loss, timesteps=parse(timesteps, Timesteps))
    settings = {name: value for name, value in training.items() if value is not None}
    net = recipe.network
    if network is not None:
        net = parse_network(network, description.shape)
        settings.setdefault("dequantize", not getattr(net, "on_centers", False))
    return Recipe(
        net,
        sde,
        recipe.parameterization if parameterization is None else parse(parameterization, Parameterization),
        replace(recipe.training, loss=loss, **settings),
    )
