r"""Denoising diffusion null-space model: $\Delta = A^+ r$, so that the data estimate reproduces the measurement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scoresde.guidance.observation import Observation
from scoresde.guidance.operators import LinearOperator
from scoresde.guidance.posterior.base import PosteriorMethod, Problem, Shift

__all__ = ["DDNM"]


@dataclass(frozen=True)
class DDNM(PosteriorMethod):
    r"""$\Delta = A^+ r$: the part of $\hat x_0$ that A sees is replaced by that of the measurement.

    One network evaluation, no backward pass. The noise of the measurement is ignored and enters the samples. Exact
    where the measurement has no noise and fixes the whole event.

    Raises:
        TypeError: With an operator that is not linear.

    Source: Wang, Yu & Zhang 2023, "Zero-shot image restoration using denoising diffusion null-space model", eq. 13.
    """

    needs_jacobian: ClassVar[bool] = False

    def check(self, observation: Observation) -> None:
        if not isinstance(observation.operator, LinearOperator):
            raise TypeError(f"DDNM needs a linear operator, got {type(observation.operator).__name__}; take MMPS().")

    def jacobian_products(self, measured: int) -> int:
        return 0

    def shift(self, problem: Problem) -> Shift:
        solution = problem.solve(1.0, noise=False)  # A⁺ = Aᵀ (A Aᵀ)⁺
        return Shift(problem.adjoint(solution.value), solution.residual)
