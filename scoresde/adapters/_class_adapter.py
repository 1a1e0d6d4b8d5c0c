"""Base class of adapters of the class: the condition ``label``, integers 0 … count - 1, and count for no class."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping

from torch import Tensor, nn

from scoresde._core.checks import check_integer
from scoresde._core.tensors import has_values
from scoresde.adapters.base import Adapter, unwrapped
from scoresde.nn.conditions import Classes, Condition

__all__ = ["ClassAdapter"]


class ClassAdapter(Adapter):
    """A network that reads a class otherwise than as ``label``. Subclasses define `class_input`.

    It goes inside an adapter of the time, so its state and time are those of the foreign network.
    """

    converts_time = False
    count: int
    null: bool

    def __init__(self, net: nn.Module, count: int) -> None:
        super().__init__(net)
        check_integer("count", count)
        self.count = count

    @property
    def conditions(self) -> Mapping[str, Condition]:
        """One class, ``label``."""
        return {"label": Classes(self.count, self.null)}

    def cond_reader(self) -> Callable[..., object]:
        """`forward`, which takes ``label``."""
        return self.forward

    def inputs(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        return x, t

    @abstractmethod
    def class_input(self, label: Tensor | None, x: Tensor) -> dict[str, object]:
        """The keyword arguments of the network for a checked label, ``(B,)``, or for no class in the batch of ``x``."""

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The output of the network.

        Args:
            x: State as the network takes it, ``(B, *D)``.
            t: Time or noise level as the network takes it, ``(B,)``.
            label: Integers in 0 … ``count`` - 1, ``(B,)``, or ``count`` for no class where the network has a null;
                default no class.

        Raises:
            ValueError: If a label is out of range, or no class is given to a network without a null.
        """
        if label is None and not self.null:
            raise ValueError(
                f"the network has {self.count} classes and no null, got no class; pass label=…, integers (B,)."
            )
        if label is not None:
            Classes(self.count).check("label", label, len(x))
            self._check_range(label)
        return unwrapped(self.call_net(*self.inputs(x, t), **self.class_input(label, x)))  # pyright: ignore[reportArgumentType]

    def _check_range(self, label: Tensor) -> None:
        """Refuses labels out of range; on the CPU only, since the values of a device are not read in a loop."""
        last = self.count if self.null else self.count - 1
        if label.device.type == "cpu" and has_values(label) and bool(((label < 0) | (label > last)).any()):
            null = ", the last of which is null" if self.null else ""
            raise ValueError(
                f"label must lie in 0 … {last}{null}, got {int(label.min())} … {int(label.max())}; pass the classes "
                "that the network was trained on."
            )
