"""Checks of arguments, with errors that state the rule, what arrived and the remedy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scoresde._core.tensors import has_values


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


def check_integer(name: str, value: object, least: int | None = 1, most: int | None = None) -> None:
    """Refuses a value that is not an integer in [least, most]; a bool is not an integer.

    Args:
        name: What to call it in the error.
        value: The argument.
        least, most: Inclusive bounds; None for no bound.

    Raises:
        ValueError: If it is not.
    """
    inside = isinstance(value, int) and not isinstance(value, bool)
    if not inside or (least is not None and value < least) or (most is not None and value > most):
        raise ValueError(f"{name} must be {_integers(least, most)}, got {value!r}.")


def _integers(least: int | None, most: int | None) -> str:
    if most is not None:
        return f"an integer from {least} to {most}" if least is not None else f"an integer of at most {most}"
    if least is None:
        return "an integer"
    return "a positive integer" if least == 1 else f"an integer of at least {least}"


def check_positive(**values: object) -> None:
    """Refuses values that are not positive finite numbers; a bool is not a number.

    Args:
        **values: The arguments by name, e.g. ``check_positive(power=self.power)``.

    Raises:
        ValueError: Names the first that is not.
    """
    for name, value in values.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive finite number, got {value!r}.")


def check_event_shape(x: Tensor, event_shape: tuple[int, ...] | None, name: str = "x") -> None:
    """Refuses a batch whose events do not have the given shape.

    Args:
        x: The batch, ``(B, *D)``.
        event_shape: Shape of one event; None admits every shape with a batch axis.
        name: What to call ``x`` in the error.

    Raises:
        ValueError: If the shape is another one.
    """
    if x.ndim == 0 or (event_shape is not None and x.shape[1:] != event_shape):
        axes = ["*D"] if event_shape is None else [str(size) for size in event_shape]
        want = "(B,)" if not axes else f"(B, {', '.join(axes)})"
        raise ValueError(f"{name} must have shape {want}, got {tuple(x.shape)}; give the batch first, then one event.")
