r"""Fréchet distance: the squared Wasserstein-2 distance of Gaussian fits, and its extrapolation to infinite samples.

$|\mu_x - \mu_y|^2 + tr(C_x + C_y - 2(C_x^{1/2} C_y C_x^{1/2})^{1/2})$ with sample means and covariances; FID on
Inception features. It depends on the first two moments only. The estimate from n samples is too large by about $c/n$:
two halves of one data set have a positive distance, and values for different ``n`` are not comparable.

Source: Dowson & Landau 1982; Heusel et al. 2017 (FID).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.checks import check_integer
from scoresde.metrics.metric_estimate import Estimate, check_samples

__all__ = ["frechet_distance", "frechet_infinity"]


def frechet_distance(x: ArrayLike, y: ArrayLike) -> Estimate:
    r"""$|\mu_x - \mu_y|^2 + tr(C_x + C_y - 2(C_x^{1/2} C_y C_x^{1/2})^{1/2})$: squared $W_2$ of the Gaussian fits.

    With ``C = R'R`` the last trace is the nuclear norm of ``R_x R_y'``. There is no matrix inverse and no matrix root,
    so singular covariances are exact and no complex numbers arise.

    Args:
        x, y: Samples, shapes ``(n, *D)`` and ``(m, *D)``, with more samples than values in an event.

    Returns:
        Squared distance in the units of ``x`` squared, too large by about ``c/n``; no standard error.

    Raises:
        ValueError: If there are fewer than 2 samples, or not more samples than values in an event (the covariance is
            then singular for every distribution); if they are not finite, or the event shapes differ.

    Source: Dowson & Landau 1982.
    """
    check_arguments(frechet_distance, locals())
    x, y = _check_sizes(x, y, parts=1)
    return Estimate(_distance(x, y))


def frechet_infinity(
    x: ArrayLike, y: ArrayLike, *, halvings: int = 10, generator: torch.Generator | None = None
) -> Estimate:
    r"""Fréchet distance without its leading bias: $2 F_n - F_{n/2}$, where $F_n = F_\infty + c/n + O(1/n^2)$.

    Both sets are split into halves at random. The distance between halves, averaged over both pairs and all splits,
    estimates $F_{n/2}$.

    Args:
        x, y: Samples, shapes ``(n, *D)`` and ``(m, *D)``, each half with more samples than values in an event.
        halvings: Number of random splits; each costs two distances.
        generator: Source of the splits.

    Returns:
        Squared distance in the units of ``x`` squared. It may be negative for equal distributions. The standard error
        is over the splits, not over samples.

    Raises:
        ValueError: As `frechet_distance`, for half the samples, or if ``halvings < 2``.

    Source: Chong & Forsyth 2020, section 3 (the 1/n dependence; they fit a line through several n); Quenouille 1956.
    """
    check_arguments(frechet_infinity, locals())
    check_integer("halvings", halvings, 2)
    x, y = _check_sizes(x, y, parts=2)
    values = torch.tensor([_mean_of_halves(x, y, generator) for _ in range(halvings)], dtype=x.dtype)
    return Estimate(2 * _distance(x, y) - values.mean().item(), values.std().item() / math.sqrt(halvings))


def _mean_of_halves(x: Tensor, y: Tensor, generator: torch.Generator | None) -> float:
    (a, b), (c, d) = (z[torch.randperm(len(z), generator=generator)].tensor_split(2) for z in (x, y))
    return (_distance(a, c) + _distance(b, d)) / 2


def _distance(x: Tensor, y: Tensor) -> float:
    roots = [torch.linalg.qr(z - z.mean(0)).R / math.sqrt(len(z) - 1) for z in (x, y)]
    shift = (x.mean(0) - y.mean(0)).square().sum()
    cross = torch.linalg.matrix_norm(roots[0] @ roots[1].T, "nuc")
    return max(0.0, (shift + sum(root.square().sum() for root in roots) - 2 * cross).item())


def _check_sizes(x: ArrayLike, y: ArrayLike, parts: int) -> tuple[Tensor, Tensor]:
    x, y = check_samples(x, y, least=2 * parts)
    n, d = min(len(x), len(y)) // parts, x.shape[1]
    if n <= d:
        raise ValueError(
            f"a Fréchet distance needs more samples than dimensions{' in each half' if parts > 1 else ''}, got {n} for "
            f"{d}: such covariances are singular, and the value depends mostly on the number of samples. Draw more, "
            "use fewer features (EfficientNetLite0 has 112), or kernel_distance, which is unbiased for any number."
        )
    return x, y
