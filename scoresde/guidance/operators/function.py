"""`Function`: any differentiable function as a measurement operator; its adjoint is that of its derivative."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde.guidance.operators.base import Operator

__all__ = ["Function"]


class Function(Operator):
    """A differentiable function of a batch of events, for example a clipped, quantized or nonlinear measurement.

    Posterior methods take it as linear around the current data estimate, so none is exact for it.

    Args:
        function: From events ``(B, *D)`` to measurements ``(B, *Y)``. It treats the events of a batch independently,
            draws nothing at random, and is differentiable by ``torch.func``.
        event_shape: Shape D of one event.
        output_shape: Shape Y of one measurement.

    Example:
        >>> import torch
        >>> from scoresde.guidance import Function
        >>> norm = Function(lambda x: x.square().sum(1, keepdim=True), (3,), (1,))
        >>> value, apply, adjoint = norm.linearize(torch.ones(2, 3))
        >>> value.flatten().tolist(), adjoint(torch.ones(2, 1)).tolist()
        ([3.0, 3.0], [[2.0, 2.0, 2.0], [2.0, 2.0, 2.0]])
    """

    def __init__(
        self, function: Callable[[Tensor], Tensor], event_shape: tuple[int, ...], output_shape: tuple[int, ...]
    ) -> None:
        super().__init__()
        check_arguments(Function, locals())
        if not callable(function):
            raise TypeError(f"function must be callable, got {type(function).__name__}; pass lambda x0: ….")
        self.function, self.event_shape, self.output_shape = function, tuple(event_shape), tuple(output_shape)

    def apply(self, x0: Tensor) -> Tensor:
        value = self.function(x0)
        expected = (*x0.shape[: x0.ndim - len(self.event_shape)], *self.output_shape)
        if tuple(value.shape) != expected:
            raise ValueError(
                f"the function must return shape {expected} for events {tuple(x0.shape)}, got {tuple(value.shape)}."
            )
        return value
