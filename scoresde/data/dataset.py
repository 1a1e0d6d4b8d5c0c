"""`Data`: a data set's train and test part in data units, with labels and description."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import as_tensor
from scoresde._core.checks import check_kind
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
        description: Event shape, quantization, range and scaling of the data.
        train_labels, test_labels: Integer class labels, shape ``(N,)``, or None.
        columns: Names of a table's features, in the order of the event's entries.
        categories: For each categorical feature, the texts that 0, 1, ... stand for.

    Raises:
        TypeError: If a part is not an array of numbers; the message has the call that works.
        ValueError: If a value contradicts the description, or labels and events differ in number.
    """

    train: Tensor = field(repr=False)
    test: Tensor = field(repr=False)
    description: Description
    train_labels: Tensor | None = field(default=None, repr=False)
    test_labels: Tensor | None = field(default=None, repr=False)
    columns: tuple[str, ...] | None = None
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_kind("description", self.description, Description)
        check_arguments(Data, {name: getattr(self, name) for name in ("columns", "categories")})
        for name in ("train", "test"):
            object.__setattr__(self, name, as_tensor(getattr(self, name), name))
        for name in ("train_labels", "test_labels"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, as_tensor(getattr(self, name), name))
        for part, events, labels in (("train", self.train, self.train_labels), ("test", self.test, self.test_labels)):
            try:
                self.description.validate(events)
            except ValueError as error:
                raise ValueError(f"{part} part: {error}") from error
            if labels is not None and labels.shape != events.shape[:1]:
                raise ValueError(
                    f"{part}_labels must have shape ({len(events)},), got {tuple(labels.shape)}; pass one per event."
                )
            if labels is not None and labels.dtype != torch.int64:
                if labels.is_floating_point() or labels.is_complex():
                    raise ValueError(
                        f"{part}_labels must be integers, 0, 1, ..., got {labels.dtype}; encode classes as integers."
                    )
                object.__setattr__(self, f"{part}_labels", labels.long())

    def complete(self) -> Data:
        """The events without missing values, with the same description; this object if none can be missing.

        Metrics, log-densities and bounds need complete events.
        """
        if not self.description.missing:
            return self
        train, train_labels = _complete(self.train, self.train_labels)
        test, test_labels = _complete(self.test, self.test_labels)
        return replace(self, train=train, test=test, train_labels=train_labels, test_labels=test_labels)


def _complete(events: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor | None]:
    rows = torch.from_numpy(~MissingCells.of_events(events).incomplete).to(events.device)
    return events[rows], None if labels is None else labels[rows.to(labels.device)]
