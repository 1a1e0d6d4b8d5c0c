"""Does what a network was given fit what it was built for? Looks at shapes, dtypes and floats, never at the device."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor


def check_positive(name: str, value: float, whole: bool = False) -> None:
    """Refuses a setting that is not finite and > 0 (and an int, if ``whole``)."""
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value < math.inf:
        kind = "a whole number" if whole else "a finite number"
        raise ValueError(f"{name} must be {kind} > 0, got {value!r}; give {name} such a value.")


def check_fraction(name: str, value: float) -> None:
    """Refuses a probability outside [0, 1)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value!r}; use 0 to switch it off.")


def check_range(name: str, value: Sequence[float]) -> tuple[float, float]:
    """Returns ``(low, high)`` as floats; refuses anything but two finite increasing numbers."""
    ends = tuple(float(end) for end in value)
    if len(ends) != 2 or not -math.inf < ends[0] < ends[1] < math.inf:
        raise ValueError(f"{name} must be two finite numbers, low < high, got {value!r}; for example (-20.0, 20.0).")
    return ends[0], ends[1]


def check_sizes(name: str, value: Sequence[int]) -> tuple[int, ...]:
    """Returns the sizes as a tuple; refuses one that is not a whole number > 0."""
    if isinstance(value, (int, str)):
        raise TypeError(f"{name} must be a tuple of whole numbers, got {value!r}; write ({value},).")
    for size in value:
        check_positive(f"each entry of {name}", size, whole=True)
    return tuple(value)


def check_input(x: Tensor, log_snr: Tensor, event_shape: tuple[int, ...]) -> None:
    """Refuses an input that is not ``(B, *event_shape)`` with one floating log-SNR per sample."""
    if x.ndim == 0 or tuple(x.shape[1:]) != event_shape:
        expected = "(" + ", ".join(["B", *map(str, event_shape)]) + ("," if not event_shape else "") + ")"
        raise ValueError(
            f"x must have shape {expected}, got {tuple(x.shape)}; reshape x or build the network with "
            f"event_shape={tuple(x.shape[1:])}."
        )
    if not x.is_floating_point() or not log_snr.is_floating_point():
        raise TypeError(f"x and log_snr must be floating, got {x.dtype} and {log_snr.dtype}; call .float() on them.")
    if log_snr.shape != x.shape[:1]:
        raise ValueError(
            f"log_snr must have shape ({len(x)},), got {tuple(log_snr.shape)}; pass one value per sample of x."
        )


def check_label(cond: Tensor | None, num_classes: int | None, batch: int) -> None:
    """Refuses labels a network cannot read, without looking at their values."""
    if num_classes is None:
        if cond is not None:
            raise ValueError("cond must be None for a network without classes, got labels; build it with num_classes.")
    elif cond is None:
        raise ValueError(
            f"cond must be given to a network of {num_classes} classes without a null label, got None; "
            "pass labels, or build and train it with null_class=True."
        )
    elif cond.is_floating_point() or cond.is_complex():
        raise TypeError(f"cond must hold whole numbers, got {cond.dtype}; pass labels as torch.long.")
    elif cond.shape != (batch,):
        raise ValueError(f"cond must have shape ({batch},), got {tuple(cond.shape)}; pass one label per sample.")
