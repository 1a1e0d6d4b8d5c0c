r"""Description of a data set (shape, range, quantization) and its scaling, $x = (y - offset) / scale$.

``y`` is in data units, ``x`` in model units; data are scaled nowhere else. Quantized data are integer values ``k`` in
``0 ... bins - 1``. Dequantized, ``y = k + u`` with ``u`` uniform in ``[0, 1)`` fills the bin ``[k, k + 1)``. By default
``offset = scale = bins / 2``, so that ``x = 2 y / bins - 1`` fills ``[-1, 1)``. Continuous data default to
``offset = 0, scale = 1``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from scoresde._core.checks import check_event_shape
from scoresde.data.scaling import from_model_units, in_model_units
from scoresde.data.table_columns import Columns
from scoresde.data.value_checks import check_values, raise_if_any

__all__ = ["Description"]

_FINE_BINS = 1 << 12  # more bins than this leave float32 too few digits inside a bin
_CHUNK = 1 << 22  # values that `validate` reads at once: a memory-mapped file need not fit into memory


@dataclass(frozen=True)
class Description:
    r"""A data set's name, event shape, range, quantization and scaling, as plain Python values.

    Args:
        name: Name of the data.
        shape: Event shape ``D``, without the batch axis.
        bins: Number of bins (distinct integer values) of quantized data; ``None`` for continuous data.
        low, high: Declared range in data units, both ends included; ``None`` is unbounded. Quantized data have the
            range ``[0, bins)``, set automatically.
        offset, scale: The scaling. A number, or a tuple with one number per entry of the first event axis (a table's
            features, an image's channels), as a tuple, an array or a tensor. ``None`` is the default stated above.
        labels: Names of the classes in the order of their integer labels, or None.
        columns: Names and kinds of a table's columns, or None.

    Raises:
        ValueError: If a field is out of its domain or the range contradicts ``bins``.

    Example:
        >>> import torch
        >>> from scoresde import Description
        >>> description = Description("gray", (1,), bins=256)
        >>> description.to_model(description.center(torch.tensor([[0], [255]])))
        tensor([[-0.9961],
                [ 0.9961]])
    """

    name: str
    shape: tuple[int, ...]
    bins: int | None = None
    low: float | None = None
    high: float | None = None
    offset: float | tuple[float, ...] | None = None
    scale: float | tuple[float, ...] | None = None
    labels: tuple[str, ...] | None = None
    columns: Columns | None = field(default=None, metadata={"write": "if set"})

    def __post_init__(self) -> None:
        shape = tuple(int(size) for size in self.shape)
        if min(shape, default=1) < 1:
            raise ValueError(f"shape must hold sizes >= 1, got {shape}; leave the batch axis out.")
        defaults = 0.0, 1.0
        low, high = self.low, self.high
        if self.bins is not None:
            if self.bins != int(self.bins) or not 2 <= self.bins <= 1 << 53:
                raise ValueError(f"bins must be an integer >= 2, got {self.bins}; use None for continuous data.")
            if low not in (None, 0) or high not in (None, self.bins):
                raise ValueError(
                    f"integer values 0 ... {self.bins - 1} fill [0, {self.bins}), got low={low}, high={high}; shift "
                    "the values."
                )
            low, high, defaults = 0.0, float(self.bins), (self.bins / 2, self.bins / 2)
            object.__setattr__(self, "bins", int(self.bins))
        if low is not None and high is not None and not low < high:
            raise ValueError(f"low must lie below high, got low={low}, high={high}; swap them or leave one None.")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "low", None if low is None else float(low))
        object.__setattr__(self, "high", None if high is None else float(high))
        object.__setattr__(self, "offset", self._offset_or_scale("offset", defaults[0]))
        object.__setattr__(self, "scale", self._offset_or_scale("scale", defaults[1]))
        object.__setattr__(self, "labels", None if self.labels is None else tuple(self.labels))
        if self.columns is not None and shape != (len(self.columns.names),):
            raise ValueError(f"columns must name each entry of {shape}, got {len(self.columns.names)} names.")

    def _offset_or_scale(self, field: str, default: float) -> float | tuple[float, ...]:
        value = getattr(self, field)
        value = default if value is None else value
        value = value.tolist() if isinstance(value, (Tensor, np.ndarray, np.generic)) else value
        numbers = tuple(float(v) for v in value) if isinstance(value, (tuple, list)) else (float(value),)
        if isinstance(value, (tuple, list)) and (not self.shape or len(numbers) != self.shape[0]):
            raise ValueError(
                f"{field} needs one number, or one per entry of the first axis of {tuple(self.shape)}; got "
                f"{len(numbers)}."
            )
        if not all(math.isfinite(v) and (field == "offset" or v > 0) for v in numbers):
            raise ValueError(f"{field} must be finite{'' if field == 'offset' else ' and > 0'}, got {value}.")
        return numbers if isinstance(value, (tuple, list)) else numbers[0]

    @property
    def dims(self) -> int:
        """Number of dimensions d of one event."""
        return math.prod(self.shape)

    @property
    def log_det(self) -> float:
        r"""$\log|dx/dy| = -\sum \log scale$ over the event, nats: ``log p_y(y) = log p_x(x) + log_det``."""
        if isinstance(self.scale, tuple):
            return -sum(map(math.log, self.scale)) * self.dims / len(self.scale)
        assert self.scale is not None
        return -math.log(self.scale) * self.dims

    def to_model(self, y: Tensor) -> Tensor:
        r"""Data units to model units, $x = (y - offset) / scale$; does not check the range, does not clip.

        Computed in float64, then cast, where the offset is larger than 16 scales, so that no digit of ``y`` is lost.

        Args:
            y: Values in data units, shape ``(B, *D)``. Integers of continuous data become the default float type.

        Returns:
            Model units, shape ``(B, *D)``; a floating type is kept.

        Raises:
            ValueError: If the event shape is wrong, or ``y`` holds integer values that were not dequantized.
        """
        self._check_shape(y)
        if self.bins is not None and not y.is_floating_point():
            raise ValueError(
                f"to_model takes dequantized values of {self.name!r}, got integer values ({y.dtype}); "
                "pass dequantize(values, generator), or center(values)."
            )
        assert self.offset is not None
        assert self.scale is not None
        return in_model_units(y, self.offset, self.scale)

    def to_data(self, x: Tensor) -> Tensor:
        r"""Model units to data units, $y = offset + scale\,x$; for quantized data the bin that contains ``y``.

        Quantized: ``floor(y)``, then clipped to ``0 ... bins - 1``, as integers. It always inverts
        ``to_model(center(k))``, and ``to_model(dequantize(k))`` except within rounding error of a bin edge.
        Continuous: not clipped. Where the offset is larger than 16 scales (a column of Unix time), ``y`` is float64,
        because float32 cannot tell its values apart.

        Args:
            x: Model units, shape ``(B, *D)``.

        Returns:
            Data units, shape ``(B, *D)``. Quantized: ``uint8`` for up to 256 bins, else ``int64``. Continuous:
            float64 as stated above, else the type of ``x``, but float32 for half precision. float64 values are on the
            CPU if the device of ``x`` does not support them.

        Raises:
            ValueError: If the event shape is wrong, or quantized values are NaN.
        """
        self._check_shape(x)
        assert self.offset is not None
        assert self.scale is not None
        y = from_model_units(x, self.offset, self.scale, wide=self.bins is not None and self.bins > _FINE_BINS)
        if self.bins is None:
            return y
        raise_if_any(torch.isnan(y), y, "samples must not be NaN to be quantized", "find the step that produced it")
        return y.floor().clamp(0, self.bins - 1).to(torch.uint8 if self.bins <= 256 else torch.int64)

    def dequantize(self, values: Tensor, generator: torch.Generator | None = None) -> Tensor:
        r"""Dequantization: integer values to data units, $y = k + u$ with ``u`` uniform in ``[0, 1)``.

        Args:
            values: Integer values k, shape ``(B, *D)``.
            generator: Source of ``u``, on the device of ``values``; ``None`` uses the global random state.

        Returns:
            ``(B, *D)`` in the default float type, in float64 for more than 4096 bins. A sum that would round up to
            ``k + 1`` is the float just below it, so that ``y`` stays in the bin of k.

        Raises:
            ValueError: If the data are continuous, the values are not integers, or the event shape is wrong.

        Source: Theis, van den Oord & Bethge 2016, sec. 3.1.
        """
        k = self._integer_values(values, "dequantize")
        u = torch.rand(k.shape, dtype=k.dtype, device=k.device, generator=generator)
        return torch.minimum(k + u, torch.nextafter(k + 1, k))

    def center(self, values: Tensor) -> Tensor:
        """Integer values to bin centers in data units, ``k + 1/2``, shape ``(B, *D)``; raises as `dequantize` does."""
        return self._integer_values(values, "center") + 0.5

    def bits_per_dim(self, log_prob: Tensor) -> Tensor:
        r"""$-(\log p_x + \log|dx/dy|) / (d \ln 2)$: bits per value of a density of dequantized data.

        Args:
            log_prob: Log-density in model units, nats, any shape.

        Returns:
            Bits per dimension, the shape of ``log_prob``. Their mean over ``u`` bounds those of the integer values from
            above.

        Raises:
            ValueError: If the data are continuous.
        """
        if self.bins is None:
            raise ValueError(
                f"bits per dimension need quantized data, got {self.name!r} with bins=None; "
                "state bins= and scale= in its Description, or report nats."
            )
        return -(log_prob + self.log_det) / (self.dims * math.log(2))

    def validate(self, y: Tensor) -> None:
        """Refuses values that contradict this description.

        Args:
            y: Data units, shape ``(B, *D)``: integer values, or dequantized or continuous ones. ``B`` may be 0.

        Raises:
            ValueError: If the event shape is wrong, or a value is NaN, infinite, complex or outside the declared
                range, or a continuous integer lies beyond 2^53; the error names the first index.
        """
        self._check_shape(y)
        if y.is_complex():
            raise ValueError(f"data must be real, got {y.dtype}; pass the two parts as two features or channels.")
        if y.dtype == torch.uint8 and self.bins is not None and self.bins >= 256:
            return  # every byte is valid: a memory-mapped file need not be read
        rows = max(1, _CHUNK // self.dims)
        for start in range(0, len(y), rows):
            check_values(y[start : start + rows], start, self.bins, self.low, self.high)

    def _integer_values(self, values: Tensor, method: str) -> Tensor:
        self._check_shape(values)
        if self.bins is None or values.is_floating_point():
            got = f"continuous data {self.name!r}" if self.bins is None else f"{values.dtype}"
            raise ValueError(
                f"{method} takes integer values of quantized data, got {got}; state bins= or leave it out."
            )
        return values.to(torch.float64 if self.bins > _FINE_BINS else torch.get_default_dtype())

    def _check_shape(self, y: Tensor) -> None:
        check_event_shape(y, self.shape, f"a batch of {self.name!r}")
