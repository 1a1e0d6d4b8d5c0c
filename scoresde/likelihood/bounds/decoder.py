r"""What do data cost once the first noised state is known? $-\log p(data \mid x_\tau)$, the bound's last term.

`KernelDecoder` reads the forward kernel backwards, $p(k \mid x) \propto q(x \mid k)$; `RoundedDecoder` takes the model's own normal
law of x_0 and gives a level the mass of its cell. A level's data point is the center of its cell.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.elementwise import Scalar
from scoresde._core.suggest import nearest
from scoresde._core.tensors import sum_event
from scoresde.data import Description
from scoresde.model import Model, event_size
from scoresde.process import ou
from scoresde.process.parameterization import Prediction
from scoresde.sampling import OptimalVariance
from scoresde.sampling.ddpm import _learned_std

__all__ = ["Decoder", "KernelDecoder", "RoundedDecoder", "check_rev_var", "log_normal_mass", "normal_cost"]

_HELD = 1 << 22  # numbers of the table (element, level) that are held at once
_KNOWN = ("beta", "beta_tilde", "learned")


class Decoder(ABC):
    """A law of the data given the state at one time."""

    @abstractmethod
    def cost(self, model: Model, data: Tensor, x: Tensor, tau: float, cond: dict[str, object]) -> Tensor:
        """What the data cost.

        Args:
            model: Carries the data's description.
            data: Integer levels, or continuous data in model units, ``(B, *D)``.
            x: State at ``tau`` as drawn from the forward kernel, ``(B, *D)``.
            tau: OU time.
            cond: Passed to the network.

        Returns:
            -log P(levels | x), or -log p(x_0 | x) of continuous data, nats, ``(B,)`` float64.
        """

    @property
    @abstractmethod
    def calls(self) -> int:
        """Network calls in one evaluation."""


@dataclass(frozen=True)
class KernelDecoder(Decoder):
    r"""The kernel read backwards: $p(k \mid x) = \mathrm{softmax}_k(-\tfrac12 SNR\,(x/\alpha - center_k)^2)$.

    Asks nothing of the model. For continuous data it is the density $N(x_0;\ x/\alpha,\ \sigma^2/\alpha^2)$, whose
    cost is not drawn but its average over the kernel, $\tfrac d2\log(2\pi e/SNR)$.

    Source: Kingma et al. 2021 (Variational diffusion models), section 3.2.
    """

    def cost(self, model: Model, data: Tensor, x: Tensor, tau: float, cond: dict[str, object]) -> Tensor:
        """See the base class; the softmax runs over all bins."""
        snr = math.exp(ou.log_snr(tau))
        if data.is_floating_point():
            cost = 0.5 * event_size(data) * (math.log(2 * math.pi) + 1.0 - ou.log_snr(tau))
            return torch.full((len(data),), cost, dtype=torch.float64, device=data.device)
        about = _quantized(model)
        width = _cell_width(about, x)
        off = (x / ou.alpha(tau) - about.to_model(data.to(x) + 0.5)) / width  # from the level's center, in cells
        sharp, bins = (0.5 * snr * width * width).expand_as(x), torch.arange(_bins(about), dtype=x.dtype).to(x.device)
        rows = [v.flatten().split(max(1, _HELD // len(bins))) for v in (off, sharp, data.to(x))]
        parts = []
        for o, h, k in zip(*rows, strict=True):
            away = bins - k.unsqueeze(1)
            parts.append(torch.logsumexp(h.unsqueeze(1) * away * (2.0 * o.unsqueeze(1) - away), 1))
        return sum_event(torch.cat(parts).reshape(x.shape))

    @property
    def calls(self) -> int:
        """None."""
        return 0


@dataclass(frozen=True)
class RoundedDecoder(Decoder):
    r"""The reverse step to τ = 0, $N(\hat x_0,\ rev\_var)$, rounded to the cell it falls into.

    The outermost cells are open to infinity. For continuous data it is the normal law's density.

    Args:
        rev_var: Its variance: a number, ``"beta"`` ($1 - e^{-2\tau}$), an `OptimalVariance`, or ``"learned"``.
        least: Stands for β̃, which is 0 in this step, where the variance is learned.

    Raises:
        ValueError: If ``rev_var`` is none of these or not positive.

    Source: Ho, Jain & Abbeel 2020, eq. 13.
    """

    rev_var: float | str | OptimalVariance = "beta"
    least: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.rev_var, (int, float)):
            if not 0 < self.rev_var < math.inf:
                raise ValueError(f"rev_var must be positive and finite, got {self.rev_var!r}; or take 'beta'.")
            return
        check_rev_var(self.rev_var)
        if self.rev_var == "beta_tilde" or (self.rev_var == "learned" and not self.least > 0):
            remedy = "as a number" if self.rev_var == "beta_tilde" else "as least="
            raise ValueError(
                f"rev_var={self.rev_var!r} has variance 0 in the step to the data; pass the next step's {remedy}."
            )

    def cost(self, model: Model, data: Tensor, x: Tensor, tau: float, cond: dict[str, object]) -> Tensor:
        """See the base class."""
        prediction = model(x, tau, **cond)
        variance = self.rev_var
        if not isinstance(variance, (int, float)):
            variance = _last_variance(prediction, tau, variance, self.least)
        if data.is_floating_point():
            return normal_cost(data, prediction.x0, variance)
        about = _quantized(model)
        half = 0.5 * _cell_width(about, x)
        off, std = about.to_model(data.to(x) + 0.5) - prediction.x0, torch.sqrt(torch.as_tensor(variance).to(x))
        low = torch.where(data == 0, -math.inf, (off - half) / std)
        high = torch.where(data == _bins(about) - 1, math.inf, (off + half) / std)
        return -sum_event(log_normal_mass(low, high))

    @property
    def calls(self) -> int:
        """One, for x̂_0."""
        return 1


def normal_cost(x: Tensor, mean: Tensor, variance: Scalar) -> Tensor:
    """-log N(x; mean, variance) summed over the event, nats, ``(B,)`` float64; the variance a number or as ``x``."""
    spread = torch.as_tensor(variance, dtype=x.dtype, device=x.device)
    return 0.5 * sum_event((x - mean).square() / spread + torch.log(2 * math.pi * spread))


def log_normal_mass(low: Tensor, high: Tensor) -> Tensor:
    """log(Φ(high) - Φ(low)), ``low < high``, to full relative precision also far out in either tail."""
    mirrored = low + high > 0  # into the lower tail, where Φ is small and known exactly
    low, high = torch.where(mirrored, -high, low), torch.where(mirrored, -low, high)
    above, below = torch.special.log_ndtr(high), torch.special.log_ndtr(low)
    return above + torch.log(-torch.expm1(below - above))


def check_rev_var(rev_var: object) -> None:
    """Refuses what is no variance of a reverse step; see `scoresde.sampling.DDPM`.

    Raises:
        ValueError: Names the nearest.
    """
    if not isinstance(rev_var, OptimalVariance) and rev_var not in _KNOWN:
        raise ValueError(f"no rev_var is named {rev_var!r}; {nearest(str(rev_var), _KNOWN)}")


def _last_variance(prediction: Prediction, tau: float, rev_var: str | OptimalVariance, least: float) -> Scalar:
    """Variance of the step from ``tau`` to 0, where that of the posterior, β̃, is 0 and ``least`` stands for it."""
    if isinstance(rev_var, OptimalVariance):
        return rev_var.posterior_variance(tau)
    beta = ou.beta(tau, 0.0)
    if rev_var == "learned":
        return _learned_std(prediction, beta, least).square()
    return beta


def _quantized(model: Model) -> Description:
    assert model.data is not None
    return model.data


def _bins(about: Description) -> int:
    assert about.bins is not None
    return about.bins


def _cell_width(about: Description, like: Tensor) -> Tensor:
    """A cell's width in model units, ``(1, *D)``."""
    zero = torch.zeros((1, *about.shape), dtype=like.dtype, device=like.device)
    return about.to_model(zero + 1.0) - about.to_model(zero)
