"""`OneHot`: a network whose class enters as a one-hot vector, called with the integer ``label``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scoresde._core.checks import check_integer, check_kind
from scoresde.nn._network_wrapper import NetworkWrapper
from scoresde.nn.conditions import Classes, Condition

__all__ = ["OneHot"]


@dataclass(eq=False, repr=False, init=False)
class OneHot(NetworkWrapper):
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

    net: nn.Module
    count: int
    keyword: str = "class_labels"

    def __init__(self, net: nn.Module, count: int, keyword: str = "class_labels") -> None:
        super().__init__()
        check_kind("net", net, nn.Module)
        check_integer("count", count)
        self.net, self.count, self.keyword = net, count, keyword

    @property
    def conditions(self) -> Mapping[str, Condition]:
        """One class, ``label``."""
        return {"label": Classes(self.count)}

    def cond_reader(self) -> Callable[..., object]:
        """`forward`, which takes ``label``."""
        return self.forward

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> object:
        """The output of the network.

        Args:
            x: State as the network takes it, ``(B, *D)``.
            t: Time or noise level as the network takes it, ``(B,)``.
            label: Integers in 0 … ``count``, ``(B,)``; default all null.
        """
        if label is None:
            vectors = torch.zeros(len(x), self.count, device=x.device)
        else:
            Classes(self.count).check("label", label, len(x))
            vectors = torch.nn.functional.one_hot(label.long(), self.count + 1)[:, :-1].float()
        return self.net(x, t, **{self.keyword: vectors})
