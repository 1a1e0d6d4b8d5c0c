"""Diffusion models on the Ornstein–Uhlenbeck process: DDPM, score SDEs and probability-flow ODEs share one model.

The most used names are here; every other name is in its module. All are imported on first use, so that
``import scoresde`` is quick.

    import scoresde as sd

    model = sd.load("runs/digits")
    x = sd.sample(model, 64, sd.DDPM(steps=250)).data
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Any


def _public_names() -> dict[str, tuple[str, str]]:
    """Each public name, its module and its name there, as ``__init__.pyi`` lists them."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name: (node.module or "", alias.name) for node in imports for alias in node.names}


_NAMES = _public_names()
__all__ = [*_NAMES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("scoresde")
        except PackageNotFoundError:
            return "0+unknown"
    if name not in _NAMES:
        raise AttributeError(_unknown(name))
    module, attribute = _NAMES[name]
    if module == "scoresde":
        return importlib.import_module(f"scoresde.{attribute}")
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


def _unknown(name: str) -> str:
    text = f"module 'scoresde' has no attribute {name!r}"
    if name.startswith("_"):
        return text
    from scoresde._core.suggest import closest, public_names

    modules = {**public_names(), **dict.fromkeys(_NAMES, "scoresde")}
    if name in modules:
        return f"{text}; it is {modules[name]}.{name}."
    match = closest(name, modules, cutoff=0.6)
    guess = f"did you mean {modules[match]}.{match}? " if match else ""
    return f"{text}; {guess}dir(scoresde) lists the public names."
