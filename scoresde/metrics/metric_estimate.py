r"""Estimate of a metric (value and standard error), and its floor $E[m(real', real)]$ between sets of real data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike, as_tensor
from scoresde._core.checks import check_event_shape, check_finite, check_integer
from scoresde._core.tensors import has_values

__all__ = ["Estimate", "as_events", "check_samples", "floor"]


@dataclass(frozen=True)
class Estimate:
    """A value and the standard error of this one evaluation (each metric states its source; nan if unknown)."""

    value: float
    stderr: float = math.nan

    def __float__(self) -> float:
        return self.value


def floor(
    metric: Callable[[Tensor, Tensor], Estimate],
    real: ArrayLike,
    held_out: ArrayLike,
    *,
    draws: int = 20,
    generator: torch.Generator | None = None,
) -> Estimate:
    """Value of a metric between real data: ``metric(len(held_out) events drawn from real, held_out)``.

    Args:
        metric: Such as ``mmd``; use a ``lambda`` to set its arguments.
        real: Shape ``(n, *D)``, with ``n >= m``; each draw is without replacement.
        held_out: Shape ``(m, *D)``.
        draws: Number of draws.
        generator: Source of the draws.

    Returns:
        Mean over the draws. The standard error is that of one evaluation against these held-out events: the standard
        deviation over the draws, divided by ``sqrt(1 - m / n)``, because draws from few events share most of them. It
        is nan for ``n == m``, where every draw is the same set.

    Raises:
        ValueError: If ``n < m`` or ``draws < 2``, or any error of the metric.
    """
    check_arguments(floor, locals())
    check_integer("draws", draws, 2)
    real, held_out = as_events(real, "real"), as_events(held_out, "held_out")
    if len(real) < len(held_out):
        raise ValueError(
            f"the floor needs draws >= 2 and no fewer real than held-out events, got {draws}, {len(real)} and "
            f"{len(held_out)}; swap them or shorten the held-out part."
        )
    picks = [torch.randperm(len(real), generator=generator)[: len(held_out)] for _ in range(draws)]
    values = torch.tensor([float(metric(real[pick], held_out)) for pick in picks], dtype=torch.float64)
    unshared = 1 - len(held_out) / len(real)
    return Estimate(values.mean().item(), values.std().item() / math.sqrt(unshared) if unshared else math.nan)


def as_events(value: ArrayLike, name: str) -> Tensor:
    """A set of samples as a tensor with values and a batch axis, ``(n, *D)``.

    Raises:
        TypeError: If it is not a tensor, array or list of numbers, or is on the meta device.
        ValueError: If it has no batch axis.
    """
    tensor = as_tensor(value, name)
    if not has_values(tensor):
        raise TypeError(f"{name} must have values, got a tensor on the meta device; move it to the CPU with its data.")
    check_event_shape(tensor, None, name)
    return tensor


def check_samples(x: ArrayLike, y: ArrayLike, least: int) -> tuple[Tensor, Tensor]:
    """Checks two sets of samples and converts them to float64 rows on the CPU.

    Args:
        x, y: Shapes ``(n, *D)`` and ``(m, *D)``.
        least: Minimum number of samples in each set.

    Returns:
        Shapes ``(n, d)`` and ``(m, d)``.

    Raises:
        TypeError: If either is not a tensor, array or list of real numbers.
        ValueError: If the event shapes differ, a set has fewer than ``least`` samples, or a value is NaN or infinite.
    """
    x, y = as_events(x, "the first set"), as_events(y, "the second set")
    for z in (x, y):
        if z.is_complex():
            raise TypeError(f"both sets must be tensors of real numbers, got {z.dtype}; pass the parts as features.")
    if x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"both sets must have one event shape, got {tuple(x.shape)} and {tuple(y.shape)}; reshape one."
        )
    if min(len(x), len(y)) < least:
        raise ValueError(f"this metric needs at least {least} samples of each, got {len(x)} and {len(y)}; draw more.")
    check_finite(x, "the first set")
    check_finite(y, "the second set")
    return x.detach().cpu().double().reshape(len(x), -1), y.detach().cpu().double().reshape(len(y), -1)
