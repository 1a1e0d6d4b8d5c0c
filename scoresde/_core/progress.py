"""Progress bars on a terminal or in a notebook, drawn by rich."""

from __future__ import annotations

from types import TracebackType

__all__ = ["ProgressBar", "interactive"]


def interactive() -> bool:
    """Whether standard output is a terminal or a notebook."""
    from rich import get_console

    console = get_console()
    return console.is_terminal or console.is_jupyter


class ProgressBar:
    """A progress bar with the remaining time; does nothing unless ``enabled``.

    Args:
        label: Text before the bar.
        total: Amount of work. The bar shows a percentage of the default 1, and a count of any other total.
        completed: Amount done at the start.
        enabled: Whether the bar is drawn.
        text: Format of further columns, such as ``"loss {task.fields[loss]:.4f}"``.
        fields: Initial values of the fields in ``text``.
    """

    def __init__(
        self,
        label: str,
        total: float = 1.0,
        completed: float = 0.0,
        *,
        enabled: bool = True,
        text: str = "",
        **fields: object,
    ) -> None:
        self.enabled = enabled
        if enabled:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            count = TextColumn("{task.percentage:>3.0f}%") if total == 1.0 else MofNCompleteColumn()
            extra = [TextColumn(text)] if text else []
            self._progress = Progress(TextColumn(label), BarColumn(), count, *extra, TimeRemainingColumn())
            self._task = self._progress.add_task(label, total=total, completed=completed, **fields)  # pyright: ignore[reportArgumentType]

    @property
    def speed(self) -> float:
        """Amount of work per second; 0 while unknown."""
        return (self._progress.tasks[0].speed or 0.0) if self.enabled else 0.0

    def update(self, completed: float, **fields: object) -> None:
        """Moves the bar to ``completed``."""
        if self.enabled:
            self._progress.update(self._task, completed=completed, **fields)  # pyright: ignore[reportArgumentType]

    def __enter__(self) -> ProgressBar:
        if self.enabled:
            self._progress.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.enabled:
            self._progress.stop()
