"""Which values lie far outside the range of the train part, where a model was never trained."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["far_outside"]


def far_outside(values: Tensor, low: Tensor | float, high: Tensor | float, widths: float = 1.0) -> Tensor:
    """Where values lie outside [low, high] by more than ``widths`` times its width; NaN does not. Bool, like values."""
    values = values.double()
    return torch.maximum(low - values, values - high) > widths * (high - low)
