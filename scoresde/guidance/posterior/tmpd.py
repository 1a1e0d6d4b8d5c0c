r"""Tweedie moment projected diffusions: MMPS with the row sums of $A V A^T$ in place of the matrix."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from scoresde.guidance.observation import Observation
from scoresde.guidance.posterior.base import PosteriorMethod, Problem, Shift

__all__ = ["TMPD"]


@dataclass(frozen=True)
class TMPD(PosteriorMethod):
    r"""$\Delta = V A^T(\Gamma + \mathrm{diag}(A V A^T 1))^{-1} r$, with negative row sums as 0.

    Exact where V is diagonal and the operator is a mask with independent noise. Three network evaluations.

    Raises:
        ValueError: With an observation whose noise is not independent.

    Source: Boys et al. 2023, "Tweedie moment projected diffusions for inverse problems", section 4.
    """

    def check(self, observation: Observation) -> None:
        if observation.noise_cov is not None:
            raise ValueError("TMPD needs independent noise, got noise_cov; pass noise_std, or take MMPS().")

    def jacobian_products(self, measured: int) -> int:
        return 2

    def shift(self, problem: Problem) -> Shift:
        assert problem.noise_variance is not None  # checked
        rows = problem.apply(problem.covariance(problem.adjoint(torch.ones_like(problem.residual))))
        variance = rows.clamp(min=0.0) + problem.noise_variance
        positive = variance > 0
        weighted = (problem.residual / variance.where(positive, 1.0)).where(positive, 0.0)
        return Shift(problem.covariance(problem.adjoint(weighted)))
