"""Rows with hidden cells, and fair scores of draws: CRPS, energy score, error of the mean and coverage.

Standard errors are those of a ratio of sums over rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

import scoresde as sd
from scoresde.inverse import Imputed

__all__ = ["Problem", "fair_crps", "fair_energy_score", "figures", "ratio", "row_sums", "score"]


@dataclass(frozen=True)
class Problem:
    """Rows with hidden cells, in data units.

    Attributes:
        data: The table.
        truth: ``(n, D)`` held-out rows.
        hidden: Which cells are hidden, ``(n, D)``.
    """

    data: sd.Data = field(repr=False)
    truth: Tensor = field(repr=False)
    hidden: Tensor = field(repr=False)

    @property
    def table(self) -> Tensor:
        """The rows with NaN for hidden cells."""
        return self.truth.where(~self.hidden, torch.nan)

    @property
    def scaling(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each column of the train part."""
        return self.data.train.mean(0), self.data.train.std(0)

    def scaled(self, x: Tensor) -> np.ndarray:
        """Values in deviations of the train part."""
        mean, std = self.scaling
        return ((x - mean) / std).numpy()


def fair_crps(draws: Tensor, truth: Tensor) -> Tensor:
    """Fair CRPS of each cell, from draws ``(n, m, D)`` and values ``(n, D)``: ``(n, D)``."""
    m = draws.shape[1]
    error = (draws - truth.unsqueeze(1)).abs().mean(1)
    ordered, rank = draws.sort(1).values, torch.arange(m, dtype=draws.dtype)
    spread = 2 * ((2 * rank - m + 1)[:, None] * ordered).sum(1)  # sum over all pairs of |x - x'|
    return error - spread / (2 * max(m * (m - 1), 1))


def fair_energy_score(draws: Tensor, truth: Tensor, hidden: Tensor) -> Tensor:
    """Fair energy score of each row over its hidden cells, ``(n,)``."""
    m, h = draws.shape[1], hidden.unsqueeze(1)
    error = ((draws - truth.unsqueeze(1)) * h).norm(dim=2).mean(1)
    pairs = torch.cdist(draws * h, draws * h).sum((1, 2))
    return error - pairs / (2 * max(m * (m - 1), 1))


def row_sums(problem: Problem, draws: Tensor) -> dict[str, Tensor]:
    """Sums over the hidden cells of each row, ``(n,)`` each, from draws ``(n, m, D)`` in data units."""
    mean, std = problem.scaling
    x, y, hidden = (draws - mean) / std, (problem.truth - mean) / std, problem.hidden
    level = min(0.9, (draws.shape[1] - 1) / (draws.shape[1] + 1))  # what so few draws reach
    low, high = Imputed(draws, draws, hidden, 0).interval(level) if level > 0 else (draws[:, 0], draws[:, 0])
    value = problem.truth
    closed = (value >= low - 1e-9) & (value <= high + 1e-9)
    inner = (value > low + 1e-9) & (value < high - 1e-9)
    cells = {
        "cells": torch.ones_like(y),
        "crps": fair_crps(x, y),
        "square": (x.mean(1) - y).square(),
        "inside": 0.5 * (closed.double() + inner.double()),
    }
    sums = {name: torch.where(hidden, each.double(), 0.0).sum(1) for name, each in cells.items()}
    return sums | {"rows": hidden.any(1).double(), "energy": fair_energy_score(x, y, hidden).double()}


def ratio(sums: Tensor, counts: Tensor) -> tuple[float, float]:
    """Total of ``sums`` over that of ``counts`` and its standard error with the rows, ``(n,)``, as units."""
    value = sums.sum() / counts.sum()
    return float(value), float((sums - value * counts).square().sum().sqrt() / counts.sum())


def figures(parts: list[dict[str, Tensor]]) -> dict[str, float]:
    """The figures of a method from its `row_sums` with one or several choices of hidden cells."""
    total = {name: sum((part[name] for part in parts), torch.zeros(())) for name in parts[0]}
    result = {}
    for name, count in {"crps": "cells", "energy": "rows", "inside": "cells"}.items():
        result[name], result[f"{name} stderr"] = ratio(total[name], total[count])
    return result | {"rmse": ratio(total["square"], total["cells"])[0] ** 0.5}


def score(problem: Problem, draws: Tensor) -> dict[str, float]:
    """`figures` with one choice of hidden cells."""
    return figures([row_sums(problem, draws)])
