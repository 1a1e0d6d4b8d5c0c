"""`NetworkWrapper`: base class of networks that wrap an inner network and take over its declared properties."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from scoresde._core.annotations import CheckedArguments, refuse_signature
from scoresde._core.foreign_networks import inner_network
from scoresde._core.peer_keywords import network_reader
from scoresde.nn.conditions import Condition

__all__ = ["NetworkWrapper"]


class NetworkWrapper(CheckedArguments, nn.Module):
    """A network around an inner one, ``net``, with the same event shape, log-SNR range, conditions and augmentation."""

    net: nn.Module

    @property
    def event_shape(self) -> tuple[int, ...] | None:
        """Event shape of the inner network; None if it declares none."""
        return getattr(inner_network(self.net), "event_shape", None)

    @property
    def log_snr_range(self) -> tuple[float, float]:
        """Log-SNR range of the inner network in nats; (-20, 20) if it declares none."""
        return getattr(inner_network(self.net), "log_snr_range", None) or (-20.0, 20.0)

    @property
    def conditions(self) -> Mapping[str, Condition]:
        """Conditions of the inner network by name; empty if it declares none."""
        return getattr(inner_network(self.net), "conditions", {})

    def cond_reader(self) -> Callable[..., object]:
        """The function whose signature names the conditioning: that of the innermost network."""
        return network_reader(self.net)

    @property
    def augment(self) -> int:
        """Number of augmentation parameters that the inner network reads; 0 if it declares none."""
        return getattr(inner_network(self.net), "augment", 0)

    @property
    def delta(self) -> bool:
        """Whether the inner network reads the angle of a jump."""
        return bool(getattr(inner_network(self.net), "delta", False))

    def _inner_output(self, x: Tensor, log_snr: Tensor, **inputs: Tensor | None) -> Tensor:
        """Output of the inner network, which receives only those inputs that are not None."""
        given = {name: value for name, value in inputs.items() if value is not None}
        try:
            return self.net(x, log_snr, **given)
        except TypeError as error:
            refuse_signature(self.net, given, error)
            raise
