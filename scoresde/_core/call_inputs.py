"""Inputs of a call: arrays as tensors on the model's device, and conditioning with one entry per sample."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scoresde._core.arrays import ArrayLike, as_tensor, as_tensors

__all__ = [
    "as_input",
    "check_entries",
    "check_model_device",
    "check_per_sample",
    "cond_inputs",
    "device_of",
    "empty_state",
]


def as_input(model: nn.Module, value: ArrayLike, name: str) -> Tensor:
    """A tensor as it is; an array, frame or list of numbers as a tensor on the model's device, see `as_tensor`.

    Args:
        model: Whose input it is.
        value: A batch, ``(B, *D)``.
        name: Its name in an error.

    Raises:
        TypeError, ValueError: If it cannot be converted without loss; the message has the call that works.
    """
    if not isinstance(value, Tensor):
        return as_tensor(value, name, device_of(model))
    device = device_of(model) if value.is_meta else None
    if device is not None and device.type != "meta":
        raise ValueError(
            f"{name} is on {value.device}, the model on {device}; move one: {name}.to('{device}') or "
            f"model.to('{value.device}')."
        )
    return value


def cond_inputs(model: nn.Module, cond: Mapping[str, Any]) -> dict[str, Any]:
    """Conditioning by keyword, with arrays, frames and lists of numbers as tensors on the model's device."""
    if all(isinstance(v, Tensor) and not v.is_meta for v in cond.values()):
        return dict(cond)
    device = device_of(model)
    for name, value in cond.items():
        if isinstance(value, Tensor) and value.is_meta and device is not None and device.type != "meta":
            raise ValueError(f"{name} is on the meta device, without values, and the model on {device}; move it there.")
    return as_tensors(cond, device)


def device_of(model: nn.Module) -> torch.device | None:
    """Device of the first parameter, else of the first buffer; None without any."""
    weight = next(model.parameters(), None)
    weight = next(model.buffers(), None) if weight is None else weight
    return None if weight is None else weight.device


def check_model_device(model: nn.Module, x: Tensor) -> None:
    """Checks that a state is on the device of a model.

    Raises:
        ValueError: If it is elsewhere.
    """
    device = device_of(model)
    if device is not None and device != x.device:
        raise ValueError(
            f"x is on {x.device}, the model on {device}; move one: x.to('{device}') or model.to('{x.device}')."
        )


def empty_state(model: nn.Module, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
    """An empty tensor ``(0,)`` of the type and on the device of a model's states.

    Args:
        model: Whose states; its first floating parameter or buffer states type and device.
        dtype: Default that of the model, at least float32.
        device: Default that of the model.

    Raises:
        TypeError: If ``dtype`` is not floating.
    """
    tensors = [*model.parameters(), *model.buffers()]
    reference = next((tensor for tensor in tensors if tensor.is_floating_point()), torch.empty(0))
    kind = torch.promote_types(reference.dtype, torch.float32) if dtype is None else dtype
    if not kind.is_floating_point:
        raise TypeError(f"dtype must be a floating type, got {kind}; float32 or float64 are usual.")
    return torch.empty(0, dtype=kind, device=reference.device if device is None else device)


def check_per_sample(cond: Mapping[str, object], n: int, unit: str = "sample") -> None:
    """Checks that conditioning has one entry per sample.

    Args:
        cond: Conditioning by keyword.
        n: Number of entries.
        unit: Name of one entry in the error.

    Raises:
        TypeError: If a value is not a tensor.
        ValueError: If a tensor has another number of entries.
    """
    for keyword, value in cond.items():
        if not isinstance(value, Tensor):
            raise TypeError(f"{keyword} must be a tensor with one entry per {unit}, got {value!r}; {_remedy(value, n)}")
        check_entries(keyword, value, n, unit)


def _remedy(value: object, n: int) -> str:
    if value is None:
        return "leave it out for no condition."
    if isinstance(value, numbers.Real):
        return f"pass torch.full(({n},), {value}), for all of them."
    return "convert it to numbers, names of classes by model.data.to_model_cond."


def check_entries(keyword: str, value: Tensor, n: int, unit: str = "sample") -> None:
    """Checks that a conditioning tensor has one entry per sample; the error shows how to repeat a single observation.

    Raises:
        ValueError: If it has another number of entries.
    """
    entries = None if value.ndim == 0 else len(value)
    if entries == n:
        return
    received = "a single number" if entries is None else f"{entries} (shape {tuple(value.shape)})"
    remedy = ""
    if value.ndim < 2 or entries == 1:
        axes = ", -1" * max(value.ndim - 1, min(value.ndim, 1))
        remedy = f" If {keyword} is one observation for all {unit}s, pass {keyword}.expand({n}{axes})."
    raise ValueError(f"{keyword} must have one entry per {unit}, {n}, got {received}.{remedy}")
