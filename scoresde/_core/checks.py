"""Checks of arguments, with errors that state the rule, what arrived and the remedy."""

from __future__ import annotations

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


def check_steps(steps: int) -> None:
    """Refuses a number of steps that is not a positive integer.

    Raises:
        ValueError: If it is not; True is none.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be a positive integer, got {steps!r}.")
