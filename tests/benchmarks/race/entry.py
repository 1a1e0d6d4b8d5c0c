"""What is an entrant? A name and a run from u = 1 to u = 1e-3 that makes no more network calls than it may."""

from __future__ import annotations

import importlib
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
        name: Library, sampler, settings and spacing.
        run: From (network, start in VP coordinates, network calls, generator) to the end in VP coordinates.
        lent: Whether the spacing is one that the library does not ship.
        least: Fewest calls with which it runs.
    """

    name: str
    run: Callable[[Oracle, Tensor, int, torch.Generator | None], Tensor]
    lent: bool = False
    least: int = 1


def released(name: str) -> Any:
    """The module ``name`` of the benchmark extra."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise SystemExit(f"{name} is missing; pip install -e '.[benchmark]' -c constraints.txt") from error
