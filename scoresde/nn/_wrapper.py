"""What does a network say of itself that stands around another? What the inner one says."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["NetworkWrapper"]


class NetworkWrapper(nn.Module):
    """A network around an inner one, ``net``, whose statements about shapes, noise levels and labels are its own."""

    net: nn.Module

    @property
    def event_shape(self) -> tuple[int, ...] | None:
        """The inner network's, where it states one."""
        return getattr(self.net, "event_shape", None)

    @property
    def log_snr_range(self) -> tuple[float, float]:
        """The inner network's; (-20, 20) nats where it states none."""
        return getattr(self.net, "log_snr_range", None) or (-20.0, 20.0)

    @property
    def num_classes(self) -> int | None:
        """The inner network's, where it states one."""
        return getattr(self.net, "num_classes", None)

    @property
    def null_label(self) -> int | None:
        """The inner network's, where it states one."""
        return getattr(self.net, "null_label", None)

    @property
    def augment(self) -> int:
        """The inner network's, 0 where it states none."""
        return getattr(self.net, "augment", 0)

    def _inner(self, x: Tensor, log_snr: Tensor, cond: Tensor | None, augment: Tensor | None) -> Tensor:
        """What the inner network gives; it is told of what is not None."""
        given = {name: value for name, value in (("cond", cond), ("augment", augment)) if value is not None}
        return self.net(x, log_snr, **given)
