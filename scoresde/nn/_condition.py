"""`Condition`: the interface of one named input of a network; see `scoresde.nn.conditions` for those that there are."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from scoresde._core.annotations import CheckedArguments
from scoresde._core.checks import check_tensor

__all__ = ["Condition", "Way"]

Way = Literal["vector", "tokens", "channels"]


class Condition(CheckedArguments, ABC):
    """One named input of a network. Subclasses are frozen dataclasses with a field ``null``.

    Attributes:
        null: Whether the network has a learned null, which replaces an entry that is not given.
        enters: How the condition enters a network: ``"vector"``, ``"tokens"`` or ``"channels"``. It determines what
            `encoder` returns.
    """

    null: bool
    enters: ClassVar[Way]

    @abstractmethod
    def check(self, name: str, value: Tensor, batch: int, event_shape: tuple[int, ...]) -> None:
        """Checks dtype and shape of a batch; never its values.

        Args:
            name: Name of the condition, for the error.
            value: One entry per sample.
            batch: Number of samples.
            event_shape: Shape of one event of the network.

        Raises:
            TypeError: If ``value`` is not a tensor of the right kind of numbers.
            ValueError: If its shape does not fit.
        """

    @abstractmethod
    def left_out(self, like: Tensor, event_shape: tuple[int, ...]) -> Tensor:
        """A batch of null entries.

        Args:
            like: Floating, ``(B,)``; gives the number of entries, the floating type and the device.
            event_shape: Shape of one event of the network.
        """

    @abstractmethod
    def encoder(self, width: int) -> nn.Module:
        """The layers that read a batch and replace null entries.

        Args:
            width: Width of the vectors or tokens that the module returns; unused for channels.

        Returns:
            For ``"vector"`` a module that returns ``(B, width)``. For ``"tokens"`` one that returns tokens
            ``(B, n, width)`` and which of them are present, bool, ``(B, n)``. For ``"channels"`` one whose call takes
            the batch and the sizes of the grid, and returns ``(B, features, *sizes)``; it has the attribute
            ``features``.
        """

    def _null_like(self, value: Tensor) -> Tensor:
        """`null_like` without its check: NaN, unless a subclass has another code."""
        return torch.full_like(value, math.nan)

    def null_like(self, value: Tensor, name: str = "the condition") -> Tensor:
        """A batch of the shape of ``value`` whose entries are all null.

        Args:
            value: One entry per sample.
            name: Name of the condition, for the error.

        Raises:
            TypeError: If ``value`` is not a tensor.
            ValueError: If the condition has no null.
        """
        check_tensor(name, value)
        if not self.null:
            raise ValueError(f"{name} must have a null, got {self}; build and train the network with null=True.")
        return self._null_like(value)
