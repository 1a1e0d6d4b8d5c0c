"""`Objective`: a loss at random timesteps, the mean of which over a batch is minimized."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import Field
from typing import Any, ClassVar

import torch
from torch import Tensor

from scoresde._core.annotations import CheckedArguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.call_inputs import as_input, check_entries, cond_inputs
from scoresde._core.checks import check_event_shape, check_kind
from scoresde._core.noise import Noise
from scoresde.model import Model, check_model
from scoresde.objective.observed import checked_mask
from scoresde.objective.timesteps import TimestepDraw, Timesteps
from scoresde.objective.weighting import Weighting
from scoresde.process.base import Process

__all__ = ["Objective"]


class Objective(CheckedArguments, ABC):
    """A loss of each sample at one random timestep. Subclasses are frozen dataclasses and define `at`.

    Attributes:
        weighting: λ.
        timesteps: How u is drawn.
    """

    weighting: Weighting
    timesteps: Timesteps
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    process_kind: ClassVar[type[Process]]
    """The processes whose models it trains."""

    def __post_init__(self) -> None:
        check_kind("weighting", self.weighting, Weighting)
        check_kind("timesteps", self.timesteps, Timesteps)

    def __call__(
        self,
        model: Model,
        x0: ArrayLike,
        generator: torch.Generator | None = None,
        *,
        observed: ArrayLike | None = None,
        **cond: object,
    ) -> Tensor:
        """The loss of each sample.

        Args:
            model: A network's or an exact model.
            x0: Data in the model's units, ``(B, *D)``.
            generator: Source of timesteps and noise; default torch's global one.
            observed: Whether each entry of ``x0`` is observed, bool, ``(B, *D)``; for data with missing values
                ``~x0.isnan()``. Missing values are not read, and the network gets ``observed``.
            **cond: Passed to the network.

        Returns:
            ``(B,)``, at least float32, differentiable in the model's parameters. Not divided by the event's size; 0 for
            an event of which nothing is observed.

        Raises:
            TypeError: If ``model`` is not a `Model`, its process is of another kind, or its network does not read
                ``observed``; if ``x0`` is not floating, or ``observed`` not bool.
            ValueError: If λ is negative, NaN, infinite or of a wrong shape, or ``observed`` has not the shape of x0.
        """
        check_model(model)
        self.check_process(model)
        x0, cond = as_input(model, x0, "x0"), cond_inputs(model, cond)
        mask = None if observed is None else checked_mask(model, x0, as_input(model, observed, "observed"))
        check_event_shape(x0, None, "x0")
        x0 = self.checked_events(model, x0, mask)
        for name, value in cond.items():
            if isinstance(value, Tensor) and value.ndim and len(value) not in (1, len(x0)):
                check_entries(name, value, len(x0), "event")
        noise = Noise(generator)
        draw = self.timesteps.draw(self.timesteps.uniforms(x0, noise), model.sde)
        return self.at(model, x0, draw, model.sde.draw_noise(x0, noise), observed=mask, **cond)

    def check_process(self, model: Model) -> None:
        """Refuses a model whose process is of another kind.

        Raises:
            TypeError: Names the losses that train it.
        """
        if not isinstance(model.sde, self.process_kind):
            raise TypeError(
                f"{type(self).__name__} trains models of {self.process_kind.__name__}, got a model of {model.sde}; use "
                "PathKL() or CrossEntropy() for categories, Loss() for a Gaussian process, and MixedLoss() for both."
            )

    def checked_events(self, model: Model, x0: Tensor, observed: Tensor | None) -> Tensor:
        """The events as states at τ = 0.

        Raises:
            TypeError: If they are not floating.
        """
        if not x0.is_floating_point():
            raise TypeError(f"x0 must be a floating tensor, got {x0.dtype}; scale the data first.")
        return x0

    @abstractmethod
    def at(
        self,
        model: Model,
        x0: Tensor,
        draw: TimestepDraw,
        noise: Tensor,
        *,
        observed: Tensor | None = None,
        **cond: object,
    ) -> Tensor:
        """The loss at given timesteps and noise.

        Args:
            model, x0, observed: See the call.
            draw: Timesteps.
            noise: Random numbers of the process, ``(B, *D)``; see `Process.draw_noise`.
            **cond: Passed to the network.

        Returns:
            ``(B,)``, as from the call.
        """
