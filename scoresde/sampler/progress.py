"""How far is it? A progress bar over the steps of all batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from scoresde.sampler.base import Observer, Progress

__all__ = ["bar"]


@contextmanager
def bar(shown: bool) -> Iterator[Callable[[int, int], tuple[Observer, ...]]]:
    """A rich bar, or nothing.

    Args:
        shown: Whether there is one.

    Yields:
        ``observers(done, total)``: those to call after each step of a batch that begins with sample ``done``.
    """
    if not shown:
        yield lambda *_: ()
        return
    from rich.progress import Progress as Bar

    with Bar() as drawn:
        task = drawn.add_task("sampling", total=1.0)

        def observers(done: int, total: int) -> tuple[Observer, ...]:
            def advance(now: Progress) -> None:
                drawn.update(task, completed=(done + len(now.x) * now.done / now.steps) / total)

            return (advance,)

        yield observers
        drawn.update(task, completed=1.0)  # also where a walk was stopped
