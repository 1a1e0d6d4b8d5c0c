r"""What are the terms of a bound at one time and one draw of noise? Pure functions, which may be trained with.

x stands at the time ``given``: clean data at 0, or a state at ``tau_min``; `scoresde.likelihood.bounds.continuous` has the theory.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.tensors import combine, sum_event
from scoresde.likelihood.batching import Density
from scoresde.likelihood.bounds.error_profile import ErrorProfile
from scoresde.model import Model, event_size
from scoresde.objective.weighting import ELBO
from scoresde.process import ou
from scoresde.process.sde import SDE, Marginal

__all__ = ["diffusion", "end_log_prob", "normal_entropy", "prior_cost"]


def diffusion(
    model: Model,
    x: Tensor,
    m: Marginal,
    eps: Tensor,
    *,
    given: float = 0.0,
    profile: ErrorProfile | None = None,
    **cond: object,
) -> Tensor:
    r"""The diffusion term's integrand at one time and noise per sample, nats per unit of the clock.

    $\lambda_b\,(\|\tfrac b\sigma\hat\varepsilon - \varepsilon\|^2 - c\,(\|\varepsilon\|^2 - d))$, less $\lambda_b a^2d$
    if ``given`` > 0. Nothing is switched to eval mode and gradients flow: it may be trained with.

    Args:
        model: Trained or exact.
        x: Data in x, ``(B, *D)``: clean, or the state at ``given``.
        m: Times τ > ``given`` and the clock's rate dτ/du there, each ``(B,)``.
        eps: Unit normal noise, as ``x``. Where ``given`` > 0 the variance grows like 1/(τ - given) towards the start;
            that of the average over ±eps does not.
        given: OU time at which ``x`` stands.
        profile: Gives c, whose term has expectation 0. Without one c is 0, or what leaves a finite variance.
        **cond: Passed to the network.

    Returns:
        ``(B,)`` float64.

    Source: Kingma et al. 2021, eq. 17; for ``given`` > 0 Song et al. 2021 (Maximum likelihood training), theorem 3,
    with $E\|\nabla\log q\|^2 = d/b^2$ in place of a draw.
    """
    since = m.tau - given
    if given > 0:  # the clock's inverse rounds; so close to the start the integrand has reached its limit
        since = ew.clamp(since, 1e-9 * given)
    size, b = event_size(x), ou.sigma(since)
    state = combine(ou.alpha(since), x, b, eps)
    error = combine(b / m.sigma, model(state, m.tau, **cond).eps, -1.0, eps)
    total = sum_event(error * error)
    kept = torch.as_tensor((b / m.sigma) ** 2)
    free = _length_share(m, kept, profile).to(total) * (sum_event(eps * eps) - size)
    end = size * torch.as_tensor(ou.alpha_bar(since)).to(total) if given > 0 else 0.0
    return torch.as_tensor(ELBO()(Marginal(since, m.rate))).to(total) * (total - free - end)


def _length_share(m: Marginal, kept: Tensor, profile: ErrorProfile | None) -> Tensor:
    """c: the mean over directions of (1 - kept (1 - r))², r the share of the noise left unexplained along each."""
    if profile is None:
        return (1.0 - kept).square()
    unexplained, control = profile.at(torch.as_tensor(m.log_snr))
    return 1.0 - 2.0 * kept * (1.0 - unexplained) + kept.square() * (1.0 - 2.0 * unexplained + control)


def prior_cost(
    sde: SDE, x: Tensor, *, given: float = 0.0, density: Density | None = None, eps: Tensor | None = None
) -> Tensor:
    r"""The prior's term: $KL(q(x_T \mid x)\,\|\,\pi)$ for clean data, $-E\log\pi(x_T)$ for a state at ``given`` > 0.

    Args:
        sde: The process, whose prior is taken unless there is a ``density``.
        x: As for `diffusion`.
        given: OU time at which ``x`` stands.
        density: log π instead, nats, ``(B, *D) -> (B,)``, of x itself at the end of the clock. How it differs from the
            view's prior is evaluated at one draw.
        eps: The draw's noise, as ``x``.

    Returns:
        ``(B,)`` float64, nats; in closed form without ``density``.
    """
    since, size = sde.tau_max - given, event_size(x)
    a, b, std = float(ou.alpha(since)), float(ou.sigma(since)), sde.prior_std
    entropy = 0.0 if given > 0 else normal_entropy(size, b)
    square = a * a * sum_event(x * x) + b * b * size
    closed = 0.5 * square / std**2 + size * (math.log(std) + 0.5 * math.log(2 * math.pi)) - entropy
    if density is None:
        return closed
    assert eps is not None
    end = a * x + b * eps
    return closed + sde.prior_log_prob(end) - end_log_prob(density, end)


def end_log_prob(density: Density, end: Tensor) -> Tensor:
    """The density's answer, ``(B,)`` float64, checked.

    Raises:
        ValueError: If its shape is another one.
    """
    out = density(end)
    if out.shape != end.shape[:1]:
        raise ValueError(f"prior_log_prob must return shape ({len(end)},), one per sample, got {tuple(out.shape)}.")
    return sum_event(out)


def normal_entropy(size: int, std: float) -> float:
    """Entropy of ``size`` independent normal numbers, nats."""
    return size * (math.log(std) + 0.5 * math.log(2 * math.pi) + 0.5)
