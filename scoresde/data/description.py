r"""What a data set is, and the one place where it is scaled: $x = (y - offset) / scale$.

``y`` is in data units, ``x`` in model units. Quantized data are integer levels ``k`` in ``0 ... bins - 1``;
dequantized, ``y = k + u`` with ``u`` uniform in ``[0, 1)`` fills ``[0, bins)``, and by default ``offset = scale =
bins / 2``, so that ``x = 2 y / bins - 1`` fills ``[-1, 1)``. Continuous data default to ``offset = 0, scale = 1``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Description"]

_CHUNK = 1 << 22  # values looked at together by `validate`: a memory-mapped file need not fit into memory


@dataclass(frozen=True)
class Description:
    r"""A data set's name, event shape, range, quantization and scaling; all plain Python values.

    Args:
        name: What the data are called.
        shape: Event shape ``D``, without the batch axis.
        bins: Number of levels of quantized data; ``None`` for continuous data.
        low, high: Declared range in data units, both ends included; ``None`` is unbounded. Quantized data have the
            range ``[0, bins)``, filled in here.
        offset, scale: The scaling. A number, or a tuple with one number per entry of the first event axis (a table's
            features, an image's channels). ``None`` is the default stated above, filled in here.
        labels: Names of the classes in the order of their integer labels, if there are any.

    Raises:
        ValueError: If an entry is out of its domain or the range contradicts ``bins``.
    """

    name: str
    shape: tuple[int, ...]
    bins: int | None = None
    low: float | None = None
    high: float | None = None
    offset: float | tuple[float, ...] | None = None
    scale: float | tuple[float, ...] | None = None
    labels: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        shape = tuple(int(size) for size in self.shape)
        if min(shape, default=1) < 1:
            raise ValueError(f"shape must hold sizes >= 1, got {shape}; leave the batch axis out.")
        middle = 0.0, 1.0
        low, high = self.low, self.high
        if self.bins is not None:
            if self.bins != int(self.bins) or self.bins < 2:
                raise ValueError(f"bins must be an integer >= 2, got {self.bins}; use None for continuous data.")
            if low not in (None, 0) or high not in (None, self.bins):
                raise ValueError(
                    f"levels 0 ... {self.bins - 1} fill [0, {self.bins}), got low={low}, high={high}; shift the levels."
                )
            low, high, middle = 0.0, float(self.bins), (self.bins / 2, self.bins / 2)
            object.__setattr__(self, "bins", int(self.bins))
        if low is not None and high is not None and not low < high:
            raise ValueError(f"low must lie below high, got low={low}, high={high}; swap them or leave one None.")
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "low", None if low is None else float(low))
        object.__setattr__(self, "high", None if high is None else float(high))
        object.__setattr__(self, "offset", self._numbers("offset", middle[0]))
        object.__setattr__(self, "scale", self._numbers("scale", middle[1]))
        object.__setattr__(self, "labels", None if self.labels is None else tuple(self.labels))

    def _numbers(self, field: str, default: float) -> float | tuple[float, ...]:
        value = getattr(self, field)
        value = default if value is None else value
        each = tuple(float(v) for v in value) if isinstance(value, (tuple, list)) else (float(value),)
        if isinstance(value, (tuple, list)) and (not self.shape or len(each) != self.shape[0]):
            raise ValueError(
                f"{field} needs one number, or one per entry of the first axis of {tuple(self.shape)}; got {len(each)}."
            )
        if not all(math.isfinite(v) and (field == "offset" or v > 0) for v in each):
            raise ValueError(f"{field} must be finite{'' if field == 'offset' else ' and > 0'}, got {value}.")
        return each if isinstance(value, (tuple, list)) else each[0]

    @property
    def dims(self) -> int:
        """Number of values in one event."""
        return math.prod(self.shape)

    @property
    def log_det(self) -> float:
        r"""$\log|dx/dy| = -\sum \log scale$ over the event, nats: ``log p_y(y) = log p_x(x) + log_det``."""
        if isinstance(self.scale, tuple):
            return -sum(map(math.log, self.scale)) * self.dims / len(self.scale)
        assert self.scale is not None
        return -math.log(self.scale) * self.dims

    def to_model(self, y: Tensor) -> Tensor:
        r"""Data to model units, $x = (y - offset) / scale$; neither checks the range nor clips.

        Args:
            y: Values in data units, shape ``(B, *D)``. Integers of continuous data become the default float type.

        Returns:
            Model units, shape ``(B, *D)``; a floating type is kept.

        Raises:
            ValueError: If the event shape is wrong, or ``y`` holds levels that were not dequantized.
        """
        self._check_shape(y)
        if self.bins is not None and not y.is_floating_point():
            raise ValueError(
                f"to_model takes dequantized values of {self.name!r}, got integer levels ({y.dtype}); "
                "pass dequantize(levels, generator), or center(levels)."
            )
        wide = y.double() if y.dtype in (torch.int32, torch.int64) else _as_float(y)  # seconds since 1970, say
        x = (wide - self._like(self.offset, wide)) / self._like(self.scale, wide)
        return x if y.is_floating_point() else _as_default(x)

    def to_data(self, x: Tensor) -> Tensor:
        r"""Model to data units, $y = offset + scale\,x$; for quantized data the level that ``y`` falls into.

        Quantized: ``floor(y)``, then clipped to ``0 ... bins - 1``, as integers. It undoes ``to_model(dequantize(k))``
        but for values within rounding of a level's edge, and ``to_model(center(k))`` always. Continuous: not clipped.

        Args:
            x: Model units, shape ``(B, *D)``.

        Returns:
            Data units, shape ``(B, *D)``; ``uint8`` for up to 256 bins, else ``int64``, else the type of ``x``.

        Raises:
            ValueError: If the event shape is wrong, or quantized values are NaN.
        """
        self._check_shape(x)
        x = _as_float(x)
        y = self._like(self.offset, x) + self._like(self.scale, x) * x
        if self.bins is None:
            return y
        _refuse(torch.isnan(y), y, "samples must not be NaN to be quantized", "look for the step that made it")
        return y.floor().clamp(0, self.bins - 1).to(torch.uint8 if self.bins <= 256 else torch.int64)

    def dequantize(self, levels: Tensor, generator: torch.Generator | None = None) -> Tensor:
        r"""Levels to data units, $y = k + u$ with ``u`` uniform in ``[0, 1)``; ``y`` stays inside its level.

        Args:
            levels: Integer levels, shape ``(B, *D)``.
            generator: Source of ``u``, on the device of ``levels``; ``None`` draws from the global state.

        Returns:
            ``(B, *D)`` in the default float type. A sum that would round up to ``k + 1`` is the float just below it.

        Raises:
            ValueError: If the data are continuous, the values are not integers, or the event shape is wrong.

        Source: Theis, van den Oord & Bethge 2016, sec. 3.1.
        """
        k = self._levels(levels, "dequantize")
        u = torch.rand(k.shape, dtype=k.dtype, device=k.device, generator=generator)
        return torch.minimum(k + u, torch.nextafter(k + 1, k))

    def center(self, levels: Tensor) -> Tensor:
        """Levels to the middle of their bin, ``k + 1/2``, shape ``(B, *D)``; raises as ``dequantize`` does."""
        return self._levels(levels, "center") + 0.5

    def bits_per_dim(self, log_prob: Tensor) -> Tensor:
        r"""$-(\log p_x + \log|dx/dy|) / (d \ln 2)$: bits per value of a density of dequantized data.

        Args:
            log_prob: Log-density in model units, nats, any shape.

        Returns:
            Bits per dimension, the shape of ``log_prob``. Averaged over ``u``, an upper bound on those of the levels.

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
        """Refuses values that this description does not describe.

        Args:
            y: Data units, shape ``(B, *D)``: integer levels, or dequantized or continuous values. ``B`` may be 0.

        Raises:
            ValueError: If the event shape is wrong, or a value is NaN, infinite or outside the declared range; the
                error names the first index.
        """
        self._check_shape(y)
        if y.dtype == torch.uint8 and self.bins is not None and self.bins >= 256:
            return  # every byte is a level: a mapped file need not be read
        rows = max(1, _CHUNK // self.dims)
        for start in range(0, len(y), rows):
            part = y[start : start + rows]
            if part.is_floating_point():
                _refuse(~torch.isfinite(part), part, "data must be finite", "drop or fill it", start)
            remedy = "shift or scale the data, or declare their range"
            if self.bins is not None:
                above = part >= self.bins if part.is_floating_point() else part > self.bins - 1  # uint8(256) would be 0
                _refuse((part < 0) | above, part, f"data must lie in [0, {self.bins})", remedy, start)
                continue
            if self.low is not None:
                _refuse(part < self.low, part, f"data must be >= low = {self.low}", remedy, start)
            if self.high is not None:
                _refuse(part > self.high, part, f"data must be <= high = {self.high}", remedy, start)

    def _levels(self, levels: Tensor, verb: str) -> Tensor:
        self._check_shape(levels)
        if self.bins is None or levels.is_floating_point():
            got = f"continuous data {self.name!r}" if self.bins is None else f"{levels.dtype}"
            raise ValueError(f"{verb} takes integer levels of quantized data, got {got}; state bins= or leave it out.")
        return _as_float(levels)

    def _check_shape(self, y: Tensor) -> None:
        if y.ndim == 0 or tuple(y.shape[1:]) != self.shape:
            expected = ", ".join(["B", *map(str, self.shape)])
            raise ValueError(
                f"{self.name!r} has shape ({expected}), got {tuple(y.shape)}; reshape it, with a batch axis."
            )

    def _like(self, value: float | tuple[float, ...] | None, y: Tensor) -> float | Tensor:
        if not isinstance(value, tuple):
            assert value is not None
            return value
        return torch.tensor(value, dtype=y.dtype, device=y.device).reshape(-1, *(1 for _ in self.shape[1:]))


def _as_float(y: Tensor) -> Tensor:
    return y if y.is_floating_point() else _as_default(y)


def _as_default(y: Tensor) -> Tensor:
    return y.to(torch.get_default_dtype())


def _refuse(bad: Tensor, y: Tensor, rule: str, remedy: str, start: int = 0) -> None:
    if bad.any():
        first = tuple(bad.nonzero()[0].tolist())
        index = (first[0] + start, *first[1:])
        raise ValueError(f"{rule}, got {y[first].item()} at index {index} ({int(bad.sum())} such); {remedy}.")
