r"""The scale of the training data: a warning where they are far from mean 0 and variance 1 in model units.

A process adds noise of variance $1 - e^{-2\tau}$ and ends at N(0, I). Data of another scale are not covered by the end
of its clock, or lie below the noise at which sampling ends.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from scoresde._core.tensors import has_values
from scoresde.data import Data, Description
from scoresde.training.batches import to_model_units
from scoresde.training.source import TrainingSource

__all__ = ["warn_if_unscaled"]

_EVENTS = 4096  # evenly spaced ones, from which mean and deviation are computed
_LARGEST = 3.0  # mean and standard deviation; both are at most 1 for data in [-1, 1]
_LEAST = 0.05  # standard deviation


def warn_if_unscaled(data: Data | Tensor | TrainingSource, description: Description | None) -> None:
    """Warns once if the training data are far from mean 0 and variance 1 in model units.

    Far means a mean beyond ±3, a standard deviation above 3, or one below 0.05. A table ``(N, D)`` is also judged
    column by column for what is too large. Mean and deviation are those of up to 4096 evenly spaced events, without
    missing values (NaN).

    Args:
        data: As for `scoresde.training.train`, after its checks.
        description: Of the data, or None for data in model units.
    """
    if isinstance(data, TrainingSource):
        return
    events = data.train if isinstance(data, Data) else data
    some = events[:: max(1, -(-len(events) // _EVENTS))].detach()
    if not some.numel() or not has_values(some):
        return
    x = some if description is None else to_model_units(some, description, dequantize=False)
    place, mean, std = _farthest(x.cpu().double())
    if abs(mean) <= _LARGEST and _LEAST <= std <= _LARGEST:
        return
    if description is None:
        source = "a tensor"
        remedy = (
            "describe their scaling, ScoreModel(..., data=sd.Description(name, shape, offset=mean, scale=std)), or "
            "pass data that are standardized, as sd.load_data(path) does"
        )
    else:
        source = repr(description.name)
        remedy = "give the Description their mean as offset= and their standard deviation as scale="
    warnings.warn(
        f"training data must be near mean 0 and variance 1 in model units, got {source} with mean {mean:.4g} and "
        f"standard deviation {std:.4g}{place}: samples will be wrong; {remedy}.",
        stacklevel=3,
    )


def _farthest(x: Tensor) -> tuple[str, float, float]:
    """Which part of the data is farthest from its scale, as text (empty for all of them), its mean and deviation."""
    std, mean = _std_mean(x.reshape(-1, 1))
    far = mean.abs() > _LARGEST or not _LEAST <= std <= _LARGEST
    if x.ndim == 2 and not far:
        stds, means = _std_mean(x)
        column = int(torch.maximum(means.abs(), stds).argmax())
        return f" in column {column}", float(means[column]), max(float(stds[column]), _LEAST)
    return "", float(mean), float(std)


def _std_mean(x: Tensor) -> tuple[Tensor, Tensor]:
    """Deviation and mean of each column of ``x`` ``(N, D)``, of its present values; 1 and 0 without any."""
    mean = x.nanmean(0)
    std = (x - mean).square().nanmean(0).sqrt()
    return std.nan_to_num(1.0), mean.nan_to_num(0.0)
