"""Suggestions for error messages: the valid name nearest to an unknown one, and the module in which a name lives."""

from __future__ import annotations

import ast
import difflib
import functools
from collections.abc import Iterable
from pathlib import Path

__all__ = ["closest", "public_names", "nearest", "unknown_name"]


def closest(name: str, names: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The valid name most similar to ``name``, compared in full and then by its beginning, ignoring case.

    A name of the same letters in another order, as DDMP has those of DDPM, comes first.

    Args:
        name: The name that the caller passed.
        names: The valid names.
        cutoff: Least similarity of full names, in [0, 1]; beginnings need 0.8.

    Returns:
        The valid name; None if none is similar enough.
    """
    names = sorted(names)
    if swapped := [each for each in names if len(name) > 2 and sorted(each.lower()) == sorted(name.lower())]:
        return swapped[0]
    for length in (None, len(name)):
        candidates = [candidate.lower()[:length] for candidate in names]
        matches = difflib.get_close_matches(name.lower(), candidates, n=1, cutoff=cutoff if length is None else 0.8)
        if matches:
            return names[candidates.index(matches[0])]
    return None


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of an error message: the valid name nearest to ``name``, if one is near, and all valid names.

    Args:
        name: The name that the caller passed.
        names: The valid names.

    Returns:
        E.g. ``did you mean MinSNR? Valid: MinSNR, Simple.``.
    """
    names = sorted(names)
    match = closest(name, names)
    suggestion = f"did you mean {match}? " if match else ""
    return f"{suggestion}Valid: {', '.join(names) or 'none'}."


def unknown_name(what: str, name: str, names: Iterable[str]) -> str:
    """The text of an error about an unknown name: the nearest valid name and all valid names.

    Args:
        what: The kind of object named, such as ``"column"``.
        name: The name that the caller passed.
        names: The valid names.
    """
    return f"unknown {what} {name!r}; {nearest(name, names)}"


@functools.cache
def public_names() -> dict[str, str]:
    """Public names of the package and, for each, the shortest module path that exports it.

    The names are parsed from the source files; no module is imported.
    """
    root = Path(__file__).parents[1]
    modules: dict[str, str] = {}
    for path in sorted(root.rglob("*.py"), key=lambda path: (len(path.parts), path.name != "__init__.py", path)):
        parts = path.relative_to(root.parent).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if any(part.startswith("_") for part in parts):
            continue
        for name in _exports(path):
            modules.setdefault(name, ".".join(parts))
    return modules


def _exports(path: Path) -> list[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            try:
                return list(ast.literal_eval(node.value))
            except ValueError:  # not a literal list
                return []
    return []
