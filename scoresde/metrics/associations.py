r"""Pairwise dependence of the columns of a table, as one matrix for numbers and categories.

- Two columns of numbers: Spearman's rank correlation, in [-1, 1]; ties get their mean rank.
- Numbers r (as ranks) and categories k: correlation ratio $\eta$,
  $\eta^2 = 1 - (1 - \frac{\sum_k n_k (\bar r_k - \bar r)^2}{\sum (r - \bar r)^2})\frac{n - 1}{n - K}$.
- Two columns of categories: Cramér's V, with the correction for its bias by Bergsma 2013.

The two corrections make the mean of independent columns about 0; negative squares are cut to 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde.metrics.column_distances import kinds_of_columns
from scoresde.metrics.metric_estimate import check_samples

__all__ = ["association_matrix"]


def association_matrix(x: ArrayLike, categorical: Sequence[bool] = ()) -> Tensor:
    """The dependence of each pair of columns.

    Args:
        x: A table, shape ``(n, D)``; categories as codes.
        categorical: For each column whether it holds categories; empty if none does.

    Returns:
        ``(D, D)``, float64, symmetric, with ones on the diagonal. Entries of a constant column are 0: it depends on
        nothing.

    Raises:
        ValueError: If there are fewer than 3 rows, a value is not finite, or ``categorical`` has another length.

    Source: Spearman 1904; Kelley 1935 (correlation ratio without bias); Bergsma 2013, eq. 7 and 8.
    """
    from scipy.stats import rankdata

    check_arguments(association_matrix, locals())
    x, _ = check_samples(x, x, least=3)
    flags = kinds_of_columns(categorical, x.shape[1])
    ranks = rankdata(x.numpy(), axis=0)
    ranks -= ranks.mean(0)
    codes = [np.unique(column, return_inverse=True)[1] for column in x.T.numpy()]
    matrix = torch.eye(len(flags), dtype=torch.float64)
    for i in range(len(flags)):
        for j in range(i):
            if flags[i] and flags[j]:
                value = _cramers_v(codes[i], codes[j])
            elif flags[i] or flags[j]:
                number, category = (j, i) if flags[i] else (i, j)
                value = _correlation_ratio(ranks[:, number], codes[category])
            else:
                value = _correlation(ranks[:, i], ranks[:, j])
            matrix[i, j] = matrix[j, i] = value
    return matrix


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else 0.0


def _correlation_ratio(ranks: np.ndarray, codes: np.ndarray) -> float:
    n, counts, total = len(ranks), np.bincount(codes), float(ranks @ ranks)
    if total == 0 or len(counts) in (1, n):
        return 0.0
    between = float((np.bincount(codes, ranks) ** 2 / counts).sum())
    return math.sqrt(max(0.0, 1 - (1 - between / total) * (n - 1) / (n - len(counts))))


def _cramers_v(a: np.ndarray, b: np.ndarray) -> float:
    n, rows, columns = len(a), int(a.max()) + 1, int(b.max()) + 1
    counts = np.zeros((rows, columns))
    np.add.at(counts, (a, b), 1.0)
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / n
    phi = float(((counts - expected) ** 2 / expected).sum()) / n
    phi = max(0.0, phi - (rows - 1) * (columns - 1) / (n - 1))
    smaller = min(size - (size - 1) ** 2 / (n - 1) for size in (rows, columns)) - 1
    return min(1.0, math.sqrt(phi / smaller)) if smaller > 0 else 0.0
