r"""`DataEstimate`: $\hat x_0(x, \tau)$ of a model with products of its transposed Jacobian, one backward pass each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor

from scoresde._core.elementwise import Scalar
from scoresde.model import Model

__all__ = ["DataEstimate", "with_signal"]

Value = TypeVar("Value")


class DataEstimate:
    """The data estimate of a model at one (x, τ), with gradients whatever the caller's grad mode is.

    The result is detached, unless ``x`` requires a gradient and grad mode is on.

    Args:
        model: The wrapped model.
        x: State, ``(B, *D)``.
        tau: OU time, a number or ``(B,)``.
        cond: The model's conditioning.
        jacobian: Whether products will be asked for.
    """

    def __init__(self, model: Model, x: Tensor, tau: Scalar, cond: Mapping[str, object], jacobian: bool) -> None:
        self._keeps_graph = torch.is_grad_enabled() and x.requires_grad
        if not jacobian:
            prediction = model.predict(x, tau, **cond)
            self.x0, self.mix = prediction.x0, prediction.mix
            return
        with torch.inference_mode(False), torch.enable_grad():
            self._x = x if self._keeps_graph else _usable(x).detach().requires_grad_()
            prediction = model.predict(self._x, tau, **{name: _usable(value) for name, value in cond.items()})
            self._x0 = prediction.x0
        self._out = prediction.out
        self.x0 = self._x0 if self._keeps_graph else self._x0.detach()
        mix = prediction.mix
        self.mix = mix if mix is None or self._keeps_graph else mix.detach()

    def check_differentiable(self) -> None:
        """One backward pass through the network, without a value read.

        Raises:
            ValueError: If the network's output does not depend on x by operations that autograd records.
        """
        out, gradient = self._out, None
        if out.requires_grad:
            with torch.inference_mode(False):
                (gradient,) = torch.autograd.grad(out.sum(), self._x, retain_graph=True, allow_unused=True)
        if gradient is None:
            raise ValueError(
                "a posterior method needs a network that is differentiable in x, but its output carries no gradient; "
                "look for detach(), no_grad(), .data or NumPy inside it, or take JacobianFree() or DDNM()."
            )

    def transposed_product(self, v: Tensor) -> Tensor:
        """Jᵀ v with J = ∂x̂_0/∂x, ``(B, *D)``."""
        with torch.inference_mode(False):
            (product,) = torch.autograd.grad(
                self._x0, self._x, _usable(v), retain_graph=True, create_graph=self._keeps_graph
            )
        return product


def with_signal(tau: Scalar, kind: torch.dtype) -> Scalar:
    r"""``tau``, but not past the time where α is the cube root of the type's rounding error.

    $V = (\sigma^2/\alpha)J$ is 0/0 where no signal is left. Before that, rounding errors of J grow as 1/α².
    """
    last = -math.log(torch.finfo(kind).eps) / 3.0
    return tau.clamp(max=last) if isinstance(tau, Tensor) else min(tau, last)


def _usable(value: Value) -> Value:
    """A tensor that autograd may use, even if it was made under ``torch.inference_mode``."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value  # pyright: ignore[reportReturnType]
