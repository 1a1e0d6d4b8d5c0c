"""Which small pieces do several networks share?"""

from __future__ import annotations

from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


def zeroed(layer: Layer) -> Layer:
    """The layer, starting as the map to zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
