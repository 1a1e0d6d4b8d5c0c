"""Zero initialization of a layer, so that a residual branch or a network starts as the map to zero."""

from __future__ import annotations

from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


def zero_init(layer: Layer) -> Layer:
    """Sets all parameters of the layer to zero and returns it."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
