"""Released samplers of other libraries: a name, and a function from start to end with a limit of network calls."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from race.problems import Oracle

__all__ = ["Peer", "released"]


@dataclass(frozen=True)
class Peer:
    """A configuration of a released library.

    Attributes:
        name: Library, sampler, settings and spacing of the noise levels.
        run: Maps (network, initial state, network calls, generator) to the final state, both in VP coordinates.
        custom_spacing: Whether the library does not ship the spacing.
        min_calls: Smallest number of network calls.
    """

    name: str
    run: Callable[[Oracle, Tensor, int, torch.Generator | None], Tensor]
    custom_spacing: bool = False
    min_calls: int = 1


def released(name: str) -> Any:
    """Imports module ``name``, which the extra "benchmark" installs."""
    sys.modules.setdefault("torchvision", None)  # pyright: ignore[reportArgumentType] -- PyPI's does not fit torch here
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SystemExit(f"{name} is not installed; pip install -e '.[benchmark]' -c constraints.txt") from error
