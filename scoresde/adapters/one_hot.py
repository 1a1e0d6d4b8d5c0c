"""`OneHot`: a network whose class enters as a one-hot vector, called with the integer ``label``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from scoresde.adapters._class_adapter import ClassAdapter

__all__ = ["OneHot"]


@dataclass(eq=False, repr=False, init=False)
class OneHot(ClassAdapter):
    """Calls ``net(x, t, class_labels=one_hot)`` with the one-hot vector of ``label``.

    The null label, ``count``, is a vector of zeros, as EDM's networks were trained without a class.

    Args:
        net: The network.
        count: Number of classes.
        keyword: Name by which the network takes the vector, ``(B, count)`` float32.

    Raises:
        TypeError: If ``net`` is not a module.
        ValueError: If ``count`` is not a positive integer.
    """

    null: ClassVar[bool] = True
    net: nn.Module
    count: int
    keyword: str = "class_labels"

    def __init__(self, net: nn.Module, count: int, keyword: str = "class_labels") -> None:
        super().__init__(net, count)
        self.keyword = keyword

    def class_input(self, label: Tensor | None, x: Tensor) -> dict[str, object]:
        if label is None:
            return {self.keyword: torch.zeros(len(x), self.count, device=x.device)}
        return {self.keyword: (label[:, None] == torch.arange(self.count, device=label.device)).float()}
