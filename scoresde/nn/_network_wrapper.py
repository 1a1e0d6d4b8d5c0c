"""`NetworkWrapper`: base class of networks that wrap an inner network and take over its declared properties."""

from __future__ import annotations

from torch import Tensor, nn

from scoresde._core.annotations import CheckedArguments, refuse_signature

__all__ = ["NetworkWrapper"]


class NetworkWrapper(CheckedArguments, nn.Module):
    """A network around an inner one, ``net``, with the same event shape, log-SNR range, labels and augmentation."""

    net: nn.Module

    @property
    def event_shape(self) -> tuple[int, ...] | None:
        """Event shape of the inner network; None if it declares none."""
        return getattr(self.net, "event_shape", None)

    @property
    def log_snr_range(self) -> tuple[float, float]:
        """Log-SNR range of the inner network in nats; (-20, 20) if it declares none."""
        return getattr(self.net, "log_snr_range", None) or (-20.0, 20.0)

    @property
    def num_classes(self) -> int | None:
        """Number of classes of the inner network; None if it declares none."""
        return getattr(self.net, "num_classes", None)

    @property
    def null_label(self) -> int | None:
        """Null label of the inner network; None if it declares none."""
        return getattr(self.net, "null_label", None)

    @property
    def augment(self) -> int:
        """Number of augmentation parameters that the inner network reads; 0 if it declares none."""
        return getattr(self.net, "augment", 0)

    @property
    def delta(self) -> bool:
        """Whether the inner network reads the angle of a jump."""
        return bool(getattr(self.net, "delta", False))

    def _inner_output(
        self,
        x: Tensor,
        log_snr: Tensor,
        cond: Tensor | None,
        augment: Tensor | None,
        observed: Tensor | None = None,
        delta: Tensor | None = None,
    ) -> Tensor:
        """Output of the inner network, which receives only those of the last four inputs that are not None."""
        inputs = (("cond", cond), ("augment", augment), ("observed", observed), ("delta", delta))
        conditions = {name: value for name, value in inputs if value is not None}
        try:
            return self.net(x, log_snr, **conditions)
        except TypeError as error:
            refuse_signature(self.net, conditions, error)
            raise
