"""Which classes must a contract test try? Every concrete one of the package, found through its base class."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import scoresde

__all__ = ["concrete"]


def concrete(base: type) -> list[Any]:
    """The package's classes that are no longer abstract, in whichever module they stand, by name."""
    for module in pkgutil.walk_packages(scoresde.__path__, "scoresde."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, left = set(), [base]
    while left:
        cls = left.pop()
        left += cls.__subclasses__()
        if not inspect.isabstract(cls) and cls.__module__.startswith("scoresde."):
            found.add(cls)
    return sorted(found, key=repr)
