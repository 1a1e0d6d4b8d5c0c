"""Arguments against their annotations: one check for the settings of every class and the options of every function.

An annotation says what an argument may be: ``float``, ``int | None``, ``tuple[float, ...]``, ``Grid``. Values are
compared with it at the door, by kind alone; ranges and shapes are checked by whoever reads the argument.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import numbers
import os
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from scoresde._core.arrays import array_remedy
from scoresde._core.tensors import has_values

__all__ = ["CheckedArguments", "check_arguments", "refuse_signature"]

_NAMED = {
    int: "an integer",
    float: "a number",
    str: "a text",
    bool: "True or False",
    types.NoneType: "None",
    os.PathLike: "a path",
}

_CHECKED_ELSEWHERE = ("model", "rev_var", "sampler", "seeds")  # wherever they occur, with answers that say more

Object = TypeVar("Object", bound="CheckedArguments")


class CheckedArguments:
    """Base of classes whose constructor compares its arguments with their annotations, before it stores any.

    Raises:
        TypeError: If an argument is of another kind than its annotation.
    """

    def __new__(cls: type[Object], *args: Any, **kwargs: Any) -> Object:
        if args or kwargs:
            check_arguments(cls, dict(zip(_argument_names(cls), args)) | kwargs)
        return super().__new__(cls)  # pyright: ignore[reportArgumentType]


def check_arguments(function: Callable[..., Any], values: Mapping[str, Any]) -> None:
    """Compares arguments of a call with the annotations of the function; defaults are valid.

    Args:
        function: The function or class that was called.
        values: Its arguments by name, such as ``locals()`` in its first line; other names are ignored.

    Raises:
        TypeError: If an argument is of another kind than its annotation; the error names both and the default.
    """
    for name, kinds, default in _annotated(function):
        if name not in values or name in _CHECKED_ELSEWHERE or (value := values[name]) is default:
            continue
        if isinstance(value, (str, bool)) and {*kinds} <= {int, types.NoneType}:
            continue  # `check_integer` answers for them, with the range
        if not any(_fits(value, kind) for kind in kinds):
            if kinds[0] is Tensor:
                raise TypeError(f"{name} must be a tensor, got {_received(value)}; {array_remedy(value)}.")
            raise TypeError(
                f"{name} must be {_described(kinds)}, got {_received(value)}; {_remedy(value, kinds, default)}"
            )


@functools.lru_cache(maxsize=1024)
def _argument_names(cls: type) -> tuple[str, ...]:
    return tuple(inspect.signature(cls.__init__).parameters)[1:]  # without self


@functools.lru_cache(maxsize=1024)
def _annotated(function: Callable[..., Any]) -> tuple[tuple[str, tuple[Any, ...], Any], ...]:
    """Name, admitted kinds and default of each argument whose annotation says more than "any object"."""
    hints: dict[str, Any] = {}
    if isinstance(function, type):
        hints.update(_hints(function))
        function = function.__init__
    hints.update(_hints(function))
    rows = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in hints and parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            kinds = tuple(_members(hints[parameter.name]))
            if not any(_is_open(kind) for kind in kinds):
                rows.append((parameter.name, kinds, parameter.default))
    return tuple(rows)


def _hints(source: Any) -> dict[str, Any]:
    """The resolved annotations; without those that name what does not exist at run time."""
    if (hints := _resolved(source)) is not None:
        return hints
    hints = {}
    for name, annotation in getattr(source, "__annotations__", {}).items():
        single = types.SimpleNamespace(__annotations__={name: annotation})
        hints |= _resolved(single, getattr(source, "__globals__", {})) or {}
    return hints


def _resolved(source: Any, names: dict[str, Any] | None = None) -> dict[str, Any] | None:
    try:
        return typing.get_type_hints(source, names)
    except (NameError, TypeError, AttributeError):
        return None


def _members(hint: Any) -> list[Any]:
    """The members of a union, at any depth; any other hint is its own only member."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [member for part in typing.get_args(hint) for member in _members(part)]
    return [hint]


def _is_open(kind: Any) -> bool:
    """Whether a kind admits everything, or arrays, which `as_tensor` converts or refuses."""
    return kind in (Any, object, np.ndarray) or isinstance(kind, (TypeVar, str)) or kind is Ellipsis


def _fits(value: Any, kind: Any) -> bool:
    origin = typing.get_origin(kind) or kind
    if not isinstance(origin, type):
        return True
    if origin in (int, float):  # `check_integer` tells numbers from integers
        return isinstance(value, numbers.Real) and not isinstance(value, bool)
    if origin is collections.abc.Callable:
        return callable(value)
    if _is_sequence_kind(kind):
        return _is_sequence(value, [a for a in typing.get_args(kind) if a is not Ellipsis])
    if origin is os.PathLike:
        return isinstance(value, os.PathLike)
    return isinstance(value, origin)


