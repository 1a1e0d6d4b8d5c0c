"""Concrete subclasses of a base class in the package, for tests that cover every one."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import scoresde

__all__ = ["concrete"]


def concrete(base: type) -> list[Any]:
    """All subclasses of ``base`` in the package, at any depth, that are not abstract, sorted by name."""
    for module in pkgutil.walk_packages(scoresde.__path__, "scoresde."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    classes, pending = set(), [base]
    while pending:
        cls = pending.pop()
        pending += cls.__subclasses__()
        if not inspect.isabstract(cls) and cls.__module__.startswith("scoresde."):
            classes.add(cls)
    return sorted(classes, key=repr)
