"""How far apart are two laws that are known by samples: transport along lines, kernels, two moments."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .estimate import Estimate, two_sets

__all__ = ["energy_distance", "frechet_distance", "mmd", "sliced_wasserstein"]

_ROWS = 1024  # rows of a distance matrix held at a time


def sliced_wasserstein(
    x: Tensor, y: Tensor, *, projections: int = 512, order: int = 2, generator: torch.Generator | None = None
) -> Estimate:
    r"""$(E_\theta\, W_p^p(\theta x, \theta y))^{1/p}$ over uniform directions $\theta$, ``p = order``.

    On a line the optimal plan matches quantiles: sorted values one by one for ``n = m``, piecewise otherwise.

    Args:
        x, y: Samples, shapes ``(n, *D)`` and ``(m, *D)``.
        projections: Number of directions.
        order: ``p >= 1``.
        generator: Source of the directions. Seed it alike wherever values are to be compared.

    Returns:
        Distance in the units of ``x``. The standard error is over directions, not over samples.

    Raises:
        ValueError: If samples are few (< 2), not finite, of unlike events, ``projections < 2`` or
            ``order < 1``.

    Source: Bonneel, Rabin, Peyre & Pfister 2015, eq. 8 (with p of their 2).
    """
    x, y = two_sets(x, y, least=2)
    if projections < 2 or order < 1:
        raise ValueError(f"projections must be >= 2 and order >= 1, got {projections} and {order}.")
    theta = torch.randn(x.shape[1], projections, dtype=x.dtype, generator=generator)
    theta = theta / theta.norm(dim=0)
    powers = _line_wasserstein(x @ theta, y @ theta, order)
    mean, stderr = powers.mean().item(), powers.std().item() / math.sqrt(projections)
    value = mean ** (1 / order)
    return Estimate(value, stderr * value / (order * mean) if mean > 0 else 0.0)


def mmd(x: Tensor, y: Tensor, *, bandwidths: Sequence[float] | None = None) -> Estimate:
    r"""Unbiased squared kernel distance $E k(x, x') + E k(y, y') - 2 E k(x, y)$, $k = mean_h\, e^{-|x - y|^2 / 2h^2}$.

    Args:
        x, y: Samples, shapes ``(n, *D)`` and ``(m, *D)``; cost ``O((n + m)^2)``, memory ``O(n + m)``.
        bandwidths: The ``h``, in the units of ``x``; ``None`` takes 1/4 and 1/2 of the median distance within
            ``y``: pass the real data as ``y``, so that every sampler meets the same kernel.

    Returns:
        Squared distance, below 0 at times where the laws are alike. The standard error is over samples (jackknife).

    Raises:
        ValueError: If samples are few (< 4), not finite, of unlike events, or a bandwidth is not > 0.

    Source: Gretton et al. 2012, eq. 3.
    """
    x, y = two_sets(x, y, least=4)
    if bandwidths is None:
        some = y[:: -(-len(y) // 1000)]
        median = torch.pdist(some).median().item()
        bandwidths = [median / 4, median / 2]
    if not bandwidths or not all(math.isfinite(h) and h > 0 for h in bandwidths):
        raise ValueError(
            f"bandwidths must be finite and > 0, got {list(bandwidths)}; the median is 0 where most of y are equal: "
            "state bandwidths=."
        )
    rates = [-0.5 / h**2 for h in bandwidths]
    return _kernel_distance(x, y, lambda d: torch.stack([torch.exp(r * d**2) for r in rates]).mean(0))


def energy_distance(x: Tensor, y: Tensor) -> Estimate:
    r"""Unbiased $2 E|x - y| - E|x - x'| - E|y - y'|$: a kernel distance without a bandwidth.

    Args:
        x, y: Samples, shapes ``(n, *D)`` and ``(m, *D)``; cost ``O((n + m)^2)``, memory ``O(n + m)``.

    Returns:
        The distance, in the units of ``x``, below 0 at times. The standard error is over samples (jackknife).

    Raises:
        ValueError: If samples are few (< 4), not finite, or of unlike events.

    Source: Szekely & Rizzo 2013, eq. 2.1.
    """
    return _kernel_distance(*two_sets(x, y, least=4), lambda d: -d)


def frechet_distance(x: Tensor, y: Tensor) -> Estimate:
    r"""$|\mu_x - \mu_y|^2 + tr(C_x + C_y - 2(C_x^{1/2} C_y C_x^{1/2})^{1/2})$: squared $W_2$ of the Gaussian fits.

    With ``C = R'R`` the last trace is the nuclear norm of ``R_x R_y'``: nothing is inverted and no root of a matrix is
    taken, so that singular covariances need no care. It sees two moments only, and is biased upwards at small ``n``.

    Args:
        x, y: Samples, shapes ``(n, *D)`` and ``(m, *D)``.

    Returns:
        Squared distance in the units of ``x`` squared; no standard error.

    Raises:
        ValueError: If samples are few (< 2), not finite, or of unlike events.

    Source: Dowson & Landau 1982.
    """
    x, y = two_sets(x, y, least=2)
    roots = [torch.linalg.qr(z - z.mean(0)).R / math.sqrt(len(z) - 1) for z in (x, y)]
    shift = (x.mean(0) - y.mean(0)).square().sum()
    cross = torch.linalg.matrix_norm(roots[0] @ roots[1].T, "nuc")
    return Estimate(max(0.0, (shift + sum(root.square().sum() for root in roots) - 2 * cross).item()))


def _line_wasserstein(x: Tensor, y: Tensor, order: int) -> Tensor:
    """``W_p^p`` of each column of ``x (n, P)`` to that of ``y (m, P)``: a sum over pieces of constant quantiles."""
    n, m = len(x), len(y)
    ends = torch.cat([m * torch.arange(1, n + 1), n * torch.arange(1, m + 1)]).unique()  # in units of 1 / (n m)
    widths = torch.diff(ends, prepend=ends.new_zeros(1)).to(x.dtype) / (n * m)
    gaps = x.sort(dim=0).values[(ends - 1) // m] - y.sort(dim=0).values[(ends - 1) // n]
    return widths @ gaps.abs() ** order


def _kernel_distance(x: Tensor, y: Tensor, kernel: Callable[[Tensor], Tensor]) -> Estimate:
    r"""The U-statistic $E k(x, x') + E k(y, y') - 2 E k(x, y)$ and its jackknife error, from row sums of the kernel."""
    n, m, centre = len(x), len(y), y.mean(0)
    x, y = x - centre, y - centre  # torch.cdist loses digits far from the origin
    xx, yy = _row_sums(x, x, kernel, skip_diagonal=True)[0], _row_sums(y, y, kernel, skip_diagonal=True)[0]
    xy, yx = _row_sums(x, y, kernel)
    sxx, syy, sxy = xx.sum(), yy.sum(), xy.sum()
    value = sxx / (n * (n - 1)) + syy / (m * (m - 1)) - 2 * sxy / (n * m)
    # the value without one row of x (of y): the terms that do not change are left out of the variance
    without_x = (sxx - 2 * xx) / ((n - 1) * (n - 2)) - 2 * (sxy - xy) / ((n - 1) * m)
    without_y = (syy - 2 * yy) / ((m - 1) * (m - 2)) - 2 * (sxy - yx) / (n * (m - 1))
    variance = (n - 1) * without_x.var(correction=0) + (m - 1) * without_y.var(correction=0)
    return Estimate(value.item(), math.sqrt(variance.item()))


def _row_sums(
    x: Tensor, y: Tensor, kernel: Callable[[Tensor], Tensor], *, skip_diagonal: bool = False
) -> tuple[Tensor, Tensor]:
    rows, columns = [], torch.zeros(len(y), dtype=x.dtype)
    for start in range(0, len(x), _ROWS):
        values = kernel(torch.cdist(x[start : start + _ROWS], y))
        if skip_diagonal:
            values.diagonal(start).zero_()
        rows.append(values.sum(1))
        columns += values.sum(0)
    return torch.cat(rows), columns
