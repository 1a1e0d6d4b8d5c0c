"""Suggestions for error messages: the valid name nearest to an unknown one, and the module in which a name lives."""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["closest", "homes", "nearest", "unknown_name"]


def closest(name: str, names: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The one of ``names`` nearest to ``name``, as a whole or by its beginning; the case of letters does not count.

    Returns:
        None where none is near.
    """
    names, asked = sorted(names), name.lower()
    for length in (None, len(name)):
        short = [n.lower()[:length] for n in names]
        matches = difflib.get_close_matches(asked, short, n=1, cutoff=cutoff if length is None else 0.8)
        if matches:
            return names[short.index(matches[0])]
    return None


def nearest(name: str, names: Iterable[str]) -> str:
    """A sentence for error messages: the name nearest to ``name``, where one is near, and all the valid ones.

    Args:
        name: What the caller asked for.
        names: The valid names.

    Returns:
        E.g. ``did you mean MinSNR? Valid: MinSNR, Simple.``.
    """
    names = sorted(names)
    match = closest(name, names)
    guess = f"did you mean {match}? " if match else ""
    return f"{guess}Valid: {', '.join(names) or 'none'}."


def unknown_name(what: str, name: str, names: Iterable[str]) -> str:
    """The text of an error about an unknown name: the nearest one, and all the valid ones.

    Args:
        what: What is named, such as ``"column"``.
        name: What the caller asked for.
        names: The valid names.
    """
    return f"unknown {what} {name!r}; {nearest(name, names)}"


def homes() -> dict[str, str]:
    """Each public name of the package, and the shortest module that exports it; read from the sources, not imported."""
    root = Path(__file__).parents[1]
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*.py"), key=lambda path: (len(path.parts), path.name != "__init__.py", path)):
        parts = path.relative_to(root.parent).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if any(part.startswith("_") for part in parts):
            continue
        for name in _exports(path):
            found.setdefault(name, ".".join(parts))
    return found


def _exports(path: Path) -> list[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "__all__":
            try:
                return list(ast.literal_eval(node.value))
            except ValueError:  # made from other lists
                return []
    return []
