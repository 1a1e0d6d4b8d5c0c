"""The pace of a run: updates per second and the remaining time, as numbers and in words."""

from __future__ import annotations

import time
from collections.abc import Callable

from scoresde._core.durations import about

__all__ = ["PaceMeter", "PaceReport"]

_REPORT_AFTER = 5.0  # seconds between two reports, at least


class PaceMeter:
    """Updates per second and the remaining seconds, since it was made.

    Args:
        step: Updates that were done by then.
        last: Updates of the whole run.
    """

    def __init__(self, step: int, last: int) -> None:
        self._first, self._last, self._start = step, last, time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since the meter was made."""
        return time.monotonic() - self._start

    def read(self, step: int) -> tuple[float, float]:
        """Updates per second and seconds to go, after ``step`` updates; 0 and infinity before the first one."""
        done = step - self._first
        if done <= 0:
            return 0.0, float("inf")
        per_update = max(self.seconds, 1e-9) / done
        return 1.0 / per_update, (self._last - step) * per_update

    def text(self, step: int) -> str:
        """The pace in words, such as ``7.0 steps/s, 9 min to go``."""
        rate, left = self.read(step)
        return f"{rate:.3g} steps/s, {about(left) if left else '0 s'} to go"


class PaceReport:
    """Sends the pace to ``status`` after each tenth of a run, at most every 5 seconds.

    Args:
        step: Updates that are done.
        last: Updates of the whole run.
        status: Receives the sentences; None reports nothing.
    """

    def __init__(self, step: int, last: int, status: Callable[[str], None] | None) -> None:
        self._meter, self._last, self._status, self._reported = PaceMeter(step, last), last, status, 0.0

    def update(self, step: int, loss: Callable[[], float]) -> None:
        """Reports after update ``step`` if it is time; ``loss`` is called only then, since it waits for the device."""
        if self._status is None or step % max(1, self._last // 10) or step >= self._last:
            return
        seconds = self._meter.seconds
        if seconds - self._reported >= _REPORT_AFTER:
            self._reported = seconds
            self._status(f"step {step} of {self._last}, loss {loss():.4f}, {self._meter.text(step)}")
