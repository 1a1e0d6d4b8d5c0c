"""Argument checks, whose errors state the rule, the value received and the remedy."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from scoresde._core.arrays import array_remedy
from scoresde._core.tensors import has_values

__all__ = [
    "check_device",
    "check_event_shape",
    "check_finite",
    "check_increasing",
    "check_integer",
    "check_kind",
    "check_level",
    "check_positive",
    "check_seed",
    "check_seeds",
    "check_tensor",
    "check_values",
    "short_repr",
]


def check_finite(x: Tensor, name: str = "x") -> None:
    """Checks that a tensor has no NaN or infinity.

    Args:
        x: Any shape, batch first. Integers and tensors without values (meta, fake) pass.
        name: Name of ``x`` in the error.

    Raises:
        ValueError: If a value is not finite; the error has its index and the number of such samples.
    """
    if not has_values(x) or not x.dtype.is_floating_point:
        return
    nonfinite = ~torch.isfinite(x)
    if bool(nonfinite.any()):
        first = tuple(nonfinite.nonzero()[0].tolist())
        count = int(nonfinite.flatten(1).any(1).sum()) if nonfinite.ndim > 1 else int(nonfinite.sum())
        raise ValueError(
            f"{name} must be finite, got {x[first].item()} at index {first} ({count} of {len(x)} samples have such "
            "values); remove or impute them first."
        )


def check_kind(name: str, value: object, kind: type) -> None:
    """Checks that a value is an instance of a class, rather than the class itself or its name.

    Args:
        name: Name of the argument in the error.
        value: The argument.
        kind: The class.

    Raises:
        TypeError: If ``value`` is not an instance of ``kind``.
    """
    if not isinstance(value, kind):
        received = repr(value) if isinstance(value, (type, str, int, float)) else type(value).__name__
        article = "an" if kind.__name__[0] in "AEIOU" else "a"
        raise TypeError(
            f"{name} must be {article} {kind.__name__}, got {received}; pass an object, not its class or name."
        )


def short_repr(value: object) -> str:
    """``repr`` of a value in one short line, or the name of its class."""
    text = repr(value)
    return text if len(text) < 60 and "\n" not in text else f"a {type(value).__name__}"


def check_integer(name: str, value: Any, least: int | None = 1, most: int | None = None) -> None:
    """Checks that a value is an integer in [least, most]; a bool is not an integer.

    Args:
        name: Name of the argument in the error.
        value: The argument.
        least, most: Inclusive bounds; None for no bound.

    Raises:
        ValueError: If ``value`` is not such an integer.
    """
    integer = isinstance(value, int) and not isinstance(value, bool)
    if not integer or (least is not None and value < least) or (most is not None and value > most):
        raise ValueError(f"{name} must be {_describe_integers(least, most)}, got {short_repr(value)}.")


def _describe_integers(least: int | None, most: int | None) -> str:
    if most is not None:
        return f"an integer from {least} to {most}" if least is not None else f"an integer of at most {most}"
    if least is None:
        return "an integer"
    return "a positive integer" if least == 1 else f"an integer of at least {least}"


def check_level(level: object) -> None:
    """Checks that the level of a confidence interval is a number in (0, 1).

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(level, numbers.Real) or isinstance(level, bool) or not 0 < float(level) < 1:
        raise ValueError(f"level must lie in (0, 1), got {level!r}; 0.95 is usual.")


def check_positive(**values: Any) -> None:
    """Checks that values are positive finite numbers; a bool is not a number.

    Args:
        **values: The arguments by name, e.g. ``check_positive(power=self.power)``.

    Raises:
        ValueError: If one is not; the error names the first.
    """
    for name, value in values.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not 0 < value < math.inf:
            raise ValueError(f"{name} must be a positive finite number, got {short_repr(value)}.")


def check_seed(seed: object, name: str = "seed") -> int:
    """Checks that a seed is an integer in [0, 2**63), which every generator takes and no two of which are the same.

    Args:
        seed: An integer of Python or NumPy; a bool, a float or a text is not one, even if it would convert.
        name: Name of the argument in the error.

    Returns:
        The seed as Python's integer.

    Raises:
        ValueError: If ``seed`` is not such an integer.
    """
    if not isinstance(seed, numbers.Integral) or isinstance(seed, bool) or not 0 <= int(seed) < 2**63:
        raise ValueError(f"{name} must be an integer from 0 to 2**63 - 1, got {short_repr(seed)}; pass for example 0.")
    return int(seed)


