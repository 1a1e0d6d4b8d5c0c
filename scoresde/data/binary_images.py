"""Bits from the integer values of images: above a threshold, or drawn once with the value as their probability."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from scoresde._core.checks import check_seed
from scoresde.data.dataset import Data
from scoresde.data.description import Description

__all__ = ["binarized"]

_CHUNK = 1 << 12  # images at once


def binarized(data: Data, binarize: float | str | None, seed: int = 0) -> Data:
    """The data with bits, two classes, in place of their integer values; unchanged for None.

    Args:
        data: Quantized images, values 0 ... bins - 1.
        binarize: A fraction of the largest value, above which a bit is 1; or ``"random"``, which draws it with the
            value over the largest one as its probability.
        seed: Of the draws.

    Raises:
        ValueError: If ``binarize`` is something else, or the data are not quantized.

    Source: Larochelle & Murray 2011 and Salakhutdinov & Murray 2008, for bits that are drawn once.
    """
    if binarize is None:
        return data
    valid = binarize == "random"
    if isinstance(binarize, (int, float)) and not isinstance(binarize, bool):
        valid = 0 <= binarize < 1
    if not valid:
        raise ValueError(
            f'binarize must be a fraction of the largest value in [0, 1), "random" or None, got {binarize!r}; 0.5 is '
            "usual."
        )
    about = data.description
    if about.bins is None:
        raise ValueError(f"binarize= takes integer values with bins, got {about.name!r} without; leave it out.")
    generator = torch.Generator().manual_seed(check_seed(seed))
    train, test = (_bits(part, about.bins - 1, binarize, generator) for part in (data.train, data.test))
    description = Description(about.name, about.shape, classes=2, conditions=about.conditions)
    return replace(data, train=train, test=test, description=description)


def _bits(values: Tensor, largest: int, binarize: float | str, generator: torch.Generator) -> Tensor:
    bits = torch.empty(values.shape, dtype=torch.uint8)
    for start in range(0, len(values), _CHUNK):
        part = values[start : start + _CHUNK]
        if isinstance(binarize, str):
            bits[start : start + _CHUNK] = torch.rand(part.shape, generator=generator) * largest < part
        else:
            bits[start : start + _CHUNK] = part > binarize * largest
    return bits
