r"""Posterior methods: the shift Δ of the data estimate that an observation causes, $\hat x_0' = \hat x_0 + \Delta$.

`PosteriorMethod` is the base of the methods; `Problem` is what they are given at one (x, τ). With
$J = \partial\hat x_0/\partial x$, the posterior covariance of $x_0$ given $x$ is $V = (\sigma^2/\alpha)J$.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from scoresde._core.annotations import CheckedArguments
from scoresde._core.elementwise import Scalar
from scoresde.guidance.observation import Observation
from scoresde.guidance.operators import Operator
from scoresde.guidance.posterior.conjugate_gradient import conjugate_gradient
from scoresde.process.base import Process

__all__ = ["PosteriorMethod", "Problem", "Shift"]

_LINEAR_ITERATIONS = 200


@dataclass(frozen=True)
class Shift:
    """What a method returns.

    Attributes:
        value: Δ, ``(B, *D)``, in model units.
        residual: Norm of the residual of an iterative solution over that of its right side, ``(B,)``; None where the
            solution is direct.
    """

    value: Tensor
    residual: Tensor | None = None


@dataclass(frozen=True)
class Problem:
    """A linear inverse problem at one (x, τ); a nonlinear operator is linearized at the data estimate.

    Attributes:
        operator: The operator of the batch.
        x0: Data estimate of the wrapped model, ``(B, *D)``.
        tau: OU time, a number or ``(B,)``.
        alpha, sigma: Signal and noise scale, numbers or ``(B, 1, …)`` for events.
        residual: r = y - A(x0), ``(B, *Y)``; 0 where nothing is measured.
        apply: A v for ``v`` of shape ``(B, *D)``.
        adjoint: Aᵀ w for ``w`` of shape ``(B, *Y)``.
        noise: Γ w for ``w`` of shape ``(B, *Y)``, on the measured entries.
        covariance: V v, or its transpose, ``(B, *D)``; one Jacobian product of the wrapped model.
        gram: Diagonal of A Aᵀ, ``(*Y)`` or ``(B, *Y)``, if that matrix is diagonal; else None.
        noise_variance: Diagonal of Γ, broadcast against ``(B, *Y)``, if Γ is diagonal; else None.
        measured: Largest number of measured entries of one observation.
        sde: The process.
    """

    operator: Operator
    x0: Tensor
    tau: Scalar
    alpha: Scalar
    sigma: Scalar
    residual: Tensor
    apply: Callable[[Tensor], Tensor]
    adjoint: Callable[[Tensor], Tensor]
    noise: Callable[[Tensor], Tensor]
    covariance: Callable[[Tensor], Tensor]
    gram: Tensor | None
    noise_variance: Tensor | None
    measured: int
    sde: Process

    def solve(self, weight: Scalar, noise: bool = True) -> Shift:
        r"""$(\Gamma + weight\,A A^T)^{-1} r$: elementwise if both matrices are diagonal, else by conjugate gradients.

        No network is evaluated. Where the matrix is 0, so is the solution.

        Args:
            weight: A number >= 0, or one per sample as ``(B, 1, …)`` for events.
            noise: Whether Γ counts.
        """
        weight = self.per_measurement(weight)
        if self.gram is not None and (self.noise_variance is not None or not noise):
            variance = weight * self.gram + (self.noise_variance if noise and self.noise_variance is not None else 0.0)
            positive = variance > 0
            return Shift((self.residual / variance.where(positive, 1.0)).where(positive, 0.0))

        def product(w: Tensor) -> tuple[Tensor, Tensor]:
            total = self.apply(self.adjoint(w)) * weight
            return (total + self.noise(w) if noise else total), w

        value, residual = conjugate_gradient(product, self.residual, min(self.measured, _LINEAR_ITERATIONS))
        return Shift(value, residual)

    def per_measurement(self, c: Scalar) -> Scalar:
        """A per-sample coefficient of events, ``(B, 1, …)``, as one of measurements."""
        return c if not isinstance(c, Tensor) or not c.ndim else c.reshape(len(c), *(1,) * (self.residual.ndim - 1))


class PosteriorMethod(CheckedArguments, ABC):
    """An approximation of the data estimate given an observation. Subclasses are frozen settings with `shift`."""

    needs_jacobian: ClassVar[bool] = True
    """Whether `Problem.covariance` is used, so that the wrapped model must be differentiable in x."""

    def check(self, observation: Observation) -> None:
        """Refuses an observation that the method cannot use; default: none.

        Raises:
            TypeError, ValueError: If it cannot.
        """

    @abstractmethod
    def jacobian_products(self, measured: int) -> int:
        """Number of Jacobian products per call, for so many measured entries."""

    @abstractmethod
    def shift(self, problem: Problem) -> Shift:
        """Δ at one (x, τ)."""
