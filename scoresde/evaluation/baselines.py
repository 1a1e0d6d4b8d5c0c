"""Baselines without a network: held-out likelihoods of a histogram of each coordinate and of a fitted Gaussian."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde.data import Data, Description
from scoresde.evaluation.distance_units import one_hot_description
from scoresde.evaluation.sample_distances import gaussian_fit
from scoresde.evaluation.vlb import mean_with_stderr

__all__ = ["baselines"]

_MAX_DIMS = 8192  # dimensions whose covariance takes half a gigabyte
_MAX_TABLE = 1 << 26  # entries of a histogram that take half a gigabyte


def baselines(data: Data, limit: int | None, seed: int = 0) -> list[dict[str, Any]]:
    """Held-out likelihoods of simple models of the same data, in the unit of `evaluate`.

    Quantized data and categories get a histogram of each coordinate. All but categories get a Gaussian of full
    covariance, in which the categories of a table are one-hot, unless the covariance is singular, as for repeated
    events or for fewer events than dimensions. Events too large for the histogram's table or the covariance skip that
    baseline.

    Args:
        data: Fitted to the train part, scored on the test part.
        limit: Maximum number of events to score, the first ones, as for models; None is all.
        seed: Seed of the dequantization.

    Returns:
        Dicts with ``name``, ``value``, ``stderr`` and ``events``, the number of events.
    """
    check_arguments(baselines, locals())
    test, description = data.test[:limit], one_hot_description(data.description)
    generator = torch.Generator().manual_seed(seed)
    entries = []
    distinct = description.classes if description.bins is None else description.bins
    if distinct is not None and distinct * description.dims <= _MAX_TABLE:
        entries.append(_entry("each value's own histogram", _histogram_bits(data.train, test, distinct)))
    if description.classes is not None or description.model_dims > _MAX_DIMS:
        return entries
    fit = gaussian_fit(_dequantized(data.train, description, generator))
    if float(fit.variances.min()) <= 1e-10 * float(fit.variances.max()):
        return entries
    x = _dequantized(test, description, generator).double()
    log_prob = fit.log_prob(x)
    values = log_prob + description.log_det(x) if description.bins is None else description.bits_per_dim(log_prob)
    return [*entries, _entry("a Gaussian of full covariance", values)]


def _dequantized(y: Tensor, description: Description, generator: torch.Generator) -> Tensor:
    return description.to_model(description.dequantize(y, generator) if description.is_quantized(y) else y)


def _histogram_bits(train: Tensor, test: Tensor, bins: int) -> Tensor:
    """Bits per dimension of each test event under the train frequencies of each coordinate plus one per bin."""
    dims, counts = train[0].numel(), torch.zeros(bins * train[0].numel(), dtype=torch.float64)
    coordinates = torch.arange(dims)
    for chunk in train.flatten(1).split(1 << 12):
        counts += torch.bincount((chunk.long() * dims + coordinates).flatten(), minlength=len(counts))
    table = counts.reshape(bins, dims) + 1.0
    bits = -(table / table.sum(0)).log2()
    return bits.gather(0, test.flatten(1).long()).mean(1)


def _entry(name: str, values: Tensor) -> dict[str, Any]:
    return {"name": name, **mean_with_stderr(values), "events": len(values)}
