r"""Which part of one set lies within the balls of the other, each up to the k-th neighbor of its center?

Fidelity asks where samples lie among real data, diversity where real data lie among samples. All four are shares, not
distances, and none is 1 on real data: put the floor beside them (`image_distances` does).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.metrics.estimate import Estimate, two_sets

__all__ = ["DensityCoverage", "PrecisionRecall", "density_coverage", "precision_recall"]

_ROWS = 1024  # rows of a distance matrix held at a time
_ROUNDING = 1e-12  # of the larger squared norm of a pair: squared distances that differ by less are equal


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision: the share of samples within the real data. Recall: the share of real data within the samples."""

    precision: Estimate
    recall: Estimate


@dataclass(frozen=True)
class DensityCoverage:
    """Density: real balls that a sample lies in, over k. Coverage: the share of real balls that hold a sample."""

    density: Estimate
    coverage: Estimate


def precision_recall(x: Tensor, y: Tensor, *, k: int = 3) -> PrecisionRecall:
    r"""The share of ``x`` in $\cup_i B(y_i)$, and that of ``y`` in $\cup_j B(x_j)$, balls up to the k-th neighbor.

    One real outlier makes a ball that holds whatever lies in it: precision is generous, and so is recall.

    Args:
        x: Features of the samples, shape ``(n, *D)``.
        y: Features of as many real data (as many: a ball shrinks with the number), shape ``(m, *D)``.
        k: The neighbor, itself not counted.

    Returns:
        Both in ``[0, 1]``, with the binomial standard error as if the balls were fixed: for a few hundred samples the
        standard deviation over new samples and real data is 1.2 to 1.5 times as large.

    Raises:
        ValueError: If there are not more than ``k`` samples of each, ``k < 1``, values are not finite or events unlike.

    Source: Kynkäänniemi, Karras, Laine, Lehtinen & Aila 2019, eq. 1 and 2.
    """
    x, y = _centered(x, y, k)
    precise, recalled = torch.zeros(len(x), dtype=torch.bool), torch.zeros(len(y), dtype=torch.bool)
    around_x, around_y = _squared_radii(x, k), _squared_radii(y, k)
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        least = _squared_distances(x[rows], y) - _rounding(x[rows], y)
        precise[rows] = (least <= around_y).any(1)
        recalled |= (least <= around_x[rows, None]).any(0)
    return PrecisionRecall(_share(precise), _share(recalled))


def density_coverage(x: Tensor, y: Tensor, *, k: int = 5) -> DensityCoverage:
    r"""$\frac{1}{kn}\sum_j \#\{i : x_j \in B(y_i)\}$, and the share of the open balls $B(y_i)$ that hold an $x_j$.

    Only real data have balls, so that an outlier among samples makes none; one among real data counts once, as 1 in
    ``m``. For samples of the real law the mean of density is about 1 and that of coverage is
    $1 - \prod_{l<k} (m - 1 - l)/(n + m - 1 - l)$, .97 for ``k = 5`` and ``n = m``.

    Args:
        x: Features of the samples, shape ``(n, *D)``.
        y: Features of as many real data, shape ``(m, *D)``.
        k: The neighbor, itself not counted.

    Returns:
        Density, >= 0 and above 1 where samples crowd the densest real data, and coverage in ``[0, 1]``. Standard errors
        as if the balls were fixed: for a few hundred samples the standard deviation over new samples and real data is
        1.5 to 2 times as large.

    Raises:
        ValueError: If there are not more than ``k`` samples of each, ``k < 1``, values are not finite, events unlike,
            or a real event occurs more than ``k`` times: its ball is empty.

    Source: Naeem, Oh, Uh, Choi & Yoo 2020, eq. 3 and 4, and lemma 2 (expected coverage).
    """
    x, y = _centered(x, y, k)
    around = _squared_radii(y, k)
    empty = around <= _ROUNDING * y.square().sum(1)
    if empty.any():
        raise ValueError(
            f"no real event may occur more than k = {k} times, got {int(empty.sum())} that do: their balls are "
            "empty. Drop duplicates or raise k."
        )
    counts, covered = torch.zeros(len(x), dtype=x.dtype), torch.zeros(len(y), dtype=torch.bool)
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        inside = _squared_distances(x[rows], y) + _rounding(x[rows], y) < around
        counts[rows] = inside.sum(1)
        covered |= inside.any(0)
    density = Estimate(counts.mean().item() / k, counts.std().item() / k / math.sqrt(len(x)))
    return DensityCoverage(density, _share(covered))


def _share(inside: Tensor) -> Estimate:
    share = inside.double().mean().item()
    return Estimate(share, math.sqrt(share * (1 - share) / len(inside)))


def _centered(x: Tensor, y: Tensor, k: int) -> tuple[Tensor, Tensor]:
    if k < 1:
        raise ValueError(f"k must be >= 1, got {k}; 3 (precision, recall) and 5 (density, coverage) are usual.")
    x, y = two_sets(x, y, least=k + 1)
    center = y.mean(0)  # squared distances lose digits far from the origin
    return x - center, y - center


def _rounding(x: Tensor, y: Tensor) -> Tensor:
    return _ROUNDING * torch.maximum(x.square().sum(1)[:, None], y.square().sum(1))


def _squared_radii(x: Tensor, k: int) -> Tensor:
    """Squared distance of each row to its k-th neighbor: the first is the row itself."""
    return torch.cat([_squared_distances(part, x).kthvalue(k + 1, dim=1).values for part in x.split(_ROWS)])


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    return x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T
