r"""Posterior sampling without a Jacobian: the covariance of $x_0$ given x is that of isotropic Gaussian data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from scoresde._core.checks import check_positive
from scoresde.guidance.posterior.base import PosteriorMethod, Problem, Shift

__all__ = ["JacobianFree"]


@dataclass(frozen=True)
class JacobianFree(PosteriorMethod):
    r"""$\Delta = v A^T(\Gamma + v A A^T)^{-1} r$, $v = c\,\sigma^2/(\sigma^2 + c\,\alpha^2)$, c the prior variance.

    One network evaluation, no backward pass. Exact for data N(m, c I).

    Args:
        prior_variance: c, variance of each element of the data in model units.

    Raises:
        ValueError: If ``prior_variance`` is not positive and finite.

    Source: ΠGDM (Song et al. 2023) with the Jacobian of its own Gaussian assumption.
    """

    needs_jacobian: ClassVar[bool] = False

    prior_variance: float = 1.0

    def __post_init__(self) -> None:
        check_positive(prior_variance=self.prior_variance)

    def jacobian_products(self, measured: int) -> int:
        return 0

    def shift(self, problem: Problem) -> Shift:
        c, alpha, sigma = self.prior_variance, problem.alpha, problem.sigma
        variance = c * sigma * sigma / (sigma * sigma + c * alpha * alpha)
        solution = problem.solve(variance)
        return Shift(problem.adjoint(solution.value) * variance, solution.residual)
