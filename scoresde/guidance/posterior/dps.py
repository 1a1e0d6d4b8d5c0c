r"""Diffusion posterior sampling: $\Delta \propto J^T A^T r$, as if $x_0$ given x were known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_integer, check_positive
from scoresde._core.tensors import expand, has_values
from scoresde.guidance.observation import Observation
from scoresde.guidance.posterior.base import PosteriorMethod, Problem, Shift
from scoresde.guidance.posterior.conjugate_gradient import norm_event
from scoresde.process.sde import posterior_coefficients

__all__ = ["DPS"]


@dataclass(frozen=True)
class DPS(PosteriorMethod):
    r"""With the noise's weight, $\Delta = V A^T\Gamma^{-1} r$; or as published, a step of fixed length for each sample.

    The score of N(y; A x̂_0, Γ) ignores the variance of $x_0$ given x. It is a good approximation where that variance is
    small beside the noise, and becomes exact as the noise grows (both tend to 0). Two network evaluations.

    As published, a step of a DDPM chain adds $\zeta J^T A^T r/\|r\|$ to x. A model does not know the step, so the
    length of the chain is a setting: $\Delta = \zeta J^T A^T r/(\|r\|\,a)$, where a multiplies $\hat x_0$ in the mean
    of that chain's step. Sampled by ``DDPM(steps)`` on the same number of steps this is the published method. Its
    target depends on ζ and on the number of steps, not only on the observation and its noise.

    Args:
        zeta: Length ζ of the published steps; None for the noise's weight.
        steps: Length of the chain; only read with ``zeta``.

    Raises:
        ValueError: If ``zeta`` is not positive or ``steps`` not a positive integer; for an observation without noise
            where ``zeta`` is None.

    Source: Chung et al. 2023, "Diffusion posterior sampling for general noisy inverse problems", algorithm 1; step size
    as in the released code.
    """

    zeta: float | None = None
    steps: int = 1000

    def __post_init__(self) -> None:
        if self.zeta is not None:
            check_positive(zeta=self.zeta)
        check_integer("steps", self.steps)

    def check(self, observation: Observation) -> None:
        if self.zeta is None and not _has_noise(observation):
            raise ValueError(
                "DPS weights the residual by the inverse of the noise's covariance, which must be positive definite; "
                "state the noise, or take MMPS() or DPS(zeta=1.0)."
            )

    def jacobian_products(self, measured: int) -> int:
        return 1

    def shift(self, problem: Problem) -> Shift:
        if self.zeta is None:
            solution = problem.solve(0.0)
            return Shift(problem.covariance(problem.adjoint(solution.value)), solution.residual)
        r = problem.residual
        norm = norm_event(r)
        schedule = problem.sde.schedule
        u = schedule.u(problem.tau) - 1.0 / self.steps
        first = u <= 1e-9
        s = ew.where(first, 0.0 * u, schedule.tau(ew.where(first, 0.0 * u, u)))
        on_x0 = expand(posterior_coefficients(problem.tau, s)[0], problem.x0)
        factor = self.zeta * problem.alpha / (on_x0 * problem.sigma * problem.sigma)  # V = (sigma² / alpha) J
        direction = expand(1.0 / norm, r)
        assert isinstance(direction, Tensor)
        return Shift(problem.covariance(problem.adjoint(r * direction)) * factor)


def _has_noise(observation: Observation) -> bool:
    if observation.noise_cov is not None:
        return not has_values(observation.noise_cov) or int(torch.linalg.cholesky_ex(observation.noise_cov).info) == 0
    assert observation.noise_std is not None
    std, support = observation.noise_std, observation.operator.support()
    if not has_values(std):
        return True
    measured = std.expand(observation.operator.output_shape)
    return bool((measured > 0).all() if support is None else (measured.expand_as(support)[support] > 0).all())
