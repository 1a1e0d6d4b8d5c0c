"""`Label`: a network that takes its class as integers under another name, called with ``label``."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scoresde.adapters._class_adapter import ClassAdapter

__all__ = ["Label"]


@dataclass(eq=False, repr=False, init=False)
class Label(ClassAdapter):
    """Calls ``net(x, t, y=label)``, or with another keyword in place of ``y``.

    Args:
        net: The network.
        count: Number of classes.
        keyword: Name by which the network takes the classes, ``(B,)`` integers.
        null: Whether the label ``count`` is one of the network, for no class.
        drop: Name of an argument of ``net``, the probability of dropping the class at random, which is set to 0; empty
            if the network has no such argument.

    Raises:
        TypeError: If ``net`` is not a module.
        ValueError: If ``count`` is not a positive integer.
    """

    net: nn.Module
    count: int
    keyword: str = "y"
    null: bool = False
    drop: str = ""

    def __init__(self, net: nn.Module, count: int, keyword: str = "y", null: bool = False, drop: str = "") -> None:
        super().__init__(net, count)
        self.keyword, self.null, self.drop = keyword, null, drop

    def class_input(self, label: Tensor | None, x: Tensor) -> dict[str, object]:
        if label is None:
            label = torch.full((len(x),), self.count, device=x.device)
        return {self.keyword: label, **({self.drop: 0.0} if self.drop else {})}
