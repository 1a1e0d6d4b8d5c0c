r"""Distances between two tables, column by column.

- Numbers: Wasserstein distance $\int |F_x - F_y|\,dt$ over the standard deviation of ``y``.
- Categories: total variation $\frac12 \sum_k |p_k - q_k|$, the share of rows that would have to change.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde.metrics.metric_estimate import check_samples

__all__ = ["column_distances", "kinds_of_columns"]


def column_distances(x: ArrayLike, y: ArrayLike, categorical: Sequence[bool] = ()) -> Tensor:
    """The distance of each column of ``x`` to that of ``y``; ties, repeated rows and constant columns are allowed.

    Args:
        x, y: Samples and real data, shapes ``(n, D)`` and ``(m, D)``; categories as codes.
        categorical: For each column whether it holds categories; empty if none does.

    Returns:
        ``(D,)``, float64, without a unit. Where ``y`` is constant, a number's distance is in units of the standard
        deviation of both columns together.

    Raises:
        ValueError: If a set is empty or not finite, the columns differ in number, or ``categorical`` does.
    """
    from scipy.stats import wasserstein_distance

    check_arguments(column_distances, locals())
    x, y = check_samples(x, y, least=1)
    flags = kinds_of_columns(categorical, x.shape[1])
    distances = []
    for a, b, is_category in zip(x.T.numpy(), y.T.numpy(), flags, strict=True):
        if is_category:
            distances.append(_total_variation(a, b))
            continue
        scale = b.std() or np.concatenate([a, b]).std() or 1.0
        distances.append(float(wasserstein_distance(a / scale, b / scale)))
    return torch.tensor(distances, dtype=torch.float64)


def kinds_of_columns(categorical: Sequence[bool], count: int) -> tuple[bool, ...]:
    """Whether each of ``count`` columns holds categories; none does if ``categorical`` is empty.

    Raises:
        ValueError: If there is not one entry per column.
    """
    flags = tuple(bool(flag) for flag in categorical) or (False,) * count
    if len(flags) != count:
        raise ValueError(f"categorical must have one entry per column, got {len(flags)} for {count} columns.")
    return flags


def _total_variation(a: np.ndarray, b: np.ndarray) -> float:
    codes, index = np.unique(np.concatenate([a, b]), return_inverse=True)
    p, q = (np.bincount(part, minlength=len(codes)) / len(part) for part in (index[: len(a)], index[len(a) :]))
    return float(0.5 * np.abs(p - q).sum())
