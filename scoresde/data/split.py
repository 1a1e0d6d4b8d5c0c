"""The split of a data set into a train and a test part, drawn from a seed or taken in order."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from scoresde._core.checks import check_seed

__all__ = ["split"]


def split(n: int, test_fraction: float, seed: int | None) -> tuple[Tensor | slice, Tensor | slice]:
    """Indices of the train and the test part of ``n`` events.

    Args:
        n: Number of events.
        test_fraction: Fraction of events in the test part, rounded up, in ``[0, 1)``.
        seed: Seed of the random split, the same on every machine; ``None`` takes the last events, as slices (views).

    Returns:
        Train indices, test indices.

    Raises:
        ValueError: If the fraction is outside ``[0, 1)`` or leaves no training events.
    """
    if not 0 <= test_fraction < 1:
        raise ValueError(f"test_fraction must lie in [0, 1), got {test_fraction}; 0.2 is usual.")
    train = n - math.ceil(test_fraction * n)
    if train < 1:
        raise ValueError(
            f"the train part must not be empty, got {n} events at test_fraction={test_fraction}; add events or lower "
            "the fraction."
        )
    if seed is None:
        return slice(0, train), slice(train, n)
    seed = check_seed(seed)
    if seed >= 1 << 32:
        raise ValueError(f"seed must be an integer below 2**32 to split data, got {seed}; pass for example 0.")
    order = torch.from_numpy(
        np.random.RandomState(seed).permutation(n)
    )  # NumPy guarantees this stream for all versions
    return order[:train], order[train:]
