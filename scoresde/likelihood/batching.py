"""Evaluation of a model in batches: eval mode without gradients, slices of rows, and progress of parts of the work."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from scoresde._core.checks import check_integer
from scoresde.model import Model, evaluating

__all__ = ["Density", "ProgressHook", "batches", "evaluation_mode", "progress_part"]

Density = Callable[[Tensor], Tensor]
"""A log-density, nats: ``(B, *D)`` to ``(B,)``."""

ProgressHook = Callable[[float], None]
"""Called with the fraction of the work that is done, from 0 to 1."""


@contextmanager
def evaluation_mode(model: Model) -> Iterator[None]:
    """Eval mode without gradients, but with tensors that autograd can use, whatever modes the caller has set."""
    with torch.inference_mode(False), torch.no_grad(), evaluating(model):
        yield


def progress_part(hook: ProgressHook | None, start: float, length: float) -> ProgressHook | None:
    """The hook of a part of the work, given the part's start and length as fractions of the whole."""
    return None if hook is None else lambda fraction: hook(start + length * fraction)


def batches(count: int, batch_size: int | None) -> list[slice]:
    """Rows of each batch; all rows in one batch if ``batch_size`` is None.

    Raises:
        ValueError: If ``batch_size`` is not a positive integer.
    """
    if batch_size is not None:
        check_integer("batch_size", batch_size)
    size = max(count, 1) if batch_size is None else batch_size
    return [slice(i, min(i + size, count)) for i in range(0, count, size)]
