"""Standardization of continuous data: mean and standard deviation of the train part as offset and scale."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["standardization"]


def standardization(
    y: Tensor, per_feature: bool = False, names: Sequence[str] | None = None
) -> tuple[float | tuple[float, ...], float | tuple[float, ...]]:
    """Mean and standard deviation of ``y`` ``(N, *D)``: over everything, or per entry of the first event axis.

    Args:
        y: Events in data units.
        per_feature: Whether each entry of the first event axis (column, channel) has its own mean and deviation.
        names: Names of those entries for error messages.

    Returns:
        ``offset, scale`` for a ``Description``.

    Raises:
        ValueError: If values are constant, or there is no feature axis.
    """
    if per_feature and y.ndim < 2:
        raise ValueError(f"per_feature needs a feature axis, got shape {tuple(y.shape)}; leave per_feature out.")
    axes = [axis for axis in range(y.ndim) if not per_feature or axis != 1]
    if y.dtype in (torch.int32, torch.int64):
        y = y.double()
    std, mean = torch.std_mean(y if y.dtype in (torch.float32, torch.float64) else y.float(), dim=axes, correction=0)
    constant = (std <= 1e-7 * mean.abs()).nonzero()
    if len(constant):
        subject = "every value"
        if per_feature:
            index = int(constant[0])
            subject = f"feature {names[index] if names else index}"
        raise ValueError(
            f"data must vary to be standardized, {subject} is constant; drop it, or state offset= and scale=."
        )
    return (tuple(mean.tolist()), tuple(std.tolist())) if per_feature else (mean.item(), std.item())
