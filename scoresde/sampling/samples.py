"""`Samples`: samples in model units, data units, or as the columns of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from scoresde.data import Description
from scoresde.data.tables.columns import arrow_table, table_arrays

__all__ = ["Samples", "class_labels"]


@dataclass(frozen=True)
class Samples:
    """Samples, and how they were drawn.

    Attributes:
        x: Samples at ``tau`` in the view's coordinates, those of the data, model units, ``(n, *D)``.
        tau: OU time of ``x``: ``tau_min``, or 0 after the chain's last step or a final denoising, or the time at which
            an observer stopped.
        nfe: Network evaluations per sample, `Model.cost` for each call of the model. An adaptive solver shares its
            steps within a batch: the largest of all batches.
        taus: Times of the start, of every step and of a final denoising; None without trajectory or previews.
        trajectory: States at ``taus``, view's coordinates, ``(len(taus), n, *D)``, or None.
        previews: The data estimates of the last network calls before each of ``taus[1:]``, in the data's coordinates,
            ``(len(taus) - 1, n, *D)``, or None.
        description: The data's description, or None.
        labels: Class labels that the samples were drawn with, ``(n,)``, or None.
    """

    x: Tensor
    tau: float
    nfe: int
    taus: tuple[float, ...] | None = None
    trajectory: Tensor | None = None
    previews: Tensor | None = None
    description: Description | None = None
    labels: Tensor | None = None

    @cached_property
    def data(self) -> Tensor:
        """The samples in the data's own units (integer values for quantized data), ``(n, *D)``.

        Raises:
            ValueError: If the model does not carry its data's description.
        """
        if self.description is None:
            raise ValueError("data units need the data's description, got a model without one; use .x (model units).")
        return self.description.to_data(self.x)

    def columns(self) -> dict[str, np.ndarray]:
        """The samples as named columns, ``(n,)`` each: texts, integers, floats, bools and dates, in data units.

        A model of a table gives its columns' names and order, with the columns of one value, and without those that
        identify rows; another one x0, x1, ... Without a description values are in model
        units. `labels` make the column of classes.

        Raises:
            ValueError: If an event has more than one axis.
        """
        values = self.x if self.description is None else self.data
        labels = None if self.labels is None else self.labels.detach().cpu().numpy()
        return table_arrays(values.detach().cpu().numpy(), self.description, labels)

    def texts(self) -> list[str]:
        """The texts that samples of sequences of categories write, one for each, by the alphabet of the data.

        Raises:
            ValueError: If the model does not carry its data's description, or the data have no alphabet.
        """
        data = self.data
        assert self.description is not None
        return self.description.texts(data)

    def frame(self) -> Any:
        """The `columns` as a ``pandas.DataFrame``, or as a ``pyarrow.Table`` where pandas is not installed.

        Raises:
            ModuleNotFoundError: If neither is installed.
            ValueError: If an event has more than one axis.
        """
        columns = self.columns()
        try:
            import pandas
        except ImportError:
            return arrow_table(columns)
        return pandas.DataFrame(columns)


def class_labels(cond: Mapping[str, Tensor]) -> Tensor | None:
    """The class labels among a network's conditioning: ``label`` if it holds one integer per sample, else None."""
    labels = cond.get("label")
    return None if labels is None or labels.ndim != 1 or labels.is_floating_point() else labels
