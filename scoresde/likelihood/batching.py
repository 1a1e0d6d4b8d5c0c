"""How is a model run to be measured? In eval mode, without gradients, in batches, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from scoresde._core.progress import ProgressBar
from scoresde.model import Model, evaluating

__all__ = ["Density", "Observe", "bar", "batches", "evaluated", "part_of"]

Density = Callable[[Tensor], Tensor]
"""A log-density, nats: ``(B, *D)`` to ``(B,)``."""

Observe = Callable[[float], None]
"""Told of the share of the work that is done."""


@contextmanager
def evaluated(model: Model) -> Iterator[None]:
    """Eval mode, no graph kept, and tensors that autograd can use, whatever the caller's modes."""
    with torch.inference_mode(False), torch.no_grad(), evaluating(model):
        yield


@contextmanager
def bar(shown: bool) -> Iterator[Observe | None]:
    """A progress bar, as the function that takes the share done; None if not shown."""
    with ProgressBar("likelihood", enabled=shown) as drawn:
        yield drawn.update if shown else None


def part_of(observe: Observe | None, start: float, length: float) -> Observe | None:
    """The observer of a part of the work, by its start and length as shares of the whole."""
    return None if observe is None else lambda share: observe(start + length * share)


def batches(n: int, batch_size: int | None) -> list[slice]:
    """Rows of each batch.

    Raises:
        ValueError: If the size is not a positive integer.
    """
    if batch_size is not None and (isinstance(batch_size, bool) or batch_size != int(batch_size) or batch_size < 1):
        raise ValueError(f"batch_size must be a positive integer, got {batch_size!r}.")
    size = max(n, 1) if batch_size is None else int(batch_size)
    return [slice(i, min(i + size, n)) for i in range(0, n, size)]
