"""`Label`: a network that takes its class as integers under another name, called with ``label``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scoresde._core.checks import check_integer
from scoresde._core.tensors import has_values
from scoresde.adapters.base import Adapter, unwrapped
from scoresde.nn.conditions import Classes, Condition

__all__ = ["Label"]


@dataclass(eq=False, repr=False, init=False)
class Label(Adapter):
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
        super().__init__(net)
        check_integer("count", count)
        self.count, self.keyword, self.null, self.drop = count, keyword, null, drop

    @property
    def conditions(self) -> Mapping[str, Condition]:
        """One class, ``label``."""
        return {"label": Classes(self.count, self.null)}

    def cond_reader(self) -> Callable[..., object]:
        """`forward`, which takes ``label``."""
        return self.forward

    def inputs(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return x, t

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The output of the network.

        Args:
            x: State as the network takes it, ``(B, *D)``.
            t: Time or noise level as the network takes it, ``(B,)``.
            label: Integers in 0 … ``count`` - 1, or ``count`` for null where there is one, ``(B,)``; default all null.

        Raises:
            ValueError: If a label is out of range, or is missing and the network has no null class.
        """
        if label is None:
            if not self.null:
                raise ValueError(
                    f"the network has {self.count} classes and no null, got no class; pass label=…, integers (B,)."
                )
            label = torch.full((len(x),), self.count, device=x.device)
        Classes(self.count).check("label", label, len(x))
        self._check_range(label)
        fixed = {self.drop: 0.0} if self.drop else {}
        return unwrapped(self.call_net(*self.inputs(x, t), **{self.keyword: label}, **fixed))  # pyright: ignore[reportArgumentType]

    def _check_range(self, label: Tensor) -> None:
        """Refuses labels out of range; on the CPU only, since the values of a device are not read in a loop."""
        last = self.count if self.null else self.count - 1
        if label.device.type == "cpu" and has_values(label) and bool(((label < 0) | (label > last)).any()):
            raise ValueError(
                f"label must lie in 0 … {last}, got {int(label.min())} … {int(label.max())}; pass the classes that the "
                "network was trained on."
            )
