"""What guided models share: the wrapped model, the interval of times in which it is guided, and fixed entries."""

from __future__ import annotations

import inspect
import math
import numbers
from abc import ABC
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scoresde._core.arrays import as_tensor
from scoresde._core.call_inputs import device_of
from scoresde._core.checks import check_finite
from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import has_values, widest_dtype
from scoresde.model import Model, check_model

__all__ = ["Entries", "Guide", "Scales", "between", "check_scale_length", "is_zero", "reader_with"]


class Guide(Model, ABC):
    """A wrapped model that is guided in an interval of times.

    Process, event shape, data description, conditions and jumps are those of the wrapped model.

    Args:
        model: The wrapped model.
        interval: ``(tau_low, tau_high)``; None guides at all times.

    Raises:
        TypeError: If ``model`` is not a `Model`.
        ValueError: If the interval is not one.
    """

    def __init__(self, model: Model, interval: tuple[float, float] | None) -> None:
        check_model(model)
        super().__init__()
        self.model = model
        self.sde, self.event_shape, self.data = model.sde, model.event_shape, model.data
        self.jump_times = model.jump_times
        self.interval = _checked_interval(interval, model.sde.tau_max)

    def guides_at(self, tau: Scalar) -> bool | Tensor:
        """Whether ``tau`` lies in the interval: a bool for a number, else a tensor of bools like ``tau``."""
        if self.interval is None:
            return True
        low, high = self.interval
        if isinstance(tau, Tensor):
            return (tau >= low) & (tau <= high)
        return low <= tau <= high


def _checked_interval(interval: Any, tau_max: float) -> tuple[float, float] | None:
    """The interval as two floats.

    Raises:
        ValueError: If it is not ``(tau_low, tau_high)`` with ``0 <= tau_low < tau_high`` and ``tau_low < tau_max``.
    """
    if interval is None:
        return None
    try:
        low, high = (float(end) for end in interval)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 <= low < high:
        raise ValueError(
            f"interval must be (tau_low, tau_high) with 0 <= tau_low < tau_high, OU times, got {interval!r}; None "
            "guides at all times."
        )
    if low >= tau_max:
        raise ValueError(
            f"interval must begin before the process ends, at tau = {tau_max:.6g}, got {interval!r}, where the model "
            "would never be guided; 0.2 to 1.5 are usual OU times."
        )
    return low, high


def _checked_scale(name: str, scale: Any) -> float | Tensor:
    """A guidance scale: a finite number as a float, or a floating tensor with one entry per sample, ``(B,)``.

    Raises:
        TypeError: If it is something else.
        ValueError: If it is not finite, or has more axes.
    """
    if isinstance(scale, numbers.Real) and not isinstance(scale, bool):
        if not math.isfinite(scale):
            raise ValueError(f"{name} must be finite, got {scale!r}; 1.0 is the conditional model itself.")
        return float(scale)
    if not isinstance(scale, Tensor) or not scale.is_floating_point():
        received = scale.dtype if isinstance(scale, Tensor) else repr(scale)
        raise TypeError(f"{name} must be a number or a floating tensor with one entry per sample, got {received}.")
    if scale.ndim > 1:
        raise ValueError(f"{name} must have shape () or (B,), one entry per sample, got {tuple(scale.shape)}.")
    check_finite(scale.reshape(-1), name)
    return float(scale) if scale.ndim == 0 and has_values(scale) else scale


def check_scale_length(scale: Scalar, x: Tensor) -> None:
    """Checks that a scale per sample has one entry for each sample of a batch.

    Raises:
        ValueError: If it has another number.
    """
    if isinstance(scale, Tensor) and scale.ndim and len(scale) != len(x):
        raise ValueError(
            f"a scale must be one number or have one entry per sample, {len(x)} here, got {len(scale)}; draw all "
            "samples in one batch (leave batch_size out), or pass one number."
        )


def is_zero(coefficient: Scalar) -> bool:
    """Whether a coefficient is the number 0; the values of a tensor are not read."""
    return isinstance(coefficient, float) and coefficient == 0.0


def between(inside: bool | Tensor, guided: Scalar, otherwise: float) -> Scalar:
    """``guided`` inside of the interval and ``otherwise`` outside; a float if ``inside`` is a bool."""
    if isinstance(inside, bool):
        return guided if inside else otherwise
    return (guided - otherwise) * inside.to(widest_dtype(inside.device)) + otherwise


class Entries(nn.Module):
    """Tensors by name that follow the model to its device: scales per sample, or one entry of a condition.

    Args:
        model: Whose device they go to.
        values: The tensors, arrays or numbers.
    """

    def __init__(self, model: Model, values: Mapping[str, Any]) -> None:
        super().__init__()
        self.names = tuple(values)
        for i, (name, value) in enumerate(values.items()):
            if not isinstance(value, Tensor):
                value = torch.full((), value) if isinstance(value, (int, float)) else as_tensor(value, name)
            self.register_buffer(f"entry{i}", value.to(device_of(model) or value.device), persistent=False)

    def __getitem__(self, name: str) -> Tensor:
        return getattr(self, f"entry{self.names.index(name)}")

    def like(self, name: str, value: Tensor) -> Tensor:
        """The entry for every sample of a condition ``value``, ``(B, …)``.

        Raises:
            ValueError: If the entry has another shape than those of ``value``.
        """
        entry = self[name]
        if entry.shape != value.shape[1:]:
            raise ValueError(
                f"{name} must have one entry of shape {tuple(value.shape[1:])} here, got {tuple(entry.shape)}; leave "
                "the batch axis out."
            )
        return entry.to(value.dtype).expand_as(value)


class Scales(nn.Module):
    """Guidance scales by name: numbers, and tensors that follow the model to its device.

    Args:
        model: Whose device they go to.
        values: Numbers, or floating tensors with one entry per sample.
    """

    def __init__(self, model: Model, values: Mapping[str, Any]) -> None:
        super().__init__()
        scales = {name: _checked_scale(name, value) for name, value in values.items()}
        self._numbers = {name: scale for name, scale in scales.items() if isinstance(scale, float)}
        tensors = {name: scale for name, scale in scales.items() if isinstance(scale, Tensor)}
        self._tensors = Entries(model, {name: t.to(widest_dtype(t.device)) for name, t in tensors.items()})

    def __getitem__(self, name: str) -> float | Tensor:
        return self._numbers[name] if name in self._numbers else self._tensors[name]


def reader_with(reader: Callable[..., object], names: Iterable[str]) -> Callable[..., object]:
    """A function with the signature of ``reader`` and further keywords, for the check of the keywords of a call."""
    parameters = dict(inspect.signature(reader).parameters)
    rest = [p for p in parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD]
    named = [p for p in parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    named += [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in names if n not in parameters]

    def forward(*args: object, **cond: object) -> None:
        """Never called."""

    forward.__signature__ = inspect.Signature(named + rest)
    network = getattr(reader, "__self__", None)
    if network is not None:  # whose declared conditions are read too
        forward.__self__ = network
    return forward
