"""Checks of the fields of a `scoresde.data.Description`, which return them as plain Python values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

__all__ = ["checked_range", "checked_scaling", "checked_shape"]


def checked_shape(shape: Sequence[Any]) -> tuple[int, ...]:
    """The event shape as integers.

    Raises:
        ValueError: If a size is no integer, or less than 1.
    """
    if not all(float(size).is_integer() for size in shape):
        raise ValueError(f"shape must hold integers, got {tuple(shape)}; leave the batch axis out.")
    sizes = tuple(int(size) for size in shape)
    if min(sizes, default=1) < 1:
        raise ValueError(f"shape must hold sizes >= 1, got {sizes}; leave the batch axis out.")
    return sizes


def checked_range(
    bins: int | None, low: float | None, high: float | None, missing: bool
) -> tuple[int | None, float | None, float | None]:
    """Bins and range; the range of quantized data is ``[0, bins)``.

    Raises:
        ValueError: If ``bins`` is no integer from 2 on, values may be missing too, or the range contradicts it or is
            empty.
    """
    if bins is not None:
        if isinstance(bins, str) or not float(bins).is_integer() or not 2 <= bins <= 1 << 53:
            raise ValueError(f"bins must be an integer >= 2, got {bins}; use None for continuous data.")
        if low not in (None, 0) or high not in (None, bins):
            raise ValueError(
                f"integer values 0 ... {bins - 1} fill [0, {bins}), got low={low}, high={high}; shift the values."
            )
        if missing:
            raise ValueError(f"missing values are NaN, which is no integer, got bins={bins} too; leave one out.")
        return int(bins), 0.0, float(bins)
    if low is not None and high is not None and not low < high:
        raise ValueError(f"low must lie below high, got low={low}, high={high}; swap them or leave one None.")
    return None, None if low is None else float(low), None if high is None else float(high)


def checked_scaling(field: str, value: Any, default: float, shape: tuple[int, ...]) -> float | tuple[float, ...]:
    """Offset or scale: a number, or one for each entry of the first event axis.

    Args:
        field: "offset" or "scale".
        value: A number, sequence, array or tensor, or None for the default.
        default: The default.
        shape: Event shape.

    Raises:
        ValueError: If there is another number of them, one is not finite, or a scale is not positive.
    """
    value = default if value is None else value
    value = tuple(value) if isinstance(value, Sequence) else value
    value = value.tolist() if isinstance(value, (Tensor, np.ndarray, np.generic)) else value
    numbers = tuple(float(v) for v in value) if isinstance(value, (tuple, list)) else (float(value),)
    if isinstance(value, (tuple, list)) and (not shape or len(numbers) != shape[0]):
        raise ValueError(
            f"{field} needs one number, or one per entry of the first axis of {shape}; got {len(numbers)}."
        )
    if not all(math.isfinite(v) and (field == "offset" or v > 0) for v in numbers):
        raise ValueError(f"{field} must be finite{'' if field == 'offset' else ' and > 0'}, got {value}.")
    return numbers if isinstance(value, (tuple, list)) else numbers[0]
