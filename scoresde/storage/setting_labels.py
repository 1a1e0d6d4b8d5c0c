"""Short labels of settings: their text form without default values, and slugs for file names."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

from scoresde._core.annotations import CheckedArguments
from scoresde.storage import spec

__all__ = ["short_text", "slug", "without_long_lists"]


def short_text(obj: object) -> str:
    """The call that makes a setting, with the fields that differ from their defaults, and ``steps`` and ``method``.

    A field that follows from the others, such as the steps of the second part of a `MixedSampler`, is left out too.

    Args:
        obj: A dataclass with a text form (`scoresde.storage.spec`).

    Returns:
        E.g. ``DDPM(steps=1000)`` or ``ELBO()``.
    """
    if not dataclasses.is_dataclass(obj) or isinstance(obj, type):
        return spec.to_text(obj)
    arguments = []
    for field in (f for f in dataclasses.fields(obj) if f.init):
        value, default = getattr(obj, field.name), _default(type(obj), field)
        differs = type(value) is not type(default) or value != default
        if field.name in ("steps", "method") or (differs and not _follows(obj, field)):
            arguments.append(f"{field.name}={short_text(value)}")
    return f"{type(obj).__name__}({', '.join(arguments)})"


def _follows(obj: Any, field: dataclasses.Field) -> bool:
    """Whether the other fields of a setting give the field the value that it has."""
    if not isinstance(obj, CheckedArguments):
        return False
    settings: Any = obj
    others = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings) if f.init and f is not field}
    try:
        return getattr(type(settings)(**others), field.name) == getattr(settings, field.name)
    except (TypeError, ValueError):
        return False


def _default(cls: type, field: dataclasses.Field) -> object:
    """The field's value in ``cls()``, which may replace a None; else, for required fields, the declared default."""
    try:
        return getattr(cls(), field.name)
    except TypeError:
        factory = field.default_factory
        return field.default if factory is dataclasses.MISSING else factory()


def without_long_lists(text: str) -> str:
    """The text of a setting for people: of more than eight numbers in a row only the first and the last are left."""

    def ends(match: re.Match[str]) -> str:
        numbers = match[0].split(", ")
        return f"{numbers[0]}, … {len(numbers) - 2} more …, {numbers[-1]}"

    return re.sub(r"[-+\d.e]+(?:, [-+\d.e]+){8,}", ends, text)


def slug(obj: object) -> str:
    """A setting's name in folders and arrays, of letters, digits and hyphens, e.g. ``snr-power-minus-0-5``.

    Args:
        obj: As for `short_text`.
    """
    signed = re.sub(r"(?<![0-9a-z])-", "minus-", short_text(obj).lower())
    return re.sub(r"[^a-z0-9]+", "-", signed).strip("-")
