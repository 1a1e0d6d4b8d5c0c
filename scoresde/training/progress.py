"""What does one see while a model is trained? A bar with steps, loss, steps per second and the time left."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = ["Bar"]


class Bar:
    """A bar from ``step`` to ``steps``; costs nothing where it is not ``enabled``."""

    def __init__(self, step: int, steps: int, *, enabled: bool) -> None:
        self._bar = None
        if enabled:
            text = TextColumn("loss {task.fields[loss]:.4f}  {task.fields[speed]:.1f} steps/s")
            self._bar = Progress(BarColumn(), MofNCompleteColumn(), text, TimeRemainingColumn())
            self._task = self._bar.add_task("train", total=steps, completed=step, loss=float("nan"), speed=0.0)

    def show(self, step: int, loss: float) -> None:
        """Moves the bar to ``step``."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, loss=loss, speed=self._bar.tasks[self._task].speed or 0.0)

    def __enter__(self) -> Bar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
