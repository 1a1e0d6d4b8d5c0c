"""Axes of arrays: events as ``(N, C, ...)``, channels moved first or added, and an error where a shape is unclear.

Only arrays with at least 8 entries along each spatial axis look like images, series or volumes. Smaller ones are taken
as they are.
"""

from __future__ import annotations

import warnings
from typing import NoReturn

import torch
from torch import Tensor

from scoresde._core.suggest import unknown_name

__all__ = ["arrange_axes"]

_CHOICES = ("first", "last", "none")
_SPATIAL = 8  # least length of an axis of an image, series or volume
_COLORS = 4  # most entries of an axis that is surely one of channels
_LONG = 4  # a series is at least this many times as long as it has channels
_SERIES = 16  # least length of a series in an array of few rows


def arrange_axes(events: Tensor, channels: str | None, bins: int | None, name: str) -> Tensor:
    """Events with their channels on the first event axis, a view of ``events``.

    Args:
        events: Shape ``(N, *D)``.
        channels: ``"first"`` takes the axes as they are, ``"last"`` moves the last axis to the front of the event,
            ``"none"`` adds an axis of one channel. ``None`` decides by the shape: it adds the missing channel axis of
            gray images (integer values) and of cubes, with a warning, and takes what is clear as it is.
        bins: Number of integer values of quantized data, or None.
        name: Name of the array in messages.

    Raises:
        ValueError: If ``channels`` is not one of these or does not fit the shape, or if it is None and the shape looks
            like channels last, like a missing channel axis or like one event without a batch axis.
    """
    if channels is None:
        channels = _recognized(tuple(events.shape), bins is not None or events.dtype == torch.uint8, name)
    if not isinstance(channels, str) or channels not in _CHOICES:
        raise ValueError(unknown_name("channels", str(channels), _CHOICES))
    if channels == "first":
        return events
    least = 3 if channels == "last" else 2
    if events.ndim < least:
        raise ValueError(
            f"channels={channels!r} needs at least {least} axes, batch first, got {name} of shape "
            f"{tuple(events.shape)}; leave it out for numbers and tables."
        )
    return events.movedim(-1, 1) if channels == "last" else events.unsqueeze(1)


def _recognized(shape: tuple[int, ...], integers: bool, name: str) -> str:
    """What ``channels`` means for a shape: "first" or "none"."""
    n, sizes = shape[0], shape[1:]
    _check_batch_axis(shape, integers, name)
    if len(sizes) >= 3 and _channels_last(sizes):
        _ask(name, shape, "channels last", "last", "first")
    if len(sizes) == 3 and min(sizes) >= _SPATIAL:
        if len(set(sizes)) > 1:
            _ask(name, shape, f"volumes without a channel axis, or images of {sizes[0]} channels", "none", "first")
        _warn(name, shape, "volumes (D, H, W) without a channel axis", (n, 1, *sizes))
        return "none"
    if len(sizes) != 2:
        return "first"
    long, wide = sizes
    if min(sizes) >= _SPATIAL and integers:
        _warn(name, shape, "gray images (H, W) without a channel axis", (n, 1, *sizes))
        return "none"
    if long >= _SPATIAL and wide < long and (wide < _SPATIAL or long >= _LONG * wide):
        _ask(name, shape, "channels last (series of length first)", "last", "first")
    if min(sizes) >= _SPATIAL and wide < _LONG * long:
        _ask(name, shape, f"images without a channel axis, or series of {long} channels", "none", "first")
    return "first"


def _channels_last(sizes: tuple[int, ...]) -> bool:
    """Whether the last of three or four event axes is shorter than the others, and few or beside equal ones."""
    *others, last = sizes
    if min(others) <= last:
        return False
    return last <= _COLORS or len(set(others)) == 1


def _check_batch_axis(shape: tuple[int, ...], integers: bool, name: str) -> None:
    """Asks about an array that looks like one event: a square, a cube, or a few rows of an image or a series."""
    n, sizes = shape[0], shape[1:]
    least = _SPATIAL if integers or len(sizes) == 2 else _SERIES
    if len(sizes) in (1, 2) and n >= least and set(sizes) == {n}:
        kind = "one image" if len(sizes) == 1 else "one volume"
    elif len(sizes) == 1 and 1 <= n <= _COLORS and sizes[0] >= _SERIES:
        kind = "one series"
    elif len(sizes) == 2 and 1 <= n <= _COLORS and min(sizes) >= _SPATIAL:
        kind = "one image"
    elif len(sizes) == 2 and sizes[1] in (3, 4) and n >= _SPATIAL and sizes[0] == n:
        kind = "one image with channels last"
    else:
        return
    raise ValueError(
        f"an array must have a batch axis and hold many events, {name} of shape {shape} looks like {kind} without one; "
        f"stack your events to (N, C, ...), or pass channels='first' (or 'last', 'none') if these are {n} events."
    )


def _ask(name: str, shape: tuple[int, ...], kind: str, first: str, other: str) -> NoReturn:
    others = " or ".join(f"'{choice}'" for choice in (other, *(c for c in _CHOICES if c not in (first, other))))
    raise ValueError(
        f"the axes of an array must be clear, {name} of shape {shape} looks like {kind}; pass channels='{first}' (or "
        f"{others}), on the command line --read channels={first}. 'last' moves the last axis to the front, 'none' adds "
        "a channel axis, 'first' takes the axes as they are."
    )


def _warn(name: str, shape: tuple[int, ...], kind: str, result: tuple[int, ...]) -> None:
    warnings.warn(
        f"{name} of shape {shape} is read as {kind}: a channel axis is added, {result}. Pass channels='none' to "
        "confirm this, channels='first' to take the axes as they are.",
        stacklevel=2,
    )
