"""How is an unknown name answered? With the nearest one that is known, and all of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["unknown"]


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The text of an error on ``name``, which is no ``what``."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {what} {name!r}{guess} Known: {', '.join(known)}."
