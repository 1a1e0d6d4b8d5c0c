"""Linear operators: `Mask` keeps some entries, `Matrix` multiplies the flattened event."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scoresde._core.checks import check_finite, check_tensor
from scoresde.guidance.operators.base import LinearOperator

__all__ = ["Mask", "Matrix"]


class Mask(LinearOperator):
    """Entries of the event where ``observed`` is true; the others are 0 in the measurement, which keeps the shape.

    Args:
        observed: Bool, ``(*D)``, or ``(m, *D)`` with ``per_observation`` for a mask of each of m observations.
        per_observation: Whether the first axis counts observations.

    Raises:
        TypeError: If ``observed`` is not bool.
    """

    observed: Tensor

    def __init__(self, observed: Tensor, per_observation: bool = False) -> None:
        super().__init__()
        check_tensor("observed", observed)
        if observed.dtype is not torch.bool:
            raise TypeError(f"observed must be a bool tensor, got {observed.dtype}; write mask > 0.")
        self.register_buffer("observed", observed)
        self.count = len(observed) if per_observation else None
        self.event_shape = self.output_shape = tuple(observed.shape[1:] if per_observation else observed.shape)

    def apply(self, x0: Tensor) -> Tensor:
        return x0 * self.observed

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self.observed

    def support(self) -> Tensor:
        return self.observed

    def select(self, index: Tensor) -> Mask:
        return self if self.count is None else Mask(self.observed[index], per_observation=True)


class Matrix(LinearOperator):
    """A matrix that multiplies the flattened event.

    Args:
        matrix: ``(M, d)``, floating.
        event_shape: Shape of one event with d elements; default ``(d,)``.

    Raises:
        ValueError: If the shapes do not fit, or an entry is not finite.
    """

    weight: Tensor

    def __init__(self, matrix: Tensor, event_shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        check_tensor("matrix", matrix)
        if matrix.ndim != 2 or (event_shape is not None and math.prod(event_shape) != matrix.shape[1]):
            raise ValueError(f"matrix must have shape (M, d) for events of d elements, got {tuple(matrix.shape)}.")
        check_finite(matrix, "matrix")
        self.register_buffer("weight", matrix)
        self.event_shape = (matrix.shape[1],) if event_shape is None else tuple(event_shape)
        self.output_shape = (matrix.shape[0],)

    def apply(self, x0: Tensor) -> Tensor:
        return x0.reshape(len(x0), -1) @ self.weight.to(x0.dtype).mT

    def adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.weight.to(y.dtype)).reshape(len(y), *self.event_shape)
