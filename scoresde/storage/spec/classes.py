"""Classes that a text may name, and the annotations of their fields."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import itertools
import pkgutil
import types
import typing
from abc import ABC
from collections.abc import Iterator, Mapping
from typing import Any

from scoresde._core.annotations import check_arguments

__all__ = ["Known", "classes_of", "describe_hint", "field_hints", "fits", "known_classes"]

Known = Mapping[str, "type | tuple[type, ...]"]
"""Name -> class, or the classes that share a name; the annotation of a field then chooses one."""


def known_classes(*modules: types.ModuleType, kind: type | None = None) -> dict[str, type | tuple[type, ...]]:
    """Name -> class of the public, concrete dataclasses in `modules`; there is no registry to edit.

    Args:
        modules: Modules to search; of a package all its modules, which are imported for it, except those with a
            leading underscore. Public is what `__all__` lists, or what has no leading underscore.
        kind: Keep only its subclasses.

    Returns:
        Classes by name; a tuple of classes if different ones share a name. Abstract classes are left out: those with
        abstract methods, and those with `ABC` itself as a base.
    """
    check_arguments(known_classes, locals())
    classes: dict[str, tuple[type, ...]] = {}
    for module in itertools.chain.from_iterable(map(_with_submodules, modules)):
        for name in getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")]):
            cls = getattr(module, name)
            if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and issubclass(cls, kind or object)):
                continue
            if not inspect.isabstract(cls) and ABC not in cls.__bases__ and cls not in classes.get(name, ()):
                classes[name] = (*classes.get(name, ()), cls)
    return {name: same[0] if len(same) == 1 else same for name, same in classes.items()}


def _with_submodules(module: types.ModuleType) -> Iterator[types.ModuleType]:
    yield module
    for info in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if not info.name.startswith("_"):
            yield from _with_submodules(importlib.import_module(f"{module.__name__}.{info.name}"))


def classes_of(entry: type | tuple[type, ...]) -> tuple[type, ...]:
    """The classes of an entry of `Known`."""
    return entry if isinstance(entry, tuple) else (entry,)


def field_hints(cls: type) -> dict[str, Any]:
    """Annotations of a class's fields; empty if they exist for type checkers only."""
    try:
        return typing.get_type_hints(cls if dataclasses.is_dataclass(cls) else cls.__init__)
    except (NameError, TypeError, AttributeError):
        return {}


def fits(cls: type, hint: Any) -> bool:
    """Whether an annotation admits a class; float also admits int, and tuple and list admit each other.

    The elements of a container are not checked, and an annotation that does not consist of classes admits everything.
    """
    for option in _options(hint):
        admitted = typing.get_origin(option) or option
        if admitted is Any or not isinstance(admitted, type) or (cls is int and admitted is float):
            return True
        if issubclass(cls, admitted) and not (cls is bool and admitted is int):
            return True
        if {cls, admitted} == {tuple, list}:
            return True
    return False


def describe_hint(hint: Any) -> str:
    """An annotation for a message: `a Weighting`, `an int or None`, `a class` for `Any`."""
    names = ["class" if o is Any else getattr(o, "__name__", str(o)) for o in _options(hint)]
    text = " or ".join("None" if n == "NoneType" else n for n in names)
    return f"{'an' if text[0] in 'AEIOUaeiou' else 'a'} {text}"


def _options(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the hint alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
