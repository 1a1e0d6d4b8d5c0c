"""`Data`: a data set's train and test part in data units, with their conditions and description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import as_tensor
from scoresde._core.checks import check_kind
from scoresde.data.conditions.fit import LABEL
from scoresde.data.conditions.parts import Conditions, checked_conditions, select
from scoresde.data.description import Description
from scoresde.data.tables.missing_cells import MissingCells

__all__ = ["Data"]


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in data units: quantized data are integer values.

    NumPy arrays, pandas frames and lists of numbers are converted to tensors of their type.

    Args:
        train, test: Shape ``(N, *D)``; either may be empty. If the description says that values may be missing, these
            are NaN.
        description: Event shape, quantization, range and scaling of the data. Conditions that it does not describe are
            added to it: integers ``(N,)`` as classes, numbers ``(N,)`` and ``(N, size)`` as vectors, values with the
            rank of an image event as images, other ``(N, length, size)`` as tokens, with the scaling of the train part.
        train_cond, test_cond: Conditions by name, each with one entry per event, ``(N, *)``, in data units. Class
            labels have the name "label". A floating entry of only NaN is null. That of an empty part may be left out.
        columns: Names of a table's features, in the order of the event's entries.
        categories: For each categorical feature, the texts that 0, 1, ... stand for.
        rows: Of a table, the row in it of each event of the train and of the test part, ``(N,)`` int64 each, from 0.

    Raises:
        TypeError: If a part is not an array of numbers; the message has the call that works.
        ValueError: If a value contradicts the description, a condition does not have one entry per event, or the parts
            differ in their conditions, or ``rows`` are not as many as the events.

    Example:
        >>> import torch
        >>> from scoresde import Data, Description
        >>> x, age = torch.randn(6, 2), torch.tensor([30.0, 40.0, 50.0, 30.0, 40.0, 50.0])
        >>> data = Data(x[:4], x[4:], Description("x", (2,)), {"age": age[:4]}, {"age": age[4:]})
        >>> data.description.conditions["age"].offset, data.test_cond["age"].shape
        (37.5, torch.Size([2, 1]))
    """

    train: Tensor = field(repr=False)
    test: Tensor = field(repr=False)
    description: Description
    train_cond: Conditions = field(default_factory=dict, repr=False)
    test_cond: Conditions = field(default_factory=dict, repr=False)
    columns: tuple[str, ...] | None = None
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    rows: tuple[Tensor, Tensor] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_kind("description", self.description, Description)
        check_arguments(Data, {name: getattr(self, name) for name in ("columns", "categories")})
        for name in ("train", "test"):
            object.__setattr__(self, name, as_tensor(getattr(self, name), name))
            self._validate(name)
        self._check_conditions()
        if self.rows is not None and [len(rows) for rows in self.rows] != [len(self.train), len(self.test)]:
            raise ValueError(
                f"rows must have one entry per event, {len(self.train)} of train and {len(self.test)} of test, got "
                f"{' and '.join(str(len(rows)) for rows in self.rows)}; pass rows=None if they are unknown."
            )

    def _validate(self, part: str) -> None:
        try:
            self.description.validate(getattr(self, part))
        except ValueError as error:
            raise ValueError(f"{part} part: {error}") from error

    def _check_conditions(self) -> None:
        given: dict[str, Mapping[str, Any]] = {"train": self.train_cond, "test": self.test_cond}
        for part, cond in given.items():
            if not isinstance(cond, Mapping):
                raise TypeError(
                    f"{part}_cond must map names to values, got a {type(cond).__name__}; name them, such as "
                    f'{part}_cond={{"label": labels}}.'
                )
        counts, about = {"train": len(self.train), "test": len(self.test)}, self.description
        parts, kinds = checked_conditions(given, counts, about.conditions, about.shape, about.bins)
        object.__setattr__(self, "train_cond", parts["train"])
        object.__setattr__(self, "test_cond", parts["test"])
        if kinds.keys() != about.conditions.keys():
            object.__setattr__(self, "description", replace(about, conditions=kinds))

    @property
    def train_labels(self) -> Tensor | None:
        """Class labels of the train part, the condition "label", ``(N,)``; or None."""
        return self.train_cond.get(LABEL)

    @property
    def test_labels(self) -> Tensor | None:
        """Class labels of the test part, the condition "label", ``(N,)``; or None."""
        return self.test_cond.get(LABEL)

    def complete(self) -> Data:
        """The events without missing values, with the same description; this object if none can be missing.

        Metrics, log-densities and bounds need complete events. Their conditions come along.
        """
        if not self.description.missing:
            return self
        rows = {name: _complete(events) for name, events in (("train", self.train), ("test", self.test))}
        return replace(
            self,
            train=self.train[rows["train"]],
            test=self.test[rows["test"]],
            train_cond=select(self.train_cond, rows["train"]),
            test_cond=select(self.test_cond, rows["test"]),
            rows=None if self.rows is None else (self.rows[0][rows["train"]], self.rows[1][rows["test"]]),
        )

    def first(self, count: int) -> Data:
        """The first events of the train part with their conditions, and an empty test part."""
        part = slice(0, count)
        return replace(
            self,
            train=self.train[part],
            test=self.test[:0],
            train_cond=select(self.train_cond, part),
            test_cond=select(self.test_cond, slice(0, 0)),
            rows=None if self.rows is None else (self.rows[0][part], self.rows[1][:0]),
        )


def _complete(events: Tensor) -> Tensor:
    return torch.from_numpy(~MissingCells.of_events(events).incomplete).to(events.device)
