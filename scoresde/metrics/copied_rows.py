"""Copied rows of a table: samples that repeat a training row, and samples nearer to training than to held-out rows.

Numbers are standardized by the training rows, and a category that differs counts 1. Rows that repeat in real data too,
such as those of zeros, are allowed: they are compared with the held-out rows that repeat training rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.checks import check_seed
from scoresde.metrics.column_distances import kinds_of_columns
from scoresde.metrics.metric_estimate import Estimate, check_samples
from scoresde.metrics.two_sample import nearest_neighbors

__all__ = ["CopiedRows", "copied_rows"]

_EQUAL = 1e-9  # distance of equal rows, in standard deviations


@dataclass(frozen=True)
class CopiedRows:
    """Shares of rows, each with its binomial standard error.

    Args:
        repeated: Samples that equal a training row.
        repeated_real: Held-out rows that do.
        nearer_train: Samples nearer to a training row than to any of as many held-out rows, ties as one half: 1/2
            without copies, 1 if every sample is a copy.
    """

    repeated: Estimate
    repeated_real: Estimate
    nearer_train: Estimate


def copied_rows(
    samples: ArrayLike,
    train: ArrayLike,
    held_out: ArrayLike,
    categorical: Sequence[bool] = (),
    *,
    seed: int = 0,
) -> CopiedRows:
    """Tests whether samples are copies of training rows.

    Args:
        samples, train, held_out: Shapes ``(n, D)``, ``(m, D)``, ``(h, D)``; categories as codes.
        categorical: For each column whether it holds categories; empty if none does.
        seed: Of the choice of as many training as held-out rows.

    Raises:
        ValueError: If a set is empty or not finite, or the columns differ in number.
    """
    check_arguments(copied_rows, locals())
    seed = check_seed(seed)
    samples, train = check_samples(samples, train, least=1)
    held_out, _ = check_samples(held_out, train, least=1)
    flags = kinds_of_columns(categorical, train.shape[1])
    a, t, h = _comparable((samples, train, held_out), flags)
    generator = torch.Generator().manual_seed(seed)
    count = min(len(t), len(h))
    some_train, some_held_out = (z[torch.randperm(len(z), generator=generator)[:count]] for z in (t, h))
    to_train, to_held_out = (nearest_neighbors(a, z)[0] for z in (some_train, some_held_out))
    nearer = (to_train < to_held_out - _EQUAL).double() + 0.5 * ((to_train - to_held_out).abs() <= _EQUAL).double()
    return CopiedRows(
        _share((nearest_neighbors(a, t)[0] <= _EQUAL).double()),
        _share((nearest_neighbors(h, t)[0] <= _EQUAL).double()),
        _share(nearer),
    )


def _comparable(tables: Sequence[Tensor], categorical: Sequence[bool]) -> list[Tensor]:
    """Tables in which Euclidean distances make sense; the second one sets the units."""
    parts: list[list[Tensor]] = [[] for _ in tables]
    for j, is_category in enumerate(categorical):
        columns = [table[:, j] for table in tables]
        if is_category:
            codes = torch.cat(columns).unique()
            for part, column in zip(parts, columns, strict=True):
                part.append((column[:, None] == codes).double() / math.sqrt(2))
            continue
        mean, scale = columns[1].mean(), columns[1].std(correction=0)
        scale = scale if scale > 0 else torch.ones_like(scale)
        for part, column in zip(parts, columns, strict=True):
            part.append(((column - mean) / scale)[:, None])
    return [torch.cat(part, 1) for part in parts]


def _share(values: Tensor) -> Estimate:
    share = values.mean().item()
    return Estimate(share, math.sqrt(max(share * (1 - share), 0.0) / len(values)))
