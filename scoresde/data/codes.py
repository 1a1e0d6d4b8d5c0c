"""Codes of categories: integers 0 … C - 1 in data units, whole floating numbers in model units, and their checks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from scoresde._core.checks import check_integer
from scoresde.data.value_checks import raise_if_any

if TYPE_CHECKING:
    from scoresde.data.description import Description

__all__ = ["check_codes", "checked_classes", "code_type", "codes_to_integers"]

_MOST_CLASSES = 1 << 24  # codes are exact in float32


def checked_classes(description: Description) -> int | None:
    """The number of classes, stated or that of the alphabet; None for data that are no categories.

    Raises:
        ValueError: If it is not an integer from 2 on, is not that of the alphabet, or comes with bins, a range, a
            scaling, an encoding or missing values.
    """
    classes, alphabet = description.classes, description.alphabet
    if classes is None and alphabet is None:
        return None
    if classes is not None:
        check_integer("classes", classes, 2, most=_MOST_CLASSES)
    if alphabet is not None and classes not in (None, alphabet.count):
        raise ValueError(
            f"classes must be the number of symbols of the alphabet, {alphabet.count}, got {classes}; leave classes "
            "out, or the alphabet."
        )
    count = int(classes) if classes is not None else alphabet.count if alphabet is not None else 2
    for name, valid in {
        "bins": (None,),
        "encoding": (None,),
        "columns": (None,),
        "missing": (False,),
        "low": (None, 0),
        "high": (None, count - 1),
        "offset": (None, 0),
        "scale": (None, 1),
    }.items():
        if (value := getattr(description, name)) not in valid:
            remedy = {
                "bins": "bins are of integers with an order, such as gray values; leave one of the two out",
                "missing": "categories may not be missing yet; drop those events, or give missing a class of its own",
                "columns": "read a table by load_table, whose categorical columns are described by its encoding",
                "encoding": "read a table by load_table, whose categorical columns are described by its encoding",
            }.get(name, "categories are codes, without a scaling; leave it out")
            raise ValueError(f"categories have classes=, got {name}={value!r} too; {remedy}.")
    return count


def check_codes(part: Tensor, start: int, classes: int) -> None:
    """Refuses values that are not integers in 0 … ``classes`` - 1.

    Args:
        part: Events ``start, start + 1, ...`` of a data set in data units, ``(B, *D)``.
        start: Index of the first of them, for messages.
        classes: Number of classes C.

    Raises:
        ValueError: If the type is floating, or at the first value outside.
    """
    if part.is_floating_point():
        raise ValueError(
            f"categories must be integers 0 … {classes - 1}, got {part.dtype}; convert whole numbers by .long(), and "
            "describe measured values without classes=."
        )
    if part.dtype == torch.bool:
        return
    wide = part if part.dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64) else part.long()
    bad = wide > classes - 1
    if part.dtype != torch.uint8:
        bad = bad | (wide < 0)
    remedy = f"map the classes to 0 … {classes - 1}, or state a larger number of classes"
    raise_if_any(bad, wide, f"categories must be integers 0 … {classes - 1}", remedy, start)


def codes_to_integers(x: Tensor, classes: int) -> Tensor:
    """Codes in model units as integers: ``uint8`` for up to 256 classes, else ``int64``.

    Args:
        x: Codes, ``(B, *D)``.
        classes: Number of classes C.

    Raises:
        ValueError: At the first value that is no code of a class, such as a mask.
    """
    bad = ~((x >= 0) & (x <= classes - 1))
    if x.is_floating_point():
        bad = bad | (x != x.round())
    remedy = f"states of an absorbing process hold the mask, {classes}, until tau = 0; sample to the end"
    raise_if_any(bad, x, f"categories must be codes 0 … {classes - 1}", remedy)
    return x.to(code_type(classes))


def code_type(classes: int) -> torch.dtype:
    """The integer type of so many classes: ``uint8`` for up to 256, else ``int64``."""
    return torch.uint8 if classes <= 256 else torch.int64
