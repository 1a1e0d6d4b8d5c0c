r"""How is an object written as text, and read back without running any code?

The text of a setting is the Python call that makes it, `MinSNR(gamma=5)`, and `parse(to_text(x), known) == x`.
What can be written is a dataclass, a number, a string, `True`, `False`, `None`, `inf`, `nan`, and tuples, lists and
dicts of these, nested. Text is parsed, never evaluated: only classes in `known` are called, and whatever is not one of
these forms (operators, attributes, comprehensions ...) is refused. In JSON a setting is this text in a string.

Every init field is written, also where it equals its default, so that a default that changes later leaves a stored
run as it was.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import numbers
import re
import types
import typing
from abc import ABC
from collections.abc import Hashable, Mapping
from typing import Any

from scoresde._core.suggest import nearest

__all__ = ["MAX_DEPTH", "MAX_LENGTH", "Known", "known_classes", "parse", "to_text"]

MAX_LENGTH = 400_000
"""Longest text that is written or read, in characters; 1000 betas in double precision take about 22 000."""

MAX_DEPTH = 32
"""Deepest nesting of brackets that is written or read."""

Known = Mapping[str, "type | tuple[type, ...]"]
"""Name -> class, or the classes that share a name; its place then decides (`Sigmoid`: clock or weighting)."""

_RULE = "a setting is made of literals and of calls of known classes"
_REMEDY = "write it as in Python, e.g. MinSNR(gamma=5), without operators or attributes."
_NAMED = {"inf": math.inf, "nan": math.nan}
_MISPLACED = {*(("value", b) for b in ("value", "close")), *(("minus", b) for b in ("value", "close", "minus"))}
_MISPLACED |= {("open", "close"), ("open", "minus")}  # a()() and -(1) are no settings, and chains of them nest deep
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<value>[^\W\d]\w* | (\d[\d_]{0,400}\.?\d*|\.\d+)([eE][+-]?\d+)?
                | '([^'\\\n\0]|\\.)*' | "([^"\\\n\0]|\\.)*")
      | (?P<open>[(\[{]) | (?P<close>[)\]}]) | (?P<minus>-) | (?P<mark>[,=:])""",
    re.VERBOSE,
)


def to_text(obj: object) -> str:
    """The Python call that makes `obj`.

    Args:
        obj: A dataclass instance (an `nn.Module` too), a number, string, bool, None, or a tuple, list or dict of
            these, nested. Of a dataclass the init fields are written as they now are, and nothing else (no weights).

    Returns:
        Text that `parse` turns back into an equal object. Floats round-trip exactly, infinities and NaN included.

    Raises:
        TypeError: If a part of `obj` has no text form (a function, a tensor, a class that is not a dataclass).
        ValueError: If the text would be longer than `MAX_LENGTH` or nested deeper than `MAX_DEPTH`.
    """
    text = _write(obj, type(obj).__name__, MAX_DEPTH)
    if len(text) > MAX_LENGTH:
        raise ValueError(
            f"a text form must have at most {MAX_LENGTH} characters, that of this {type(obj).__name__} has "
            f"{len(text)}; keep bulk numbers in a file of their own."
        )
    return text


def _leaf(obj: Any) -> str | None:
    if obj is None or isinstance(obj, bool):
        return repr(obj)
    if isinstance(obj, str):
        return str.__repr__(obj)
    if isinstance(obj, numbers.Integral):
        return int.__repr__(int(obj))
    real = isinstance(obj, numbers.Real) and not isinstance(obj, numbers.Rational)
    return float.__repr__(float(obj)) if real else None


def _write(obj: Any, where: str, depth: int) -> str:
    leaf = _leaf(obj)
    if leaf is not None:
        return leaf
    if depth < 1:
        raise ValueError(f"a text form must nest at most {MAX_DEPTH} deep, got {_short(where)}; flatten it.")
    if type(obj) in (tuple, list):
        inside = ", ".join(_write(v, f"{where}[{i}]", depth - 1) for i, v in enumerate(obj))
        return f"[{inside}]" if type(obj) is list else f"({inside}{',' if len(obj) == 1 else ''})"
    if type(obj) is dict:
        pairs = [f"{_write(k, where, depth - 1)}: {_write(v, f'{where}[{k!r}]', depth - 1)}" for k, v in obj.items()]
        return "{" + ", ".join(pairs) + "}"
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        names = [f.name for f in dataclasses.fields(obj) if f.init]
        inside = ", ".join(f"{n}={_write(getattr(obj, n), f'{where}.{n}', depth - 1)}" for n in names)
        return f"{type(obj).__name__}({inside})"
    raise TypeError(
        f"what has a text form is a dataclass, number, string, None, tuple, list or dict; {where} is a "
        f"{type(obj).__module__}.{type(obj).__qualname__}; make its class a dataclass, or hold numbers in a tuple."
    )


