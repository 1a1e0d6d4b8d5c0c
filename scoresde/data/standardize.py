"""Standardization of continuous data: mean and standard deviation of the train part as offset and scale, in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

__all__ = ["feature_deviations", "feature_moments", "feature_range", "standardization"]

_CHUNK = 1 << 22  # values that are read at once: a memory-mapped file need not fit into memory
_ULPS = 4  # a range of at most this many units in the last place is rounding, not variation


def standardization(
    y: Tensor, per_feature: bool = False, names: Sequence[str] | None = None
) -> tuple[float | tuple[float, ...], float | tuple[float, ...]]:
    """Mean and standard deviation of ``y`` ``(N, *D)``: over everything, or per entry of the first event axis.

    Computed in float64, from the values that are not missing (NaN). Values are constant if their range is at most 4
    units in the last place of the type of ``y``, so Julian dates of one night vary if they are float64.

    Args:
        y: Events in data units.
        per_feature: Whether each entry of the first event axis (column, channel) has its own mean and deviation.
        names: Names of those entries for error messages.

    Returns:
        ``offset, scale`` for a ``Description``.

    Raises:
        ValueError: If values are constant, if a feature has no values, or if there is no feature axis.
    """
    if per_feature and y.ndim < 2:
        raise ValueError(f"per_feature needs a feature axis, got shape {tuple(y.shape)}; leave per_feature out.")
    if not y.numel():
        raise ValueError(f"data must hold values to be standardized, got shape {tuple(y.shape)}; add events.")
    low, high = _range(y, per_feature)
    if bool((low > high).any()):
        index = int((low > high).nonzero()[0])
        subject = f"feature {names[index] if names else index}" if per_feature else "no event"
        raise ValueError(
            f"data must hold values to be standardized, {subject} has none in the train part; leave it out."
        )
    rounding = torch.finfo(y.dtype).eps if y.is_floating_point() else 0.0
    magnitude = torch.maximum(low.abs(), high.abs())
    width = high / 2 - low / 2  # half of the range: the range itself may overflow
    constant = (width <= _ULPS / 2 * rounding * magnitude).nonzero()
    if len(constant):
        subject = "every value"
        if per_feature:
            index = int(constant[0])
            subject = f"feature {names[index] if names else index}"
        raise ValueError(
            f"data must vary to be standardized, {subject} is constant; drop it, or state offset= and scale=."
        )
    mean, std = _mean_and_std(y, per_feature, low / 2 + high / 2, width)
    return (tuple(mean.tolist()), tuple(std.tolist())) if per_feature else (mean.item(), std.item())


def feature_deviations(y: Tensor) -> list[float]:
    """Standard deviation of each entry of the first event axis of ``y`` ``(N, C, *)``, in float64.

    Missing values (NaN) are left out; it is 0 for constants.
    """
    return feature_moments(y)[1]


def feature_moments(y: Tensor, per_feature: bool = True) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each entry of the first event axis of ``y`` ``(N, C, *)``, in float64.

    Missing values (NaN) are left out. The deviation is 0 for constants, and both are 0 without values.

    Args:
        y: Events in data units.
        per_feature: False takes all values together, and returns lists of one number.
    """
    low, high = _range(y, per_feature)
    absent = low > high
    low, high = torch.where(absent, 0.0, low), torch.where(absent, 0.0, high)
    width = high / 2 - low / 2
    mean, std = _mean_and_std(y, per_feature, low / 2 + high / 2, torch.where(width > 0, width, 1.0))
    return mean.tolist(), std.tolist()


def feature_range(y: Tensor) -> tuple[list[float], list[float]]:
    """Range of each entry of the first event axis of ``y`` ``(N, C, *)``; inf and -inf where it has no value."""
    low, high = _range(y, per_feature=True)
    return low.tolist(), high.tolist()


def _rows(y: Tensor, per_feature: bool) -> Iterator[Tensor]:
    """The values by chunks, float64 of shape ``(features, n)``, with one feature for all unless ``per_feature``."""
    events = max(1, _CHUNK * len(y) // y.numel())
    for part in y.split(events):
        wide = part.double()
        yield (
            wide.movedim(1, 0).flatten(1)
            if per_feature and y.ndim > 2
            else wide.T
            if per_feature
            else wide.reshape(1, -1)
        )


def _range(y: Tensor, per_feature: bool) -> tuple[Tensor, Tensor]:
    """Least and largest value of each feature, ``(features,)``; inf and -inf where all are missing."""
    lows, highs = [], []
    for rows in _rows(y, per_feature):
        missing = rows.isnan()
        lows.append(_filled(rows, missing, math.inf).amin(1))
        highs.append(_filled(rows, missing, -math.inf).amax(1))
    return torch.stack(lows).amin(0), torch.stack(highs).amax(0)


def _mean_and_std(y: Tensor, per_feature: bool, center: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each feature, ``(features,)``, from the values mapped to [-1, 1], where nothing overflows.

    Source: Chan, Golub & LeVeque 1979 (means and squares of chunks combined).
    """
    count, mean, squares = torch.zeros_like(center), torch.zeros_like(center), torch.zeros_like(center)
    for rows in _rows(y, per_feature):
        z = (rows - center.unsqueeze(1)) / width.unsqueeze(1)
        missing = z.isnan()
        n = (~missing).sum(1).double()
        part_mean = _filled(z, missing, 0.0).sum(1) / n.clamp(min=1)
        delta = part_mean - mean
        total = (count + n).clamp(min=1)
        deviation = _filled(z - part_mean.unsqueeze(1), missing, 0.0)
        squares += deviation.square().sum(1) + delta.square() * (count * n / total)
        mean += delta * (n / total)
        count += n
    return center + width * mean, width * (squares / count.clamp(min=1)).sqrt()


def _filled(values: Tensor, missing: Tensor, value: float) -> Tensor:
    """``value`` where ``missing``; without a copy if nothing is, since another layout rounds sums differently."""
    return values.masked_fill(missing, value) if bool(missing.any()) else values
