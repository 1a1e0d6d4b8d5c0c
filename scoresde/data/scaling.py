r"""The affine map between data and model units, $x = (y - offset) / scale$, that keeps the digits of the data.

A float32 number has 24 binary digits. Where the offset is much larger than the scale (Unix time, Julian dates, a
pressure near 101325 Pa), most of them hold the offset. The map is then computed in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde._core.tensors import has_float64

__all__ = ["from_model_units", "in_float64", "in_model_units", "is_exact"]

_RATIO = 16.0  # |offset| / scale beyond which float32 would lose more than 4 of its 24 binary digits
_EXACT = 1 << 53  # float64 holds every integer up to this one

Numbers = float | tuple[float, ...]


def in_float64(offset: Numbers, scale: Numbers) -> bool:
    """Whether float32 would lose digits of the data: ``|offset| > 16 scale`` in some feature."""
    offsets, scales = (v if isinstance(v, tuple) else (v,) for v in (offset, scale))
    count = max(len(offsets), len(scales))
    pairs = zip(offsets * (count // len(offsets)), scales * (count // len(scales)), strict=True)
    return any(abs(o) > _RATIO * s for o, s in pairs)


def in_model_units(y: Tensor, offset: Numbers, scale: Numbers) -> Tensor:
    """``(y - offset) / scale``, subtracted in float64 where float32 would lose digits, then cast.

    Args:
        y: Data units, shape ``(B, *D)``.
        offset, scale: One number, or one per entry of the first event axis.

    Returns:
        Shape ``(B, *D)``: a floating type is kept, integers become the default float type.
    """
    result = y.dtype if y.is_floating_point() else torch.get_default_dtype()
    wide = in_float64(offset, scale) or y.dtype in (torch.int32, torch.int64, torch.uint32, torch.uint64)
    work = _widened(y, wide)
    x = (work - _broadcast(offset, work)) / _broadcast(scale, work)
    return x.to(result).to(y.device)


def from_model_units(x: Tensor, offset: Numbers, scale: Numbers, wide: bool = False) -> Tensor:
    """``offset + scale x``, in float64 where float32 would lose digits.

    Args:
        x: Model units, shape ``(B, *D)``.
        offset, scale: One number, or one per entry of the first event axis.
        wide: Compute in float64 whatever the offset.

    Returns:
        Shape ``(B, *D)``: float64 if `in_float64`, or ``wide``, or ``x`` is; else float32. It is on the CPU if it is
        float64 and the device of ``x`` does not support that.
    """
    work = _widened(x, wide or in_float64(offset, scale))
    return _broadcast(offset, work) + _broadcast(scale, work) * work


def is_exact(values: Tensor) -> Tensor:
    """Whether float64 holds each integer exactly: ``|value| <= 2^53``; the shape of ``values``, a bool."""
    if values.dtype == torch.uint64:
        values = values.view(torch.int64)
        return (values >= 0) & (values <= _EXACT)
    return (values >= -_EXACT) & (values <= _EXACT)


def _widened(y: Tensor, wide: bool) -> Tensor:
    """float64 if ``wide``, else at least float32; integers that are not ``wide`` become the default float type."""
    if wide:
        return (y if has_float64(y.device) else y.cpu()).double()
    if not y.is_floating_point():
        return y.to(torch.get_default_dtype())
    return y.float() if y.dtype.itemsize < 4 else y


def _broadcast(value: Numbers, y: Tensor) -> float | Tensor:
    if not isinstance(value, tuple):
        return value
    return torch.tensor(value, dtype=y.dtype, device=y.device).reshape(-1, *(1 for _ in y.shape[2:]))
