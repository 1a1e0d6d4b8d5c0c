r"""Moment matching posterior sampling: $\Delta = V A^T(\Gamma + A V A^T)^{-1} r$ with the model's own covariance V."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from scoresde._core.checks import check_integer
from scoresde.guidance.posterior.base import PosteriorMethod, Problem, Shift
from scoresde.guidance.posterior.conjugate_gradient import conjugate_gradient

__all__ = ["MMPS"]


@dataclass(frozen=True)
class MMPS(PosteriorMethod):
    r"""$\Delta = V A^T(\Gamma + A V A^T)^{-1} r$ with $V = (\sigma^2/\alpha)\,\partial\hat x_0/\partial x$.

    V is the covariance of $x_0$ given x, so the method is exact for Gaussian data and any linear operator, if there
    are as many iterations as measured entries. Products with V are products with the Jacobian's transpose, which is
    symmetric for an exact model. The system is solved by conjugate gradients; each iteration costs one product, and Δ
    is summed within them.

    Args:
        iterations: Number of iterations; at most the number of measured entries are used.

    Raises:
        ValueError: If ``iterations`` is not a positive integer.

    Source: Rozet et al. 2024, "Learning diffusion priors from observations by expectation maximization", section 4.2.
    """

    iterations: int = 3

    def __post_init__(self) -> None:
        check_integer("iterations", self.iterations)

    def jacobian_products(self, measured: int) -> int:
        return min(self.iterations, measured)

    def shift(self, problem: Problem) -> Shift:
        def product(w: Tensor) -> tuple[Tensor, Tensor]:
            covariance = problem.covariance(problem.adjoint(w))
            return problem.apply(covariance) + problem.noise(w), covariance

        return Shift(*conjugate_gradient(product, problem.residual, min(self.iterations, problem.measured)))
