r"""Measurement operators A of an observation y = A x_0 + noise: `Operator`, and `LinearOperator` with an adjoint."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from scoresde._core.checks import check_event_shape

__all__ = ["LinearOperator", "Operator"]


class Operator(nn.Module, ABC):
    """A differentiable function from events to measurements; per-sample, without randomness.

    Attributes:
        event_shape: Shape D of one event, in model units.
        output_shape: Shape Y of one measurement.
        count: Number of parameter sets, one per observation (a mask per row, for example); None for one that serves
            all samples.
    """

    event_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    count: int | None = None

    @abstractmethod
    def apply(self, x0: Tensor) -> Tensor:
        """The measurement without noise, ``(B, *Y)``, of events ``(B, *D)``."""

    def select(self, index: Tensor) -> Operator:
        """The operator of a batch whose sample b belongs to observation ``index[b]``; itself with one parameter set.

        Args:
            index: Integers of shape ``(B,)`` on the operator's device.
        """
        if self.count is not None:
            raise NotImplementedError(f"{type(self).__name__} has {self.count} parameter sets but no select.")
        return self

    def support(self) -> Tensor | None:
        """Which entries of the output are measured, bool, ``(*Y)`` or ``(count, *Y)``; None for all.

        The others are 0 in every measurement and carry no information.
        """
        return None

    def forward(self, x0: Tensor) -> Tensor:
        """`apply` after a check of the shape.

        Raises:
            ValueError: If the events have another shape.
        """
        check_event_shape(x0, self.event_shape, "x0")
        return self.apply(x0)


class LinearOperator(Operator):
    """A linear operator: `apply` is A, `adjoint` its transpose."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """The adjoint Aᵀ y, ``(B, *D)``, of measurements ``(B, *Y)``."""

    def matrix(self) -> Tensor:
        """A as a matrix, ``(M, d)`` with M and d elements per measurement and event.

        Raises:
            ValueError: If there are several parameter sets.
        """
        if self.count is not None:
            raise ValueError(f"a matrix needs one parameter set, got {self.count}; select one first.")
        reference = next(iter([*self.buffers(), *self.parameters()]), torch.empty(0))
        kind = reference.dtype if reference.is_floating_point() else torch.float64
        size = 1
        for n in self.event_shape:
            size *= n
        unit = torch.eye(size, dtype=kind, device=reference.device).reshape(size, *self.event_shape)
        return self.apply(unit).reshape(size, -1).mT
