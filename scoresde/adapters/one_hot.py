"""`OneHot`: a network whose class enters as a one-hot vector, called with the integer ``label``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scoresde._core.checks import check_integer
from scoresde._core.tensors import has_values
from scoresde.adapters.base import Adapter, unwrapped
from scoresde.nn.conditions import Classes, Condition

__all__ = ["OneHot"]


@dataclass(eq=False, repr=False, init=False)
class OneHot(Adapter):
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
        super().__init__(net)
        check_integer("count", count)
        self.count, self.keyword = count, keyword

    @property
    def conditions(self) -> Mapping[str, Condition]:
        """One class, ``label``."""
        return {"label": Classes(self.count)}

    def cond_reader(self) -> Callable[..., object]:
        """`forward`, which takes ``label``."""
        return self.forward

    def inputs(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return x, t

    def _check_range(self, label: Tensor) -> None:
        """Refuses labels out of range; on the CPU only, since the values of a device are not read in a loop."""
        if label.device.type == "cpu" and has_values(label) and bool(((label < 0) | (label > self.count)).any()):
            raise ValueError(
                f"label must lie in 0 … {self.count}, the last of which is null, got {int(label.min())} … "
                f"{int(label.max())}; pass the classes that the network was trained on."
            )

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The output of the network.

        Args:
            x: State as the network takes it, ``(B, *D)``.
            t: Time or noise level as the network takes it, ``(B,)``.
            label: Integers in 0 … ``count``, ``(B,)``; default all null.

        Raises:
            ValueError: If a label is out of range.
        """
        if label is None:
            vectors = torch.zeros(len(x), self.count, device=x.device)
        else:
            Classes(self.count).check("label", label, len(x))
            self._check_range(label)
            vectors = (label[:, None] == torch.arange(self.count, device=label.device)).float()
        return unwrapped(self.call_net(*self.inputs(x, t), **{self.keyword: vectors}))
