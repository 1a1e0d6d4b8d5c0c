"""How do scalars, times and events meet tensors? Functions of a float or a tensor, broadcasting, event sums, noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Protocol, cast, overload

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

Scalar = float | Tensor

_INF = math.inf


class Elementwise(Protocol):
    """A function that gives a float for a float and a tensor of the same shape for a tensor."""

    @overload
    def __call__(self, v: float, /) -> float: ...
    @overload
    def __call__(self, v: Tensor, /) -> Tensor: ...


def elementwise(function: Callable[[Scalar], Scalar]) -> Elementwise:
    """Tells a type checker that a function keeps the kind of its argument; the function itself is returned."""
    return cast("Elementwise", function)


def _safe(function: Callable[[float], float], v: float, at_overflow: float) -> float:
    try:
        return function(v)
    except OverflowError:
        return at_overflow


@elementwise
def exp(v: Scalar) -> Scalar:
    """e**v."""
    if isinstance(v, Tensor):
        return torch.exp(v)
    try:  # not `_safe`: one call less in every sampler's step
        return math.exp(v)
    except OverflowError:
        return _INF


@elementwise
def expm1(v: Scalar) -> Scalar:
    """e**v - 1, without cancellation."""
    if isinstance(v, Tensor):
        return torch.expm1(v)
    try:  # not `_safe`: one call less in every sampler's step
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
    return torch.sinh(v) if isinstance(v, Tensor) else _safe(math.sinh, v, math.copysign(_INF, v))


@elementwise
def asinh(v: Scalar) -> Scalar:
    """Inverse hyperbolic sine."""
    return torch.asinh(v) if isinstance(v, Tensor) else math.asinh(v)


@elementwise
def softplus(v: Scalar) -> Scalar:
    """log(1 + e**v), to full relative precision at both ends."""
    if isinstance(v, Tensor):
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
    """``v``, or the bound that it passes; NaN stays NaN."""
    if isinstance(v, Tensor):
        return torch.clamp(v, low, high)
    return low if v < low else high if v > high else v


def div(a: Scalar, b: Scalar) -> Scalar:
    """a / b with IEEE 754's infinities also for Python floats."""
    if isinstance(a, Tensor) or isinstance(b, Tensor) or b != 0:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(_INF, a) * math.copysign(1.0, b)


def where(condition: bool | Tensor, a: Scalar, b: Scalar) -> Scalar:
    """``a`` where the condition holds, else ``b``; both are evaluated, and autograd needs both to be finite."""
    if not isinstance(condition, Tensor):
        return a if condition else b
    return torch.where(condition, a, b)


@lru_cache(maxsize=64)
def _cached_table(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)


def table(values: tuple[float, ...], like: Tensor) -> Tensor:
    """A constant vector on the device of ``like``, copied there once. Shape ``(len(values),)``."""
    dtype = wide(like.device)
    if not has_values(like):  # a fake table must not enter the cache
        return torch.empty(len(values), dtype=dtype, device=like.device)
    return _cached_table(values, like.device, dtype)


def wide(device: torch.device) -> torch.dtype:
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
        t = t.to(wide(t.device))
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


def check_finite(x: Tensor, name: str = "x") -> None:
    """Refuses NaN and infinities.

    Raises:
        ValueError: Names the first index with such a value and how many samples have one.
    """
    if not has_values(x) or not x.dtype.is_floating_point:
        return
    bad = ~torch.isfinite(x)
    if bool(bad.any()):
        first = tuple(bad.nonzero()[0].tolist())
        count = int(bad.flatten(1).any(1).sum()) if bad.ndim > 1 else int(bad.sum())
        raise ValueError(
            f"{name} must be finite, got {x[first].item()} at index {first} ({count} of {len(x)} samples have such "
            "values); remove or impute them first."
        )


