"""Checks of the entries of a condition: finite, or null as a whole (NaN throughout)."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde._core.tensors import has_values

__all__ = ["check_entries", "check_real", "null_entries"]

_CHUNK = 1 << 22  # values that are read at once: a memory-mapped file need not fit into memory


def check_entries(values: Tensor, name: str, entry: str = "entry") -> None:
    """Refuses entries that are infinite, complex, or NaN in a part only.

    Args:
        values: Entries of a condition, ``(N, *)``.
        name: Of the condition, for the error.
        entry: What may be NaN as a whole, for the error.

    Raises:
        ValueError: At the first such entry.
    """
    check_real(values, f"condition {name!r}")
    if not values.is_floating_point() or not values.numel():
        return
    rows = max(1, _CHUNK // values[:1].numel())
    for start in range(0, len(values), rows):
        part = values[start : start + rows].flatten(1) if values.ndim > 1 else values[start : start + rows, None]
        missing = part.isnan()
        in_part = missing.any(1) & ~missing.all(1)
        if bool(in_part.any()):
            raise ValueError(
                f"condition {name!r} must have all values of each {entry}, or none (all NaN, which is null), got "
                f"only some {_place(in_part, start)}; fill the missing values, or leave the event out."
            )


def check_real(values: Tensor, name: str) -> None:
    """Refuses values that are complex, infinite, or not in memory; NaN passes.

    Args:
        values: Entries of a condition, ``(N, *)``.
        name: What they are, for the error.

    Raises:
        ValueError: At the first such value.
    """
    if not has_values(values):
        raise ValueError(f"{name} must have values, got a tensor on the meta device; move it to the CPU.")
    if values.is_complex():
        raise ValueError(f"{name} must be real, got {values.dtype}; pass both parts as two entries.")
    if not values.is_floating_point() or not values.numel():
        return
    rows = max(1, _CHUNK // values[:1].numel())
    for start in range(0, len(values), rows):
        part = values[start : start + rows].flatten(1) if values.ndim > 1 else values[start : start + rows, None]
        infinite = part.isinf().any(1)
        if bool(infinite.any()):
            raise ValueError(
                f"{name} must be finite, got an infinite value {_place(infinite, start)}; drop or replace it."
            )


def _place(bad: Tensor, start: int) -> str:
    return f"at index {int(bad.nonzero()[0]) + start} ({int(bad.sum())} such)"


def null_entries(values: Tensor) -> Tensor:
    """Whether each entry of a floating condition is null, NaN throughout, ``(N,)``; none of integers is."""
    if not values.is_floating_point() or not values.numel():
        return torch.zeros(len(values), dtype=torch.bool, device=values.device)
    return values.flatten(1).isnan().all(1) if values.ndim > 1 else values.isnan()
