"""Methods that draw hidden cells: `impute`, and the imputers of scikit-learn and miceforest.

Each is a function from a `Problem` to draws ``(n, m, D)`` in data units.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import scoresde as sd
from imputation_race.scores import Problem

__all__ = ["methods"]

_DRAWS = 20


def ours(run: Path) -> Callable[[Problem], Tensor]:
    """Draws of `impute` by its default method."""
    model = sd.load(run)

    def draw(problem: Problem) -> Tensor:
        return sd.impute(model, problem.table, _DRAWS, seeds=range(len(problem.truth)), batch_size=50).data.double()

    return draw


def iterative(estimator: str, rows: int) -> Callable[[Problem], Tensor]:
    """scikit-learn's IterativeImputer on train and held-out rows: draws by BayesianRidge, or means by ExtraTrees."""

    def draw(problem: Problem) -> Tensor:
        from sklearn.ensemble import ExtraTreesRegressor
        from sklearn.experimental import enable_iterative_imputer  # noqa: F401
        from sklearn.impute import IterativeImputer
        from sklearn.linear_model import BayesianRidge

        table = joint_table(problem, rows)
        if estimator == "BayesianRidge":
            sets = [
                IterativeImputer(BayesianRidge(), sample_posterior=True, random_state=seed).fit_transform(table)
                for seed in range(_DRAWS)
            ]
        else:
            trees = ExtraTreesRegressor(50, min_samples_leaf=2, random_state=0)
            sets = [IterativeImputer(trees, random_state=0).fit_transform(table)]
        return unscaled(problem, sets)

    return draw


def nearest(rows: int) -> Callable[[Problem], Tensor]:
    """scikit-learn's KNNImputer with 10 neighbors."""

    def draw(problem: Problem) -> Tensor:
        from sklearn.impute import KNNImputer

        imputer = KNNImputer(n_neighbors=10).fit(problem.scaled(problem.data.train)[:rows])
        return unscaled(problem, [imputer.transform(problem.scaled(problem.table))])

    return draw


def chained_forests(rows: int) -> Callable[[Problem], Tensor]:
    """miceforest: chained equations with boosted trees and mean matching, 20 sets after 5 iterations."""

    def draw(problem: Problem) -> Tensor:
        import miceforest  # pyright: ignore[reportMissingImports]
        import pandas as pd

        table = joint_table(problem, rows)
        frame = pd.DataFrame(table, columns=[f"c{i}" for i in range(table.shape[1])])
        kernel = miceforest.ImputationKernel(frame, num_datasets=_DRAWS, random_state=0)
        kernel.mice(5, num_threads=1, verbose=False)
        sets = [kernel.complete_data(i).to_numpy() for i in range(_DRAWS)]
        return unscaled(problem, sets)

    return draw


def joint_table(problem: Problem, rows: int) -> np.ndarray:
    """The first ``rows`` train rows and, below them, the rows with hidden cells, in deviations."""
    return np.concatenate([problem.scaled(problem.data.train)[:rows], problem.scaled(problem.table)])


def unscaled(problem: Problem, sets: Sequence[Any]) -> Tensor:
    """Completed tables in deviations as draws ``(n, m, D)`` of the rows with hidden cells, in data units."""
    mean, std = problem.scaling
    return torch.from_numpy(np.stack([each[-len(problem.truth) :] for each in sets], 1)) * std + mean


def methods(run: Path, known_run: Path, rows: int) -> dict[str, Callable[[Problem], Tensor]]:
    """The methods by name; others than `impute` see ``rows`` train rows.

    Args:
        run: Of a model of whole rows, conditioned by particles.
        known_run: Of a network that reads the known entries.
        rows: Train rows.
    """
    return {
        "impute": ours(run),
        "impute, known": ours(known_run),
        "miceforest": chained_forests(rows),
        "ExtraTrees": iterative("ExtraTrees", rows),
        "BayesianRidge": iterative("BayesianRidge", rows),
        "KNN": nearest(min(rows, 5000)),
    }