def _is_sequence_kind(kind: Any) -> bool:
    origin = typing.get_origin(kind) or kind
    return (
        isinstance(origin, type) and issubclass(origin, (tuple, list, collections.abc.Sequence)) and origin is not str
    )


def _is_sequence(value: Any, kinds: list[Any]) -> bool:
    members = [member for kind in kinds for member in _members(kind)]
    if isinstance(value, (np.ndarray, Tensor)):  # an axis of numbers, which the reader turns into a tuple
        real = (
            value.dtype.kind in "iuf" if isinstance(value, np.ndarray) else not value.is_complex() and has_values(value)
        )
        return real and value.ndim == 1 and (float in members or int in members)
    if not isinstance(value, collections.abc.Sequence) or isinstance(value, (str, bytes)):
        return False
    if not members or any(map(_is_open, members)):
        return True
    return all(any(_fits(int(v) if isinstance(v, bool) and m is not bool else v, m) for m in members) for v in value)


def _described(kinds: tuple[Any, ...]) -> str:
    names = dict.fromkeys(_description(kind) for kind in kinds if kind is not types.NoneType)
    return " or ".join(names)


def _description(kind: Any) -> str:
    origin, entries = typing.get_origin(kind) or kind, [a for a in typing.get_args(kind) if a is not Ellipsis]
    if origin in _NAMED:
        return _NAMED[origin]
    if origin is collections.abc.Callable:
        return "a function"
    if issubclass(origin, collections.abc.Mapping):
        return "a mapping"
    if issubclass(origin, (tuple, list, collections.abc.Sequence, collections.abc.Iterable)):
        plural = {"a number": "numbers", "an integer": "integers", "a text": "texts", "True or False": "bools"}
        members = {plural.get(_description(m), "objects") for entry in entries for m in _members(entry)}
        return f"a {'tuple' if origin is tuple else 'sequence'} of {' or '.join(sorted(members)) or 'objects'}"
    return f"{'an' if origin.__name__[0] in 'AEIO' else 'a'} {origin.__name__}"


def _received(value: Any) -> str:
    if isinstance(value, (type, str, bytes, int, float, complex, types.NoneType)):
        return repr(value) if len(repr(value)) < 80 else f"a long {type(value).__name__}"
    if isinstance(value, (list, tuple)) and len(repr(value)) < 60:
        return repr(value)
    return f"{type(value).__name__}"


def _remedy(value: Any, kinds: tuple[Any, ...], default: Any) -> str:
    classes = tuple(kind for kind in kinds if isinstance(kind, type))
    if isinstance(value, (int, float)) and any(_is_sequence_kind(kind) for kind in kinds):
        return f"write ({value},)."
    if any(map(_is_own_class, classes)):
        names = [value.__name__] if isinstance(value, type) and issubclass(value, classes) else []
        names += [name for kind in classes for name in _examples(kind)]
        return f"pass an object, not its class or name{f', such as {names[0]}(…)' if names else ''}."
    if default is not None and len(repr(default)) < 80 and not isinstance(default, type) and "<" not in repr(default):
        return f"the default is {default!r}."
    if bool in kinds and all(kind in (bool, types.NoneType) for kind in kinds):
        return "pass one of the two."
    if all(kind in (int, float, bool, types.NoneType) for kind in kinds):
        return "pass one number."
    if torch.Generator in classes:
        return "write torch.Generator().manual_seed(0)."
    if any(_is_sequence_kind(kind) for kind in kinds):
        return "pass a tuple or a list."
    return "pass such an object."


def _is_own_class(kind: type) -> bool:
    return kind.__module__.startswith("scoresde.")


def _examples(kind: type) -> list[str]:
    """Names of the classes of this package that an object of this kind may have."""
    concrete = [kind] if _is_own_class(kind) and not inspect.isabstract(kind) else []
    return [cls.__name__ for cls in concrete] + [name for cls in kind.__subclasses__() for name in _examples(cls)]


def refuse_signature(
    net: Any, cond: Mapping[str, object], error: TypeError, inputs: tuple[str, ...] = ("x", "log_snr")
) -> None:
    """Explains a failed call of a network whose ``forward`` does not take its inputs and the conditioning.

    Args:
        net: The network.
        cond: The conditions it was called with.
        error: What it raised.
        inputs: Names of its positional inputs.

    Raises:
        TypeError: If the signature of ``forward`` does not fit; it states the one that does.
    """
    try:
        inspect.signature(net.forward).bind(*inputs, **cond)
    except TypeError as mismatch:
        names = ", ".join([*inputs, *cond])
        raise TypeError(
            f"a network must be called as net({names}), got {type(net).__name__} with forward"
            f"{inspect.signature(net.forward)} ({mismatch}); write a module that takes these arguments."
        ) from error
    except ValueError:  # no signature can be read
        return
