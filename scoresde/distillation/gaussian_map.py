r"""The flow map of Gaussian data N(m, C), as an average velocity; it is the base map of a few-step student.

A jump by the angle $\Delta = \phi - \psi$ takes x to $X = \alpha_\psi m + S_\psi S_\phi^{-1}(x - \alpha_\phi m)$ with
$S^2 = \alpha^2 C + \sigma^2 I$. Its average velocity $(\cos\Delta\,x - X)/\sin\Delta$ is
$A\,(x - \alpha_\phi m) - \sigma_\phi m$. Along an axis of variance c, with $e = 1 - c$ and $r = S_\psi/S_\phi$,

$$A = \frac{\cos\Delta - r}{\sin\Delta}
    = \frac{e\,\sigma(2\alpha\cos\Delta + \sigma\sin\Delta) - \sin\Delta}{(\cos\Delta + r)(1 - e\,\alpha^2)},$$

which is finite at Δ = 0 too: there it is the slope of the velocity, $\alpha\sigma(1 - c)/S^2$.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["JumpCoefficients", "axis_terms", "coefficients"]


@dataclass(frozen=True)
class JumpCoefficients:
    """Signal and noise scales at both ends of a jump, and its angle; each ``(B, 1)``.

    Attributes:
        alpha, sigma: At the start of the jump.
        alpha_end, sigma_end: At its end.
        cos, sin: Of Δ.
    """

    alpha: Tensor
    sigma: Tensor
    alpha_end: Tensor
    sigma_end: Tensor
    cos: Tensor
    sin: Tensor


def coefficients(log_snr: Tensor, delta: Tensor | None, dtype: torch.dtype) -> JumpCoefficients:
    """Coefficients of jumps by ``delta`` from ``log_snr``.

    Args:
        log_snr: Nats, ``(B,)``; infinities are allowed.
        delta: Angles, radians, ``(B,)``; None for 0.
        dtype: Of the coefficients.
    """
    log_snr = log_snr.to(dtype).unsqueeze(1)
    alpha, sigma = torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()
    if delta is None:
        return JumpCoefficients(alpha, sigma, alpha, sigma, torch.ones_like(alpha), torch.zeros_like(alpha))
    delta = delta.to(dtype).unsqueeze(1)
    cos, sin = delta.cos(), delta.sin()
    return JumpCoefficients(alpha, sigma, alpha * cos + sigma * sin, sigma * cos - alpha * sin, cos, sin)


def axis_terms(c: JumpCoefficients, variance: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r"""Coefficients along axes of given variances.

    Args:
        c: Of the jumps.
        variance: ``(r,)`` or ``()``.

    Returns:
        A, the slope G of the velocity at the start, S at the end, and r, each ``(B, r)`` or ``(B, 1)``.
    """
    spread = c.sigma * c.sigma + variance * (c.alpha * c.alpha)  # S² at the start
    end = (c.sigma_end * c.sigma_end + variance * (c.alpha_end * c.alpha_end)).sqrt()
    excess, ratio = 1.0 - variance, end / spread.sqrt()
    numerator = excess * c.sigma * (2.0 * c.alpha * c.cos + c.sigma * c.sin) - c.sin
    return numerator / ((c.cos + ratio) * spread), c.alpha * c.sigma * excess / spread, end, ratio
