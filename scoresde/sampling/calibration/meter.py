"""Count of network evaluations, one for each sample that passes through the network, and the progress by it."""

from __future__ import annotations

from scoresde._core.progress import ProgressBar

__all__ = ["Meter"]


class Meter:
    """Counts network evaluations and moves a progress bar.

    Args:
        bar: Shows the share of the planned evaluations.

    Attributes:
        spent: Evaluations so far.
        planned: Evaluations in all, at most.
    """

    def __init__(self, bar: ProgressBar | None = None) -> None:
        self.spent, self.planned, self._bar = 0, 0, bar

    def add(self, evaluations: int) -> None:
        """Counts evaluations that are made now."""
        self.spent += evaluations
        if self._bar is not None and self.planned:
            self._bar.update(min(self.spent / self.planned, 1.0))

    def finish(self) -> None:
        """Nothing more will be made."""
        if self._bar is not None:
            self._bar.update(1.0)
