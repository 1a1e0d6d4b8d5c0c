r"""Terms of a bound for one timestep and one draw of noise: diffusion and prior terms, as differentiable functions.

The initial state x is clean data (``tau_start = 0``) or a noised state (``tau_start = tau_min``). The theory is in
`scoresde.likelihood.bounds.continuous`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import combine, event_size, sum_event
from scoresde.likelihood.batching import Density
from scoresde.likelihood.bounds.error_profile import ErrorProfile
from scoresde.model import Model
from scoresde.objective.weighting import ELBO
from scoresde.process import ou
from scoresde.process.base import Marginal
from scoresde.process.sde import SDE

__all__ = [
    "diffusion_cost",
    "diffusion_state",
    "diffusion_term",
    "normal_entropy",
    "prior_term",
    "terminal_log_prob",
]


def diffusion_term(
    model: Model,
    x: Tensor,
    m: Marginal,
    eps: Tensor,
    *,
    tau_start: float = 0.0,
    profile: ErrorProfile | None = None,
    **cond: object,
) -> Tensor:
    r"""Integrand of the diffusion term at one timestep and one noise per sample, nats per unit of the clock.

    $\lambda_b\,(\|\tfrac b\sigma\hat\varepsilon - \varepsilon\|^2 - c\,(\|\varepsilon\|^2 - d))$, minus
    $\lambda_b a^2d$ if ``tau_start`` > 0. The model keeps its mode and gradients flow, so the term
    may serve as a training loss.

    Args:
        model: Trained or exact.
        x: Initial state in the coordinates of the OU process, ``(B, *D)``: clean data, or the state at ``tau_start``.
        m: Times τ > ``tau_start`` and the clock's rate dτ/du there, each ``(B,)``.
        eps: Unit normal noise, as ``x``. If ``tau_start`` > 0 the variance grows like 1/(τ - tau_start) as τ falls to
            ``tau_start``; the variance of the average over ±eps stays bounded.
        tau_start: OU time of ``x``.
        profile: Gives c, the coefficient of a control variate with mean 0. Without a profile c is 0 for clean data, and
            otherwise the value that keeps the variance finite.
        **cond: Passed to the network.

    Returns:
        ``(B,)`` float64.

    Source: Kingma et al. 2021, eq. 17; for ``tau_start`` > 0 Song et al. 2021 (Maximum likelihood training), theorem 3,
    with the expectation $E\|\nabla\log q\|^2 = d/b^2$ in place of a draw.
    """
    state = diffusion_state(x, m, eps, tau_start)
    return diffusion_cost(model(state, m.tau, **cond).eps, m, eps, tau_start, profile)


def diffusion_state(x: Tensor, m: Marginal, eps: Tensor, tau_start: float) -> Tensor:
    """The state at ``m`` from the initial state ``x``, ``(B, *D)``; see `diffusion_term`."""
    elapsed = _elapsed(m, tau_start)
    return combine(ou.alpha(elapsed), x, ou.sigma(elapsed), eps)


def diffusion_cost(
    eps_hat: Tensor, m: Marginal, eps: Tensor, tau_start: float, profile: ErrorProfile | None = None
) -> Tensor:
    """The integrand of `diffusion_term` from an estimate of the noise, ``(B, *D)`` -> ``(B,)`` float64."""
    elapsed = _elapsed(m, tau_start)
    size, b = event_size(eps), ou.sigma(elapsed)
    error = combine(b / m.sigma, eps_hat, -1.0, eps)
    squared_error = sum_event(error * error)
    added_share = torch.as_tensor((b / m.sigma) ** 2)
    control = _control_coefficient(m, added_share, profile).to(squared_error) * (sum_event(eps * eps) - size)
    entropy_rate = size * torch.as_tensor(ou.alpha_bar(elapsed)).to(squared_error) if tau_start > 0 else 0.0
    weight = torch.as_tensor(ELBO()(Marginal(elapsed, m.rate))).to(squared_error)
    return weight * (squared_error - control - entropy_rate)


def _elapsed(m: Marginal, tau_start: float) -> Scalar:
    elapsed = m.tau - tau_start
    if tau_start > 0:  # the clock's inverse rounds; this close to tau_start the integrand has reached its limit
        elapsed = ew.clamp(elapsed, 1e-9 * tau_start)
    return elapsed


def _control_coefficient(m: Marginal, added_share: Tensor, profile: ErrorProfile | None) -> Tensor:
    """c: the mean over directions of (1 - added_share (1 - r))², r the unexplained share of the noise in each."""
    if profile is None:
        return (1.0 - added_share).square()
    unexplained, control = profile.at(torch.as_tensor(m.log_snr))
    return 1.0 - 2.0 * added_share * (1.0 - unexplained) + added_share.square() * (1.0 - 2.0 * unexplained + control)


def prior_term(
    sde: SDE,
    x: Tensor,
    *,
    tau_start: float = 0.0,
    prior_log_prob: Density | None = None,
    eps: Tensor | None = None,
) -> Tensor:
    r"""The prior term: $KL(q(x_T \mid x)\,\|\,\pi)$ for clean data, $-E\log\pi(x_T)$ if ``tau_start`` > 0.

    Args:
        sde: The process; π is its prior unless ``prior_log_prob`` is given.
        x: As for `diffusion_term`.
        tau_start: OU time of ``x``.
        prior_log_prob: log π instead, nats, ``(B, *D) -> (B,)``, of the OU state at the end of the clock. Its
            difference to the prior of the SDE is evaluated at one draw.
        eps: The draw's noise, as ``x``; needed with ``prior_log_prob``.

    Returns:
        ``(B,)`` float64, nats; in closed form without ``prior_log_prob``.
    """
    elapsed, size = sde.tau_max - tau_start, event_size(x)
    a, b, std = float(ou.alpha(elapsed)), float(ou.sigma(elapsed)), sde.prior_std
    entropy = 0.0 if tau_start > 0 else normal_entropy(size, b)
    second_moment = a * a * sum_event(x * x) + b * b * size
    closed = 0.5 * second_moment / std**2 + size * (math.log(std) + 0.5 * math.log(2 * math.pi)) - entropy
    if prior_log_prob is None:
        return closed
    assert eps is not None
    x_end = a * x + b * eps
    return closed + sde.prior_log_prob(x_end) - terminal_log_prob(prior_log_prob, x_end)


def terminal_log_prob(prior_log_prob: Density, x_end: Tensor) -> Tensor:
    """Log-density at the end of the clock, ``(B,)`` float64, after a check of its shape.

    Raises:
        ValueError: If ``prior_log_prob`` does not return one number per sample.
    """
    log_prob = prior_log_prob(x_end)
    if log_prob.shape != x_end.shape[:1]:
        raise ValueError(
            f"prior_log_prob must return shape ({len(x_end)},), one per sample, got {tuple(log_prob.shape)}."
        )
    return sum_event(log_prob)


def normal_entropy(size: int, std: float) -> float:
    """Entropy of ``size`` independent normal variables, nats."""
    return size * (math.log(std) + 0.5 * math.log(2 * math.pi) + 0.5)
