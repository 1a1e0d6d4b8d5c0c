r"""A network whose states are codes of categories: one-hot in, logits out.

An event of shape (K, \*sizes) enters the inner network as (K S, \*sizes): S indicators per entry, shifted and scaled to
mean 0 and variance 1 for uniform codes. So the inner network's first linear layer is an embedding of the codes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scoresde._core.checks import check_integer
from scoresde.nn._argument_checks import check_sizes
from scoresde.nn._network_wrapper import NetworkWrapper

__all__ = ["CategoricalNet"]


@dataclass(eq=False, repr=False, init=False)
class CategoricalNet(NetworkWrapper):
    """Codes to logits of x_0, by an inner network on indicators; returns 0 before training.

    Attributes:
        net: The inner network, with the event shape `inner_shape`: any of this package, or another one. A `DiT` or
            `UNet` reads sequences and images, an `MLP` events of any shape.
        event_shape: Shape of one event of codes: ``(L,)`` for a sequence, ``(K, *sizes)`` for images and volumes.
        classes: Number of classes C.
        mask: Whether codes include the mask, C, as those of an absorbing process do.

    Raises:
        ValueError: If ``classes`` is less than 2, or the inner network declares another event shape.

    Example:
        >>> import torch
        >>> from scoresde.nn import MLP, CategoricalNet
        >>> net = CategoricalNet(MLP(CategoricalNet.inner_shape((20,), 2)), (20,), classes=2)
        >>> net(torch.zeros(3, 20), torch.zeros(3)).shape
        torch.Size([3, 20, 2])
    """

    net: nn.Module
    event_shape: tuple[int, ...] = ()
    classes: int = 2
    mask: bool = False

    def __init__(self, net: nn.Module, event_shape: tuple[int, ...], classes: int = 2, mask: bool = False) -> None:
        super().__init__()  # before a submodule can be assigned, so the dataclass cannot write this
        check_integer("classes", classes, 2)
        self.event_shape = check_sizes("event_shape", event_shape)
        self.net, self.classes, self.mask = net, classes, mask
        expected = self.inner_shape(self.event_shape, classes, mask)
        declared = getattr(net, "event_shape", None)
        if declared is not None and tuple(declared) != expected:
            raise ValueError(
                f"the inner network must have the event shape {expected} for events {self.event_shape} of {classes} "
                f"classes{' and a mask' if mask else ''}, got {tuple(declared)}; build it with "
                "CategoricalNet.inner_shape(event_shape, classes, mask)."
            )

    @staticmethod
    def inner_shape(event_shape: tuple[int, ...], classes: int, mask: bool = False) -> tuple[int, ...]:
        """Event shape of the inner network: the indicators of an entry are channels.

        Args:
            event_shape: Shape of one event of codes.
            classes: Number of classes C.
            mask: Whether codes include the mask.
        """
        channels, *sizes = event_shape if len(event_shape) > 1 else (1, *event_shape)
        return (channels * (classes + mask), *sizes)

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        *,
        augment: Tensor | None = None,
        observed: Tensor | None = None,
        delta: Tensor | None = None,
        **cond: Tensor | None,
    ) -> Tensor:
        """Evaluates the network.

        Args:
            x: Codes in a floating tensor, ``(B, *event_shape)``.
            log_snr: Log-SNR in nats, ``(B,)``; infinities are allowed.
            augment, observed, delta: Passed to the inner network if not None; ``observed`` with its shape.
            **cond: Conditions of the inner network by name.

        Returns:
            Logits ``(B, *event_shape, classes)`` in the type of ``x``.

        Raises:
            ValueError, TypeError: As the inner network.
        """
        states = self.classes + self.mask
        hot = (x.unsqueeze(-1) == torch.arange(states, dtype=x.dtype, device=x.device)).to(x.dtype)
        hot = (hot * states - 1.0) / math.sqrt(states - 1.0)
        shape = self.inner_shape(self.event_shape, self.classes, self.mask)
        flat = hot if x.ndim > 2 else hot.unsqueeze(1)
        weight = next((p for p in self.net.parameters() if p.is_floating_point()), hot)
        features = flat.movedim(-1, 2).reshape(len(x), *shape).to(weight.dtype)  # codes are float32 at least
        if observed is not None:
            mask = observed if x.ndim > 2 else observed.unsqueeze(1)
            observed = mask.unsqueeze(2).expand(flat.movedim(-1, 2).shape).reshape(features.shape)
        out = self._inner_output(features, log_snr, augment=augment, observed=observed, delta=delta, **cond)
        out = out.to(x.dtype).reshape(len(x), shape[0] // states, states, *shape[1:]).movedim(2, -1)
        return out.reshape(*x.shape, states)[..., : self.classes]
