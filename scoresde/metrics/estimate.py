"""What every metric takes and returns: two like sets of samples, a number with its error, and the floor beneath it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.checks import check_finite

__all__ = ["Estimate", "floor", "two_sets"]


@dataclass(frozen=True)
class Estimate:
    """A number and the standard error of this one evaluation (each function says of what; nan if unknown)."""

    value: float
    stderr: float = math.nan

    def __float__(self) -> float:
        return self.value


def floor(
    metric: Callable[[Tensor, Tensor], Estimate],
    real: Tensor,
    held_out: Tensor,
    *,
    draws: int = 20,
    generator: torch.Generator | None = None,
) -> Estimate:
    """What a metric says of real against real: ``metric(as many events drawn from real, held_out)``.

    Args:
        metric: Such as ``mmd``; a ``lambda`` sets its arguments.
        real: Shape ``(n, *D)``, with ``n >= m``; each draw is without replacement.
        held_out: Shape ``(m, *D)``.
        draws: How often to draw.
        generator: Source of the draws.

    Returns:
        Mean over the draws; the standard error is that of one evaluation beside these held-out events: the standard
        deviation over the draws, over ``sqrt(1 - m / n)``, as draws from few events share most of them; nan for
        ``n == m``, where every draw is the same.

    Raises:
        ValueError: If ``n < m`` or ``draws < 2``, or whatever the metric raises.
    """
    if draws < 2 or len(real) < len(held_out):
        raise ValueError(
            f"the floor needs draws >= 2 and no fewer real than held-out events, got {draws}, {len(real)} and "
            f"{len(held_out)}; swap them or cut the held-out part."
        )
    picks = [torch.randperm(len(real), generator=generator)[: len(held_out)] for _ in range(draws)]
    values = torch.tensor([float(metric(real[pick], held_out)) for pick in picks], dtype=torch.float64)
    fresh = 1 - len(held_out) / len(real)
    return Estimate(values.mean().item(), values.std().item() / math.sqrt(fresh) if fresh else math.nan)


def two_sets(x: Tensor, y: Tensor, least: int) -> tuple[Tensor, Tensor]:
    """Checks two sets of samples and makes them float64 rows on the CPU.

    Args:
        x, y: Shapes ``(n, *D)`` and ``(m, *D)``.
        least: Fewest samples of either.

    Returns:
        Shapes ``(n, d)`` and ``(m, d)``.

    Raises:
        TypeError: If either is no tensor of real numbers.
        ValueError: If events are unlike, samples fewer than ``least``, or a value is NaN or infinite.
    """
    for z in (x, y):
        if not isinstance(z, Tensor) or z.is_complex():
            kind = z.dtype if isinstance(z, Tensor) else type(z).__name__
            raise TypeError(f"both sets must be tensors of real numbers, got {kind}; torch.as_tensor makes one.")
    if x.ndim == 0 or y.ndim == 0 or x.shape[1:] != y.shape[1:]:
        raise ValueError(
            f"both sets must have one event shape, got {tuple(x.shape)} and {tuple(y.shape)}; reshape one."
        )
    if min(len(x), len(y)) < least:
        raise ValueError(f"this metric needs at least {least} samples of each, got {len(x)} and {len(y)}; draw more.")
    check_finite(x, "the first set")
    check_finite(y, "the second set")
    return x.detach().cpu().double().reshape(len(x), -1), y.detach().cpu().double().reshape(len(y), -1)
