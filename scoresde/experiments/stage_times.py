"""Wall-clock time of the stages of an experiment."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["StageTimes"]


class StageTimes:
    """A clock for the parts of a run, seconds by name; a part that comes again adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        self._begin = time.perf_counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Counts what happens inside to ``name``."""
        begin = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    def add(self, seconds: Mapping[str, float]) -> None:
        """Adds what another clock counted."""
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value

    @property
    def total(self) -> float:
        """Seconds since it was made."""
        return time.perf_counter() - self._begin
