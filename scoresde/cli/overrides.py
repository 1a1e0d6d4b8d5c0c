"""Options that replace parts of the default recipe; everything else keeps the default for the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from scoresde.cli.parsing import Modules, check_names, parse, parse_network

if TYPE_CHECKING:
    from scoresde.data import Description
    from scoresde.objective.base import Objective
    from scoresde.objective.timesteps import Timesteps
    from scoresde.objective.weighting import Weighting
    from scoresde.process.base import Process
    from scoresde.process.parameterization import NetworkOutput
    from scoresde.process.schedule import Schedule
    from scoresde.training.defaults import Recipe

__all__ = ["Overrides", "parse_overrides"]


@dataclass(frozen=True)
class Overrides:
    """Parts of a recipe that options replace; None keeps the default.

    Attributes:
        network: Text, since a network is built for the shape of the data.
        modules: The user's own modules, for the network.
    """

    network: str | None = None
    schedule: Schedule | None = None
    process: Process | None = None
    parameterization: NetworkOutput | None = None
    loss: Objective | None = None
    weighting: Weighting | None = None
    timesteps: Timesteps | None = None
    modules: Modules = ()

    @property
    def options(self) -> list[str]:
        """The options that were given."""
        names = ("network", "schedule", "process", "parameterization", "loss", "weighting", "timesteps")
        return [f"--{name}" for name in names if getattr(self, name) is not None]

    def recipe(
        self,
        description: Description,
        rows: int | None = None,
        conditions: Sequence[str] | None = None,
        **training: Any,
    ) -> Recipe:
        """The default recipe for the data, with these parts in it.

        Args:
            description: Of the data.
            rows: Training events; None if not known.
            conditions: Names of the conditions that the network reads, also one that is given without its own; None
                takes all of the data but class labels.
            **training: Fields of `Training`; None keeps the default. ``dequantize`` follows a network that is given.

        Raises:
            ValueError, TypeError: If the network's text cannot be read, or a setting is out of its range.
        """
        from scoresde.nn import MixedNet
        from scoresde.process.discrete import DiscreteProcess
        from scoresde.process.mixed import Mixed
        from scoresde.training.condition_defaults import chosen_conditions, network_conditions
        from scoresde.training.defaults import Recipe, default_recipe

        default = default_recipe(description, rows, conditions, self.process)
        sde = default.sde
        if self.schedule is not None:
            sde = sde.with_schedule(self.schedule)
        parts = {"weighting": self.weighting, "timesteps": self.timesteps}
        loss: Any = self.loss or default.training.loss
        loss = replace(loss, **{name: part for name, part in parts.items() if part is not None})
        settings = {name: value for name, value in training.items() if value is not None}
        network, reason = default.network, default.reason
        if self.network is not None:
            noised = sde.categorical if isinstance(sde, Mixed) else sde
            mask = isinstance(noised, DiscreteProcess) and noised.kernel == "absorbing"
            shape, classes, codes = description.model_shape, description.classes, description.codes
            inner = MixedNet.inner_shape(shape[0] - len(codes), codes, mask) if codes else shape
            declared = network_conditions(description, chosen_conditions(description, conditions), inner)
            network = parse_network(self.network, shape, self.modules, declared, classes, mask, codes)
            reason = ""
            settings.setdefault("dequantize", not getattr(network, "trained_on_bin_centers", False))
        training_settings = replace(default.training, loss=loss, **settings)
        return Recipe(network, sde, self.parameterization or default.parameterization, training_settings, reason)


def parse_overrides(
    *,
    network: str | None = None,
    schedule: str | None = None,
    process: str | None = None,
    parameterization: str | None = None,
    loss: str | None = None,
    weighting: str | None = None,
    timesteps: str | None = None,
    modules: Modules = (),
) -> Overrides:
    """The options as objects, without loading any data.

    Args:
        network, schedule, process, parameterization, loss, weighting, timesteps: Texts; None for those not given.
        modules: The user's own modules.

    Raises:
        ValueError, TypeError: If a text cannot be read; the error names the nearest class or field.
    """
    from torch import nn

    from scoresde.objective.base import Objective
    from scoresde.objective.timesteps import Timesteps
    from scoresde.objective.weighting import Weighting
    from scoresde.process.base import Process
    from scoresde.process.parameterization import NetworkOutput
    from scoresde.process.schedule import Schedule

    check_names(network, nn.Module, modules)
    return Overrides(
        network,
        None if schedule is None else parse(schedule, Schedule, modules),
        None if process is None else parse(process, Process, modules),
        None if parameterization is None else parse(parameterization, NetworkOutput, modules),
        None if loss is None else parse(loss, Objective, modules),
        None if weighting is None else parse(weighting, Weighting, modules),
        None if timesteps is None else parse(timesteps, Timesteps, modules),
        modules,
    )
