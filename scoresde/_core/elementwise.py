"""Elementwise functions of a float or a tensor; the result has the kind and shape of the argument."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, cast, overload

import torch
from torch import Tensor

Scalar = float | Tensor

_INF = math.inf


class Elementwise(Protocol):
    """Type of a function from float to float and from a tensor to a tensor of the same shape."""

    @overload
    def __call__(self, v: float, /) -> float: ...
    @overload
    def __call__(self, v: Tensor, /) -> Tensor: ...


def elementwise(function: Callable[[Scalar], Scalar]) -> Elementwise:
    """Declares to type checkers that a function keeps the kind of its argument; returns the function unchanged."""
    return cast("Elementwise", function)


def _without_overflow(function: Callable[[float], float], v: float, at_overflow: float) -> float:
    try:
        return function(v)
    except OverflowError:
        return at_overflow


def is_exporting() -> bool:
    """Whether the caller is traced by torch.export; torch 2.6 reports compilation too."""
    return bool(getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)())


@elementwise
def exp(v: Scalar) -> Scalar:
    """e**v."""
    if isinstance(v, Tensor):
        return torch.exp(v)
    try:  # inlined: one call fewer in every step of a sampler
        return math.exp(v)
    except OverflowError:
        return _INF


@elementwise
def expm1(v: Scalar) -> Scalar:
    """e**v - 1, without cancellation."""
    if isinstance(v, Tensor):
        return torch.expm1(v)
    try:  # inlined: one call fewer in every step of a sampler
        return math.expm1(v)
    except OverflowError:
        return _INF


@elementwise
def log(v: Scalar) -> Scalar:
    """Natural logarithm; -inf at 0 and nan below, as in IEEE 754."""
    if isinstance(v, Tensor):
        return torch.log(v)
    return math.log(v) if v > 0 else (-_INF if v == 0 else math.nan)


@elementwise
def log1p(v: Scalar) -> Scalar:
    """log(1 + v), without cancellation; -inf at -1 and nan below."""
    if isinstance(v, Tensor):
        return torch.log1p(v)
    return math.log1p(v) if v > -1 else (-_INF if v == -1 else math.nan)


@elementwise
def sqrt(v: Scalar) -> Scalar:
    """Square root; nan below 0."""
    if isinstance(v, Tensor):
        return torch.sqrt(v)
    return math.sqrt(v) if v >= 0 else math.nan


@elementwise
def sin(v: Scalar) -> Scalar:
    """Sine, radians."""
    return torch.sin(v) if isinstance(v, Tensor) else math.sin(v)


@elementwise
def cos(v: Scalar) -> Scalar:
    """Cosine, radians."""
    return torch.cos(v) if isinstance(v, Tensor) else math.cos(v)


@elementwise
def tan(v: Scalar) -> Scalar:
    """Tangent, radians."""
    return torch.tan(v) if isinstance(v, Tensor) else math.tan(v)


@elementwise
def sinh(v: Scalar) -> Scalar:
    """Hyperbolic sine."""
    return torch.sinh(v) if isinstance(v, Tensor) else _without_overflow(math.sinh, v, math.copysign(_INF, v))


@elementwise
def asinh(v: Scalar) -> Scalar:
    """Inverse hyperbolic sine."""
    return torch.asinh(v) if isinstance(v, Tensor) else math.asinh(v)


@elementwise
def softplus(v: Scalar) -> Scalar:
    """log(1 + e**v), to full relative precision at both ends."""
    if isinstance(v, Tensor):
        if is_exporting():  # runtimes of ONNX have no softplus of float64
            return v.clamp(min=0.0) + torch.log1p(torch.exp(-v.abs()))
        return torch.nn.functional.softplus(v, threshold=40.0)
    return max(v, 0.0) + math.log1p(math.exp(-abs(v)))


@elementwise
def sigmoid(v: Scalar) -> Scalar:
    """1 / (1 + e**-v)."""
    return torch.sigmoid(v) if isinstance(v, Tensor) else 1.0 / (1.0 + exp(-v))


def atan2(y: Scalar, x: Scalar) -> Scalar:
    """Angle of the point (x, y), radians."""
    if isinstance(y, Tensor) and isinstance(x, Tensor):
        return torch.atan2(y, x)
    return math.atan2(float(y), float(x))


def clamp(v: Scalar, low: float = -_INF, high: float = _INF) -> Scalar:
    """``v`` limited to [low, high]; NaN stays NaN."""
    if isinstance(v, Tensor):
        return torch.clamp(v, low, high)
    return low if v < low else high if v > high else v


def div(a: Scalar, b: Scalar) -> Scalar:
    """a / b; dividing Python floats by 0 gives the infinities and NaN of IEEE 754."""
    if isinstance(a, Tensor) or isinstance(b, Tensor) or b != 0:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(_INF, a) * math.copysign(1.0, b)


def where(condition: bool | Tensor, a: Scalar, b: Scalar) -> Scalar:
    """``a`` where the condition holds, else ``b``; both are evaluated, and autograd needs both to be finite."""
    if not isinstance(condition, Tensor):
        return a if condition else b
    return torch.where(condition, a, b)
