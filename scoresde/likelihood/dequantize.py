r"""Dequantization: a distribution $q(u \mid k)$ of the offset u in [0, 1) of an integer value k within its bin.

The density of $y = k + u$ then bounds the probability of the value:
$\log P(k) \ge E_q[\log p(k + u) - \log q(u \mid k)]$.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scoresde._core.annotations import CheckedArguments
from scoresde._core.noise import Noise
from scoresde._core.tensors import sum_event, widest_dtype
from scoresde.model import Model
from scoresde.process import ou

__all__ = ["Dequantization", "TruncatedNormalDequantization", "UniformDequantization", "default_dequantization"]


class Dequantization(CheckedArguments, ABC):
    """A distribution q of the offset of an integer value within its bin."""

    @abstractmethod
    def draw(self, values: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """One draw of the offset per value.

        Args:
            values: Integer values k, ``(B, *D)``.
            noise: Source of randomness.

        Returns:
            y = k + u in data units, ``(B, *D)``, with u in [0, 1), and log q(u | k), nats, ``(B,)`` float64. A sum that
            would round up to k + 1 is the largest float below it.
        """


@dataclass(frozen=True)
class UniformDequantization(Dequantization):
    """u uniform on [0, 1), so log q = 0.

    Source: Theis, van den Oord & Bethge 2016, section 3.1.
    """

    def draw(self, values: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        k = values.to(widest_dtype(values.device))
        y = torch.minimum(k + noise.uniform(k), torch.nextafter(k + 1, k))
        return y, sum_event(torch.zeros_like(k))


@dataclass(frozen=True)
class TruncatedNormalDequantization(Dequantization):
    r"""u normal about the center of the bin, truncated at its edges: the noise that data carry at ``tau_min``.

    $\log q = -\tfrac12z^2 - \log(std\sqrt{2\pi}) - \log\mathrm{erf}(h/\sqrt2)$ per value, with $z = (u - \tfrac12)/std$
    and $h = 1/(2\,std)$. The model is then evaluated where it was trained. With a small ``tau_min``, uniform u lies
    many of these standard deviations away from the training data.

    Args:
        std: Standard deviation in data units, where a bin has width 1: a number, or one per entry of the first event
            axis. See `matching`.

    Raises:
        ValueError: If it is not positive and finite.

    Source: Zheng et al. 2023 (Improved techniques for maximum likelihood estimation for diffusion ODEs).
    """

    std: float | tuple[float, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.std, (int, float, np.number)):
            object.__setattr__(self, "std", tuple(float(std) for std in self.std))
        stds = self.std if isinstance(self.std, tuple) else (self.std,)
        if not stds or not all(0 < std < math.inf for std in stds):
            raise ValueError(
                f"std must be positive and finite, got {self.std!r}; TruncatedNormalDequantization.matching(model) "
                "computes it."
            )

    @classmethod
    def matching(cls, model: Model) -> TruncatedNormalDequantization:
        r"""The noise of the distribution at ``tau_min``: $c\,\sigma$ in the view's coordinates, times the data's scale.

        Raises:
            ValueError: If the model does not carry a description of quantized data.
        """
        if model.data is None or model.data.bins is None or model.data.scale is None:
            raise ValueError(
                "dequantization needs quantized data, got a model without bins; set model.data = Description(name, "
                "shape, bins=...)."
            )
        sigma = float(model.sde.scale(model.sde.tau_min) * ou.sigma(model.sde.tau_min))
        scale = model.data.scale
        return cls(tuple(sigma * factor for factor in scale) if isinstance(scale, tuple) else sigma * scale)

    def draw(self, values: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        k = values.to(widest_dtype(values.device))
        std = self._std(k)
        mass = torch.special.erf(0.5 / (math.sqrt(2) * std))  # probability of the bin under the normal distribution
        z = math.sqrt(2) * torch.special.erfinv((2.0 * noise.uniform(k) - 1.0) * mass)
        offset = (std * z).clamp(-0.5, 0.5)  # a uniform number of exactly 0 may round to infinity
        y = torch.minimum(k + 0.5 + offset, torch.nextafter(k + 1, k))
        z = offset / std
        return y, sum_event(-0.5 * z * z - torch.log(math.sqrt(2 * math.pi) * std * mass))

    def _std(self, k: Tensor) -> Tensor:
        """``std`` as a tensor that broadcasts against ``k``."""
        std = torch.as_tensor(self.std, dtype=k.dtype, device=k.device)
        if not std.ndim:
            return std
        if k.ndim < 2 or len(std) != k.shape[1]:
            raise ValueError(
                f"std needs one entry per entry of the first axis of {tuple(k.shape[1:])}, got {len(std)}."
            )
        return std.reshape(-1, *(1 for _ in k.shape[2:]))


def default_dequantization(model: Model) -> Dequantization:
    """The dequantization that matches how the model's network was trained.

    Args:
        model: Its network may declare ``trained_on_bin_centers``: trained without dequantization, on the centers of the
            bins.

    Returns:
        `TruncatedNormalDequantization.matching` for quantized data and such a network, else `UniformDequantization`.
    """
    quantized = model.data is not None and model.data.bins is not None
    on_centers = getattr(getattr(model, "net", None), "trained_on_bin_centers", False)
    return TruncatedNormalDequantization.matching(model) if quantized and on_centers else UniformDequantization()
