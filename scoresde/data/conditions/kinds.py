r"""Kinds of conditions: classes, vectors, token sequences and images, each with its map to model units.

Classes are integers 0, 1, ..., count - 1. The others are scaled as events are, $x = (y - offset) / scale$. An entry of
only NaN is null: it has no value, and the network replaces it by its learned null.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde._core.arrays import as_tensor
from scoresde._core.checks import check_integer
from scoresde._core.suggest import nearest
from scoresde.data.conditions.base import ConditionKind
from scoresde.data.conditions.entries import check_entries
from scoresde.data.description_checks import checked_scaling, checked_shape
from scoresde.data.far_outside import far_outside
from scoresde.data.scaling import in_model_units

__all__ = ["ClassCondition", "ImageCondition", "TokenCondition", "VectorCondition"]

_MOST_TEXT = 100_000  # characters of all class names; a checkpoint stores them in the description


@dataclass(frozen=True)
class ClassCondition(ConditionKind):
    """A class per event, an integer 0, 1, ..., ``count - 1``, shape ``(N,)``.

    Args:
        count: Number of classes.
        names: Their names, in the order of their integers, or None.

    Raises:
        ValueError: If the names are not as many, or not different.
    """

    count: int
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_integer("count", self.count)
        if self.names is None:
            return
        object.__setattr__(self, "names", tuple(self.names))
        if len(self.names) != self.count or len(set(self.names)) != self.count:
            raise ValueError(
                f"names must name each of the {self.count} classes once, got {len(self.names)} names, "
                f"{len(set(self.names))} of them different."
            )
        if (length := sum(map(len, self.names))) > _MOST_TEXT:
            raise ValueError(f"names must have at most {_MOST_TEXT} characters in all, got {length}; shorten them.")

    def describe(self) -> str:
        return f"{self.count} classes"

    def check_shape(self, values: Tensor, name: str) -> None:
        if values.is_floating_point() or values.is_complex():
            raise ValueError(
                f"condition {name!r} must hold integers, 0, 1, ..., got {values.dtype}; encode classes as integers."
            )
        if values.ndim != 1:
            raise ValueError(
                f"condition {name!r} must have shape (N,), got {tuple(values.shape)}; one class per event."
            )

    def check(self, values: Tensor, name: str) -> None:
        self.check_shape(values, name)
        wrong = (values < 0) | (values >= self.count)
        if bool(wrong.any()):
            first = int(wrong.nonzero()[0])
            raise ValueError(
                f"condition {name!r} must lie in 0 ... {self.count - 1}, got {int(values[first])} at index {first} "
                f"({int(wrong.sum())} such); count classes from 0."
            )

    def as_values(self, values: Any, name: str) -> Tensor:
        """Integers ``(N,)``; names of classes become their integers."""
        if isinstance(values, str):
            values = [values]
        if isinstance(values, Sequence) and any(isinstance(value, str) for value in values):
            return torch.tensor([self._code(value, name) for value in values], dtype=torch.int64)
        values = as_tensor(values, name)
        return values if values.is_floating_point() else values.long()

    def _code(self, value: Any, name: str) -> int:
        if isinstance(value, str) and self.names is not None and value in self.names:
            return self.names.index(value)
        if isinstance(value, int) or (isinstance(value, str) and value.isdecimal() and self.names is None):
            return int(value)
        if self.names is None:
            raise ValueError(
                f"the classes of condition {name!r} have no names, got {value!r}; write integers, 0 ... "
                f"{self.count - 1}."
            )
        raise ValueError(f"no class of condition {name!r} is named {value!r}; {nearest(str(value), self.names)}")

    def to_model(self, values: Tensor) -> Tensor:
        return values.long()


@dataclass(frozen=True)
class VectorCondition(ConditionKind):
    """A vector of numbers per event, shape ``(N, size)``; numbers ``(N,)`` become ``(N, 1)``.

    Args:
        size: Number of entries.
        offset, scale: Their scaling, one number or one per entry: mean and standard deviation of the train part where
            `Data` describes a condition itself.
        low, high: Range of each entry in the train part, or None if it is not known.
        dates: Whether the numbers are days since 1970-01-01, of a column of dates or times.
    """

    size: int
    offset: float | tuple[float, ...] = 0.0
    scale: float | tuple[float, ...] = 1.0
    low: tuple[float, ...] | None = field(default=None, metadata={"write": "if set"})
    high: tuple[float, ...] | None = field(default=None, metadata={"write": "if set"})
    dates: bool = field(default=False, metadata={"write": "if set"})

    def __post_init__(self) -> None:
        check_integer("size", self.size)
        _check_scaling(self, (self.size,))
        for name in ("low", "high"):
            bound = getattr(self, name)
            if bound is not None and len(bound) != self.size:
                raise ValueError(f"{name} must have one number per entry, {self.size}, got {len(bound)}.")
        if (self.low is None) != (self.high is None):
            raise ValueError("a range has both ends, got one; state low and high, or neither.")

    def describe(self) -> str:
        if self.dates:
            return "date"
        return "number" if self.size == 1 else f"vector of {self.size} numbers"

    def check_shape(self, values: Tensor, name: str) -> None:
        if values.ndim != 2 or values.shape[1] != self.size:
            raise ValueError(
                f"condition {name!r} must have shape (N, {self.size}), got {tuple(values.shape)}; pass one vector per "
                "event."
            )

    def as_values(self, values: Any, name: str) -> Tensor:
        values = as_tensor(values, name)
        return values.unsqueeze(1) if values.ndim == 1 and self.size == 1 else values

    def warn_of_far_values(self, values: Tensor, name: str) -> None:
        """Warns of a value that lies outside the range of the train part by more than the range's width."""
        if self.low is None or self.high is None:
            return
        low, high = (torch.tensor(bound, dtype=torch.float64, device=values.device) for bound in (self.low, self.high))
        far = far_outside(values, low, high)
        if bool(far.any()):
            row, entry = (int(index) for index in far.nonzero()[0])
            which = f"condition {name!r}" if self.size == 1 else f"entry {entry} of condition {name!r}"
            ends = [self._text(float(value)) for value in (values[row, entry], low[entry], high[entry])]
            warnings.warn(
                f"{which} is {ends[0]}, far from the {ends[1]} to {ends[2]} of the train part ({int(far.sum())} such), "
                "so the network was never trained there; check its units.",
                stacklevel=4,
            )

    def spanning(self, other: VectorCondition) -> VectorCondition:
        """The same condition with a range that also holds that of another one; None if one is not known."""
        if self.low is None or self.high is None or other.low is None or other.high is None:
            return replace(self, low=None, high=None)
        low, high = map(min, self.low, other.low), map(max, self.high, other.high)
        return replace(self, low=tuple(low), high=tuple(high))

    def _text(self, value: float) -> str:
        if self.dates and abs(value) < 1e6:  # days, some 2,700 years
            return str(np.datetime64(int(value), "D"))
        return f"{value:g}"

    def to_model(self, values: Tensor) -> Tensor:
        return in_model_units(values, self.offset, self.scale)


