"""How far is it? A progress bar over the steps of all batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor

from scoresde.sampler.base import Observer

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
    from rich.progress import Progress

    with Progress() as progress:
        task = progress.add_task("sampling", total=1.0)

        def observers(done: int, total: int) -> tuple[Observer, ...]:
            def advance(step: int, steps: int, _: float, x: Tensor) -> None:
                progress.update(task, completed=(done + len(x) * step / steps) / total)

            return (advance,)

        yield observers
