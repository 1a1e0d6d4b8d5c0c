"""What a loaded data set holds: a train and a test part in data units, their labels and their description."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from scoresde.data.description import Description

__all__ = ["Data", "split"]


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in data units: quantized data are integer levels.

    Args:
        train, test: Shape ``(N, *D)``; either may be empty.
        description: What they are, and their scaling.
        train_labels, test_labels: Integer classes, shape ``(N,)``, if there are any.
        columns: Names of a table's features, in the order of the event's entries.
        categories: For those that are coded text: the texts that 0, 1, ... stand for.

    Raises:
        ValueError: If a value is not as described, or labels and events differ in number.
    """

    train: Tensor = field(repr=False)
    test: Tensor = field(repr=False)
    description: Description
    train_labels: Tensor | None = field(default=None, repr=False)
    test_labels: Tensor | None = field(default=None, repr=False)
    columns: tuple[str, ...] | None = None
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for part, events, labels in (("train", self.train, self.train_labels), ("test", self.test, self.test_labels)):
            try:
                self.description.validate(events)
            except ValueError as error:
                raise ValueError(f"{part} part: {error}") from error
            if labels is not None and labels.shape != events.shape[:1]:
                raise ValueError(
                    f"{part}_labels must have shape ({len(events)},), got {tuple(labels.shape)}; one each."
                )
            if labels is not None and labels.dtype != torch.int64:
                if labels.is_floating_point() or labels.is_complex():
                    raise ValueError(
                        f"{part}_labels must be whole numbers, 0, 1, ..., got {labels.dtype}; code them so."
                    )
                object.__setattr__(self, f"{part}_labels", labels.long())


def split(n: int, test_fraction: float, seed: int | None) -> tuple[Tensor | slice, Tensor | slice]:
    """Indices of the train and the test part of ``n`` events.

    Args:
        n: Number of events.
        test_fraction: Share of the test part, rounded up, in ``[0, 1)``.
        seed: Fixes which events are drawn, the same on every machine; ``None`` takes the last ones, as slices (views).

    Returns:
        Train indices, test indices.

    Raises:
        ValueError: If the fraction is out of its domain or leaves nothing to train on.
    """
    if not 0 <= test_fraction < 1:
        raise ValueError(f"test_fraction must lie in [0, 1), got {test_fraction}; 0.2 is usual.")
    train = n - math.ceil(test_fraction * n)
    if train < 1:
        raise ValueError(
            f"the train part must not be empty, got {n} events at test_fraction={test_fraction}; bring more."
        )
    if seed is None:
        return slice(0, train), slice(train, n)
    order = torch.from_numpy(np.random.RandomState(seed).permutation(n))  # a stream that never changes
    return order[:train], order[train:]
