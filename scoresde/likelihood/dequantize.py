r"""Where in its unit cell does a level lie? A law q(u | k), u in [0, 1)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.noise import Noise
from scoresde._core.tensors import sum_event, widest_dtype
from scoresde.model import Model
from scoresde.process import ou

__all__ = ["Dequantization", "TruncatedNormalDequantization", "UniformDequantization", "default_dequantization"]


class Dequantization(ABC):
    """A law q of the place inside a level's unit cell."""

    @abstractmethod
    def draw(self, levels: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """One draw.

        Args:
            levels: Integer levels k, ``(B, *D)``.
            noise: Source of randomness.

        Returns:
            y = k + u in data units, ``(B, *D)``, with u in [0, 1), and log q(u | k), nats, ``(B,)`` float64.
        """


@dataclass(frozen=True)
class UniformDequantization(Dequantization):
    """u uniform on [0, 1), so log q = 0.

    Source: Theis, van den Oord & Bethge 2016, section 3.1.
    """

    def draw(self, levels: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """See the base class; a sum that would round up to k + 1 is the float just below it."""
        k = levels.to(widest_dtype(levels.device))
        y = torch.minimum(k + noise.uniform(k), torch.nextafter(k + 1, k))
        return y, sum_event(torch.zeros_like(k))


@dataclass(frozen=True)
class TruncatedNormalDequantization(Dequantization):
    r"""u normal about the cell's center, cut off at its edges: the noise that data carry at ``tau_min``.

    $\log q = -\tfrac12z^2 - \log(std\sqrt{2\pi}) - \log\mathrm{erf}(h/\sqrt2)$ per value, with $z = (u - \tfrac12)/std$
    and $h = 1/(2\,std)$. A model is then asked for densities where it was trained; uniform u, off the data by many of
    these standard deviations where ``tau_min`` is small, is not what it has seen.

    Args:
        std: Standard deviation in data units, in cells: a number, or one per entry of the first event axis. See
            `matching`.

    Raises:
        ValueError: If it is not positive.

    Source: Zheng et al. 2023 (Improved techniques for maximum likelihood estimation for diffusion ODEs).
    """

    std: float | tuple[float, ...]

    def __post_init__(self) -> None:
        each = self.std if isinstance(self.std, tuple) else (self.std,)
        if not each or not all(0 < value < math.inf for value in each):
            raise ValueError(f"std must be positive and finite, got {self.std!r}; TruncatedNormal.matching(model).")

    @classmethod
    def matching(cls, model: Model) -> TruncatedNormalDequantization:
        r"""With the noise of the law at ``tau_min``, $c\,\sigma$ in the view's coordinates, times the data's scale.

        Raises:
            ValueError: If the model does not carry a description of quantized data.
        """
        if model.data is None or model.data.bins is None or model.data.scale is None:
            raise ValueError(
                "a place in a cell needs quantized data, got a model without bins; set model.data = Description(name, "
                "shape, bins=...)."
            )
        sigma = float(model.sde.scale(model.sde.tau_min) * ou.sigma(model.sde.tau_min))
        scale = model.data.scale
        return cls(tuple(sigma * each for each in scale) if isinstance(scale, tuple) else sigma * scale)

    def draw(self, levels: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """See the base class; by the inverse of the distribution function."""
        k = levels.to(widest_dtype(levels.device))
        std = torch.as_tensor(self.std, dtype=k.dtype, device=k.device)
        if std.ndim:
            if k.ndim < 2 or len(std) != k.shape[1]:
                raise ValueError(
                    f"std needs one entry per entry of the first axis of {tuple(k.shape[1:])}, got {len(std)}."
                )
            std = std.reshape(-1, *(1 for _ in k.shape[2:]))
        inside = torch.special.erf(0.5 / (math.sqrt(2) * std))  # the mass that is not cut off
        z = math.sqrt(2) * torch.special.erfinv((2.0 * noise.uniform(k) - 1.0) * inside)
        offset = (std * z).clamp(-0.5, 0.5)  # a uniform number of exactly 0 may round to infinity
        y = torch.minimum(k + 0.5 + offset, torch.nextafter(k + 1, k))
        z = offset / std
        return y, sum_event(-0.5 * z * z - torch.log(math.sqrt(2 * math.pi) * std * inside))


def default_dequantization(model: Model) -> Dequantization:
    """What to ask a model about when nothing is said: cells as a whole, or the places where it was trained.

    Args:
        model: Its network may state that it is a model of levels ``on_centers``.

    Returns:
        `Uniform`; of quantized data and such a network `TruncatedNormal.matching`.
    """
    levels = model.data is not None and model.data.bins is not None
    centers = getattr(getattr(model, "net", None), "on_centers", False)
    return TruncatedNormalDequantization.matching(model) if levels and centers else UniformDequantization()
