r"""Distances between two distributions known by samples: sliced Wasserstein, MMD, energy and kernel distance (KID).

- Sliced Wasserstein: $(E_\theta\, W_p^p(\theta x, \theta y))^{1/p}$ over random directions (Bonneel et al. 2015).
- MMD: $E k(x, x') + E k(y, y') - 2 E k(x, y)$ with Gaussian kernels (Gretton et al. 2012).
- Energy distance: $2 E|x - y| - E|x - x'| - E|y - y'|$ (Szekely & Rizzo 2013).
- Kernel distance: MMD with the kernel $(a \cdot b / f + 1)^3$ on features (Binkowski et al. 2018).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.checks import check_integer
from scoresde.metrics.metric_estimate import Estimate, check_samples

__all__ = ["energy_distance", "kernel_distance", "mmd", "sliced_wasserstein"]

_ROWS = 1024  # rows of a distance matrix in memory at once


def sliced_wasserstein(
    x: ArrayLike, y: ArrayLike, *, projections: int = 512, order: float = 2, generator: torch.Generator | None = None
) -> Estimate:
    r"""$(E_\theta\, W_p^p(\theta x, \theta y))^{1/p}$ over uniform directions $\theta$, ``p = order``.

    On a line the optimal transport plan matches quantiles: sorted values one by one for ``n = m``, piecewise otherwise.

    Args:
        x, y: Samples, shapes ``(n, *D)`` and ``(m, *D)``.
        projections: Number of directions.
        order: ``p >= 1``.
        generator: Source of the directions. Use the same seed for all values that will be compared.

    Returns:
        Distance in the units of ``x``. The standard error is over directions, not over samples.

    Raises:
        ValueError: If there are fewer than 2 samples, they are not finite, the event shapes differ,
            ``projections < 2``, or ``order`` is < 1 or infinite.

    Source: Bonneel, Rabin, Peyre & Pfister 2015, eq. 8 (with p in place of 2).
    """
    check_arguments(sliced_wasserstein, locals())
    x, y = check_samples(x, y, least=2)
    check_integer("projections", projections)
    if projections < 2 or not 1 <= order < math.inf:
        raise ValueError(f"projections must be >= 2, and order finite and >= 1, got {projections} and {order}.")
    theta = torch.randn(x.shape[1], projections, dtype=x.dtype, generator=generator)
    theta = theta / theta.norm(dim=0)
    powers = _line_wasserstein(x @ theta, y @ theta, order)
    mean, stderr = powers.mean().item(), powers.std().item() / math.sqrt(projections)
    value = mean ** (1 / order)
    return Estimate(value, stderr * value / (order * mean) if mean > 0 else 0.0)


def mmd(x: ArrayLike, y: ArrayLike, *, bandwidths: Sequence[float] | None = None) -> Estimate:
    r"""Unbiased squared MMD $E k(x, x') + E k(y, y') - 2 E k(x, y)$, $k = mean_h\, e^{-|x - y|^2 / 2h^2}$.

    Args:
        x, y: Samples, shapes ``(n, *D)`` and ``(m, *D)``; cost ``O((n + m)^2)``, memory ``O(n + m)``.
        bandwidths: The ``h``, in the units of ``x``. ``None`` takes 1/4 and 1/2 of the median distance within ``y``;
            pass the real data as ``y``, so that every sampler is measured with the same kernel. Where at least half of
            these distances are 0 (repeated rows), the median is that of the others; where all ``y`` are equal, that
            of the distances from one of them that are not 0.

    Returns:
        Squared distance. It may be negative for equal distributions. The standard error is over samples (jackknife);
        for equal distributions it is up to 1.5 times too large.

    Raises:
        ValueError: If there are fewer than 4 samples, they are not finite, the event shapes differ, or a bandwidth is
            not > 0.

    Source: Gretton et al. 2012, eq. 3.
    """
    check_arguments(mmd, locals())
    x, y = check_samples(x, y, least=4)
    bandwidths = None if bandwidths is None else [float(h) for h in bandwidths]
    if bandwidths is None:
        median = _median_distance(x, y)
        bandwidths = [median / 4, median / 2]
    if not bandwidths or not all(math.isfinite(h) and h > 0 for h in bandwidths):
        raise ValueError(
            f"bandwidths must be finite and > 0, got {list(bandwidths)}; pass others, or None for those of the data."
        )
    rates = [-0.5 / h**2 for h in bandwidths]
    return _from_distances(x, y, lambda d: torch.stack([torch.exp(r * d**2) for r in rates]).mean(0))


def energy_distance(x: ArrayLike, y: ArrayLike) -> Estimate:
    r"""Unbiased $2 E|x - y| - E|x - x'| - E|y - y'|$: a kernel distance without a bandwidth.

    Args:
        x, y: Samples, shapes ``(n, *D)`` and ``(m, *D)``; cost ``O((n + m)^2)``, memory ``O(n + m)``.

    Returns:
        Distance in the units of ``x``. It may be negative for equal distributions. The standard error is over samples
        (jackknife); for equal distributions it is up to 1.5 times too large.

    Raises:
        ValueError: If there are fewer than 4 samples, they are not finite, or the event shapes differ.

    Source: Szekely & Rizzo 2013, eq. 2.1.
    """
    check_arguments(energy_distance, locals())
    return _from_distances(*check_samples(x, y, least=4), lambda d: -d)


def kernel_distance(
    x: ArrayLike, y: ArrayLike, *, size: int | None = None, subsets: int = 100, generator: torch.Generator | None = None
) -> Estimate:
    r"""Unbiased squared MMD with the kernel $k(a, b) = (a \cdot b / f + 1)^3$: KID if x, y are Inception features.

    Args:
        x, y: Features, shapes ``(n, f)`` and ``(m, f)``; cost ``O((n + m)^2 f)``, memory ``O(n + m)`` rows of 1024.
        size: ``None`` uses all samples at once. A number averages over random subsets of ``size`` samples of each set,
            as papers report KID: the expectation is the same, the variance larger.
        subsets: Number of subsets; used only with ``size``.
        generator: Source of the subsets.

    Returns:
        Squared distance. It may be negative for equal distributions. The standard error is over samples (jackknife).
        With ``size`` it is the standard deviation over the subsets, which is the error of one subset and what papers
        report. It is not divided by the root of their number, because subsets overlap.

    Raises:
        ValueError: If there are fewer than 4 (or ``size``) samples, they are not finite, the event shapes differ,
            ``size`` is < 4 or ``subsets`` < 2.

    Source: Binkowski, Sutherland, Arbel & Gretton 2018, eq. 4 and section 4.
    """
    check_arguments(kernel_distance, locals())
    x, y = check_samples(x, y, least=4)
    if size is not None:
        check_integer("size", size, least=None)
    if size is None:
        return _squared_mmd(x, y, _cubic)
    available = min(len(x), len(y))
    check_integer("subsets", subsets)
    if subsets < 2 or not 4 <= size <= available:
        raise ValueError(
            f"subsets must be >= 2 and size in 4 … {available}, the size of the smaller set, got {subsets} and {size}."
        )

    def subset_value() -> float:
        a, b = (z[torch.randperm(len(z), generator=generator)[:size]] for z in (x, y))
        return _squared_mmd(a, b, _cubic).value

    values = torch.tensor([subset_value() for _ in range(subsets)], dtype=x.dtype)
    return Estimate(values.mean().item(), values.std().item())


def _median_distance(x: Tensor, y: Tensor) -> float:
    """The median distance within ``y``, or of those distances that are not 0; to one of ``y`` if all are equal.

    It is 1 where all rows of both sets are equal: every kernel then has the value 1, and the MMD is 0.
    """
    within = torch.pdist(y[:: -(-len(y) // 1000)])
    between = torch.cat([(x - y[0]).norm(dim=1), (y - y[0]).norm(dim=1)])
    for distances in (within, within[within > 0], between[between > 0]):
        median = distances.median().item() if len(distances) else 0.0
        if median > 0:
            return median
    return 1.0


def _line_wasserstein(x: Tensor, y: Tensor, order: float) -> Tensor:
    """``W_p^p`` of each column of ``x (n, P)`` to that of ``y (m, P)``: a sum over intervals of constant quantiles."""
    n, m = len(x), len(y)
    ends = torch.cat([m * torch.arange(1, n + 1), n * torch.arange(1, m + 1)]).unique()  # in units of 1 / (n m)
    widths = torch.diff(ends, prepend=ends.new_zeros(1)).to(x.dtype) / (n * m)
    gaps = x.sort(dim=0).values[(ends - 1) // m] - y.sort(dim=0).values[(ends - 1) // n]
    return widths @ gaps.abs() ** order


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / max(1, x.shape[1]) + 1) ** 3


def _from_distances(x: Tensor, y: Tensor, kernel: Callable[[Tensor], Tensor]) -> Estimate:
    center = y.mean(0)  # torch.cdist loses digits far from the origin
    return _squared_mmd(x - center, y - center, lambda a, b: kernel(torch.cdist(a, b)))


def _squared_mmd(x: Tensor, y: Tensor, kernel: Callable[[Tensor, Tensor], Tensor]) -> Estimate:
    r"""The U-statistic $E k(x, x') + E k(y, y') - 2 E k(x, y)$ and its jackknife error, from row sums of the kernel."""
    n, m = len(x), len(y)
    xx, yy = _row_sums(x, x, kernel, skip_diagonal=True)[0], _row_sums(y, y, kernel, skip_diagonal=True)[0]
    xy, yx = _row_sums(x, y, kernel)
    sxx, syy, sxy = xx.sum(), yy.sum(), xy.sum()
    value = sxx / (n * (n - 1)) + syy / (m * (m - 1)) - 2 * sxy / (n * m)
    # the value without one row of x (of y); terms that do not depend on the row drop out of the variance
    without_x = (sxx - 2 * xx) / ((n - 1) * (n - 2)) - 2 * (sxy - xy) / ((n - 1) * m)
    without_y = (syy - 2 * yy) / ((m - 1) * (m - 2)) - 2 * (sxy - yx) / (n * (m - 1))
    variance = (n - 1) * without_x.var(correction=0) + (m - 1) * without_y.var(correction=0)
    return Estimate(value.item(), math.sqrt(variance.item()))


def _row_sums(
    x: Tensor, y: Tensor, kernel: Callable[[Tensor, Tensor], Tensor], *, skip_diagonal: bool = False
) -> tuple[Tensor, Tensor]:
    rows, columns = [], torch.zeros(len(y), dtype=x.dtype)
    for start in range(0, len(x), _ROWS):
        values = kernel(x[start : start + _ROWS], y)
        if skip_diagonal:
            values.diagonal(start).zero_()
        rows.append(values.sum(1))
        columns += values.sum(0)
    return torch.cat(rows), columns
