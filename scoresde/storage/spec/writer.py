"""Text forms of objects: the Python call with every init field."""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any

from scoresde._core.annotations import check_arguments

__all__ = ["MAX_DEPTH", "MAX_LENGTH", "shortened", "to_text"]

MAX_LENGTH = 400_000
"""Longest text that is written or read, in characters; 1000 betas in double precision take about 22 000."""

MAX_DEPTH = 32
"""Deepest nesting of brackets that is written or read."""


def to_text(obj: object) -> str:
    """The Python call that makes `obj`.

    Args:
        obj: A dataclass instance (an `nn.Module` too), a number, string, bool, None, or a tuple, list or dict of
            these, nested. Of a dataclass the init fields are written with their current values, and nothing else (no
            weights).

    Returns:
        Text that `parse` turns back into an equal object. Floats round-trip exactly, infinities and NaN included.

    Raises:
        TypeError: If a part of `obj` has no text form (a function, a tensor, a class that is not a dataclass).
        ValueError: If the text would be longer than `MAX_LENGTH` or nested deeper than `MAX_DEPTH`.
    """
    check_arguments(to_text, locals())
    text = _write(obj, type(obj).__name__, MAX_DEPTH)
    if len(text) > MAX_LENGTH:
        raise ValueError(
            f"a text form must have at most {MAX_LENGTH} characters, that of this {type(obj).__name__} has "
            f"{len(text)}; keep bulk numbers in a separate file."
        )
    return text


def _write(obj: Any, path: str, depth: int) -> str:
    """The text of ``obj``, which stands at ``path`` of the whole object, with brackets nested at most ``depth``."""
    literal = _literal(obj)
    if literal is not None:
        return literal
    if depth < 1:
        raise ValueError(f"a text form must nest at most {MAX_DEPTH} deep, got {shortened(path)}; flatten it.")
    if type(obj) in (tuple, list):
        items = ", ".join(_write(v, f"{path}[{i}]", depth - 1) for i, v in enumerate(obj))
        return f"[{items}]" if type(obj) is list else f"({items}{',' if len(obj) == 1 else ''})"
    if type(obj) is dict:
        pairs = [f"{_write(k, path, depth - 1)}: {_write(v, f'{path}[{k!r}]', depth - 1)}" for k, v in obj.items()]
        return "{" + ", ".join(pairs) + "}"
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        names = [f.name for f in dataclasses.fields(obj) if f.init and not _omitted(obj, f)]
        arguments = ", ".join(f"{n}={_write(getattr(obj, n), f'{path}.{n}', depth - 1)}" for n in names)
        return f"{type(obj).__name__}({arguments})"
    raise TypeError(
        f"only a dataclass, number, string, None, tuple, list or dict has a text form; {path} is a "
        f"{type(obj).__module__}.{type(obj).__qualname__}; make its class a dataclass, or hold numbers in a tuple."
    )


def _omitted(obj: Any, field: dataclasses.Field) -> bool:
    """Whether a field has its default and is declared with ``metadata={"write": "if set"}``.

    A field that is added to a class later does not change the texts that earlier versions wrote.
    """
    if field.metadata.get("write") != "if set":
        return False
    factory = field.default_factory
    default = field.default if factory is dataclasses.MISSING else factory()
    return getattr(obj, field.name) == default


def _literal(obj: Any) -> str | None:
    if obj is None or isinstance(obj, bool):
        return repr(obj)
    if isinstance(obj, str):
        return str.__repr__(obj)
    if isinstance(obj, numbers.Integral):
        return int.__repr__(int(obj))
    is_float = isinstance(obj, numbers.Real) and not isinstance(obj, numbers.Rational)
    return float.__repr__(float(obj)) if is_float else None


def shortened(text: str) -> str:
    """Text for a message: of more than 120 characters the first 80 and the last 30."""
    return text if len(text) <= 120 else f"{text[:80]} ... {text[-30:]}"
