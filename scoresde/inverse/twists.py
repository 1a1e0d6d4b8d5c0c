r"""Twists: estimates $\psi_\tau(x) = N(y; A\hat x_0, \Gamma + A V A^\top)$ of p(y | x_τ), with V for Cov(x_0 | x_τ).

A twist also proposes the next state. From x at τ a step of the chain is $x_s = \tilde\mu + e$, $e \sim N(0, rv\,I)$.
The residual r of the measurement then becomes $r - H^\top e$ plus noise of covariance R, nearly. The twist draws
e given that the sum is 0, for which $p(e)/q(e) = N(r; 0, R + rv\,H^\top H)/N(r; H^\top e, R)$.

H and R follow from V as if the data were Gaussian. Let c be the factor of $\hat x_0$ in $\tilde\mu$, v a mean
eigenvalue of V, and $f = \tilde\beta/(\tilde\beta + c^2v)$. Then the covariance at s is fV and
$\partial\hat x_0/\partial x_s = cfV/\tilde\beta$.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.annotations import CheckedArguments
from scoresde.inverse._whitened import WhitenedObservation
from scoresde.inverse.base import PosteriorContext

__all__ = ["ChainStep", "Twist", "TwistState", "take"]


@dataclass(frozen=True, eq=False)
class TwistState:
    """A twist at the particles' states.

    Attributes:
        x0: Data estimate, ``(m, P, d)``.
        residual: Whitened residual of the measurement, ``(m, P, k)``.
        log_psi: log ψ without the observation's ``log_constant``, nats, ``(m, P)``.
        columns: V times the columns of the basis, scaled by the gains, ``(m, P, d, k)``; None for a scalar V.
    """

    x0: Tensor
    residual: Tensor
    log_psi: Tensor
    columns: Tensor | None = None

    def take(self, parents: Tensor) -> TwistState:
        """The states of the parents, ``(m, P)``."""
        columns = None if self.columns is None else take(self.columns, parents)
        return TwistState(
            take(self.x0, parents), take(self.residual, parents), self.log_psi.gather(1, parents), columns
        )


@dataclass(frozen=True, eq=False)
class ChainStep:
    """A step of the chain.

    Attributes:
        tau, s: Its times, ``tau > s > 0``.
        rev_var: The chain's variance.
        normal: Draws unit normal noise like a tensor.
    """

    tau: float
    s: float
    rev_var: float
    normal: Callable[[Tensor], Tensor]


def take(x: Tensor, parents: Tensor) -> Tensor:
    """Entries of ``x``, ``(m, P, …)``, at the particles' ``parents``, ``(m, P)``."""
    rows = torch.arange(len(x), device=x.device).unsqueeze(1)
    return x[rows, parents]


class Twist(CheckedArguments, ABC):
    """A Gaussian estimate of p(y | x_τ) and the proposal of the next state that follows from it."""

    def prepared(self, observation: WhitenedObservation) -> WhitenedObservation:
        """The observation in the form that the twist reads."""
        return observation

    @abstractmethod
    def at(self, context: PosteriorContext, observation: WhitenedObservation, x: Tensor, tau: float) -> TwistState:
        """The twist at ``x``, ``(m, P, *D)``."""

    @abstractmethod
    def propose(self, observation: WhitenedObservation, state: TwistState, step: ChainStep) -> tuple[Tensor, Tensor]:
        """Deviations e from the chain's mean, ``(m, P, d)``, and log p(e)/q(e), ``(m, P)``.

        Args:
            observation: The observation.
            state: The twist at the step's first time.
            step: The step.
        """
