"""Linear operators of general use: `Mask` keeps some entries, `Matrix` multiplies the flattened event."""

from __future__ import annotations

import math
from functools import cached_property

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_finite, check_tensor
from scoresde._core.tensors import has_values
from scoresde.guidance.operators.base import SpectralOperator

__all__ = ["Mask", "Matrix"]


class Mask(SpectralOperator):
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
        check_arguments(Mask, locals())
        if observed.dtype is not torch.bool:
            raise TypeError(f"observed must be a bool tensor, got {observed.dtype}; write mask > 0.")
        if per_observation and not observed.ndim:
            raise ValueError("observed must have shape (m, *D) with per_observation, got ().")
        rows = observed if per_observation else observed.unsqueeze(0)
        most = math.prod(rows.shape[1:])
        if has_values(observed) and observed.numel():
            most = int(rows.reshape(len(rows), -1).sum(1).max())
        self._set(observed, per_observation, most)

    def _set(self, observed: Tensor, per_observation: bool, measured: int) -> None:
        self.register_buffer("observed", observed)
        self.count, self._measured = (len(observed) if per_observation else None), measured
        self.event_shape = self.output_shape = tuple(observed.shape[1:] if per_observation else observed.shape)

    def apply(self, x0: Tensor) -> Tensor:
        return x0 * self.observed

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self.observed

    def support(self) -> Tensor:
        return self.observed

    def measured(self) -> int:
        return self._measured

    def select(self, index: Tensor) -> Mask:
        if self.count is None:
            return self
        selected = Mask.__new__(Mask)  # without reading values: this runs within sampling
        SpectralOperator.__init__(selected)
        selected._set(self.observed[index], True, self._measured)
        return selected

    def one(self, index: int) -> Mask:
        return self if self.count is None else Mask(self.observed[index])

    def gram_diagonal(self, like: Tensor) -> Tensor:
        return self.observed.to(like.dtype)

    def singular_values(self, like: Tensor) -> Tensor:
        observed = self.observed.to(like.dtype)
        return observed.flatten() if self.count is None else observed.flatten(1)

    def left(self, y: Tensor) -> Tensor:
        return y.reshape(len(y), math.prod(self.output_shape))

    def right(self, x0: Tensor) -> Tensor:
        return x0.reshape(len(x0), math.prod(self.event_shape))

    def right_adjoint(self, z: Tensor) -> Tensor:
        return z.reshape(len(z), *self.event_shape)


class Matrix(SpectralOperator):
    """A matrix that multiplies the flattened event. Its singular value decomposition is made once, on first use.

    Args:
        matrix: ``(M, d)``, floating.
        event_shape: Shape of one event with d elements; default ``(d,)``.

    Raises:
        TypeError: If the matrix is not floating.
        ValueError: If the shapes do not fit, or an entry is not finite.
    """

    weight: Tensor

    def __init__(self, matrix: Tensor, event_shape: tuple[int, ...] | None = None) -> None:
        super().__init__()
        check_tensor("matrix", matrix)
        check_arguments(Matrix, locals())
        if matrix.ndim != 2 or (event_shape is not None and math.prod(event_shape) != matrix.shape[1]):
            raise ValueError(f"matrix must have shape (M, d) for events of d elements, got {tuple(matrix.shape)}.")
        if not matrix.is_floating_point():
            raise TypeError(f"matrix must be floating, got {matrix.dtype}; write matrix.double().")
        check_finite(matrix, "matrix")
        self.register_buffer("weight", matrix)
        self.event_shape = (matrix.shape[1],) if event_shape is None else tuple(event_shape)
        self.output_shape = (matrix.shape[0],)

    def apply(self, x0: Tensor) -> Tensor:
        return self._flat(x0) @ self.weight.to(x0.dtype).mT

    def adjoint(self, y: Tensor) -> Tensor:
        return (y @ self.weight.to(y.dtype)).reshape(len(y), *self.event_shape)

    def _flat(self, x0: Tensor) -> Tensor:
        return x0.reshape(len(x0), self.weight.shape[1])

    @cached_property
    def _decomposition(self) -> tuple[Tensor, Tensor, Tensor]:
        return torch.linalg.svd(self.weight, full_matrices=False)

    def singular_values(self, like: Tensor) -> Tensor:
        return self._decomposition[1].to(like)

    def left(self, y: Tensor) -> Tensor:
        return y @ self._decomposition[0].to(y)

    def right(self, x0: Tensor) -> Tensor:
        return self._flat(x0) @ self._decomposition[2].to(x0).mT

    def right_adjoint(self, z: Tensor) -> Tensor:
        return (z @ self._decomposition[2].to(z)).reshape(len(z), *self.event_shape)
