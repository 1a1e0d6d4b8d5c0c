r"""Velocity of the probability-flow ODE in the angle φ: $dx/d\phi = v(x, \phi)$, $\cos\phi = e^{-\tau}$."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scoresde.likelihood.ode.jacobian import QuadraticForms, StateFunction, choose_forms
from scoresde.likelihood.ode.solver import NotFinite
from scoresde.model import Model
from scoresde.process import ou

__all__ = ["AngleVelocity"]

_MAX_TAU = 17.0  # a later time is replaced by this one: alpha = 4e-8 still separates x0 from eps in float64


@dataclass(frozen=True, eq=False)
class AngleVelocity:
    """v of the samples of one batch, each at its own angle and with its own conditioning; a `VelocityFunction`.

    Attributes:
        model: Predicts v.
        cond: Passed to the network; a tensor has one entry per sample of the whole data set.
        rows: The rows of the batch in the whole data set.
        shape: Event shape.
    """

    model: Model
    cond: dict[str, object]
    rows: slice
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements in one event."""
        return math.prod(self.shape)

    @property
    def cost(self) -> int:
        """Network evaluations per call."""
        return self.model.cost

    @property
    def phi_min(self) -> float:
        """The angle of ``tau_min``, where the data are."""
        return float(ou.angle(self.model.sde.tau_min))

    @property
    def phi_max(self) -> float:
        """The angle of ``tau_max``, where the prior is."""
        return float(ou.angle(self.model.sde.tau_max))

    def tau(self, phi: Tensor) -> Tensor:
        """OU times of angles, clamped to the clock's range against rounding."""
        sde = self.model.sde
        return torch.as_tensor(ou.tau_from_angle(phi)).clamp(sde.tau_min, min(sde.tau_max, _MAX_TAU))

    def __call__(self, rows: Tensor, phi: Tensor, x: Tensor) -> Tensor:
        return self.model(x.reshape(-1, *self.shape), self.tau(phi), **self.conditioning(rows)).v.reshape(x.shape)

    def conditioning(self, rows: Tensor) -> dict[str, Any]:
        """The conditioning of some samples of the batch, ``(R,)``."""
        return {name: _select(value, rows, self.rows.start) for name, value in self.cond.items()}

    def quadratic_forms(self, mode: str, x: Tensor) -> QuadraticForms:
        """The function that computes Jacobian products, chosen by a test on the first sample of ``x``, ``(B, d)``."""
        first = torch.zeros(min(len(x), 1), dtype=torch.int64, device=x.device)
        model, tau, cond = self.model, self.model.sde.tau_min, self.conditioning(first)

        def output(x: Tensor) -> Tensor:
            return model(x.reshape(-1, *self.shape), tau, **cond).out.reshape(x.shape)

        velocity: StateFunction = lambda x: self(first, x.new_full((len(x),), self.phi_min), x)  # noqa: E731
        reverse = not any(tensor.is_inference() for tensor in [*model.parameters(), *model.buffers()])
        return choose_forms(mode, output, velocity, x[:1], reverse)

    @contextmanager
    def global_indices(self) -> Iterator[None]:
        """Errors raised inside name samples by their index in the whole data set, not in the batch."""
        try:
            yield
        except NotFinite as error:
            raise NotFinite(error.rows + (self.rows.start or 0), error.phi) from None


def _select(value: object, rows: Tensor, start: int) -> object:
    """A conditioning tensor's entries of some samples, usable by autograd even if it was made under inference_mode."""
    if not isinstance(value, Tensor):
        return value
    if value.ndim:
        value = value[(rows + start).to(value.device)]
    value = value.to(rows.device)
    return value.clone() if value.is_inference() else value
