"""Distances of samples to held-out data, with reference values: real data (the floor) and a fitted Gaussian.

The floor of a distance is its value for as many real events as there are held-out ones. The Gaussian has the mean and
the full covariance of the train part. Everything is in model units, but categories are indicators
(`scoresde.evaluation.distance_units`); samples of quantized data are first rounded to integer values.
"""

from __future__ import annotations

import math
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from scoresde import metrics
from scoresde._core.annotations import CheckedArguments, check_arguments
from scoresde._core.checks import check_finite
from scoresde.analytic import Gaussian
from scoresde.data import Data, Description
from scoresde.evaluation.distance_units import from_distance_units, in_distance_units
from scoresde.metrics import Estimate
from scoresde.metrics.metric_estimate import as_events

__all__ = ["METRICS", "SampleDistances", "comparable", "gaussian_fit"]

METRICS = ("sliced_wasserstein", "mmd", "classifier")
"""Names of the distances, in the order of the tables."""

FLOOR_DRAWS = 20
"""Number of sets of real data behind a floor."""

_DRAWS = {"sliced_wasserstein": FLOOR_DRAWS, "mmd": FLOOR_DRAWS, "classifier": 6}  # of sets, real or Gaussian


class SampleDistances(CheckedArguments):
    """Distances of samples to the held-out part of a data set.

    Args:
        data: Train part for the floor, the Gaussian and the copies; test part as the target.
        n: Number of held-out events and of samples; at most the number of events in each part.
        seed: Seed of the draws of floor and Gaussian, and of the projections, which are the same for all sets.

    Attributes:
        held_out: ``(n, *E)``, units of distances.
        train: ``(N, *E)``, units of distances.

    Raises:
        ValueError: If a part has fewer than ``n`` events, or ``n`` is less than 5.
    """

    def __init__(self, data: Data, n: int, seed: int = 0) -> None:
        available = min(len(data.test), len(data.train))
        if available < 5:
            raise ValueError(
                f"distances need at least 5 events in each part of the data, got {len(data.train)} for training and "
                f"{len(data.test)} held out; take more data, or another test_fraction (--test-fraction)."
            )
        if not 5 <= n <= available:
            raise ValueError(f"n must lie in 5 … {available}, the size of the smaller part of the data, got {n}.")
        self.description, self.seed = data.description, seed
        self.held_out = in_distance_units(data.test[:n], data.description)
        self.train = in_distance_units(data.train, data.description)

    def distance(self, name: str, x: Tensor, y: Tensor) -> Estimate:
        """One of `METRICS` between two sets in units of distances, ``(n, *E)`` and ``(m, *E)``."""
        if name == "sliced_wasserstein":
            return metrics.sliced_wasserstein(x, y, generator=self._generator())
        return metrics.mmd(x, y) if name == "mmd" else metrics.classifier_two_sample(x, y, seed=self.seed)

    def measure(self, x: Tensor) -> dict[str, Any]:
        """Each distance of samples to the held-out events, and whether they are copies of train events.

        Args:
            x: Samples as `comparable` makes them, ``(n, *E)``.

        Returns:
            For each of `METRICS` ``value`` and ``stderr``; ``ratio``, the sliced Wasserstein distance over its floor;
            ``copies``, see `scoresde.metrics.Copies`, or None where the data do not allow the test.
        """
        entries: dict[str, Any] = {name: _entry(self.distance(name, x, self.held_out)) for name in METRICS}
        return {**entries, "ratio": self._ratio(entries), "copies": self._copies(x)}

    def _ratio(self, entries: dict[str, Any]) -> dict[str, float]:
        """Sliced Wasserstein distance over its floor, nan if that is 0; the error is that of one set of real data."""
        floor = self.floors["sliced_wasserstein"]
        if floor["value"] == 0:  # all real events are equal
            return {"value": math.nan, "stderr": math.nan}
        return {
            "value": entries["sliced_wasserstein"]["value"] / floor["value"],
            "stderr": floor["stderr"] / floor["value"],
        }

    @cached_property
    def floors(self) -> dict[str, Any]:
        """Each distance for as many train events, averaged over several draws; the error is that of one draw."""
        return self._averaged(self.train)

    @cached_property
    def gaussian(self) -> dict[str, Any]:
        """The entries of `measure` for the fitted Gaussian of full covariance, averaged over several draws."""
        n, fit = len(self.held_out), gaussian_fit(self.train)
        samples = fit.sample(max(_DRAWS.values()) * n, generator=self._generator()).to(self.held_out)
        entries = self._averaged(_rounded(samples, self.description))
        copies = self._copies(_rounded(samples[:n], self.description))
        return {**entries, "ratio": self._ratio(entries), "copies": copies}

    def _averaged(self, pool: Tensor) -> dict[str, Any]:
        def floor(name: str) -> Estimate:
            draws, generator = _DRAWS[name], self._generator()
            return metrics.floor(partial(self.distance, name), pool, self.held_out, draws=draws, generator=generator)

        return {name: _entry(floor(name)) for name in METRICS}

    def _copies(self, x: Tensor) -> dict[str, float] | None:
        try:
            return vars(metrics.copies(x, self.train, self.held_out))
        except ValueError:  # too few held-out events, or data that repeat: the test is undefined
            return None

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


def gaussian_fit(x: Tensor) -> Gaussian:
    """The maximum-likelihood Gaussian of full covariance, float64.

    Args:
        x: ``(N, *D)``.
    """
    check_arguments(gaussian_fit, locals())
    x = as_events(x, "x")
    check_finite(x)
    if not len(x) or x.ndim < 2:
        raise ValueError(
            f"x must have shape (N, *D) with N >= 1 events, got {tuple(x.shape)}; pass x[:, None] for numbers."
        )
    rows = x.flatten(1).double()
    cov = torch.cov(rows.T, correction=0).reshape(rows.shape[1], rows.shape[1])
    return Gaussian(x.double().mean(0), cov)


def comparable(x: Tensor, description: Description) -> Tensor:
    """Samples in units of distances, rounded to the values of the data: the center of a bin, or of a category.

    Args:
        x: Samples in model units, ``(n, *D)``.
        description: Description of the data.

    Returns:
        Units of distances, on the CPU, ``(n, *E)``: model units, in which a category is the indicators of its classes.
    """
    check_arguments(comparable, locals())
    x = x.detach().cpu()
    if description.bins is None and description.encoding is None and description.classes is None:
        return x
    return in_distance_units(description.to_data(x), description).to(x.dtype)


def _rounded(x: Tensor, description: Description) -> Tensor:
    """Points in units of distances, rounded to the values of the data."""
    if description.bins is None and description.encoding is None and description.classes is None:
        return x
    return in_distance_units(from_distance_units(x, description), description).to(x.dtype)


def _entry(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "stderr": estimate.stderr}
