"""Wall-clock seconds of the stages of an experiment."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

__all__ = ["StageTimes"]


class StageTimes:
    """Seconds by stage; a stage that is entered again adds to its seconds.

    Attributes:
        seconds: By name of the stage.
        started: UTC time of construction, as text.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        self._begin = time.perf_counter()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Adds the duration of the block to the stage ``name``."""
        begin = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    def add(self, seconds: Mapping[str, float]) -> None:
        """Adds the seconds of other stages, such as those of a worker process."""
        for name, value in seconds.items():
            self.seconds[name] = self.seconds.get(name, 0.0) + value

    @property
    def total(self) -> float:
        """Seconds since construction."""
        return time.perf_counter() - self._begin
