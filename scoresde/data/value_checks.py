"""Checks of the values of a data set against its range, bins and type; the error names the first index."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde.data.scaling import is_exact

__all__ = ["check_values", "raise_if_any"]

_REMEDY = (
    'drop or impute it, or keep NaN as a missing value: Description(..., missing=True), or missing="mask" where data '
    "are read"
)
_UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # torch compares none of them with numbers


def check_values(
    part: Tensor, start: int, bins: int | None, low: float | None, high: float | None, missing: bool = False
) -> None:
    """Refuses values that are not finite, not exact in float64, or out of range.

    Args:
        part: Events ``start, start + 1, ...`` of a data set in data units, ``(B, *D)``.
        start: Index of the first of them, for messages.
        bins: Number of bins of quantized data, or None.
        low, high: Range of continuous data, both ends included; None is unbounded.
        missing: Whether NaN is a missing value, which passes.

    Raises:
        ValueError: At the first such value.
    """
    if part.is_floating_point():
        bad = part.isinf() if missing else ~torch.isfinite(part)
        raise_if_any(bad, part, "data must be finite", "drop or impute it" if missing else _REMEDY, start)
    elif part.dtype in (torch.int64, torch.uint64):
        remedy = "subtract a constant first, or use a larger unit (seconds for nanoseconds)"
        raise_if_any(~is_exact(part), part, "integers must lie within ±2^53 to be exact", remedy, start)
    values = part.long() if part.dtype in _UNSIGNED else part
    remedy = "shift or scale the data, or declare their range"
    if bins is not None:
        above = values >= bins if part.is_floating_point() else values > bins - 1  # uint8(256) would be 0
        raise_if_any((values < 0) | above, part, f"data must lie in [0, {bins})", remedy, start)
        return
    if low is not None:
        raise_if_any(values < low, part, f"data must be >= low = {low}", remedy, start)
    if high is not None:
        raise_if_any(values > high, part, f"data must be <= high = {high}", remedy, start)


def raise_if_any(bad: Tensor, y: Tensor, rule: str, remedy: str, start: int = 0) -> None:
    """Raises a ValueError that names the first value of ``y`` where ``bad`` holds, its index, and their number."""
    if bad.any():
        first = tuple(bad.nonzero()[0].tolist())
        index = (first[0] + start, *first[1:])
        raise ValueError(f"{rule}, got {y[first].item()} at index {index} ({int(bad.sum())} such); {remedy}.")
