r"""The DDPM sampler: $x_s \sim q(x_s \mid x_\tau, \hat x_0)$ in each step, on the times of the chain."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.elementwise import Scalar
from scoresde._core.suggest import nearest
from scoresde._core.tensors import combine
from scoresde.process import ou
from scoresde.process.parameterization import Prediction
from scoresde.process.sde import posterior_coefficients
from scoresde.sampling.base import Predict, StepSampler
from scoresde.sampling.reverse_variance import OptimalVariance

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
        known = ("beta", "beta_tilde", "learned")
        if not isinstance(self.rev_var, OptimalVariance) and self.rev_var not in known:
            raise ValueError(f"no rev_var is named {self.rev_var!r}; {nearest(str(self.rev_var), known)}")

    def step(
        self, predict: Predict, x: Any, tau: float, s: float, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        on_x0, on_x, rev_var = posterior_coefficients(tau, s)
        prediction = predict(x, tau)
        mean = prediction.step(on_x, on_x0, "x0")
        if s == 0:
            return mean, None
        if self.rev_var == "learned":
            return mean + noise() * _learned_std(prediction, ou.beta(tau, s), rev_var), None
        if self.rev_var == "beta":
            rev_var = ou.beta(tau, s)
        elif isinstance(self.rev_var, OptimalVariance):
            rev_var += on_x0 * on_x0 * self.rev_var.posterior_variance(tau)
        return combine(1.0, mean, math.sqrt(rev_var), noise()), None


def _learned_std(prediction: Prediction, beta: Scalar, beta_tilde: Scalar) -> Tensor:
    """Standard deviation between β̃ and β, interpolated in the logarithm by ``mix``, ``(B, *D)``."""
    if prediction.mix is None:
        raise ValueError(
            "a learned variance needs a model that returns one, got a prediction without mix; build it with "
            "ScoreModel(…, learned_variance=True), or take rev_var='beta_tilde' or optimal_variance(model, x0)."
        )
    low = 0.5 * ew.log(beta_tilde)
    return torch.exp(prediction.mix * (0.5 * ew.log(beta) - low) + low)
