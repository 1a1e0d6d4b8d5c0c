"""Timesteps from fixed densities of u that are tabulated on bins of equal width in log-SNR."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_integer, check_kind, check_positive
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import constant
from scoresde.objective.timesteps.base import TimestepDraw, Timesteps, log_snr_bin_edges, stratify
from scoresde.objective.weighting import ELBO, Weighting
from scoresde.process.base import Marginal, Process

__all__ = ["ImportanceTimesteps", "LogNormalTimesteps", "MeasuredTimesteps", "TabulatedTimesteps"]


class TabulatedTimesteps(Timesteps):
    """u drawn from a tabulated density, stratified over the batch; the loss is divided by the density.

    The density is constant on bins of equal width in log-SNR, so the correction is exact. Subclasses are frozen
    dataclasses with the fields ``even`` and ``bins`` and define `density`.

    Attributes:
        even: Fraction of the draws that is uniform in log-SNR, so that every bin is drawn.
        bins: Number of bins.
    """

    even: float
    bins: int

    @abstractmethod
    def density(self, m: Marginal) -> Scalar:
        """The density of u up to a factor, > 0."""

    def __post_init__(self) -> None:
        if not 0 <= self.even < 1:
            raise ValueError(f"even must lie in [0, 1), got {self.even!r}; 0 keeps the density as it is.")
        check_integer("bins", self.bins)

    def draw(self, uniforms: Tensor, sde: Process) -> TimestepDraw:
        return self.inverse_cdf(stratify(uniforms), sde)

    def inverse_cdf(self, uniforms: Tensor, sde: Process) -> TimestepDraw:
        edges, probabilities = _bin_probabilities(self, sde)
        upper = constant(tuple(accumulate(probabilities)), uniforms)
        edge, p = constant(edges, uniforms), constant(probabilities, uniforms)
        i = torch.searchsorted(upper, uniforms, right=True).clamp(max=self.bins - 1)
        left, width = edge[i], edge[i + 1] - edge[i]
        u = (left + width * ((uniforms - (upper[i] - p[i])) / p[i]).clamp(0.0, 1.0)).clamp(max=1.0)
        return TimestepDraw(u, None, width / (p[i] * (1.0 - sde.u_min)))


@lru_cache(maxsize=32)
def _bin_probabilities(timesteps: TabulatedTimesteps, sde: Process) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Edges of the bins in u, and the probabilities of the bins by the midpoint rule."""
    edges = log_snr_bin_edges(sde, timesteps.bins)
    masses = []
    for a, b in zip(edges, edges[1:], strict=False):
        masses.append(float(timesteps.density(sde.marginal(0.5 * (a + b)).limit)) * (b - a))
    total = math.fsum(masses)
    if not all(mass > 0 for mass in masses) or not math.isfinite(total):
        raise ValueError(
            f"the density of {timesteps} must be positive and finite on the clock, got a bin of mass {min(masses)!r}; "
            "use another weighting or a wider distribution."
        )
    even = timesteps.even
    return edges, tuple((1.0 - even) * mass / total + even / timesteps.bins for mass in masses)


@dataclass(frozen=True)
class ImportanceTimesteps(TabulatedTimesteps):
    """u drawn in proportion to a weighting.

    Args:
        weighting: λ, to which the density is proportional; `ELBO` makes it uniform in log-SNR.
        even, bins: See `TabulatedTimesteps`.

    Source: Song et al. 2021 (Maximum likelihood training), section 5.1.
    """

    weighting: Weighting = ELBO()
    even: float = 0.0
    bins: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kind("weighting", self.weighting, Weighting)

    def density(self, m: Marginal) -> Scalar:
        return self.weighting(m)


@dataclass(frozen=True)
class LogNormalTimesteps(TabulatedTimesteps):
    r"""$\tilde\sigma = \sigma/\alpha$ log-normal: $\ln\tilde\sigma \sim N(P_{mean}, P_{std}^2)$, so log-SNR is normal.

    Args:
        p_mean, p_std: Mean and standard deviation of $\ln\tilde\sigma$; log-SNR has -2 and 2 times these.
        even, bins: See `TabulatedTimesteps`. With ``even=0`` the ends of the clock are practically never drawn.

    Source: Karras et al. 2022, table 1 (there without the correction, which makes it part of their weighting).
    """

    p_mean: float = -1.2
    p_std: float = 1.2
    even: float = 0.1
    bins: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(p_std=self.p_std)

    def density(self, m: Marginal) -> Scalar:
        r"""$e^{-z^2/2}\,|d\ell/du|$ with $z = (-\ell/2 - P_{mean})/P_{std}$."""
        z = (-0.5 * m.log_snr - self.p_mean) / self.p_std
        return ew.exp(-0.5 * z * z) * ELBO()(m)


@dataclass(frozen=True)
class MeasuredTimesteps(TabulatedTimesteps):
    """u drawn from a density of log-SNR that is tabulated at a few points, such as a loss's measured deviation.

    Args:
        log_snr: The points, nats, strictly increasing.
        values: The density of log-SNR at each point up to a factor, >= 0; linear between them, constant beyond.
        even, bins: See `TabulatedTimesteps`.

    Raises:
        ValueError: If the two differ in length, or a number is out of range.
    """

    log_snr: tuple[float, ...] = (0.0,)
    values: tuple[float, ...] = (1.0,)
    even: float = 0.2
    bins: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("log_snr", "values"):
            object.__setattr__(self, name, tuple(float(x) for x in getattr(self, name)))
        if not self.log_snr or len(self.log_snr) != len(self.values):
            raise ValueError(
                f"log_snr and values must have one length >= 1, got {len(self.log_snr)} and {len(self.values)}."
            )
        if not all(a < b for a, b in zip((-math.inf, *self.log_snr), (*self.log_snr, math.inf))):
            raise ValueError(f"log_snr must increase strictly and be finite, got {tuple(self.log_snr)!r}.")
        if not all(0 <= v < math.inf for v in self.values) or not max(self.values) > 0:
            raise ValueError(f"values must be finite, >= 0 and not all 0, got {tuple(self.values)!r}.")

    def density(self, m: Marginal) -> Scalar:
        """The interpolated value times |dℓ/du|, with a floor of 1e-12 of the largest value for bins of density 0."""
        value = float(np.interp(float(m.log_snr), self.log_snr, self.values))
        return max(value, 1e-12 * max(self.values)) * ELBO()(m)
