r"""Exact moments of the discretized chain for data N(m, C): $x_s = \tilde\mu(x, \hat x_0) + \sqrt{rev\_var}\,z$.

The model is linear in x, so the last state is Gaussian, and so are its posterior given y = A x_0 + n and log p(y).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ChainEnd", "chain_end", "given"]


@dataclass(frozen=True)
class ChainEnd:
    """Mean and covariance of the chain's last state."""

    mean: Tensor
    cov: Tensor


def chain_end(mean: Tensor, cov: Tensor, taus: list[float], rev_var: str) -> ChainEnd:
    """The distribution of the last state of the chain on ``taus``, which begins at N(0, I) and ends at 0."""
    eye = torch.eye(len(mean), dtype=mean.dtype)
    m, c = torch.zeros_like(mean), eye.clone()
    for tau, s in zip(taus, taus[1:]):
        a, var, var_s = math.exp(-tau), -math.expm1(-2 * tau), -math.expm1(-2 * s)
        beta = -math.expm1(-2 * (tau - s))
        gain = a * cov @ torch.linalg.inv(a * a * cov + var * eye)  # x0_hat = mean + gain (x - a mean)
        on_x0, on_x = math.exp(-s) * beta / var, math.exp(s - tau) * var_s / var
        step = on_x * eye + on_x0 * gain
        m = step @ m + on_x0 * (mean - a * gain @ mean)
        noise = {"beta": beta, "beta_tilde": beta * var_s / var}[rev_var] if s > 0 else 0.0
        c = step @ c @ step.mT + noise * eye
    return ChainEnd(m, c)


def given(mean: Tensor, cov: Tensor, a: Tensor, y: Tensor, noise_cov: Tensor) -> tuple[Tensor, Tensor, float]:
    """Mean and covariance of x given y = a x + n, and log p(y), for x of N(mean, cov)."""
    s = a @ cov @ a.mT + noise_cov
    gain = cov @ a.mT @ torch.linalg.inv(s)
    log_p = torch.distributions.MultivariateNormal(a @ mean, s).log_prob(y)
    return mean + gain @ (y - a @ mean), cov - gain @ a @ cov, float(log_p)
