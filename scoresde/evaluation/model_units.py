"""Data units to model units for evaluation, with one dequantization for given data and seed, or with none."""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde.data import Description

__all__ = ["in_model_units"]


def in_model_units(description: Description, y: Tensor, seed: int | None = None) -> Tensor:
    """Data units to model units; integers, and the columns of a table that lie on a grid, are dequantized once.

    Args:
        description: Of the data.
        y: Data units, ``(n, *D)``.
        seed: Of the dequantization; None takes the centers of bins.
    """
    if not description.is_quantized(y):
        return description.to_model(y)
    if seed is None:
        return description.to_model(description.center(y))
    return description.to_model(description.dequantize(y, torch.Generator(y.device).manual_seed(seed)))
