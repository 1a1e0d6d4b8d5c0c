r"""The DDPM sampler: $x_s \sim q(x_s \mid x_\tau, \hat x_0)$ in each step, on the times of the chain."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from scoresde._core.tensors import combine
from scoresde.process import ou
from scoresde.process.sde import posterior_coefficients
from scoresde.sampling.base import Predict, StepSampler
from scoresde.sampling.optimal_variance import OptimalVariance
from scoresde.sampling.reverse_variance import check_rev_var, learned_std, reverse_variance

__all__ = ["DDPM"]


@dataclass(frozen=True)
class DDPM(StepSampler):
    r"""Ancestral sampling: $x_s = \tilde\mu(x, \hat x_0) + \sqrt{rev\_var}\,z$, without noise in the last step.

    Args:
        steps: Any number of steps; the chain's own length K gives the chain as trained.
        grid: Default `Chain`, which ends at 0.
        rev_var: The variance of a step. ``"beta_tilde"`` is the posterior's variance, optimal for data at one point.
            ``"beta"`` is the forward step's, optimal for unit normal data. An `OptimalVariance` lies between the two:
            `optimal_variance` estimates it from the model, exact for Gaussian data and any number of steps.
            ``"learned"`` is $\beta^{mix}\tilde\beta^{1 - mix}$ with the ``mix`` that the network returns.

    Raises:
        ValueError: If ``rev_var`` is another value; when sampling, if it is ``"learned"`` and the model returns no
            ``mix``.

    Example:
        >>> from scoresde import DDPM, GaussianMixture, sample
        >>> samples = sample(GaussianMixture.ring(), 4, DDPM(steps=50), seeds=range(4))
        >>> samples.nfe, samples.tau
        (50, 0.0)

    Source: Ho, Jain & Abbeel 2020, algorithm 2 and eqs. 6–7; Nichol & Dhariwal 2021, eq. 15 (learned); Bao et al. 2022
    (Analytic-DPM), eq. 7 (optimal).
    """

    rev_var: str | OptimalVariance = "beta_tilde"

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_rev_var(self.rev_var)

    def step(
        self, predict: Predict, x: Any, tau: float, s: float, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        on_x0, on_x, beta_tilde = posterior_coefficients(tau, s)
        prediction = predict(x, tau)
        mean = prediction.step(on_x, on_x0, "x0")
        if s == 0:
            return mean, None
        if self.rev_var == "learned":
            return mean + noise() * learned_std(prediction, ou.beta(tau, s), beta_tilde), None
        # the default is at hand, and a step is called often
        variance = beta_tilde if self.rev_var == "beta_tilde" else reverse_variance(self.rev_var, tau, s)
        return combine(1.0, mean, math.sqrt(variance), noise()), None
