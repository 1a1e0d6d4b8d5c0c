r"""Measurement operators A of an observation y = A x_0 + noise: `Operator`, and those that are linear."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from scoresde._core.checks import check_event_shape
from scoresde._core.tensors import widest_dtype

__all__ = ["LinearOperator", "Operator", "SpectralOperator"]


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

    def one(self, index: int) -> Operator:
        """The operator of observation ``index`` alone, with one parameter set; itself if there is only one."""
        if self.count is not None:
            raise NotImplementedError(f"{type(self).__name__} has {self.count} parameter sets but no one().")
        return self

    def support(self) -> Tensor | None:
        """Which entries of the output are measured, bool, ``(*Y)`` or ``(count, *Y)``; None for all.

        The others are 0 in every measurement and carry no information.
        """
        return None

    def measured(self) -> int:
        """Largest number of measured entries of one observation."""
        return math.prod(self.output_shape)

    def linearize(self, x0: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        """The measurement of ``x0``, ``(B, *Y)``, and its derivative there: v ↦ A v and its adjoint w ↦ Aᵀ w."""
        value, pull, *_ = torch.func.vjp(self.apply, x0)
        _, push, *_ = torch.func.vjp(
            lambda w: pull(w)[0], torch.zeros_like(value)
        )  # linear, so its adjoint is A itself
        return value, lambda v: push(v)[0], lambda w: pull(w)[0]

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

    def linearize(self, x0: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        return self.apply(x0), self.apply, self.adjoint

    def gram_diagonal(self, like: Tensor) -> Tensor | None:
        """The diagonal of A Aᵀ, broadcast against ``(B, *Y)``, if that matrix is diagonal; None if not, or not known.

        Args:
            like: States its type and device.
        """
        return None

    def matrix(self) -> Tensor:
        """A as a matrix, ``(M, d)`` with M and d elements per measurement and event.

        Raises:
            ValueError: If there are several parameter sets.
        """
        if self.count is not None:
            raise ValueError(f"a matrix needs one parameter set, got {self.count}; take that of one(index).")
        reference = next(self.buffers(), torch.empty(0, dtype=torch.float64))
        kind = reference.dtype if reference.is_floating_point() else widest_dtype(reference.device)
        size = math.prod(self.event_shape)
        unit = torch.eye(size, dtype=kind, device=reference.device).reshape(size, *self.event_shape)
        return self.apply(unit).reshape(size, -1).mT


class SpectralOperator(LinearOperator):
    r"""A linear operator with a cheap singular value decomposition $A = U S V^T$, with R singular values."""

    @abstractmethod
    def singular_values(self, like: Tensor) -> Tensor:
        """S, ``(R,)`` or ``(B, R)``, not negative, in any order; in the type and on the device of ``like``."""

    @abstractmethod
    def left(self, y: Tensor) -> Tensor:
        """Uᵀ y, ``(B, R)``, of measurements ``(B, *Y)``."""

    @abstractmethod
    def right(self, x0: Tensor) -> Tensor:
        """Vᵀ x0, ``(B, R)``, of events ``(B, *D)``."""

    @abstractmethod
    def right_adjoint(self, z: Tensor) -> Tensor:
        """V z, ``(B, *D)``, of coordinates ``(B, R)``."""

    def pseudo_inverse(self, y: Tensor) -> Tensor:
        r"""$A^+ y = V S^{-1} U^T y$, ``(B, *D)``, without singular values below the rounding error of the largest."""
        s = self.singular_values(y)
        kept = s > s.amax(-1, keepdim=True) * (max(s.shape[-1], 1) * torch.finfo(s.dtype).eps)
        return self.right_adjoint((self.left(y) / s.where(kept, 1.0)).where(kept, 0.0))
