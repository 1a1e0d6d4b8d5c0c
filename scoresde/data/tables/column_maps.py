r"""Maps of a table's columns to model units: of numbers by standardization or normal scores, of categories one-hot.

The normal scores of numbers are $x = \Phi^{-1}(F(y))$. F is the distribution function of the train part, linear
between a few knots, mixed with 0.1 % of a uniform one so that it increases everywhere. Beyond its outermost knots a map
is linear. So it has an inverse and a positive slope everywhere, and a column is near N(0, 1) in model units however
skewed, bounded or tied it is. A column that is already close to symmetric is standardized: one knot, and the same line
on both sides.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch

__all__ = ["CategoryColumn", "NumberColumn", "fit_category_column", "fit_number_column"]

_UNIFORM = 1e-3  # weight of the uniform distribution: what values between those of the train part have
_CANDIDATES = 3000  # points of the distribution function among which knots are chosen
_MOST_KNOTS = 96
_SKEWED, _PEAKED = 0.5, 1.0  # skewness and excess kurtosis up to which a column is standardized
_TIED = 0.5  # share of distinct values below which it is not
_SIDE = 0.5  # of a category's cube; the distance of two unit vectors is 1.41
_LEAST_SCALE = 0.25


@dataclass(frozen=True)
class NumberColumn:
    r"""The map of one column of numbers, counts or dates.

    Args:
        low, high: Range of the train part, data units; samples lie within it.
        knots: Values y of the knots, increasing; for a grid the lower edges of bins.
        scores: x at the knots, increasing.
        slopes: dx/dy below the first and above the last knot.
        step: Spacing of a grid of values that are dequantized; 0 for continuous values.

    Raises:
        ValueError: If knots and scores differ in number or do not increase, or a slope is not positive.
    """

    low: float
    high: float
    knots: tuple[float, ...] = field(repr=False)
    scores: tuple[float, ...] = field(repr=False)
    slopes: tuple[float, float] = field(repr=False)
    step: float = 0.0

    def __post_init__(self) -> None:
        for name in ("knots", "scores", "slopes"):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        increasing = all(a < b for v in (self.knots, self.scores) for a, b in zip(v, v[1:]))
        if not self.knots or len(self.knots) != len(self.scores) or not increasing:
            raise ValueError(
                f"knots and scores must increase and be as many, got {len(self.knots)} and {len(self.scores)}; fit the "
                "column by load_data."
            )
        if len(self.slopes) != 2 or min(self.slopes) <= 0 or self.step < 0:
            raise ValueError(f"slopes must be two numbers > 0 and step >= 0, got {self.slopes} and {self.step}.")

    @property
    def standardized(self) -> bool:
        """Whether the map is affine."""
        return len(self.knots) == 1


@dataclass(frozen=True)
class CategoryColumn:
    """The one-hot encoding of one column, ``x = (unfolded value - mean) / scale``.

    Args:
        mean: Share of each category in the train part.
        scale: Model units of the distance 1, one number for all entries.
        side: Side w of a category's cube, below 1.

    Raises:
        ValueError: If there is no category, or a number is out of its range.
    """

    mean: tuple[float, ...] = field(repr=False)
    scale: float
    side: float = _SIDE

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(float(v) for v in self.mean))
        if not self.mean or self.scale <= 0 or not 0 < self.side < 1:
            raise ValueError(
                f"a category needs shares, a scale > 0 and a side in (0, 1), got {len(self.mean)} shares, "
                f"scale={self.scale} and side={self.side}."
            )


def fit_number_column(values: np.ndarray, step: float, most_knots: int = _MOST_KNOTS) -> NumberColumn:
    """The map of a column, from its train part.

    Args:
        values: Values that are not missing, ``(n,)`` float64, with at least two different ones; on the grid if there
            is one.
        step: Spacing of the grid of values; 0 for continuous values.
        most_knots: Largest number of knots.
    """
    low, high = float(values.min()), float(values.max())
    mean, deviation = _moments(values, step)
    if _symmetric(values, mean, deviation, step):
        return NumberColumn(low, high, (mean,), (0.0,), (1 / deviation, 1 / deviation), step)
    y, level = _distribution(values, step)
    n = len(values)
    share = (y - y[0]) / (y[-1] - y[0])
    end = 0.5 / (n + 1)
    level = end + (1 - 2 * end) * ((1 - _UNIFORM) * level + _UNIFORM * share)
    chosen = _knots(y, level, n, max(2, most_knots))
    y, score = y[chosen], torch.special.ndtri(torch.from_numpy(level[chosen])).numpy().round(6)
    last = int(np.searchsorted(score, score[-1]))  # rounding may make the last scores equal
    y, score = np.append(y[:last], y[-1]), np.append(score[:last], score[-1])
    kept = np.append(True, np.diff(score) > 0)
    y, score = y[kept], score[kept]
    gradient = np.diff(score) / np.diff(y)
    slopes = min(float(gradient[0]), 1 / deviation), min(float(gradient[-1]), 1 / deviation)
    return NumberColumn(low, high, tuple(y.tolist()), tuple(score.tolist()), slopes, step)


def _moments(values: np.ndarray, step: float) -> tuple[float, float]:
    """Mean and deviation of the values, dequantized if they lie on a grid."""
    low, high = float(values.min()), float(values.max())
    center, half = low / 2 + high / 2, high / 2 - low / 2
    z = (values - center) / half  # in [-1, 1], where no square overflows
    return center + half * float(z.mean()) + step / 2, half * math.sqrt(float(z.var()) + (step / half) ** 2 / 12)


def _symmetric(values: np.ndarray, mean: float, deviation: float, step: float) -> bool:
    """Whether standardization is enough: near symmetric, no heavy tails, and hardly a value occurs twice."""
    if len(np.unique(values)) < _TIED * len(values):
        return False
    z = (values + step / 2 - mean) / deviation
    return abs(float((z**3).mean())) <= _SKEWED and float((z**4).mean()) - 3 <= _PEAKED


def _distribution(values: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Points of the distribution function: at both edges of every bin that occurs, or at every value."""
    distinct, counts = np.unique(values, return_counts=True)
    upper = np.cumsum(counts)
    if not step:
        y, level = distinct, (upper - 0.5 * counts) / len(values)
    else:
        number = np.rint(distinct / step)
        edges = np.unique(np.concatenate([number, number + 1]))
        before = np.concatenate([[0], upper])[np.searchsorted(number, edges)]
        y, level, upper = edges * step, before / len(values), before
    if len(y) <= _CANDIDATES:
        return y, level
    jumps = np.flatnonzero(np.diff(level) > 1e-3)
    even = np.linspace(0, len(y) - 1, _CANDIDATES).round().astype(np.int64)
    index = np.unique(np.concatenate([even, jumps, jumps + 1]))
    return y[index], level[index]


def _knots(y: np.ndarray, level: np.ndarray, n: int, most: int) -> np.ndarray:
    """Indices of knots, chosen one by one where linear interpolation is farthest off, in standard errors of the level.

    They end where half a standard error is reached, or at ``most`` of them.
    """
    chosen = [0, len(y) - 1]
    error_scale = np.sqrt(level * (1 - level) + 1 / n)
    while len(chosen) < most:
        error = np.abs(np.interp(y, y[chosen], level[chosen]) - level) / error_scale
        worst = int(error.argmax())
        if error[worst] < 0.5 / np.sqrt(n):
            break
        chosen = sorted({*chosen, worst})
    return np.asarray(chosen)


def fit_category_column(codes: np.ndarray, categories: int) -> CategoryColumn:
    """The encoding of a column, with entries of variance 1 on average.

    Args:
        codes: Codes 0, 1, ... of the train part that are not missing, ``(n,)``.
        categories: Their number.
    """
    share = np.bincount(codes.astype(np.int64), minlength=categories) / max(len(codes), 1)
    scale = math.sqrt(float((share * (1 - share)).mean()) + _SIDE**2 / 12)
    return CategoryColumn(tuple(np.round(share, 6).tolist()), round(max(scale, _LEAST_SCALE), 6))
