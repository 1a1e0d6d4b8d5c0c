r"""How does a network use that its data are levels? It gives a law over the levels; Bayes' rule does the rest.

Dequantised, level k fills a bin of width w. The kernel $x = \alpha x_0 + \sigma\varepsilon$ turns the network's belief
$p_k$ into $q_k \propto p_k\,P(y \in bin_k)$ at $y = x/\alpha$ with noise $r = \sigma/\alpha$, and the estimate is
$\hat x_0 = \sum_k q_k\,E[x_0 \mid bin_k, y]$, the mean of a normal truncated to the bin. The sharp edges of uniform
dequantisation, which a plain network must learn, are exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from scoresde.nn._checks import check_positive

__all__ = ["Levels"]

_LOG_ROOT_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(eq=False, repr=False)
class Levels(nn.Module):
    """Turns a network with ``outputs=bins`` into a denoiser of uniformly dequantised data: train it as `X0`.

    Attributes:
        net: A network that returns ``(B, *D, bins)``, such as ``MLP(..., outputs=17)``; its output is
            taken as the logits of the levels.
        bins: Number of levels.
        low, high: Range that the bins fill in model units.

    Raises:
        ValueError: If ``net`` states another number of outputs, or the range is empty.

    Source: the truncated normal's mean and Bayes' rule; a law over the symbols as output as in Dieleman et al. 2022
    (Continuous diffusion for categorical data), and the prior over levels times the kernel as in Kingma et al. 2021,
    appendix F.
    """

    net: nn.Module
    bins: int
    low: float = -1.0
    high: float = 1.0

    def __new__(cls, *_: Any, **__: Any) -> Levels:
        """A module must be initialised before its submodule is assigned, which dataclass fields are first."""
        self = super().__new__(cls)
        nn.Module.__init__(self)
        return self

    def __post_init__(self) -> None:
        check_positive("bins", self.bins, whole=True)
        if not self.low < self.high:
            raise ValueError(f"low must lie below high, got {self.low!r} and {self.high!r}.")
        outputs = getattr(self.net, "outputs", self.bins)
        if outputs != self.bins:
            raise ValueError(
                f"net must have outputs = bins = {self.bins}, got {outputs}; build it with outputs={self.bins}."
            )

    @property
    def event_shape(self) -> tuple[int, ...] | None:
        """The inner network's, where it states one."""
        return getattr(self.net, "event_shape", None)

    @property
    def log_snr_range(self) -> tuple[float, float] | None:
        """The inner network's, where it states one."""
        return getattr(self.net, "log_snr_range", None)

    def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor | None = None) -> Tensor:
        r"""The estimate of $x_0$.

        Args:
            x: Noised state, shape ``(B, *D)``.
            log_snr: Noise level in nats, finite, shape ``(B,)``.
            cond: Passed to the network.

        Returns:
            Shape and dtype of ``x``; the posterior is computed in at least float32.
        """
        logits = self.net(x, log_snr, cond) if cond is not None else self.net(x, log_snr)
        kind = torch.promote_types(x.dtype, torch.float32)
        per_sample = (-1,) + (1,) * (x.ndim - 1)
        level = log_snr.to(kind).clamp(min=-30.0)  # there the observation says nothing to the last digit
        ratio = torch.exp(-0.5 * level).reshape(per_sample)
        inverse_alpha = torch.exp(0.5 * torch.nn.functional.softplus(-level)).reshape(per_sample)
        return self._posterior_mean(logits.to(kind), x.to(kind) * inverse_alpha, ratio).to(x.dtype)

    def _posterior_mean(self, logits: Tensor, y: Tensor, ratio: Tensor) -> Tensor:
        """E[x0 | y] for ``logits`` (B, *D, bins), observation ``y`` (B, *D) and its noise ``ratio`` (B, 1, …)."""
        width = (self.high - self.low) / self.bins
        index = torch.arange(self.bins, dtype=y.dtype, device=y.device)
        centre = self.low + (index + 0.5) * width
        offset, ratio = y.unsqueeze(-1) - centre, ratio.unsqueeze(-1)
        log_mass, shift = _truncated(offset.abs() / ratio, width / ratio)
        # the mean lies inside its bin; rounding may put it outside where y is far away
        mean = centre + (offset.sign() * ratio * shift).clamp(-0.5 * width, 0.5 * width)
        return (torch.softmax(logits + log_mass, -1) * mean).sum(-1)


def _truncated(z: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """A unit normal on an interval of ``width`` whose centre lies ``z`` >= 0 away.

    Returns:
        Logarithm of the interval's mass, and how far the mean within the interval lies from the interval's centre,
        towards the normal's.
    """
    square, root = width * width, math.sqrt(0.5)
    near = z - 0.5 * width
    ratio = torch.exp(-width * z)  # of the densities at the far and the near end
    # the normal's centre inside: the two tails are small against 1
    inside = near.clamp(max=0.0)
    mass = torch.special.ndtr(-inside) - torch.special.ndtr(-inside - width)
    density = torch.exp(-0.5 * inside * inside) * root / math.sqrt(math.pi)
    # outside: Mills' ratios, from which the density's exponent has been taken out
    outside = near.clamp(min=0.0)
    mills = math.sqrt(0.5 * math.pi) * (
        torch.special.erfcx(outside * root) - ratio * torch.special.erfcx((outside + width) * root)
    )
    mills = mills.clamp(min=1e-30)
    log_outside = -0.5 * outside * outside + torch.log(mills) - _LOG_ROOT_2PI
    # narrow: both would cancel, the series about the centre does not
    z2 = z * z
    excess = square / 24 * (z2 - 1 + square / 80 * (z2 * z2 - 6 * z2 + 3))
    series = -0.5 * z2 + torch.log1p(excess) + torch.log(width) - _LOG_ROOT_2PI
    shift = z * square / 12 * (1 + square / 40 * (z2 - 3)) / (1 + excess)
    log_mass = torch.where(near < 0, torch.log(mass), log_outside)
    pull = -torch.expm1(-width * z) * torch.where(near < 0, density / mass, 1 / mills)
    narrow = width < 0.2
    return torch.where(narrow, series, log_mass), torch.where(narrow, shift, z - pull)
