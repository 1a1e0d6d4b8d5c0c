"""The timetable of a run: after which updates it reads the device, adds to the history, saves and stores EMAs."""

from __future__ import annotations

from dataclasses import dataclass

from scoresde._core.checks import check_integer

__all__ = ["Timetable"]

_CHECK_EVERY = 20  # updates between two readings of the sums on the device
_MAX_HISTORY = 500  # entries
_SNAPSHOTS = 16  # of the EMAs


@dataclass(frozen=True)
class Timetable:
    """After which updates what is done; everything is done after the last one.

    Args:
        last: Updates of the run.
        save_every: Updates between checkpoints.
        snapshot_every: Updates between snapshots of the EMAs; None for a 16th of the run.

    Raises:
        TypeError, ValueError: If a number of updates is not a positive integer.
    """

    last: int
    save_every: int
    snapshot_every: int | None = None

    def __post_init__(self) -> None:
        check_integer("save_every", self.save_every)
        if self.snapshot_every is not None:
            check_integer("snapshot_every", self.snapshot_every)

    def is_last(self, step: int) -> bool:
        """Whether this is the last update."""
        return step == self.last

    def check(self, step: int) -> bool:
        """Whether losses are read from the device and gradients checked."""
        return step % _CHECK_EVERY == 0 or self.is_last(step)

    def history(self, step: int) -> bool:
        """Whether the history and the metrics get an entry."""
        spacing = _CHECK_EVERY * -(-self.last // (_MAX_HISTORY * _CHECK_EVERY)) if self.last else 1
        return step % spacing == 0 or self.is_last(step)

    def save(self, step: int) -> bool:
        """Whether a checkpoint is written."""
        return step % self.save_every == 0 or self.is_last(step)

    def snapshot(self, step: int) -> bool:
        """Whether the EMAs are stored."""
        return step % (self.snapshot_every or max(1, self.last // _SNAPSHOTS)) == 0 or self.is_last(step)
