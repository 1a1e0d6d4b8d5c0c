"""Short labels of settings: their text form without the defaults, and slugs for names of files."""

from __future__ import annotations

import dataclasses
import re

from scoresde.storage import spec

__all__ = ["short_text", "slug"]


def short_text(obj: object) -> str:
    """The call that makes a setting, with what differs from the defaults, and its number of steps or method.

    Args:
        obj: A dataclass, as `scoresde.storage.spec` writes it.

    Returns:
        E.g. ``DDPM(steps=1000)`` or ``ELBO()``.
    """
    if not dataclasses.is_dataclass(obj) or isinstance(obj, type):
        return spec.to_text(obj)
    shown = []
    for field in (f for f in dataclasses.fields(obj) if f.init):
        value, default = getattr(obj, field.name), _default(type(obj), field)
        if field.name in ("steps", "method") or type(value) is not type(default) or value != default:
            shown.append(f"{field.name}={short_text(value)}")
    return f"{type(obj).__name__}({', '.join(shown)})"


def _default(cls: type, field: dataclasses.Field) -> object:
    """The field's value in ``cls()``, which may resolve a None; of a class with required fields, the declared one."""
    try:
        return getattr(cls(), field.name)
    except TypeError:
        factory = field.default_factory
        return field.default if factory is dataclasses.MISSING else factory()


def slug(obj: object) -> str:
    """Letters, digits and hyphens that name a setting's folder and arrays, e.g. ``snr-power-minus-0-5``.

    Args:
        obj: As for `short_text`.
    """
    signed = re.sub(r"(?<![0-9a-z])-", "minus-", short_text(obj).lower())
    return re.sub(r"[^a-z0-9]+", "-", signed).strip("-")
