r"""Denoisers without a network: the data's mean, the noised data, and the linear denoiser of the data's moments.

For $y = x_0 + \tilde\sigma\varepsilon$ and data of mean m and covariance C the linear denoiser is
$\hat x_0 = m + C(C + \tilde\sigma^2)^{-1}(y - m)$ (Wiener's). No linear function of y has a smaller error.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LinearDenoiser", "shrinkage"]


@dataclass(frozen=True, eq=False)
class LinearDenoiser:
    r"""Wiener's denoiser of a covariance with r directions of their own variance; all others share one.

    Attributes:
        mean: ``(d,)`` float64.
        basis: Orthonormal columns, ``(d, r)``.
        variances: Variance of the data along each, ``(r,)``.
        rest: Variance of the data along every direction outside their span.
    """

    mean: Tensor
    basis: Tensor
    variances: Tensor
    rest: float

    @classmethod
    def fit(cls, x: Tensor) -> LinearDenoiser:
        """The denoiser of events ``(n, d)``, with a shrunk covariance (see `shrinkage`); costs O(n² d).

        Raises:
            ValueError: If all events are the same.
        """
        x = x.double()
        mean = x.mean(0)
        centered = x - mean
        variance = float(centered.square().mean())
        if variance <= 1e-24 * float(x.square().mean()):
            raise ValueError(
                f"the data must vary, got {len(x)} equal events: the data do not vary, and nothing can be learned from "
                "denoising them; pass other data."
            )
        share = shrinkage(centered)
        _, singular, right = torch.linalg.svd(centered, full_matrices=False)
        keep = singular > 1e-9 * max(float(singular.max()), 1e-300)
        variances = (1 - share) * singular[keep].square() / len(x) + share * variance
        return cls(mean, right[keep].T.contiguous(), variances, share * variance)

    def __call__(self, y: Tensor, sigma: float) -> Tensor:
        """The estimate of x_0 for ``y``, ``(n, d)``, at noise level ``sigma``; ``(n, d)`` float64."""
        centered = y.double() - self.mean
        gain, other = self.variances / (self.variances + sigma**2), self.rest / (self.rest + sigma**2)
        return self.mean + other * centered + ((centered @ self.basis) * (gain - other)) @ self.basis.T

    def error(self, sigma: float) -> float:
        """Its expected squared error per dimension on data of these moments."""
        inside = (sigma**2 * self.variances / (self.variances + sigma**2)).sum()
        outside = (len(self.mean) - len(self.variances)) * sigma**2 * self.rest / (self.rest + sigma**2)
        return float(inside + outside) / len(self.mean)

    def variance(self) -> float:
        """Variance of the data per dimension, the error of the mean as an estimate."""
        total = self.variances.sum() + (len(self.mean) - len(self.variances)) * self.rest
        return float(total) / len(self.mean)

    def sigma_at(self, fraction: float) -> float:
        """The noise level at which its error is a fraction in (0, 1) of the variance, by bisection in log sigma."""
        low, high = -25.0, 25.0
        target = fraction * self.variance()
        for _ in range(60):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.error(2.0**middle) < target else (low, middle)
        return 2.0 ** (0.5 * (low + high))


def shrinkage(centered: Tensor) -> float:
    r"""Share of the identity in the estimate $(1 - \rho)S + \rho\,\mathrm{tr}(S)/d$ of a covariance, in [0, 1].

    Args:
        centered: Events minus their mean, ``(n, d)``.

    Source: Ledoit & Wolf 2004, eqs. 9–13, from the n × n matrix of inner products.
    """
    n, d = centered.shape
    products = centered @ centered.T
    norm = float(products.square().sum()) / n**2
    trace = float(products.diagonal().sum()) / n
    distance = norm - trace**2 / d
    spread = (float(products.diagonal().square().sum()) / n - norm) / n
    return 1.0 if distance <= 0 else min(max(spread, 0.0), distance) / distance
