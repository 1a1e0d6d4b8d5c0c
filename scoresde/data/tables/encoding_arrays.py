r"""The maps of all columns of a table as tensors, evaluated for all rows and columns at once in float64.

Between two knots of a column of numbers, $x = \Phi^{-1}(F(y))$ with F linear, so
$dx/dy = F'/\varphi(x)$; beyond the outermost knots it is a line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from scoresde._core.tensors import has_float64
from scoresde.data.tables.column_maps import CategoryColumn, NumberColumn

__all__ = [
    "ColumnArrays",
    "in_bins",
    "is_on_grid",
    "log_slope",
    "normal_scores",
    "on_grid",
    "precision_of",
    "values_at",
    "widened",
]

_LOG_ROOT_TAU = 0.5 * math.log(2 * math.pi)


class ColumnArrays(NamedTuple):
    """The encoding as tensors: M columns of numbers with up to K knots, and the entries of all categories."""

    numbers: Tensor  # columns of numbers, (M,), and their entries, (M,)
    number_entries: Tensor
    knots: Tensor  # (M, K), filled up with inf
    scores: Tensor  # (M, K), filled up with the last one
    levels: Tensor  # (M, K), filled up with 1
    last: Tensor  # index of the last knot, (M, 1)
    slopes: Tensor  # (M, 2)
    step: Tensor  # (M,)
    inverse: Tensor  # (M,), 1 / step where that is an integer, else 0
    low: Tensor
    high: Tensor
    coded: Tensor  # columns of categories, (C,)
    first: Tensor  # position of their first entry among those of all categories, (C,)
    count: Tensor  # number of their categories, (C,)
    category_entries: Tensor  # (F,)
    owner: Tensor  # which of the C columns an entry belongs to, (F,)
    mean: Tensor
    scale: Tensor
    side: Tensor

    @classmethod
    def of(
        cls, columns: Sequence[NumberColumn | CategoryColumn], widths: Sequence[int], codes: bool = False
    ) -> ColumnArrays:
        """The tensors of columns that take ``widths`` entries each; with ``codes`` the numbers come first."""
        ends = np.cumsum(widths)
        starts = (ends - widths).tolist()
        numbers = [(i, c) for i, c in enumerate(columns) if isinstance(c, NumberColumn)]
        coded = [(i, c) for i, c in enumerate(columns) if isinstance(c, CategoryColumn)]
        width = [len(c.mean) for _, c in coded]
        first = [sum(width[:i]) for i in range(len(width))]
        owner = [i for i, n in enumerate(width) for _ in range(n)]
        most = max((len(c.knots) for _, c in numbers), default=1) + 1
        scores = _filled([(*c.scores, *(c.scores[-1],) * (most - len(c.scores))) for _, c in numbers], most)
        used = torch.arange(most) < torch.tensor([[len(c.knots)] for _, c in numbers]).reshape(-1, 1)
        steps = [c.step for _, c in numbers]
        return cls(
            torch.tensor([i for i, _ in numbers], dtype=torch.long),
            torch.tensor(range(len(numbers)) if codes else [starts[i] for i, _ in numbers], dtype=torch.long),
            _filled([(*c.knots, *(math.inf,) * (most - len(c.knots))) for _, c in numbers], most),
            scores,
            torch.where(used, torch.special.ndtr(scores), 1.0),
            torch.tensor([[len(c.knots) - 1] for _, c in numbers], dtype=torch.long).reshape(-1, 1),
            _filled([c.slopes for _, c in numbers], 2),
            _filled(steps),
            _filled([float(round(1 / s)) if 0 < s < 1 and math.isclose(1 / s, round(1 / s)) else 0.0 for s in steps]),
            _filled([c.low for _, c in numbers]),
            _filled([c.high for _, c in numbers]),
            torch.tensor([i for i, _ in coded], dtype=torch.long),
            torch.tensor(first, dtype=torch.long),
            torch.tensor(width, dtype=torch.long),
            torch.tensor([starts[i] + k for (i, _), n in zip(coded, width) for k in range(n)], dtype=torch.long),
            torch.tensor(owner, dtype=torch.long),
            _filled([m for _, c in coded for m in c.mean]),
            _filled([coded[i][1].scale for i in owner]),
            _filled([coded[i][1].side for i in owner]),
        )


def _filled(rows: Sequence[object], width: int | None = None) -> Tensor:
    tensor = torch.tensor(rows, dtype=torch.float64)
    return tensor if width is None else tensor.reshape(-1, width)


def widened(y: Tensor) -> Tensor:
    """float64, on the CPU if the device does not support it."""
    return (y if has_float64(y.device) else y.cpu()).double()


def precision_of(y: Tensor) -> float:
    """The rounding of a type, relative to its values; 0 for integers."""
    return torch.finfo(y.dtype).eps if y.is_floating_point() else 0.0


def _bin_number(y: Tensor, a: ColumnArrays) -> Tensor:
    """``y / step``, exact to rounding also for decimals; any number for continuous columns."""
    return torch.where(a.inverse > 0, y * a.inverse, y / torch.where(a.step > 0, a.step, 1.0))


def _from_number(number: Tensor, a: ColumnArrays) -> Tensor:
    """``number * step``; of decimals the nearest float."""
    return torch.where(a.inverse > 0, number / torch.where(a.inverse > 0, a.inverse, 1.0), number * a.step)


def is_on_grid(y: Tensor, a: ColumnArrays, precision: float) -> Tensor:
    """Whether values ``(B, M)`` lie on the grids of their columns, up to the rounding of their type."""
    number = _bin_number(y, a)
    return (number - number.round()).abs() <= 1e-6 + 4 * precision * number.abs()


def in_bins(y: Tensor, a: ColumnArrays, u: Tensor | float, precision: float) -> Tensor:
    """Values ``(B, M)`` at positions ``u`` of their bins; those of continuous columns, or off the grid, as they are."""
    dequantized = _from_number(_bin_number(y, a).round() + u, a)
    return torch.where((a.step > 0) & is_on_grid(y, a, precision), dequantized, y)


def on_grid(y: Tensor, a: ColumnArrays) -> Tensor:
    """The value whose bin contains y; y itself for continuous columns."""
    return torch.where(a.step > 0, _from_number(_bin_number(y, a).floor(), a), y)


def _ends(a: ColumnArrays) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The outermost knots and scores, ``(M, 1)`` each."""
    return a.knots[:, :1], a.knots.gather(1, a.last), a.scores[:, :1], a.scores.gather(1, a.last)


