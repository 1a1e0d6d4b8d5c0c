"""What do models without a network reach? Likelihoods of a histogram of each value, and of a Gaussian."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scoresde.data import Data, Description
from scoresde.evaluation.bounds import mean
from scoresde.evaluation.distances import gaussian_fit

__all__ = ["baselines"]

_LARGE = 8192  # dimensions of which a covariance takes half a gigabyte
_TABLE = 1 << 26  # numbers of a histogram, likewise


def baselines(data: Data, limit: int | None, seed: int = 0) -> list[dict[str, Any]]:
    """Held-out likelihoods of simple models of the same data, in the unit of `score`.

    Args:
        data: Fitted to the train part, scored on the test part.
        limit: Most events that are scored, the first ones, as models are; None is all.
        seed: Of dequantization.

    Returns:
        Dicts of ``name``, ``value``, ``stderr`` and ``events``, their number: for quantized data a histogram of each
        value by itself, and a Gaussian where it has a density, which it has not of data that repeat, or are fewer than
        dimensions. Neither of events too large for its table.
    """
    test, about = data.test[:limit], data.description
    generator = torch.Generator().manual_seed(seed)
    found = []
    if about.bins is not None and about.bins * about.dims <= _TABLE:
        found.append(_entry("each value's own histogram", _histogram_bits(data.train, test, about.bins)))
    if about.dims > _LARGE:
        return found
    fit = gaussian_fit(_dequantized(data.train, about, generator))
    if float(fit.variances.min()) <= 1e-10 * float(fit.variances.max()):
        return found
    log_prob = fit.log_prob(_dequantized(test, about, generator).double())
    values = log_prob + about.log_det if about.bins is None else about.bits_per_dim(log_prob)
    return [*found, _entry("a Gaussian of full covariance", values)]


def _dequantized(y: Tensor, about: Description, generator: torch.Generator) -> Tensor:
    quantized = about.bins is not None and not y.is_floating_point()
    return about.to_model(about.dequantize(y, generator) if quantized else y)


def _histogram_bits(train: Tensor, test: Tensor, bins: int) -> Tensor:
    """Bits per dimension of each test event, each value's frequencies counted with one more of every level."""
    dims, counts = train[0].numel(), torch.zeros(bins * train[0].numel(), dtype=torch.float64)
    places = torch.arange(dims)
    for part in train.flatten(1).split(1 << 12):
        counts += torch.bincount((part.long() * dims + places).flatten(), minlength=len(counts))
    table = counts.reshape(bins, dims) + 1.0
    bits = -(table / table.sum(0)).log2()
    picked = bits.gather(0, test.flatten(1).long())
    return picked.mean(1)


def _entry(name: str, values: Tensor) -> dict[str, Any]:
    return {"name": name, **mean(values), "events": len(values)}
