"""What moves the samples of a batch? The model's v in the angle, on flat states, each with its own conditioning."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scoresde.likelihood.ode.jacobian import Function, QuadraticForms, choose_forms
from scoresde.likelihood.ode.solver import NotFinite
from scoresde.model import Model
from scoresde.process import ou

__all__ = ["AngleVelocity"]

_LAST = 17.0  # a clock that ends later is read here: alpha = 4e-8, which still tells x0 from eps in float64


@dataclass(frozen=True, eq=False)
class AngleVelocity:
    """v of some samples at angles of their own; a `Velocity`.

    Attributes:
        model: Answers with v.
        cond: Passed to the network; a tensor has an entry per sample of the whole.
        rows: Which samples of the whole these are.
        shape: The event's.
    """

    model: Model
    cond: dict[str, object]
    rows: slice
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Numbers in one event."""
        return math.prod(self.shape)

    @property
    def low(self) -> float:
        """The data's angle."""
        return float(ou.angle(self.model.sde.tau_min))

    @property
    def high(self) -> float:
        """The prior's angle."""
        return float(ou.angle(self.model.sde.tau_max))

    def tau(self, phi: Tensor) -> Tensor:
        """OU time at angles, inside the clock whatever the rounding."""
        sde = self.model.sde
        return torch.as_tensor(ou.tau_from_angle(phi)).clamp(sde.tau_min, min(sde.tau_max, _LAST))

    def __call__(self, rows: Tensor, phi: Tensor, x: Tensor) -> Tensor:
        """See `Velocity`."""
        return self.model(x.reshape(-1, *self.shape), self.tau(phi), **self.part(rows)).v.reshape(x.shape)

    def part(self, rows: Tensor) -> dict[str, Any]:
        """The conditioning of some of the samples, ``(R,)``."""
        return {name: _rows_of(value, rows, self.rows.start) for name, value in self.cond.items()}

    def forms(self, mode: str, x: Tensor) -> QuadraticForms:
        """How Jacobian products are computed, tried on the first of the samples, ``(B, d)``."""
        first = torch.zeros(min(len(x), 1), dtype=torch.int64, device=x.device)
        model, tau, cond = self.model, self.model.sde.tau_min, self.part(first)

        def output(x: Tensor) -> Tensor:
            return model(x.reshape(-1, *self.shape), tau, **cond).out.reshape(x.shape)

        velocity: Function = lambda x: self(first, x.new_full((len(x),), self.low), x)  # noqa: E731
        reverse = not any(held.is_inference() for held in [*model.parameters(), *model.buffers()])
        return choose_forms(mode, output, velocity, x[:1], reverse)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """Errors name a sample by its place in the whole."""
        try:
            yield
        except NotFinite as error:
            raise NotFinite(error.rows + (self.rows.start or 0), error.phi) from None


def _rows_of(value: object, rows: Tensor, start: int) -> object:
    """A conditioning tensor's part for some samples, usable by autograd also if it was made under inference_mode."""
    if not isinstance(value, Tensor):
        return value
    if value.ndim:
        value = value[(rows + start).to(value.device)]
    value = value.to(rows.device)
    return value.clone() if value.is_inference() else value
