"""From which fixed densities is u drawn? From tables, constant on cells of equal width in log-SNR."""

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
from scoresde._core.checks import check_kind
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import constant
from scoresde.objective.timesteps.base import TimestepDraw, Timesteps, edges, spread
from scoresde.objective.weighting import ELBO, Weighting
from scoresde.process.sde import SDE, Marginal

__all__ = ["ImportanceTimesteps", "LogNormalTimesteps", "MeasuredTimesteps", "TabulatedTimesteps"]


class TabulatedTimesteps(Timesteps):
    """u drawn from a density that is tabulated, evenly spread over the batch; the loss is divided by the density.

    The density is constant on cells of equal width in log-SNR, so the correction has no error of its own. Subclasses
    are frozen dataclasses with the fields ``even`` and ``bins`` and give `density`.

    Attributes:
        even: Share of the draws that is spread evenly over log-SNR, so that no time is starved.
        bins: Number of cells.
    """

    even: float
    bins: int

    @abstractmethod
    def density(self, m: Marginal) -> Scalar:
        """What the density of u is proportional to, > 0."""

    def __post_init__(self) -> None:
        if not 0 <= self.even < 1:
            raise ValueError(f"even must lie in [0, 1), got {self.even!r}; 0 keeps the density as it is.")
        if isinstance(self.bins, bool) or not isinstance(self.bins, int) or self.bins < 1:
            raise ValueError(f"bins must be a positive integer, got {self.bins!r}.")

    def draw(self, base: Tensor, sde: SDE) -> TimestepDraw:
        """The inverse of the piecewise linear distribution function at evenly spread numbers."""
        return self.place(spread(base), sde)

    def place(self, base: Tensor, sde: SDE) -> TimestepDraw:
        """The same at the numbers themselves."""
        ends, mass = _cells(self, sde)
        upper = constant(tuple(accumulate(mass)), base)
        edge, share = constant(ends, base), constant(mass, base)
        cell = torch.searchsorted(upper, base, right=True).clamp(max=self.bins - 1)
        left, width = edge[cell], edge[cell + 1] - edge[cell]
        u = (left + width * ((base - (upper[cell] - share[cell])) / share[cell]).clamp(0.0, 1.0)).clamp(max=1.0)
        return TimestepDraw(u, None, width / (share[cell] * (1.0 - sde.u_min)))


@lru_cache(maxsize=32)
def _cells(times: TabulatedTimesteps, sde: SDE) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Edges of the cells in u, and the cells' probabilities by the midpoint rule."""
    ends = edges(sde, times.bins)
    mass = []
    for a, b in zip(ends, ends[1:], strict=False):
        mass.append(float(times.density(sde.marginal(0.5 * (a + b)).limit)) * (b - a))
    total = math.fsum(mass)
    if not all(value > 0 for value in mass) or not math.isfinite(total):
        raise ValueError(
            f"the density {times} must be positive and finite on the clock, got a mass of {min(mass)!r}; use another "
            "weighting or a wider law."
        )
    return ends, tuple((1.0 - times.even) * value / total + times.even / times.bins for value in mass)


@dataclass(frozen=True)
class ImportanceTimesteps(TabulatedTimesteps):
    """u drawn in proportion to a weighting.

    Args:
        weighting: To what the density is proportional; `ELBO` makes it uniform in log-SNR.
        even, bins: See `Tabulated`.

    Source: Song et al. 2021 (Maximum likelihood training), section 5.1.
    """

    weighting: Weighting = ELBO()
    even: float = 0.0
    bins: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        check_kind("weighting", self.weighting, Weighting)

    def density(self, m: Marginal) -> Scalar:
        """λ."""
        return self.weighting(m)


@dataclass(frozen=True)
class LogNormalTimesteps(TabulatedTimesteps):
    r"""$\tilde\sigma = \sigma/\alpha$ log-normal: $\ln\tilde\sigma \sim N(P_{mean}, P_{std}^2)$, so log-SNR is normal.

    Args:
        p_mean, p_std: Mean and standard deviation of $\ln\tilde\sigma$; log-SNR has -2 and 2 times these.
        even, bins: See `Tabulated`. Without an even share the far ends of the clock would practically never be drawn.

    Source: Karras et al. 2022, table 1 (there without the correction, which makes it part of their weighting).
    """

    p_mean: float = -1.2
    p_std: float = 1.2
    even: float = 0.1
    bins: int = 256

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.p_std > 0:
            raise ValueError(f"p_std must be positive, got {self.p_std!r}.")

    def density(self, m: Marginal) -> Scalar:
        r"""$e^{-z^2/2}\,|d\ell/du|$ with $z = (-\ell/2 - P_{mean})/P_{std}$."""
        z = (-0.5 * m.log_snr - self.p_mean) / self.p_std
        return ew.exp(-0.5 * z * z) * ELBO()(m)


@dataclass(frozen=True)
class MeasuredTimesteps(TabulatedTimesteps):
    """u drawn by a density in log-SNR that is given at a few points, such as the spread of a loss measured there.

    Args:
        log_snr: The points, nats, strictly rising.
        values: What the density of log-SNR is proportional to at each, >= 0; linear between them, constant beyond.
        even, bins: See `Tabulated`.

    Raises:
        ValueError: If the two do not fit each other, or a number is out of range.
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
            raise ValueError(f"every log_snr has one value, got {len(self.log_snr)} and {len(self.values)} numbers.")
        if not all(a < b for a, b in zip((-math.inf, *self.log_snr), (*self.log_snr, math.inf))):
            raise ValueError(f"log_snr must rise strictly and be finite, got {tuple(self.log_snr)!r}.")
        if not all(0 <= v < math.inf for v in self.values) or not max(self.values) > 0:
            raise ValueError(f"values must be finite, >= 0 and not all 0, got {tuple(self.values)!r}.")

    def density(self, m: Marginal) -> Scalar:
        """The interpolated value times |d log-SNR/du|; at least 1e-12 of the largest, which is then drawn by `even`."""
        at = float(np.interp(float(m.log_snr), self.log_snr, self.values))
        return max(at, 1e-12 * max(self.values)) * ELBO()(m)
