"""Running means of loss and gradient norm over the updates since the last entry of the history."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

__all__ = ["RunningMeans"]


@dataclass(frozen=True)
class RunningMeans:
    """Sums over the updates of one process since the last entry of the history.

    Attributes:
        loss_sum: Of the losses per dimension.
        norm_sum: Of the gradient norms before clipping.
        count: Updates in these sums.
        skipped: Most recent updates in a row that were skipped.
    """

    loss_sum: float = 0.0
    norm_sum: float = 0.0
    count: int = 0
    skipped: int = 0

    def updated(self, loss: float, norm: float) -> RunningMeans:
        """With one more update, which was skipped if its gradient's ``norm`` is not finite."""
        if not math.isfinite(norm):
            return replace(self, skipped=self.skipped + 1)
        return RunningMeans(self.loss_sum + loss, self.norm_sum + norm, self.count + 1)

    @property
    def loss(self) -> float:
        """Mean loss per dimension; NaN without updates."""
        return self.loss_sum / self.count if self.count else math.nan

    @property
    def norm(self) -> float:
        """Mean gradient norm; NaN without updates."""
        return self.norm_sum / self.count if self.count else math.nan

    @property
    def numbers(self) -> list[float]:
        """The four attributes, for `from_numbers`."""
        return [self.loss_sum, self.norm_sum, float(self.count), float(self.skipped)]

    @staticmethod
    def from_numbers(numbers: Sequence[float]) -> RunningMeans:
        """The inverse of `numbers`."""
        loss_sum, norm_sum, count, skipped = numbers
        return RunningMeans(loss_sum, norm_sum, int(count), int(skipped))

    @staticmethod
    def merged(parts: Iterable[RunningMeans]) -> RunningMeans:
        """The means over several processes that did the same updates on different shards of the batch."""
        parts = list(parts)
        n = len(parts)
        loss_sum, norm_sum = (math.fsum(sums) / n for sums in zip(*((p.loss_sum, p.norm_sum) for p in parts)))
        return RunningMeans(loss_sum, norm_sum, parts[0].count, parts[0].skipped)