@dataclass(frozen=True)
class TokenCondition(ConditionKind):
    """A sequence of vectors per event, such as those of a text encoder, shape ``(N, length, size)``.

    A token of only NaN is absent, so shorter sequences are filled with NaN; without any token an entry is null.

    Args:
        size: Numbers of one token.
        offset, scale: Their scaling, the same for all.
    """

    size: int
    offset: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        check_integer("size", self.size)
        _check_scaling(self, ())

    def describe(self) -> str:
        return f"tokens of {self.size} numbers"

    def check_shape(self, values: Tensor, name: str) -> None:
        if values.ndim != 3 or values.shape[2] != self.size or not values.shape[1]:
            raise ValueError(
                f"condition {name!r} must have shape (N, length, {self.size}), got {tuple(values.shape)}; pass one "
                "sequence of tokens per event."
            )

    def check(self, values: Tensor, name: str) -> None:
        self.check_shape(values, name)
        check_entries(values.flatten(0, 1), name, "token")

    def to_model(self, values: Tensor) -> Tensor:
        return in_model_units(values, self.offset, self.scale)


@dataclass(frozen=True)
class ImageCondition(ConditionKind):
    """An image, series or volume per event, shape ``(N, C, *grid)``, of its own size.

    Args:
        shape: ``(C, *grid)``.
        bins: Number of bins of integer values 0, 1, ..., ``bins - 1``; None for continuous values. As in a
            `Description`, integers lie at the centers of their bins, and ``offset = scale = bins / 2`` by default.
        offset, scale: The scaling, one number or one per channel.
    """

    shape: tuple[int, ...]
    bins: int | None = None
    offset: float | tuple[float, ...] | None = field(default=None)
    scale: float | tuple[float, ...] | None = field(default=None)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", checked_shape(self.shape))
        if len(self.shape) < 2:
            raise ValueError(f"shape must have channels and a grid, (C, *grid), got {self.shape}; use VectorCondition.")
        if self.bins is not None:
            check_integer("bins", self.bins, 2)
        _check_scaling(self, self.shape, *((0.0, 1.0) if self.bins is None else (self.bins / 2, self.bins / 2)))

    def describe(self) -> str:
        values = "" if self.bins is None else f", {self.bins} bins"
        return f"image {' × '.join(map(str, self.shape))}{values}"

    def check_shape(self, values: Tensor, name: str) -> None:
        if tuple(values.shape[1:]) != self.shape:
            raise ValueError(
                f"condition {name!r} must have shape (N, {', '.join(map(str, self.shape))}), got "
                f"{tuple(values.shape)}; pass one image per event."
            )

    def check(self, values: Tensor, name: str) -> None:
        super().check(values, name)
        if self.bins is None or not values.numel() or (values.dtype == torch.uint8 and self.bins >= 256):
            return
        low, high = float(values.min()), float(values.max())  # NaN, which is null, fails neither comparison
        if low < 0 or high >= self.bins:
            raise ValueError(
                f"condition {name!r} must lie in [0, {self.bins}), got {low:g} ... {high:g}; state its bins: "
                f"ImageCondition(shape, bins=...)."
            )

    def to_model(self, values: Tensor) -> Tensor:
        assert self.offset is not None
        assert self.scale is not None
        if self.bins is not None and not values.is_floating_point():
            values = values.to(torch.get_default_dtype()) + 0.5
        return in_model_units(values, self.offset, self.scale)


def _check_scaling(kind: Any, shape: tuple[int, ...], offset: float = 0.0, scale: float = 1.0) -> None:
    """Stores offset and scale of a kind as plain numbers, one or one per entry of the first axis of ``shape``."""
    for name, default in (("offset", offset), ("scale", scale)):
        object.__setattr__(kind, name, checked_scaling(name, getattr(kind, name), default, shape))
