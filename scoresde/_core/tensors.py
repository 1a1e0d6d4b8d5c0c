"""Tensor helpers: checked times, coefficients broadcast over the event, sums over the event, widest float types."""

from __future__ import annotations

import math
import numbers
from functools import lru_cache

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from scoresde._core.elementwise import Scalar, is_exporting

__all__ = [
    "as_time",
    "combine",
    "constant",
    "event_size",
    "expand",
    "has_float64",
    "has_values",
    "is_narrow",
    "sum_event",
    "widest_dtype",
]

_INF = math.inf


@lru_cache(maxsize=64)
def _cached_constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """A constant vector on the device of ``like``, shape ``(len(values),)``; each table is copied there once."""
    dtype = widest_dtype(like.device)
    if not has_values(like):  # a tensor without values must not enter the cache
        if is_exporting():
            return torch.tensor(values, dtype=dtype, device=like.device)  # a constant of the program
        return torch.empty(len(values), dtype=dtype, device=like.device)
    return _cached_constant(values, like.device, dtype)


def widest_dtype(device: torch.device) -> torch.dtype:
    """The widest floating type of a device: float64, or float32 if the device does not support it."""
    return torch.float64 if has_float64(device) else torch.float32


def has_values(x: Tensor) -> bool:
    """Whether a tensor has values: it is not on the meta device and not a ``FakeTensor``."""
    return x.device.type != "meta" and not isinstance(x, FakeTensor)


def is_narrow(x: Tensor) -> bool:
    """Whether a tensor is floating with fewer bits than float32: bfloat16, float16, float8."""
    return x.is_floating_point() and x.element_size() < 4


def has_float64(device: torch.device) -> bool:
    """Whether a device supports float64 tensors."""
    return device.type not in ("mps", "xpu")


def as_time(t: Scalar | int, name: str = "tau", *, low: float = 0.0, high: float = _INF) -> Scalar:
    """A checked time as a float or as a tensor of the widest float type. All time checks use this function.

    Args:
        t: A number, or a tensor of shape ``()`` or ``(B,)`` of any real type.
        name: Name of ``t`` in an error.
        low, high: Valid range, inclusive. The values of a tensor are checked on the CPU only.

    Returns:
        A float for a number. For a tensor, the same shape converted exactly to float64 (float32 if the device does not
        support it). So floats and tensors of any type give the same result for the same time.

    Raises:
        TypeError: If ``t`` is neither a number nor a real tensor.
        ValueError: If ``t`` is NaN, out of range, or has more than one dimension.
    """
    if isinstance(t, Tensor):
        if t.ndim > 1:
            raise ValueError(f"{name} must have shape () or (B,), got {tuple(t.shape)}; pass one time per sample.")
        if t.dtype.is_complex or t.dtype == torch.bool:
            raise TypeError(f"{name} must be a real tensor, got {t.dtype}.")
        t = t.to(widest_dtype(t.device))
        if t.device.type == "cpu" and not (isinstance(t, FakeTensor) or torch.compiler.is_compiling()):
            outside = ~((t >= low) & (t <= high))
            if bool(outside.any()):
                raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {t[outside].flatten()[0].item():g}.")
        return t
    if isinstance(t, bool) or not isinstance(t, (int, float, numbers.Real)):  # Real: NumPy's numbers
        raise TypeError(f"{name} must be a number or a tensor, got {type(t).__name__}; pass a float or a (B,) tensor.")
    t = float(t)
    if not low <= t <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {t:g}.")
    return t


def expand(c: Scalar, x: Tensor, name: str = "tau") -> Scalar:
    """Per-sample coefficients reshaped to multiply ``x``, and cast to its type last.

    Args:
        c: A float, or a tensor of shape ``()`` or ``(B,)``.
        x: The batch, shape ``(B, *D)``.
        name: Name of ``c`` in an error.

    Returns:
        A float unchanged. A tensor in the type of ``x``; ``(B,)`` becomes ``(B, 1, …, 1)`` on the device of ``x``.

    Raises:
        TypeError: If ``x`` is not floating; the coefficient would be truncated to an integer.
        ValueError: If ``c`` has another shape.
    """
    if not isinstance(c, Tensor):
        return c
    if not x.is_floating_point():
        raise TypeError(f"x must be a floating tensor, got {x.dtype}; scale the data first (Description.to_model).")
    if c.ndim == 0:
        return c.to(x.dtype)
    if c.shape != x.shape[:1]:
        raise ValueError(
            f"{name} must have shape () or {tuple(x.shape[:1])}, got {tuple(c.shape)}; pass one time per sample."
        )
    return c.to(x.dtype).to(x.device).reshape(c.shape + (1,) * (x.ndim - 1))


def combine(a: Scalar, x: Tensor, b: Scalar, y: Tensor) -> Tensor:
    """a·x + b·y for floats or per-sample coefficients; a float 0 skips its term, a float 1 skips the product."""
    if isinstance(a, float) and isinstance(b, float):
        if a == 0.0 or b == 0.0:
            c, z = (b, y) if a == 0.0 else (a, x)
            return z if c == 1.0 else z * c  # c * z would go through a Python wrapper in torch
        return (x if a == 1.0 else x * a).add(y, alpha=b)
    a, b = expand(a, x), expand(b, y)
    if isinstance(a, float) and a == 0.0:
        return b * y
    if isinstance(b, float) and b == 0.0:
        return a * x
    return a * x + b * y


def sum_event(x: Tensor) -> Tensor:
    """Sum over all axes except the batch, in float64 (on the CPU if the device does not support float64).

    Args:
        x: Shape ``(B, *D)``.

    Returns:
        Shape ``(B,)``, float64.
    """
    x = x if has_float64(x.device) else x.cpu()
    return x.flatten(1).sum(1, dtype=torch.float64) if x.ndim > 1 else x.to(torch.float64)


def event_size(x: Tensor) -> int:
    """Number of elements of one sample of ``x``, shape ``(B, *D)``."""
    return math.prod(x.shape[1:])
