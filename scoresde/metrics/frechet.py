r"""How far apart are the Gaussian fits of two sets of samples, and how far would they be without the bias of few?

The squared Wasserstein-2 distance of two Gaussians,
$|\mu_x - \mu_y|^2 + tr(C_x + C_y - 2(C_x^{1/2} C_y C_x^{1/2})^{1/2})$, put to sample moments (FID where they are of
Inception features). It sees two moments only. Sample moments make it too large by about $c/n$: two halves of one data
set are at a distance, and values at different ``n`` are not comparable.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scoresde.metrics.estimate import Estimate, two_sets

__all__ = ["frechet_distance", "frechet_infinity"]


def frechet_distance(x: Tensor, y: Tensor) -> Estimate:
    r"""$|\mu_x - \mu_y|^2 + tr(C_x + C_y - 2(C_x^{1/2} C_y C_x^{1/2})^{1/2})$: squared $W_2$ of the Gaussian fits.

    With ``C = R'R`` the last trace is the nuclear norm of ``R_x R_y'``: nothing is inverted and no root of a matrix is
    taken, so that singular covariances need no care and no complex numbers arise.

    Args:
        x, y: Samples, shapes ``(n, *D)`` and ``(m, *D)``, with more samples than values in an event.

    Returns:
        Squared distance in the units of ``x`` squared, too large by about ``c/n``; no standard error.

    Raises:
        ValueError: If samples are not more than an event's values (their covariance would be singular by their number,
            whatever the law), fewer than 2, not finite, or of unlike events.

    Source: Dowson & Landau 1982.
    """
    x, y = _more_than_dimensions(x, y, parts=1)
    return Estimate(_of_rows(x, y))


def frechet_infinity(x: Tensor, y: Tensor, *, halvings: int = 10, generator: torch.Generator | None = None) -> Estimate:
    r"""The Fréchet distance with its bias taken off: $2 F_n - F_{n/2}$, where $F_n = F_\infty + c/n + O(1/n^2)$.

    Both sets are cut into halves at random; the distance between halves, averaged over both pairs and all halvings,
    says what half the samples cost.

    Args:
        x, y: Samples, shapes ``(n, *D)`` and ``(m, *D)``, each half with more samples than values in an event.
        halvings: How often both sets are cut; each costs two distances.
        generator: Source of the cuts.

    Returns:
        Squared distance in the units of ``x`` squared, below 0 at times where the laws are alike. The standard error is
        over halvings, not over samples.

    Raises:
        ValueError: As `frechet_distance`, for half the samples, or if ``halvings < 2``.

    Source: Chong & Forsyth 2020, section 3 (the law in 1/n; there a line through several n); Quenouille 1956.
    """
    if halvings < 2:
        raise ValueError(f"halvings must be >= 2, got {halvings}; 10 is plenty.")
    x, y = _more_than_dimensions(x, y, parts=2)
    values = torch.tensor([_of_halves(x, y, generator) for _ in range(halvings)], dtype=x.dtype)
    return Estimate(2 * _of_rows(x, y) - values.mean().item(), values.std().item() / math.sqrt(halvings))


def _of_halves(x: Tensor, y: Tensor, generator: torch.Generator | None) -> float:
    (a, b), (c, d) = (z[torch.randperm(len(z), generator=generator)].tensor_split(2) for z in (x, y))
    return (_of_rows(a, c) + _of_rows(b, d)) / 2


def _of_rows(x: Tensor, y: Tensor) -> float:
    roots = [torch.linalg.qr(z - z.mean(0)).R / math.sqrt(len(z) - 1) for z in (x, y)]
    shift = (x.mean(0) - y.mean(0)).square().sum()
    cross = torch.linalg.matrix_norm(roots[0] @ roots[1].T, "nuc")
    return max(0.0, (shift + sum(root.square().sum() for root in roots) - 2 * cross).item())


def _more_than_dimensions(x: Tensor, y: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    x, y = two_sets(x, y, least=2 * parts)
    n, d = min(len(x), len(y)) // parts, x.shape[1]
    if n <= d:
        raise ValueError(
            f"a Fréchet distance needs more samples than dimensions{' in each half' if parts > 1 else ''}, got {n} for "
            f"{d}: such covariances are singular and the value says how few there are. Draw more, take fewer features "
            "(EfficientNetLite0 has 112), or kernel_distance, which is unbiased at any number."
        )
    return x, y
