"""What became of the updates since the last point of the history? Sums, read from the device now and then."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

__all__ = ["RunningMeans"]


@dataclass(frozen=True)
class RunningMeans:
    """Updates since the last point of the history, as one process saw them.

    Attributes:
        total: Sum of their losses per dimension.
        norms: Sum of the lengths of their gradients, before clipping.
        count: How many are in these sums.
        skipped: How many in a row were skipped, up to the last.
    """

    total: float = 0.0
    norms: float = 0.0
    count: int = 0
    skipped: int = 0

    def after(self, loss: float, norm: float) -> RunningMeans:
        """With one more update, which was skipped if its gradient's ``norm`` is not finite."""
        if not math.isfinite(norm):
            return replace(self, skipped=self.skipped + 1)
        return RunningMeans(self.total + loss, self.norms + norm, self.count + 1)

    @property
    def mean(self) -> float:
        """Mean loss per dimension; NaN of none."""
        return self.total / self.count if self.count else math.nan

    @property
    def norm(self) -> float:
        """Mean length of the gradient; NaN of none."""
        return self.norms / self.count if self.count else math.nan

    @property
    def numbers(self) -> list[float]:
        """Its four numbers, which `read` takes back."""
        return [self.total, self.norms, float(self.count), float(self.skipped)]

    @staticmethod
    def read(numbers: Sequence[float]) -> RunningMeans:
        """The tally of ``numbers``."""
        total, norms, count, skipped = numbers
        return RunningMeans(total, norms, int(count), int(skipped))

    @staticmethod
    def joined(parts: Iterable[RunningMeans]) -> RunningMeans:
        """One of several processes that did the same updates on different shares of the batch: the mean of each."""
        parts = list(parts)
        n = len(parts)
        total, norms = math.fsum(p.total for p in parts) / n, math.fsum(p.norms for p in parts) / n
        return RunningMeans(total, norms, parts[0].count, parts[0].skipped)
