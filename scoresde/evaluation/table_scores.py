"""Scores of a table's samples: each column, pairwise dependence, a classifier and copied rows, each with its floor.

Everything is in data units, where a category is a code. The floor of a score is that of as many training rows, which
no sampler can be expected to beat.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from scoresde import metrics
from scoresde._core.annotations import CheckedArguments, check_arguments
from scoresde._core.checks import check_integer, check_seed
from scoresde.data import Data, Description
from scoresde.metrics import CopiedRows, Estimate

__all__ = ["TableScores", "table_kinds"]

_DRAWS, _CLASSIFIERS = 20, 6  # sets of training rows behind a floor
_MOST_COLUMNS = 100  # of data without named columns and of the report: pairs are their square
_WITHIN = 1.5  # a column is right if its distance is at most so many floors


def table_kinds(description: Description) -> dict[str, str] | None:
    """Name -> kind of each feature of a table: numeric, integer, category or date; None for other data.

    Events of one axis with 3 to 100 numbers are a table too, of x0, x1, …

    Args:
        description: Of the data.
    """
    check_arguments(table_kinds, locals())
    if len(description.shape) != 1 or description.dims > _MOST_COLUMNS or description.classes is not None:
        return None
    if description.columns is not None:
        return {name: description.columns.kinds[name] for name in description.columns.names}
    kind = "numeric" if description.bins is None else "integer"
    return {f"x{i}": kind for i in range(description.dims)} if description.dims > 2 else None


class TableScores(CheckedArguments):
    """Scores of samples against the held-out rows of a table.

    Args:
        data: A table without missing values; train part for floors and copies, test part as the target.
        n: Number of held-out rows and of samples; at most the number of rows in each part.
        seed: Of the draws of training rows, and of the classifier's folds.

    Attributes:
        kinds: Name -> kind of each column.
        held_out: ``(n, D)``, float64, data units.

    Raises:
        ValueError: If the data are not a table, or a part has fewer than ``n`` rows.
    """

    def __init__(self, data: Data, n: int, seed: int = 0) -> None:
        kinds = table_kinds(data.description)
        if kinds is None:
            raise ValueError(
                f"scores of a table need events of one axis and at most {_MOST_COLUMNS} columns, got shape "
                f"{data.description.shape}; use SampleDistances."
            )
        check_integer("n", n)
        seed = check_seed(seed)
        if n > min(len(data.test), len(data.train)):
            raise ValueError(f"n must be at most the rows of each part, got {n}; the smaller part is the limit.")
        self.kinds, self._seed = kinds, seed
        self.held_out, self._train = data.test[:n].double().cpu(), data.train.double().cpu()

    @property
    def categorical(self) -> tuple[bool, ...]:
        """For each column whether it holds categories."""
        return tuple(kind == "category" for kind in self.kinds.values())

    def measure(self, y: Tensor) -> dict[str, Any]:
        """The scores of samples, as JSON.

        Args:
            y: Data units, ``(n, D)``.

        Returns:
            ``distances``, one per column (`scoresde.metrics.column_distances`); ``within``, the share of columns whose
            distance is at most 1.5 floors; ``association``, mean and largest difference of the pairwise dependence;
            ``auc`` of the classifier; ``copies``.
        """
        y = y.double().cpu()
        distances = metrics.column_distances(y, self.held_out, self.categorical)
        return {
            "distances": distances.tolist(),
            "within": float((distances <= _WITHIN * torch.tensor(self.floors["distances"])).double().mean()),
            "association": _difference(self._association(y), self._real_association),
            "auc": _entry(self._auc(y, self.held_out)),
            "copies": _copies(metrics.copied_rows(y, self._train, self.held_out, self.categorical, seed=self._seed)),
        }

    @cached_property
    def floors(self) -> dict[str, Any]:
        """The scores of as many training rows: medians over 20 draws, the mean over 6 for the classifier."""
        generator = torch.Generator().manual_seed(self._seed)
        n = len(self.held_out)
        draws = [self._train[torch.randperm(len(self._train), generator=generator)[:n]] for _ in range(_DRAWS)]
        distances = [metrics.column_distances(rows, self.held_out, self.categorical) for rows in draws]
        differences = [_difference(self._association(rows), self._real_association) for rows in draws]
        auc = metrics.floor(self._auc, self._train, self.held_out, draws=_CLASSIFIERS, generator=generator)
        return {
            "distances": torch.stack(distances).quantile(0.5, 0).tolist(),
            "association": {name: _median([each[name] for each in differences]) for name in ("mean", "largest")},
            "auc": _entry(auc),
        }

    @cached_property
    def _real_association(self) -> Tensor:
        return self._association(self.held_out)

    def _association(self, y: Tensor) -> Tensor:
        return metrics.association_matrix(y, self.categorical)

    @cached_property
    def _auc(self) -> Any:
        return partial(metrics.classifier_auc, categorical=self.categorical, seed=self._seed)


def _difference(a: Tensor, b: Tensor) -> dict[str, float]:
    """Mean and largest absolute difference of the dependence of two different columns; 0 for one column."""
    size = len(a)
    pairs = (a - b)[torch.ones(size, size).triu(1).bool()].abs()
    return {"mean": float(pairs.mean()), "largest": float(pairs.max())} if len(pairs) else {"mean": 0.0, "largest": 0.0}


def _median(values: list[float]) -> float:
    return float(torch.tensor(values, dtype=torch.float64).quantile(0.5))


def _copies(rows: CopiedRows) -> dict[str, Any]:
    return {name: _entry(getattr(rows, name)) for name in ("repeated", "repeated_real", "nearer_train")}


def _entry(estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "stderr": estimate.stderr}
