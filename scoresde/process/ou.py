r"""Ornstein–Uhlenbeck process: $dx = -x\,d\tau + \sqrt2\,dW$, so $x_\tau = \alpha x_0 + \sigma\varepsilon$.

This module holds every scalar function of $\tau$: $\alpha = e^{-\tau}$, $\sigma^2 = 1 - e^{-2\tau}$, log-SNR
$= -2\tau - \log(1 - e^{-2\tau})$, the angle $\phi = \mathrm{atan}(\sigma/\alpha)$ and their inverses. Each
takes a float or a tensor and returns the same kind. $\tau = 0$ and $\tau = \infty$ give the limits.
"""

from __future__ import annotations

from scoresde._core import elementwise as ew
from scoresde._core.elementwise import Scalar

__all__ = [
    "alpha",
    "alpha_bar",
    "angle",
    "beta",
    "log_snr",
    "sigma",
    "tau_from_alpha_bar",
    "tau_from_angle",
    "tau_from_log_snr",
]


@ew.elementwise
def alpha(tau: Scalar) -> Scalar:
    r"""Signal scale $\alpha = e^{-\tau}$."""
    return ew.exp(-tau)


@ew.elementwise
def alpha_bar(tau: Scalar) -> Scalar:
    r"""Signal variance $\bar\alpha = e^{-2\tau}$ (Ho et al. 2020's cumulative product)."""
    return ew.exp(-2.0 * tau)


@ew.elementwise
def sigma(tau: Scalar) -> Scalar:
    r"""Noise scale $\sigma = \sqrt{1 - e^{-2\tau}}$, to full relative precision at small $\tau$."""
    return ew.sqrt(-ew.expm1(-2.0 * tau))


@ew.elementwise
def log_snr(tau: Scalar) -> Scalar:
    r"""$\log(\alpha^2/\sigma^2) = -2\tau - \log(1 - e^{-2\tau})$, nats; $+\infty$ at 0."""
    return -2.0 * tau - ew.log(-ew.expm1(-2.0 * tau))


@ew.elementwise
def angle(tau: Scalar) -> Scalar:
    r"""$\phi = \mathrm{atan}(\sigma/\alpha)$ in $[0, \pi/2]$, so that $\cos\phi = e^{-\tau}$."""
    return ew.atan2(sigma(tau), alpha(tau))


def beta(tau: Scalar, s: Scalar) -> Scalar:
    r"""Variance of the step from $s$ to $\tau$: $\beta = 1 - e^{-2(\tau - s)}$ (of a DDPM step; not Song's rate)."""
    return -ew.expm1(-2.0 * (tau - s))


@ew.elementwise
def tau_from_alpha_bar(value: Scalar) -> Scalar:
    r"""$\tau = -\tfrac12\log\bar\alpha$."""
    return -0.5 * ew.log(value)


@ew.elementwise
def tau_from_log_snr(value: Scalar) -> Scalar:
    r"""$\tau = \tfrac12\log(1 + e^{-\mathrm{logSNR}})$, the inverse of `log_snr`."""
    return 0.5 * ew.softplus(-value)


@ew.elementwise
def tau_from_angle(phi: Scalar) -> Scalar:
    r"""$\tau = \tfrac12\log(1 + \tan^2\phi)$, the inverse of `angle`; $\pi/2$ rounds to $\tau \approx 37$."""
    tangent = ew.tan(phi)
    return 0.5 * ew.log1p(tangent * tangent)
