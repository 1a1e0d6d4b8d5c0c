"""Times, coefficients and events as tensors: widest types, broadcasting over the event, sums over the event."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from scoresde._core.elementwise import Scalar

_INF = math.inf


@lru_cache(maxsize=64)
def _cached_constant(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """A constant vector on the device of ``like``, copied there once. Shape ``(len(values),)``."""
    dtype = widest_dtype(like.device)
    if not has_values(like):  # a fake table must not enter the cache
        return torch.empty(len(values), dtype=dtype, device=like.device)
    return _cached_constant(values, like.device, dtype)


def widest_dtype(device: torch.device) -> torch.dtype:
    """The widest floating type of a device: float64, or float32 where the device has none."""
    return torch.float64 if has_float64(device) else torch.float32


def has_values(x: Tensor) -> bool:
    """Whether the tensor holds numbers: it is neither on the meta device nor a fake."""
    return x.device.type != "meta" and not isinstance(x, FakeTensor)


def has_float64(device: torch.device) -> bool:
    """Whether tensors of type float64 can live on the device."""
    return device.type not in ("mps", "xpu")


def as_time(t: Scalar | int, name: str = "tau", *, low: float = 0.0, high: float = _INF) -> Scalar:
    """A time as a float, or as a tensor of the widest type: the one place where times are checked.

    Args:
        t: A number, or a tensor of shape ``()`` or ``(B,)`` of any real type.
        name: What to call it in an error.
        low, high: Admitted range; a tensor's values are looked at only on the CPU.

    Returns:
        A float for a number; a tensor of the same shape, widened exactly to float64 (float32 where the device has
        none), so that every way of writing a time gives the same result.

    Raises:
        TypeError: If it is neither a number nor a real tensor.
        ValueError: If it is NaN, out of range, or of more than one dimension.
    """
    if isinstance(t, Tensor):
        if t.ndim > 1:
            raise ValueError(f"{name} must have shape () or (B,), got {tuple(t.shape)}; pass one time per sample.")
        if t.dtype.is_complex or t.dtype == torch.bool:
            raise TypeError(f"{name} must be a real tensor, got {t.dtype}.")
        t = t.to(widest_dtype(t.device))
        if t.device.type == "cpu" and not (isinstance(t, FakeTensor) or torch.compiler.is_compiling()):
            bad = ~((t >= low) & (t <= high))
            if bool(bad.any()):
                raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {t[bad].flatten()[0].item():g}.")
        return t
    if isinstance(t, bool) or not isinstance(t, (int, float)):
        raise TypeError(f"{name} must be a number or a tensor, got {type(t).__name__}; pass a float or a (B,) tensor.")
    t = float(t)
    if not low <= t <= high:
        raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {t:g}.")
    return t


def expand(c: Scalar, x: Tensor, name: str = "tau") -> Scalar:
    """Per-sample coefficients made ready to multiply ``x``, cast last.

    Args:
        c: A float, or a tensor of shape ``()`` or ``(B,)``.
        x: The batch, shape ``(B, *D)``.
        name: What to call ``c`` in an error.

    Returns:
        A float unchanged; a tensor in the type of ``x``, ``(B,)`` as ``(B, 1, …, 1)`` on its device.

    Raises:
        TypeError: If ``x`` is not floating: the coefficient would be cut to a whole number.
        ValueError: If the shape is another one.
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
    """a·x + b·y for floats or per-sample coefficients; a float 0 drops its term, a float 1 costs nothing."""
    if isinstance(a, float) and isinstance(b, float):
        if a == 0.0 or b == 0.0:
            c, z = (b, y) if a == 0.0 else (a, x)
            return z if c == 1.0 else z * c  # not c * z, which goes through a Python wrapper in torch
        return (x if a == 1.0 else x * a).add(y, alpha=b)
    a, b = expand(a, x), expand(b, y)
    if isinstance(a, float) and a == 0.0:
        return b * y
    if isinstance(b, float) and b == 0.0:
        return a * x
    return a * x + b * y


def sum_event(x: Tensor) -> Tensor:
    """Sum over everything but the batch, in float64 (moved to the CPU where the device has none).

    Args:
        x: Shape ``(B, *D)``.

    Returns:
        Shape ``(B,)``, float64.
    """
    x = x if has_float64(x.device) else x.cpu()
    return x.flatten(1).sum(1, dtype=torch.float64) if x.ndim > 1 else x.to(torch.float64)
