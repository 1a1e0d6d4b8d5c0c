"""`IsotropicTwist`: the twist with Cov(x_0 | x_τ) = v I."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.inverse._whitened import WhitenedObservation, log_normal
from scoresde.inverse.base import PosteriorContext
from scoresde.inverse.twists import ChainStep, Twist, TwistState
from scoresde.process import ou
from scoresde.process.sde import posterior_coefficients
from scoresde.sampling.optimal_variance import OptimalVariance

__all__ = ["IsotropicTwist"]


@dataclass(frozen=True)
class IsotropicTwist(Twist):
    r"""V = v I, without a product with the Jacobian: one network evaluation per step.

    Args:
        variance: v at each time, as `optimal_variance` estimates it for a model. Default: that of unit normal data,
            $v = \sigma^2$, as in ΠGDM.

    Source: Song, Vahdat, Mardani & Kautz 2023 (ΠGDM), eq. 8, for the estimate of p(y | x_τ).
    """

    variance: OptimalVariance | None = None

    def _v(self, tau: float) -> float:
        return float(ou.beta(tau, 0.0)) if self.variance is None else self.variance.posterior_variance(tau)

    def at(self, context: PosteriorContext, observation: WhitenedObservation, x: Tensor, tau: float) -> TwistState:
        x0 = context.predict(x, tau).x0.reshape(*x.shape[:2], -1)
        residual = observation.residual(x0)
        variance = observation.gains.square() * self._v(tau) + 1.0
        return TwistState(x0, residual, log_normal(residual, variance))

    def propose(self, observation: WhitenedObservation, state: TwistState, step: ChainStep) -> tuple[Tensor, Tensor]:
        on_x0, _, beta_tilde = posterior_coefficients(step.tau, step.s)
        v = self._v(step.tau)
        total = beta_tilde + on_x0 * on_x0 * v
        slope = observation.gains * (on_x0 * v / total)
        noise = observation.gains.square() * (v * beta_tilde / total) + 1.0
        # the slope is a guess: the proposal keeps 2/3 of the chain's variance, so that p/q has a second moment
        noise = torch.maximum(noise, 2.0 * step.rev_var * slope.square())
        variance = noise + step.rev_var * slope.square()
        e = step.normal(state.x0) * step.rev_var**0.5
        predicted = slope * observation.project(e)
        difference = state.residual - predicted - noise.sqrt() * step.normal(predicted)
        correction = step.rev_var * slope / variance * difference
        remaining = state.residual - predicted - slope * correction
        log_ratio = log_normal(state.residual, variance) - log_normal(remaining, noise)
        return e + observation.lift(correction), log_ratio