def check_seeds(seeds: object, count: int | None = None) -> list[int]:
    """Checks that seeds are integers in [0, 2**63), one per sample.

    Args:
        seeds: A sequence, or an array or tensor of one axis, of integers.
        count: Number of samples; None admits any number of seeds.

    Returns:
        The seeds as Python's integers.

    Raises:
        ValueError: If ``seeds`` is not a sequence, an entry is not such an integer, or there are more or fewer seeds.
    """
    if isinstance(seeds, Tensor) and not has_values(seeds):
        raise ValueError("seeds must have values, got a tensor on the meta device; pass for example range(n).")
    entries = seeds.tolist() if hasattr(seeds, "tolist") else seeds  # pyright: ignore[reportAttributeAccessIssue]
    if not isinstance(entries, Iterable) or isinstance(entries, (str, bytes)):
        raise ValueError(
            f"seeds must be a sequence with one integer per sample, got {seeds!r}; pass for example range(n), or "
            "generator= for one seed."
        )
    checked = [check_seed(seed, f"seeds[{i}]") for i, seed in enumerate(entries)]
    if count is not None and len(checked) != count:
        raise ValueError(f"seeds must have one entry per sample, {count}, got {len(checked)}.")
    return checked


def check_increasing(**values: float) -> None:
    """Checks that values are finite and strictly increase in the order given.

    Args:
        **values: The arguments by name, e.g. ``check_increasing(sigma_min=0.01, sigma_max=50.0)``.

    Raises:
        ValueError: If two neighbors are not finite or do not increase; the error names them.
    """
    for (low_name, low), (high_name, high) in pairwise(values.items()):
        if not -math.inf < low < high < math.inf:
            raise ValueError(f"{low_name} must be below {high_name}, both finite, got {low!r} and {high!r}.")


def check_device(device: object) -> torch.device | None:
    """Checks that a device exists here; None stays None.

    Raises:
        ValueError: If torch does not know its name, or the machine has no such device.
    """
    if device is None:
        return None
    try:
        checked = torch.device(device)  # pyright: ignore[reportArgumentType]
    except RuntimeError as error:
        raise ValueError(f"device must be one of torch's, such as 'cpu' or 'cuda:0', got {device!r}.") from error
    if checked.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device must exist, got {device!r} where torch finds no CUDA device; pass 'cpu'.")
    return checked


def check_tensor(name: str, x: object) -> None:
    """Checks that a value is a tensor; the error has the call that makes it one.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(x, Tensor):
        received = repr(x) if isinstance(x, (str, int, float, type(None))) else type(x).__name__
        raise TypeError(f"{name} must be a tensor, got {received}; {array_remedy(x)}.")


def check_values(name: str, x: Tensor) -> None:
    """Checks that a tensor has values, rather than only a shape.

    Raises:
        ValueError: If it is on the meta device.
    """
    if x.is_meta and not isinstance(x, FakeTensor):
        raise ValueError(f"{name} must have values, got a tensor on the meta device; move it to the CPU with its data.")


def check_event_shape(x: Tensor, event_shape: tuple[int, ...] | None, name: str = "x") -> None:
    """Checks that the events of a batch have a given shape.

    Args:
        x: The batch, ``(B, *D)``.
        event_shape: Shape of one event; None admits every shape with a batch axis.
        name: Name of ``x`` in the error.

    Raises:
        TypeError: If ``x`` is not a tensor.
        ValueError: If the shape differs.
    """
    check_tensor(name, x)
    if x.ndim == 0 or (event_shape is not None and x.shape[1:] != event_shape):
        axes = ["*D"] if event_shape is None else [str(size) for size in event_shape]
        expected = "(B,)" if not axes else f"(B, {', '.join(axes)})"
        raise ValueError(
            f"{name} must have shape {expected}, got {tuple(x.shape)}; give the batch first, then one event."
        )
