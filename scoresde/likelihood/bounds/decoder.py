r"""Decoders: distributions $p(data \mid x_\tau)$ of clean data given the first noised state (reconstruction term).

`KernelDecoder` inverts the forward kernel, $p(k \mid x) \propto q(x \mid k)$. `RoundedDecoder` integrates the model's
own normal distribution of x_0 over the bin of each value. The data point of an integer value is the center of its bin.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde._core.annotations import CheckedArguments
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import event_size, sum_event
from scoresde.data import Description
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.prediction import Prediction
from scoresde.sampling import OptimalVariance
from scoresde.sampling.reverse_variance import check_rev_var, learned_std

__all__ = ["Decoder", "KernelDecoder", "RoundedDecoder", "log_normal_mass", "normal_nll"]

_TABLE_SIZE = 1 << 22  # entries of the table (element, bin) in memory at once


class Decoder(CheckedArguments, ABC):
    """A distribution of the data given the noised state at one time.

    Attributes:
        calls: Network evaluations of one `cost`.
    """

    calls: ClassVar[int]

    @abstractmethod
    def cost(self, model: Model, data: Tensor, x: Tensor, tau: float, cond: dict[str, object]) -> Tensor:
        """Negative log-likelihood of the data given the state.

        Args:
            model: Carries the data's description.
            data: Integer values, or continuous data in model units, ``(B, *D)``.
            x: State at ``tau`` drawn from the forward kernel, ``(B, *D)``.
            tau: OU time.
            cond: Passed to the network.

        Returns:
            -log P(k | x) for integer values k, or -log p(x_0 | x) for continuous data, nats, ``(B,)`` float64.
        """


@dataclass(frozen=True)
class KernelDecoder(Decoder):
    r"""Inverted forward kernel: $p(k \mid x) = \mathrm{softmax}_k(-\tfrac12 SNR\,(x/\alpha - center_k)^2)$.

    Does not call the network. For continuous data it is the density $N(x_0;\ x/\alpha,\ \sigma^2/\alpha^2)$. Its cost
    is then the average over the kernel in closed form, $\tfrac d2\log(2\pi e/SNR)$, instead of one draw.

    Source: Kingma et al. 2021 (Variational diffusion models), section 3.2.
    """

    calls = 0

    def cost(self, model: Model, data: Tensor, x: Tensor, tau: float, cond: dict[str, object]) -> Tensor:
        snr = math.exp(ou.log_snr(tau))
        if data.is_floating_point():
            cost = 0.5 * event_size(data) * (math.log(2 * math.pi) + 1.0 - ou.log_snr(tau))
            return torch.full((len(data),), cost, dtype=torch.float64, device=data.device)
        description, bins = _quantized(model)
        width = _bin_width(description, x)
        offset = (x / ou.alpha(tau) - description.to_model(data.to(x) + 0.5)) / width  # from the bin's center, in bins
        precision, values = (0.5 * snr * width * width).expand_as(x), torch.arange(bins, dtype=x.dtype).to(x.device)
        chunks = [v.flatten().split(max(1, _TABLE_SIZE // bins)) for v in (offset, precision, data.to(x))]
        parts = []
        for o, h, k in zip(*chunks, strict=True):
            distance = values - k.unsqueeze(1)
            parts.append(torch.logsumexp(h.unsqueeze(1) * distance * (2.0 * o.unsqueeze(1) - distance), 1))
        return sum_event(torch.cat(parts).reshape(x.shape))


@dataclass(frozen=True)
class RoundedDecoder(Decoder):
    r"""The reverse step to τ = 0, $N(\hat x_0,\ rev\_var)$, integrated over the bin of each value.

    The first and the last bin extend to infinity. For continuous data it is the normal density itself.

    Args:
        rev_var: Variance of the step: a number, ``"beta"`` ($1 - e^{-2\tau}$), an `OptimalVariance`, or ``"learned"``.
        beta_tilde: Replaces β̃, which is 0 in this step, as the lower end of a learned variance.

    Raises:
        ValueError: If ``rev_var`` is none of these or not positive.

    Source: Ho, Jain & Abbeel 2020, eq. 13.
    """

    rev_var: float | str | OptimalVariance = "beta"
    beta_tilde: float = 0.0

    calls = 1

    def __post_init__(self) -> None:
        if isinstance(self.rev_var, (int, float)):
            if not 0 < self.rev_var < math.inf:
                raise ValueError(f"rev_var must be positive and finite, got {self.rev_var!r}; or use 'beta'.")
            return
        check_rev_var(self.rev_var)
        if self.rev_var == "beta_tilde" or (self.rev_var == "learned" and not self.beta_tilde > 0):
            remedy = "as a number" if self.rev_var == "beta_tilde" else "as beta_tilde="
            raise ValueError(
                f"rev_var={self.rev_var!r} has variance 0 in the step to the data; pass the next step's {remedy}."
            )

    def cost(self, model: Model, data: Tensor, x: Tensor, tau: float, cond: dict[str, object]) -> Tensor:
        prediction = model(x, tau, **cond)
        variance = self.rev_var
        if not isinstance(variance, (int, float)):
            variance = _last_variance(prediction, tau, variance, self.beta_tilde)
        if data.is_floating_point():
            return normal_nll(data, prediction.x0, variance)
        description, bins = _quantized(model)
        half_width = 0.5 * _bin_width(description, x)
        offset = description.to_model(data.to(x) + 0.5) - prediction.x0
        std = torch.sqrt(torch.as_tensor(variance).to(x))
        low = torch.where(data == 0, -math.inf, (offset - half_width) / std)
        high = torch.where(data == bins - 1, math.inf, (offset + half_width) / std)
        return -sum_event(log_normal_mass(low, high))


def normal_nll(x: Tensor, mean: Tensor, variance: Scalar) -> Tensor:
    """-log N(x; mean, variance) summed over the event, nats, ``(B,)`` float64; the variance a number or as ``x``."""
    variance = torch.as_tensor(variance, dtype=x.dtype, device=x.device)
    return 0.5 * sum_event((x - mean).square() / variance + torch.log(2 * math.pi * variance))


def log_normal_mass(low: Tensor, high: Tensor) -> Tensor:
    """log(Φ(high) - Φ(low)) for ``low < high``, to full relative precision also far out in either tail."""
    mirrored = low + high > 0  # into the lower tail, where Φ is small and has full relative precision
    low, high = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    log_cdf_high, log_cdf_low = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    return log_cdf_high + torch.log(-torch.expm1(log_cdf_low - log_cdf_high))


def _last_variance(prediction: Prediction, tau: float, rev_var: str | OptimalVariance, beta_tilde: float) -> Scalar:
    """Variance of the step from ``tau`` to 0, with the given ``beta_tilde`` in place of β̃, which is 0 there."""
    if isinstance(rev_var, OptimalVariance):
        return rev_var.posterior_variance(tau)
    beta = ou.beta(tau, 0.0)
    if rev_var == "learned":
        return learned_std(prediction, beta, beta_tilde).square()
    return beta


def _quantized(model: Model) -> tuple[Description, int]:
    """The description of quantized data, and its number of bins."""
    assert model.data is not None
    assert model.data.bins is not None
    return model.data, model.data.bins


def _bin_width(description: Description, like: Tensor) -> Tensor:
    """Width of a bin in model units, ``(1, *D)``, with the dtype and device of ``like``."""
    zero = torch.zeros((1, *description.shape), dtype=like.dtype, device=like.device)
    return description.to_model(zero + 1.0) - description.to_model(zero)
