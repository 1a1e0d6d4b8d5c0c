"""Parsing of text forms: a syntax tree of literals and of calls of known classes, and nothing else."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import re
import types
import typing
from collections.abc import Hashable, Mapping
from typing import Any

from scoresde._core.annotations import check_arguments
from scoresde._core.suggest import nearest
from scoresde.storage.spec.classes import Known, classes_of, describe_hint, field_hints, fits
from scoresde.storage.spec.writer import MAX_DEPTH, MAX_LENGTH, shortened

__all__ = ["parse"]

_RULE = "a setting is made of literals and of calls of known classes"
_REMEDY = "write it as in Python, e.g. MinSNR(gamma=5), without operators or attributes."
_NAMED = {"inf": math.inf, "nan": math.nan}
_MISPLACED = {*(("value", b) for b in ("value", "close")), *(("minus", b) for b in ("value", "close", "minus"))}
_MISPLACED |= {("open", "close"), ("open", "minus")}  # a()() and -(1) are not settings, and chains of them nest deeply
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r\n]+)
      | (?P<value>[^\W\d]\w* | (\d[\d_]{0,400}\.?\d*|\.\d+)([eE][+-]?\d+)?
                | '([^'\\\n\0]|\\.)*' | "([^"\\\n\0]|\\.)*")
      | (?P<open>[(\[{]) | (?P<close>[)\]}]) | (?P<minus>-) | (?P<mark>[,=:])""",
    re.VERBOSE,
)


def parse(
    text: str,
    known: Known,
    *,
    kind: type | None = None,
    missing: Mapping[str, object] | None = None,
    stored: bool = False,
) -> Any:
    """The object that `text` writes, e.g. `MinSNR(gamma=5)`; a bare name `Simple` means `Simple()`.

    Args:
        text: A call of a known class with positional or keyword arguments, or a literal; calls nest.
        known: Name -> class that may be called, see `known_classes`. Nothing else is ever called.
        kind: Class that the result must be an instance of. A field is checked against its annotation in the same way,
            but elements of containers are not. The annotation also chooses between two classes of one name.
        missing: Field -> value for each call, nested ones too, of a class that has the field if the text leaves it
            out, e.g. ``{"event_shape": (1, 8, 8)}``; ``"MLP.event_shape"`` counts for that class, before the former.
        stored: The text was written by `to_text`, perhaps of an earlier version: fields that a class lists in
            ``former_fields`` are read too, and its class method ``upgraded`` turns them into settings of this version.

    Returns:
        The object. Constructors of known classes run, with the checks that they make.

    Raises:
        ValueError: If the text is not of this form, too long or too deep; if it names an unknown class or field (the
            message lists the valid ones and the nearest); if a constructor refuses its arguments.
        TypeError: If an object or value is not of the type `kind`, or of the field's annotation.
    """
    if not isinstance(text, str):
        raise TypeError(f"a setting must be given as text, got a {type(text).__name__}; write e.g. 'MinSNR(gamma=5)'.")
    check_arguments(parse, {"known": known, "missing": missing, "stored": stored})
    for name, cls in known.items():
        if not isinstance(cls, (type, tuple)):
            raise TypeError(f"known must map names to classes, got {cls!r} for {name!r}; see known_classes(module).")
    text = text.strip()
    _check_tokens(text)
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{_RULE}, got {shortened(text)!r} ({error}); {_REMEDY}") from error
    return _Reader(text, known, missing or {}, stored).read(tree, Any if kind is None else kind, "")


def _check_tokens(text: str) -> None:
    """Refuses text that is too long, too deep, or no literal or call, before Python's parser reads it."""
    if len(text) > MAX_LENGTH:
        raise ValueError(f"a setting must have at most {MAX_LENGTH} characters, got {len(text)}; shorten it.")
    depth, position, previous = 0, 0, "open"
    while position < len(text):
        token = _TOKEN.match(text, position)
        group = (token and token.lastgroup) or ""
        if token is None or (group, previous) in _MISPLACED:
            wrong = text[position : position + 20]
            raise ValueError(f"{_RULE}, got {wrong!r} at character {position} of {shortened(text)!r}; {_REMEDY}")
        depth += (group == "open") - (group == "close")
        if depth > MAX_DEPTH:
            raise ValueError(f"a setting must nest at most {MAX_DEPTH} deep, got {shortened(text)!r}; flatten it.")
        position, previous = token.end(), previous if group == "space" else group


