"""Argument checks that all networks share. They read shapes, dtypes and Python numbers, never tensor values."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from scoresde._core.checks import check_event_shape, check_integer, check_tensor


def check_probability(name: str, value: float) -> None:
    """Refuses a probability outside [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value!r}; use 0 to switch it off.")


def check_interval(name: str, value: Sequence[float]) -> tuple[float, float]:
    """Returns ``(low, high)`` as floats; refuses anything but two finite increasing numbers."""
    ends = tuple(float(end) for end in value)
    if len(ends) != 2 or not -math.inf < ends[0] < ends[1] < math.inf:
        raise ValueError(f"{name} must be two finite numbers, low < high, got {value!r}; for example (-20.0, 20.0).")
    return ends[0], ends[1]


def check_sizes(name: str, value: Sequence[int]) -> tuple[int, ...]:
    """Returns the sizes as a tuple; refuses an entry that is not a positive integer."""
    if isinstance(value, (int, str)):
        raise TypeError(f"{name} must be a tuple of integers, got {value!r}; write ({value},).")
    for size in value:
        check_integer(f"each entry of {name}", size)
    return tuple(value)


def check_input(x: Tensor, log_snr: Tensor, event_shape: tuple[int, ...]) -> None:
    """Refuses an input that is not ``(B, *event_shape)`` with one floating log-SNR per sample."""
    check_event_shape(x, event_shape)
    check_tensor("log_snr", log_snr)
    if not x.is_floating_point() or not log_snr.is_floating_point():
        raise TypeError(f"x and log_snr must be floating, got {x.dtype} and {log_snr.dtype}; call .float() on them.")
    if log_snr.shape != x.shape[:1]:
        raise ValueError(
            f"log_snr must have shape ({len(x)},), got {tuple(log_snr.shape)}; pass one value per sample of x."
        )


def check_delta(delta: Tensor | None, read: bool, batch: int) -> None:
    """Refuses angles of jumps of the wrong dtype or shape, or for a network that does not read them."""
    if delta is None:
        return
    if not read:
        raise ValueError("delta must be None for a network that reads no jump, got angles; build it with delta=True.")
    check_tensor("delta", delta)
    if not delta.is_floating_point() or delta.shape != (batch,):
        raise ValueError(
            f"delta must be floating of shape ({batch},), got {delta.dtype} and {tuple(delta.shape)}; pass one angle "
            "per sample."
        )
