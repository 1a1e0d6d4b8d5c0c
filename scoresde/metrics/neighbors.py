r"""Precision, recall, density and coverage: shares of one set within the k-nearest-neighbor balls of the other.

$B(y_i)$ is the ball around $y_i$ up to its k-th neighbor among the $y$. Precision is the share of samples in
$\cup_i B(y_i)$, recall the share of real data in $\cup_j B(x_j)$ (Kynkäänniemi et al. 2019). Density is the mean number
of real balls that hold a sample, over k; coverage is the share of real balls that hold one (Naeem et al. 2020). None of
the four is 1 on real data, so always compare with the floor (`image_distances` returns it).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.checks import check_integer
from scoresde.metrics.metric_estimate import Estimate, check_samples

__all__ = ["DensityCoverage", "PrecisionRecall", "density_coverage", "precision_recall"]

_ROWS = 1024  # rows of a distance matrix in memory at once
_ROUNDING = 1e-12  # squared distances are equal up to this share of the larger squared norm of the pair


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision: the share of samples within the real data. Recall: the share of real data within the samples."""

    precision: Estimate
    recall: Estimate


@dataclass(frozen=True)
class DensityCoverage:
    """Density: mean number of real balls around a sample, over k. Coverage: the share of real balls with a sample."""

    density: Estimate
    coverage: Estimate


def precision_recall(x: ArrayLike, y: ArrayLike, *, k: int = 3) -> PrecisionRecall:
    r"""The share of ``x`` in $\cup_i B(y_i)$, and that of ``y`` in $\cup_j B(x_j)$; the balls are closed.

    One real outlier has a ball that contains most of the space: precision is then too high. One outlier among the
    samples does the same to recall.

    Args:
        x: Features of the samples, shape ``(n, *D)``.
        y: Features of as many real data, because a ball shrinks with the number, shape ``(m, *D)``.
        k: The neighbor; an event is not a neighbor of itself.

    Returns:
        Both in ``[0, 1]``, with the binomial standard error for fixed balls. For a few hundred samples the standard
        deviation over new samples and real data is 1.2 to 1.5 times as large.

    Raises:
        ValueError: If a set has no more than ``k`` samples, ``k < 1``, values are not finite, or the event shapes
            differ.

    Source: Kynkäänniemi, Karras, Laine, Lehtinen & Aila 2019, eq. 1 and 2.
    """
    check_arguments(precision_recall, locals())
    x, y = _centered(x, y, k)
    inside_real, recalled = torch.zeros(len(x), dtype=torch.bool), torch.zeros(len(y), dtype=torch.bool)
    radii_x, radii_y = _squared_radii(x, k), _squared_radii(y, k)
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        lower = _squared_distances(x[rows], y) - _rounding(x[rows], y)
        inside_real[rows] = (lower <= radii_y).any(1)
        recalled |= (lower <= radii_x[rows, None]).any(0)
    return PrecisionRecall(_share(inside_real), _share(recalled))


def density_coverage(x: ArrayLike, y: ArrayLike, *, k: int = 5) -> DensityCoverage:
    r"""$\frac{1}{kn}\sum_j \#\{i : x_j \in B(y_i)\}$, and the share of the open balls $B(y_i)$ that hold an $x_j$.

    Only real data have balls, so an outlier among the samples has no effect, and a real outlier has weight 1 in ``m``.
    For samples of the real distribution the mean of density is about 1. That of coverage is
    $1 - \prod_{l<k} (m - 1 - l)/(n + m - 1 - l)$, which is 0.97 for ``k = 5`` and ``n = m``.

    Args:
        x: Features of the samples, shape ``(n, *D)``.
        y: Features of as many real data, shape ``(m, *D)``.
        k: The neighbor; an event is not a neighbor of itself.

    Returns:
        Density, >= 0 and above 1 where samples concentrate at the densest real data, and coverage in ``[0, 1]``. The
        standard errors are for fixed balls. For a few hundred samples the standard deviation over new samples and real
        data is 1.5 to 2 times as large.

    Raises:
        ValueError: If a set has no more than ``k`` samples, or ``k < 1``; if values are not finite, or the event shapes
            differ; if a real event occurs more than ``k`` times, so that its ball is empty.

    Source: Naeem, Oh, Uh, Choi & Yoo 2020, eq. 3 and 4, and lemma 2 (expected coverage).
    """
    check_arguments(density_coverage, locals())
    x, y = _centered(x, y, k)
    radii = _squared_radii(y, k)
    empty = radii <= _ROUNDING * y.square().sum(1)
    if empty.any():
        raise ValueError(
            f"no real event may occur more than k = {k} times, got {int(empty.sum())} that do: their balls are "
            "empty. Drop duplicates or raise k."
        )
    counts, covered = torch.zeros(len(x), dtype=x.dtype), torch.zeros(len(y), dtype=torch.bool)
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        inside = _squared_distances(x[rows], y) + _rounding(x[rows], y) < radii
        counts[rows] = inside.sum(1)
        covered |= inside.any(0)
    density = Estimate(counts.mean().item() / k, counts.std().item() / k / math.sqrt(len(x)))
    return DensityCoverage(density, _share(covered))


def _share(inside: Tensor) -> Estimate:
    share = inside.double().mean().item()
    return Estimate(share, math.sqrt(share * (1 - share) / len(inside)))


def _centered(x: ArrayLike, y: ArrayLike, k: int) -> tuple[Tensor, Tensor]:
    check_integer("k", k)
    x, y = check_samples(x, y, least=k + 1)
    center = y.mean(0)  # squared distances lose digits far from the origin
    return x - center, y - center


def _rounding(x: Tensor, y: Tensor) -> Tensor:
    return _ROUNDING * torch.maximum(x.square().sum(1)[:, None], y.square().sum(1))


def _squared_radii(x: Tensor, k: int) -> Tensor:
    """Squared distance of each row to its k-th neighbor: the (k + 1)-th smallest, as the first is the row itself."""
    return torch.cat([_squared_distances(part, x).kthvalue(k + 1, dim=1).values for part in x.split(_ROWS)])


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    return x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