def parse(text: str, known: Known, *, kind: type | None = None) -> Any:
    """The object that `text` writes, e.g. `MinSNR(gamma=5)`; a bare name `Simple` means `Simple()`.

    Args:
        text: A call of a known class with positional or keyword arguments, or a literal; calls nest.
        known: Name -> class that may be called, see `known_classes`. Nothing else is ever called.
        kind: Class that the result must be an instance of. A field is held to its annotation in the same way (what a
            container holds is not), so that a name which two classes share is the one that fits its place.

    Returns:
        The object. Constructors of known classes run, with the checks that they make.

    Raises:
        ValueError: If the text is not of this form, too long or too deep, or names an unknown class or field (the
            message lists the valid ones and the nearest), or if a constructor refuses its arguments.
        TypeError: If an object or value is of another type than `kind`, or the field's annotation, asks for.
    """
    if not isinstance(text, str):
        raise TypeError(f"a setting must be given as text, got a {type(text).__name__}; write e.g. 'MinSNR(gamma=5)'.")
    text = text.strip()
    _scan(text)
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{_RULE}, got {_short(text)!r} ({error}); {_REMEDY}") from error
    return _Reader(text, known).read(tree, Any if kind is None else kind, "")


def known_classes(*modules: types.ModuleType, kind: type | None = None) -> dict[str, type | tuple[type, ...]]:
    """Name -> class of the public, concrete dataclasses in `modules`: there is no registry to edit.

    Args:
        modules: Modules to look in. Public is what `__all__` lists, or what has no leading underscore.
        kind: Keep only its subclasses.

    Returns:
        Classes by name; a tuple of classes where different ones share a name. Abstract classes are left out: those
        with abstract methods, and those with `ABC` itself as a base.
    """
    found: dict[str, tuple[type, ...]] = {}
    for module in modules:
        for name in getattr(module, "__all__", [n for n in vars(module) if not n.startswith("_")]):
            cls = getattr(module, name)
            if not (isinstance(cls, type) and dataclasses.is_dataclass(cls) and issubclass(cls, kind or object)):
                continue
            if not inspect.isabstract(cls) and ABC not in cls.__bases__ and cls not in found.get(name, ()):
                found[name] = (*found.get(name, ()), cls)
    return {name: classes[0] if len(classes) == 1 else classes for name, classes in found.items()}