@dataclasses.dataclass(frozen=True)
class _Reader:
    """Turns the syntax tree of `text` into an object; `hint` is an expected annotation, `path` the field it is of."""

    text: str
    known: Known
    missing: Mapping[str, object]
    stored: bool

    def read(self, node: ast.expr, hint: Any, path: str) -> Any:
        value = self._value(node, hint, path)
        if not fits(type(value), hint):
            what = path or "the setting"
            raise TypeError(f"{what} must be {describe_hint(hint)}, got {self._source(node)}; {self._choices(hint)}")
        return value

    def _value(self, node: ast.expr, hint: Any, path: str) -> Any:
        if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float, str, types.NoneType)):
            return node.value
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -self.read(node.operand, float, f"what follows '-' in {path or 'the text'}")
        if isinstance(node, (ast.Tuple, ast.List)):
            values = [self.read(item, Any, f"{path}[{i}]") for i, item in enumerate(node.elts)]
            return values if isinstance(node, ast.List) else tuple(values)
        if isinstance(node, ast.Dict):
            pairs, kinds = (
                [(k, v) for k, v in zip(node.keys, node.values, strict=True) if k is not None],
                _entries(hint),
            )
            return {self.read(k, Hashable, f"a key of {path}"): self.read(v, kinds, path) for k, v in pairs}
        if isinstance(node, ast.Name) and node.id in _NAMED:
            return _NAMED[node.id]
        call = node if isinstance(node, ast.Call) else ast.Call(node, [], [])
        if isinstance(call.func, ast.Name):
            return self._call(call, call.func.id, hint, self._source(node))
        raise ValueError(f"{_RULE}, got {self._source(node)}; {_REMEDY}")

    def _call(self, call: ast.Call, name: str, hint: Any, source: str) -> Any:
        cls = self._class(name, hint)
        fields = inspect.signature(cls).parameters
        former = getattr(cls, "former_fields", ()) if self.stored else ()
        arguments = self._arguments(call, name, [*fields, *former], source)
        bound = {n: v for n, v in self.missing.items() if n in fields and n not in arguments}
        own = {n: self.missing[f"{name}.{n}"] for n in fields if f"{name}.{n}" in self.missing and n not in arguments}
        bound |= own
        absent = [n for n, p in fields.items() if p.default is p.empty and n not in arguments and n not in bound]
        if absent:
            raise ValueError(f"{name} needs {', '.join(absent)}, got {source}; write {name}({absent[0]}=...).")
        hints = field_hints(cls)
        settings = {n: self.read(v, hints.get(n, Any), f"{name}.{n}") for n, v in arguments.items()}
        if any(n in former for n in settings):
            settings = cls.upgraded(settings)
        try:
            return cls(**settings, **bound)
        except (ValueError, TypeError, ArithmeticError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{error} (in {source})") from error

    def _arguments(self, call: ast.Call, name: str, fields: list[str], source: str) -> dict[str, ast.expr]:
        """Field -> syntax tree of its value in a call."""
        keywords = [str(k.arg) for k in call.keywords]
        for unknown in (n for n in keywords if n not in fields):
            raise ValueError(f"{name} has no field {unknown!r}; {nearest(unknown, fields)}")
        names = [*fields[: len(call.args)], *keywords]
        if len(call.args) > len(fields) or len(set(names)) < len(names):
            raise ValueError(f"{name} takes each of ({', '.join(fields)}) once, got {source}; write field=value.")
        return dict(zip(names, [*call.args, *(k.value for k in call.keywords)], strict=True))

    def _class(self, name: str, hint: Any) -> type:
        if name not in self.known:
            what = describe_hint(hint).partition(" ")[2]
            raise ValueError(f"no {what} is named {name!r}; {nearest(name, self._names(hint))}")
        fitting = [c for c in classes_of(self.known[name]) if fits(c, hint)]
        if not fitting:
            raise TypeError(f"the setting must be {describe_hint(hint)}, got {name}; {self._choices(hint)}")
        if len(fitting) > 1:
            both = ", ".join(f"{c.__module__}.{c.__qualname__}" for c in fitting)
            raise ValueError(f"a name must mean one class, {name} means {both}; pass the kind that is wanted.")
        return fitting[0]

    def _names(self, hint: Any) -> list[str]:
        return [n for n, entry in self.known.items() if any(fits(c, hint) for c in classes_of(entry))]

    def _choices(self, hint: Any) -> str:
        return f"choose from: {', '.join(sorted(self._names(hint))) or 'values of that type'}."

    def _source(self, node: ast.expr) -> str:
        return shortened(ast.get_source_segment(self.text, node) or self.text)


def _entries(hint: Any) -> Any:
    """The annotation of a mapping's values; `Any` if it states none."""
    kinds = typing.get_args(hint)
    is_mapping = typing.get_origin(hint) in (dict, Mapping)
    return kinds[1] if is_mapping and len(kinds) == 2 else Any