def _segment(table: Tensor, v: Tensor, a: ColumnArrays) -> Tensor:
    """Index of the knot below v, so that there is one above."""
    found = torch.searchsorted(table, v.detach(), right=True) - 1
    return torch.minimum(found.clamp(min=0), (a.last - 1).clamp(min=0))


def normal_scores(y: Tensor, a: ColumnArrays) -> Tensor:
    """x of y, ``(M, B)``: the normal score of the level between knots, lines beyond them."""
    first, last, lowest, highest = _ends(a)
    inside = torch.minimum(torch.maximum(y, first), last)
    i = _segment(a.knots, inside, a)
    left, level = a.knots.gather(1, i), a.levels.gather(1, i)
    rise = (a.levels.gather(1, i + 1) - level) / (a.knots.gather(1, i + 1) - left)
    x = torch.special.ndtri(level + (inside - left) * rise)
    x = torch.where(y < first, lowest + (y - first) * a.slopes[:, :1], x)
    return torch.where((y > last) | ((a.last == 0) & (y >= first)), highest + (y - last) * a.slopes[:, 1:], x)


def values_at(x: Tensor, a: ColumnArrays) -> Tensor:
    """y of x, ``(M, B)``: the inverse of `normal_scores`."""
    first, last, lowest, highest = _ends(a)
    level = torch.special.ndtr(torch.minimum(torch.maximum(x, lowest), highest))
    i = _segment(a.levels, level, a)
    left, below = a.knots.gather(1, i), a.levels.gather(1, i)
    y = left + (level - below) * (a.knots.gather(1, i + 1) - left) / (a.levels.gather(1, i + 1) - below)
    y = torch.where(x < lowest, first + (x - lowest) / a.slopes[:, :1], y)
    return torch.where((x > highest) | ((a.last == 0) & (x >= lowest)), last + (x - highest) / a.slopes[:, 1:], y)


def log_slope(x: Tensor, a: ColumnArrays) -> Tensor:
    """log dx/dy at x, ``(M, B)``."""
    _, _, lowest, highest = _ends(a)
    i = _segment(a.levels, torch.special.ndtr(x), a)
    rise = a.levels.gather(1, i + 1) - a.levels.gather(1, i)
    inside = (rise / (a.knots.gather(1, i + 1) - a.knots.gather(1, i))).log() + 0.5 * x.square() + _LOG_ROOT_TAU
    result = torch.where(x < lowest, a.slopes[:, :1].log(), inside)
    result = torch.where((x > highest) | (a.last == 0), a.slopes[:, 1:].log(), result)
    return torch.where(x.isnan(), x, result)
