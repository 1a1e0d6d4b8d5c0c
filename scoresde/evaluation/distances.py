"""How far are samples from held-out data, and how far is that? Beside each distance stand real data and a Gaussian.

The floor is what a distance says of as many real events as there are held-out ones; the Gaussian, of full covariance,
is fitted to the train part. Everything is in model units; samples of quantized data are first rounded to their levels.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from scoresde import metrics
from scoresde.analytic import Gaussian
from scoresde.data import Data, Description
from scoresde.metrics import Estimate

__all__ = ["METRICS", "SampleDistances", "comparable", "gaussian_fit"]

METRICS = ("sliced_wasserstein", "mmd", "classifier")
"""Names of the distances, in the order of the tables."""

_DRAWS = {"sliced_wasserstein": 20, "mmd": 20, "classifier": 6}  # real sets, and Gaussian ones, that are measured


class SampleDistances:
    """The distances to the held-out part of a data set.

    Args:
        data: Train part for floor, Gaussian and copies; test part as what to be near to.
        n: Number of held-out events, and of samples; at most as many as there are.
        seed: Of the draws of floor and Gaussian, and of the projections, which are the same for everything measured.

    Attributes:
        held_out: ``(n, *D)``, model units.
        train: ``(N, *D)``, model units.

    Raises:
        ValueError: If there are not ``n`` events in either part.
    """

    def __init__(self, data: Data, n: int, seed: int = 0) -> None:
        if not 5 <= n <= min(len(data.test), len(data.train)):
            raise ValueError(
                f"n must lie in 5 … {min(len(data.test), len(data.train))}, which each part of the data has, got {n}."
            )
        self.description, self.seed = data.description, seed
        self.held_out = in_model_units(data.test[:n], data.description)
        self.train = in_model_units(data.train, data.description)

    def distance(self, name: str, x: Tensor, y: Tensor) -> Estimate:
        """One of `METRICS` between two sets in model units, ``(n, *D)`` and ``(m, *D)``."""
        if name == "sliced_wasserstein":
            return metrics.sliced_wasserstein(x, y, generator=self._generator())
        return metrics.mmd(x, y) if name == "mmd" else metrics.classifier_two_sample(x, y, seed=self.seed)

    def measure(self, x: Tensor) -> dict[str, Any]:
        """Each distance of samples to the held-out events, and whether they are copies of train events.

        Args:
            x: Samples in model units as `comparable` makes them, ``(n, *D)``.

        Returns:
            For each of `METRICS` ``value`` and ``stderr``; ``ratio``, the sliced Wasserstein distance over its floor;
            ``copies``, see `scoresde.metrics.Copies`, or None where that cannot be asked.
        """
        out: dict[str, Any] = {name: _entry(self.distance(name, x, self.held_out)) for name in METRICS}
        return {**out, "ratio": self._ratio(out), "copies": self._copies(x)}

    def _ratio(self, measured: dict[str, Any]) -> dict[str, float]:
        """Of the sliced Wasserstein distance to its floor; the error is that of one evaluation of real data."""
        floor = self.floors["sliced_wasserstein"]
        return {
            "value": measured["sliced_wasserstein"]["value"] / floor["value"],
            "stderr": floor["stderr"] / floor["value"],
        }

    @cached_property
    def floors(self) -> dict[str, Any]:
        """Each distance of as many train events, drawn several times; the error is that of one evaluation."""
        return self._several(self.train)

    @cached_property
    def gaussian(self) -> dict[str, Any]:
        """The same of the best Gaussian of full covariance."""
        n, law = len(self.held_out), gaussian_fit(self.train)
        draws = law.sample(max(_DRAWS.values()) * n, generator=self._generator()).to(self.held_out)
        found = self._several(comparable(draws, self.description))
        return {**found, "ratio": self._ratio(found), "copies": self._copies(comparable(draws[:n], self.description))}

    def _several(self, pool: Tensor) -> dict[str, Any]:
        def of(name: str) -> Estimate:
            draws, generator = _DRAWS[name], self._generator()
            return metrics.floor(partial(self.distance, name), pool, self.held_out, draws=draws, generator=generator)

        return {name: _entry(of(name)) for name in METRICS}

    def _copies(self, x: Tensor) -> dict[str, float] | None:
        try:
            found = metrics.copies(x, self.train, self.held_out)
        except ValueError:  # too few held-out events, or data that repeat: the question cannot be asked
            return None
        return vars(found)

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)


def gaussian_fit(x: Tensor) -> Gaussian:
    """The maximum-likelihood Gaussian of full covariance, float64.

    Args:
        x: ``(N, *D)``.
    """
    rows = x.flatten(1).double()
    cov = torch.cov(rows.T, correction=0).reshape(rows.shape[1], rows.shape[1])
    return Gaussian(x.double().mean(0), cov)


def comparable(x: Tensor, description: Description) -> Tensor:
    """Samples as data are: of quantized data each value moved to the middle of its level.

    Args:
        x: Samples in model units, ``(n, *D)``.
        description: Of the data.

    Returns:
        Model units, on the CPU, ``(n, *D)``.
    """
    x = x.detach().cpu()
    return x if description.bins is None else in_model_units(description.to_data(x), description)


def in_model_units(y: Tensor, description: Description) -> Tensor:
    """Data in model units, without random numbers: levels stand at the middle of their bins.

    Args:
        y: Data units, ``(n, *D)``.
        description: Of the data.
    """
    quantized = description.bins is not None and not y.is_floating_point()
    return description.to_model(description.center(y) if quantized else y)


def _entry(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "stderr": estimate.stderr}