def _scan(text: str) -> None:
    """Refuses what is too long, too deep, or cannot be a literal or a call, before Python's own parser sees it."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a setting must have at most {MAX_LENGTH} characters, got {len(text)}; shorten it.")
    depth, at, before = 0, 0, "open"
    while at < len(text):
        token = _TOKEN.match(text, at)
        found = (token and token.lastgroup) or ""
        if token is None or (found, before) in _MISPLACED:
            raise ValueError(f"{_RULE}, got {text[at : at + 20]!r} at character {at} of {_short(text)!r}; {_REMEDY}")
        depth += (found == "open") - (found == "close")
        if depth > MAX_DEPTH:
            raise ValueError(f"a setting must nest at most {MAX_DEPTH} deep, got {_short(text)!r}; flatten it.")
        at, before = token.end(), before if found == "space" else found


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Turns the syntax tree of `text` into an object; `hint` is the annotation of a place, `where` its name."""

    text: str
    known: Known

    def read(self, node: ast.expr, hint: Any, where: str) -> Any:
        value = self._value(node, hint, where)
        if not _fits(type(value), hint):
            place = f"{where} must be" if where else "what is asked for is"
            raise TypeError(f"{place} {_kind(hint)}, got {self._source(node)}; {self._choices(hint)}")
        return value

    def _value(self, node: ast.expr, hint: Any, where: str) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str, types.NoneType)):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self.read(node.operand, float, f"what follows '-' in {where or 'the text'}")
        if isinstance(node, (ast.Tuple, ast.List)):
            values = [self.read(item, Any, f"{where}[{i}]") for i, item in enumerate(node.elts)]
            return values if isinstance(node, ast.List) else tuple(values)
        if isinstance(node, ast.Dict):
            pairs = [(k, v) for k, v in zip(node.keys, node.values, strict=True) if k is not None]
            return {self.read(k, Hashable, f"a key of {where}"): self.read(v, Any, where) for k, v in pairs}
        if isinstance(node, ast.Name) and node.id in _NAMED:
            return _NAMED[node.id]
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        if isinstance(call.func, ast.Name):
            return self._call(call, call.func.id, hint, self._source(node))
        raise ValueError(f"{_RULE}, got {self._source(node)}; {_REMEDY}")

    def _call(self, call: ast.Call, name: str, hint: Any, source: str) -> Any:
        cls = self._class(name, hint)
        parameters = inspect.signature(cls).parameters
        named = [str(k.arg) for k in call.keywords]
        for unknown in (n for n in named if n not in parameters):
            raise ValueError(f"{name} has no field {unknown!r}; {nearest(unknown, parameters)}")
        names = [*list(parameters)[: len(call.args)], *named]
        if len(call.args) > len(parameters) or len(set(names)) < len(names):
            raise ValueError(f"{name} takes each of ({', '.join(parameters)}) once, got {source}; write field=value.")
        missing = [n for n, p in parameters.items() if p.default is p.empty and n not in names]
        if missing:
            raise ValueError(f"{name} needs {', '.join(missing)}, got {source}; write {name}({missing[0]}=...).")
        hints = _hints(cls)
        nodes = [*call.args, *(k.value for k in call.keywords)]
        settings = {n: self.read(v, hints.get(n, Any), f"{name}.{n}") for n, v in zip(names, nodes, strict=True)}
        try:
            return cls(**settings)
        except (ValueError, TypeError, ArithmeticError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{error} (in {source})") from error

    def _class(self, name: str, hint: Any) -> type:
        if name not in self.known:
            raise ValueError(
                f"no {_kind(hint).partition(' ')[2]} is named {name!r}; {nearest(name, self._names(hint))}"
            )
        fitting = [c for c in _classes(self.known[name]) if _fits(c, hint)]
        if not fitting:
            raise TypeError(f"what is asked for is {_kind(hint)}, got {name}; {self._choices(hint)}")
        if len(fitting) > 1:
            where = ", ".join(f"{c.__module__}.{c.__qualname__}" for c in fitting)
            raise ValueError(f"a name must mean one class here, {name} means {where}; say which kind is wanted.")
        return fitting[0]

    def _names(self, hint: Any) -> list[str]:
        return [n for n, entry in self.known.items() if any(_fits(c, hint) for c in _classes(entry))]

    def _choices(self, hint: Any) -> str:
        return f"choose from: {', '.join(sorted(self._names(hint))) or 'values of that type'}."

    def _source(self, node: ast.expr) -> str:
        return _short(ast.get_source_segment(self.text, node) or self.text)


def _classes(entry: type | tuple[type, ...]) -> tuple[type, ...]:
    return entry if isinstance(entry, tuple) else (entry,)


def _hints(cls: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(cls if dataclasses.is_dataclass(cls) else cls.__init__)
    except (NameError, TypeError, AttributeError):  # annotations made for type checkers only: nothing to hold to
        return {}


def _options(hint: Any) -> tuple[Any, ...]:
    """The alternatives of a union, or the hint alone."""
    return typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def _fits(cls: type, hint: Any) -> bool:
    """Whether a `cls` may stand where `hint` is annotated: an int where a float may, a list where a tuple may.

    What a container holds is not looked at, and an annotation that is not made of classes fits everything.
    """
    for option in _options(hint):
        want = typing.get_origin(option) or option
        if want is Any or not isinstance(want, type) or (cls is int and want is float):
            return True
        if issubclass(cls, want) and not (cls is bool and want is int):
            return True
        if {cls, want} == {tuple, list}:
            return True
    return False


def _kind(hint: Any) -> str:
    """The hint as it reads in a message: `a Weighting`, `an int or None`, `a class` where anything goes."""
    names = ["class" if o is Any else getattr(o, "__name__", str(o)) for o in _options(hint)]
    text = " or ".join("None" if n == "NoneType" else n for n in names)
    return f"{'an' if text[0] in 'AEIOUaeiou' else 'a'} {text}"


def _short(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:80]} ... {text[-30:]}"
