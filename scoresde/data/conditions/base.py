"""`ConditionKind`: what one condition holds, with its shape, its range and its map to model units."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from scoresde._core.annotations import CheckedArguments
from scoresde._core.arrays import as_tensor
from scoresde.data.conditions.entries import check_entries

__all__ = ["ConditionKind"]


@dataclass(frozen=True)
class ConditionKind(CheckedArguments, ABC):
    """What one condition holds: its shape, its range and its map to model units."""

    @abstractmethod
    def describe(self) -> str:
        """One phrase for listings, such as ``"vector of 3 numbers"``."""

    @abstractmethod
    def check_shape(self, values: Tensor, name: str) -> None:
        """Refuses values that do not have one entry of this kind per event; nothing is broadcast.

        Args:
            values: Shape ``(N, *)``.
            name: Of the condition, for the error.

        Raises:
            ValueError: If their shape or type is another one.
        """

    def check(self, values: Tensor, name: str) -> None:
        """Refuses values in data units that contradict this kind.

        Args:
            values: Shape ``(N, *)``.
            name: Of the condition, for the error.

        Raises:
            ValueError: As `check_shape`; if a value is infinite, or only a part of an entry is NaN; or a class is out
                of range.
        """
        self.check_shape(values, name)
        check_entries(values, name)

    def warn_of_far_values(self, values: Tensor, name: str) -> None:
        """Warns of valid values far from those that a network was trained on; kinds that know them override it.

        Args:
            values: Shape ``(N, *)``, in data units.
            name: Of the condition.
        """

    def as_values(self, values: Any, name: str) -> Tensor:
        """Values as a tensor in data units, ``(N, *)``, in the shape that this kind stores."""
        return as_tensor(values, name)

    @abstractmethod
    def to_model(self, values: Tensor) -> Tensor:
        """Values in data units ``(N, *)`` in model units, as the network takes them; NaN stays NaN."""