def check_kind(name: str, value: object, kind: type) -> None:
    """Refuses what is no object of a class, such as the class itself.

    Raises:
        TypeError: If it is none.
    """
    if not isinstance(value, kind):
        got = repr(value) if isinstance(value, (type, str, int, float)) else type(value).__name__
        raise TypeError(f"{name} must be a {kind.__name__}, got {got}; pass an object, not its class or name.")


def check_steps(steps: int) -> None:
    """Refuses a number of steps that is not a positive integer.

    Raises:
        ValueError: If it is not; True is none.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a positive integer, got {steps!r}.")


class Noise:
    """Where randomness comes from: one generator for the batch, or one per sample.

    With per-sample seeds the numbers of a sample depend on its seed and on how many draws came before, never on its
    neighbours.

    Args:
        generator: Source for the whole batch; None means torch's global one.
        seeds: One integer per sample, instead of a generator.

    Raises:
        ValueError: If both are given.
    """

    def __init__(self, generator: torch.Generator | None = None, seeds: Sequence[int] | None = None) -> None:
        if generator is not None and seeds is not None:
            raise ValueError("randomness must come from a generator or from seeds, got both; pass one of them.")
        self._generator = generator
        self._seeds = None if seeds is None else [int(seed) for seed in seeds]
        self._sources: list[torch.Generator] = []

    @property
    def per_sample(self) -> bool:
        """Whether every sample has a source of its own."""
        return self._seeds is not None

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal numbers of the shape, type and device of ``like``, shape ``(B, *D)``."""
        source = self._generator
        if self._seeds is None and (source is None or source.device == like.device):
            # as torch.randn, at half its call's cost
            return torch.empty_like(like, memory_format=torch.contiguous_format).normal_(generator=source)
        return self._draw(torch.randn, like)

    def uniform(self, like: Tensor) -> Tensor:
        """Uniform numbers in [0, 1) of the shape, type and device of ``like``, shape ``(B, *D)``."""
        return self._draw(torch.rand, like)

    def rademacher(self, like: Tensor) -> Tensor:
        """Signs ±1 of the shape, type and device of ``like``, shape ``(B, *D)``."""
        return torch.where(self.uniform(like) < 0.5, -1.0, 1.0).to(like.dtype)

    def ragged(self, counts: Sequence[int], like: Tensor, law: str = "rademacher") -> Tensor:
        """For each sample a number of draws of its own, one sample after the other.

        Args:
            counts: How many for each of the B samples.
            like: Shape, type and device of one draw, ``(*D)``.
            law: ``"rademacher"`` (signs) or ``"normal"``.

        Returns:
            ``(sum(counts), *D)``.
        """
        function = torch.randn if law == "normal" else torch.rand
        if self._seeds is None:
            out = self._draw(function, like.new_empty((sum(counts), *like.shape)))
        else:
            sources = self._own(like, len(counts))
            kind = {"dtype": like.dtype, "device": like.device}
            out = torch.cat([function((n, *like.shape), generator=g, **kind) for n, g in zip(counts, sources)])
        return out if law == "normal" else torch.where(out < 0.5, -1.0, 1.0).to(like.dtype)

    def _own(self, like: Tensor, count: int) -> list[torch.Generator]:
        """The samples' own generators."""
        assert self._seeds is not None
        if len(self._seeds) != count:
            raise ValueError(f"seeds must have one entry per sample: {count} samples, got {len(self._seeds)} seeds.")
        if not self._sources:
            self._sources = [torch.Generator(like.device).manual_seed(seed) for seed in self._seeds]
        return self._sources

    def _draw(self, function: Callable[..., Tensor], like: Tensor) -> Tensor:
        if self._seeds is None:
            source = self._generator
            device = like.device if source is None or like.device.type == "meta" else source.device
            out = function(like.shape, generator=source, dtype=like.dtype, device=device)
            return out.to(like.device, non_blocking=True)
        if like.device.type == "meta":
            return torch.empty_like(like)
        out = torch.empty_like(like)
        for row, source in zip(out, self._own(like, len(like)), strict=True):
            row.copy_(function(row.shape, generator=source, dtype=like.dtype, device=like.device))
        return out
