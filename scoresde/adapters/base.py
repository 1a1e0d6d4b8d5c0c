"""Base class of adapters: networks `net(x, log_snr)` that call another network with its own arguments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from scoresde._core.annotations import refuse_signature
from scoresde._core.checks import check_kind
from scoresde.nn._network_wrapper import NetworkWrapper

__all__ = ["Adapter", "Given", "unwrapped"]


class Adapter(NetworkWrapper, ABC):
    """A foreign network, ``net``, as a network of this package. Subclasses convert the inputs, in `inputs`.

    Conditions are passed on by name. The output is unwrapped, see `unwrapped`.

    Attributes:
        converts_time: Whether it takes log-SNR, so that it goes around no other such adapter.
    """

    net: nn.Module
    converts_time: ClassVar[bool] = True

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        check_kind("net", net, nn.Module)
        if self.converts_time and getattr(net, "converts_time", False):
            raise TypeError(
                f"net must take the time of its own code base, got {type(net).__name__}, an adapter that takes "
                "log-SNR; leave one of the adapters out."
            )
        self.net = net

    @abstractmethod
    def inputs(self, x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """The state and the time as the foreign network takes them.

        Args:
            x: State in x, ``(B, *D)``.
            log_snr: Log-SNR, ``(B,)`` float32.

        Returns:
            Its first argument, ``(B, *D)`` in the type of ``x``, and its second, ``(B,)``.
        """

    def output(self, out: Tensor, log_snr: Tensor) -> Tensor:
        """The output in the parameterization of the model; default unchanged.

        Args:
            out: Unwrapped output of the foreign network, ``(B, *D)`` or with twice the channels.
            log_snr: Log-SNR, ``(B,)`` float32.
        """
        return out

    def forward(self, x: Tensor, log_snr: Tensor, **cond: Tensor) -> Tensor:
        """The output at ``(x, log_snr)``, ``(B, *D)``; ``cond`` is passed to the foreign network by name."""
        return self.output(unwrapped(self.call_net(*self.inputs(x, log_snr), **cond)), log_snr)

    def call_net(self, x: Tensor, t: Tensor, **cond: Tensor) -> object:
        """What the foreign network returns, not unwrapped; a call that its ``forward`` does not take is explained.

        Args:
            x: State as it takes it, ``(B, *D)``.
            t: Its time or noise level, ``(B,)``.
            **cond: Passed by name.

        Raises:
            TypeError: If it does not take these arguments.
        """
        try:
            return self.net(x, t, **cond)
        except TypeError as error:
            refuse_signature(self.net, cond, error, ("x", "t"))
            raise


@dataclass(eq=False, repr=False)
class Given(nn.Module):
    """Stands for a network without a text form in a stored model; ``load(path, net=…)`` puts the user's in its place.

    Args:
        class_name: The network's class.
    """

    class_name: str

    def __post_init__(self) -> None:
        super().__init__()

    def forward(self, *inputs: object, **cond: object) -> Tensor:
        raise RuntimeError(
            f"the weights of this model belong to a network of the class {self.class_name}, which is not part of this "
            f"package; build it and pass it: load(path, net={self.class_name}(…))."
        )


def unwrapped(out: object) -> Tensor:
    """The tensor in a network's output: the output itself, its member ``sample``, or the first entry of a tuple.

    Args:
        out: What the network returned.

    Raises:
        TypeError: If there is no tensor in it.
    """
    value = getattr(out, "sample", out)
    if isinstance(value, (tuple, list)) and value:
        value = value[0]
    if not isinstance(value, Tensor):
        raise TypeError(
            f"the network must return a tensor, a tuple whose first entry is one, or an object with a member `sample`; "
            f"got {type(out).__name__}. Wrap it in a module that returns the tensor."
        )
    return value
