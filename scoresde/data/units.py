r"""The maps between data units and model units of each kind of data: numbers, integers in bins, categories, tables.

Numbers: $x = (y - offset)/scale$. Integers k in ``bins`` bins: the same for $y = k + u$, with u in [0, 1) the position
in the bin. Categories: the integers themselves in a floating tensor. Tables: column by column, by their encoding.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoresde._core.tensors import widest_dtype
from scoresde.data.codes import codes_to_integers
from scoresde.data.scaling import Numbers, from_model_units, in_model_units
from scoresde.data.tables.encoding import TableEncoding
from scoresde.data.value_checks import raise_if_any

if TYPE_CHECKING:
    from scoresde.data.description import Description

__all__ = ["AffineUnits", "Units", "units_of"]

_FINE_BINS = 1 << 12  # more bins than this leave float32 too few digits inside a bin


@dataclass(frozen=True)
class Units(ABC):
    """The maps of one kind of data; all tensors have the event shape of the data, which `Description` checks.

    Args:
        name: Name of the data, for errors.
    """

    name: str

    @abstractmethod
    def to_model(self, y: Tensor) -> Tensor:
        """Data units to model units, see `Description.to_model`."""

    @abstractmethod
    def to_data(self, x: Tensor) -> Tensor:
        """Model units to data units, see `Description.to_data`."""

    @abstractmethod
    def log_det(self, x: Tensor) -> Tensor:
        """log|dx/dy| of each event, ``(B,)`` float64, see `Description.log_det`."""

    def is_quantized(self, y: Tensor) -> bool:
        """Whether ``y`` holds values to be dequantized."""
        return False

    def dequantize(self, values: Tensor, generator: torch.Generator | None) -> Tensor:
        """Values at random positions in their bins, see `Description.dequantize`."""
        return self._refuse("dequantize")

    def center(self, values: Tensor) -> Tensor:
        """Values at the centers of their bins."""
        return self._refuse("center")

    def _refuse(self, method: str) -> Tensor:
        raise ValueError(
            f"{method} takes integer values of quantized data, got {self._kind} {self.name!r}; state bins= or leave it "
            "out."
        )

    @property
    def _kind(self) -> str:
        return "continuous data"


@dataclass(frozen=True)
class AffineUnits(Units, ABC):
    """The same scaling for all events."""

    offset: Numbers
    scale: Numbers
    dims: int

    def to_model(self, y: Tensor) -> Tensor:
        if self.is_quantized(y):
            raise ValueError(
                f"to_model takes dequantized values of {self.name!r}, got integer values ({y.dtype}); "
                "pass dequantize(values, generator), or center(values)."
            )
        return in_model_units(y, self.offset, self.scale)

    def log_det(self, x: Tensor) -> Tensor:
        return torch.full(x.shape[:1], self.log_volume, dtype=widest_dtype(x.device), device=x.device)

    @property
    def log_volume(self) -> float:
        """log|dx/dy|, the same for all events."""
        scales = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        return -sum(map(math.log, scales)) * self.dims / len(scales)


@dataclass(frozen=True)
class NumberUnits(AffineUnits):
    """Continuous numbers."""

    def to_data(self, x: Tensor) -> Tensor:
        return from_model_units(x, self.offset, self.scale)


@dataclass(frozen=True)
class BinUnits(AffineUnits):
    """Integers in bins."""

    bins: int

    def to_data(self, x: Tensor) -> Tensor:
        y = from_model_units(x, self.offset, self.scale, wide=self.bins > _FINE_BINS)
        raise_if_any(torch.isnan(y), y, "samples must not be NaN to be quantized", "find the step that produced it")
        return y.floor().clamp(0, self.bins - 1).to(torch.uint8 if self.bins <= 256 else torch.int64)

    def is_quantized(self, y: Tensor) -> bool:
        return not y.is_floating_point()

    def dequantize(self, values: Tensor, generator: torch.Generator | None) -> Tensor:
        k = self._floating(values, "dequantize")
        u = torch.rand(k.shape, dtype=k.dtype, device=k.device, generator=generator)
        return torch.minimum(k + u, torch.nextafter(k + 1, k))

    def center(self, values: Tensor) -> Tensor:
        return self._floating(values, "center") + 0.5

    def _floating(self, values: Tensor, method: str) -> Tensor:
        if not self.is_quantized(values):
            raise ValueError(
                f"{method} takes integer values of quantized data, got {values.dtype}; state bins= or leave it out."
            )
        return values.to(torch.float64 if self.bins > _FINE_BINS else torch.get_default_dtype())


@dataclass(frozen=True)
class CategoryUnits(AffineUnits):
    """Categories: their scaling is the identity."""

    classes: int

    def to_data(self, x: Tensor) -> Tensor:
        return codes_to_integers(x, self.classes)

    @property
    def _kind(self) -> str:
        return "categories, which have no bins,"


@dataclass(frozen=True)
class TableUnits(Units):
    """Columns of a table."""

    encoding: TableEncoding

    def to_model(self, y: Tensor) -> Tensor:
        kind = y.dtype if y.is_floating_point() else torch.get_default_dtype()
        unfolded = self.center(y) if y.shape[1:] == (len(self.encoding.columns),) else y
        return self.encoding.to_model(unfolded).to(kind).to(y.device)

    def to_data(self, x: Tensor) -> Tensor:
        return self.encoding.to_data(x)

    def log_det(self, x: Tensor) -> Tensor:
        return self.encoding.log_det(x)

    def is_quantized(self, y: Tensor) -> bool:
        return self.encoding.dequantizes and y.shape[1:] == (len(self.encoding.columns),)

    def dequantize(self, values: Tensor, generator: torch.Generator | None) -> Tensor:
        return self.encoding.unfold(values, generator)

    def center(self, values: Tensor) -> Tensor:
        return self.encoding.unfold(values, center=True)


def units_of(description: Description) -> Units:
    """The maps of the data that are described."""
    name, offset, scale = description.name, description.offset, description.scale
    if description.encoding is not None:
        return TableUnits(name, description.encoding)
    assert offset is not None
    assert scale is not None
    if description.classes is not None:
        return CategoryUnits(name, offset, scale, description.dims, description.classes)
    if description.bins is not None:
        return BinUnits(name, offset, scale, description.dims, description.bins)
    return NumberUnits(name, offset, scale, description.dims)
