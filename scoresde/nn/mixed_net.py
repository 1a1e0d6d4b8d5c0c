r"""A network whose events are numbers, then codes of categories: values and indicators in, values and logits out.

An event of n numbers and K codes enters the inner network as one vector of the numbers, then the indicators of each
code, scaled to variance 1 for uniform codes. The inner network returns as many values, of which those of the mask
states are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scoresde._core.checks import check_integer
from scoresde._core.tensors import constant
from scoresde.nn._network_wrapper import NetworkWrapper

__all__ = ["MixedNet"]


@dataclass(eq=False, repr=False, init=False)
class MixedNet(NetworkWrapper):
    """Numbers and codes to values and logits, by an inner network on vectors; returns 0 before training.

    Attributes:
        net: The inner network, with the event shape `inner_shape`: an `MLP`, or a `Pointwise` around one.
        numbers: Number of numbers n, at least 0.
        classes: Number of classes of each category, in the order of their codes.
        mask: Whether codes include the mask, as those of an absorbing process do; its code is the largest number of
            classes.

    Raises:
        ValueError: If there is no category, one has fewer than 2 classes, or the inner network declares another event
            shape.

    Example:
        >>> import torch
        >>> from scoresde.nn import MLP, MixedNet
        >>> net = MixedNet(MLP(MixedNet.inner_shape(4, (3, 2))), numbers=4, classes=(3, 2))
        >>> net(torch.zeros(8, 6), torch.zeros(8)).shape
        torch.Size([8, 9])
    """

    net: nn.Module
    numbers: int = 0
    classes: tuple[int, ...] = (2,)
    mask: bool = False

    def __init__(self, net: nn.Module, numbers: int, classes: tuple[int, ...], mask: bool = False) -> None:
        super().__init__()  # before a submodule can be assigned, so the dataclass cannot write this
        check_integer("numbers", numbers, 0)
        if not (classes := tuple(classes)):
            raise ValueError("classes must name one category at least, got (); an MLP reads events of numbers alone.")
        for count in classes:
            check_integer("classes", count, 2)
        self.net, self.numbers, self.classes, self.mask = net, numbers, classes, mask
        expected, declared = self.inner_shape(numbers, self.classes, mask), getattr(net, "event_shape", None)
        if declared is not None and tuple(declared) != expected:
            raise ValueError(
                f"the inner network must have the event shape {expected} for {numbers} numbers and categories of "
                f"{self.classes} classes{' and a mask' if mask else ''}, got {tuple(declared)}; build it with "
                "MixedNet.inner_shape(numbers, classes, mask)."
            )
        states = [(i, float(c)) for i, count in enumerate(self.classes) for c in self._codes(count)]
        self._column = tuple(float(i) for i, _ in states)
        self._state = tuple(c for _, c in states)
        sizes = [float(self.classes[i] + mask) for i, _ in states]
        self._scale = tuple(size / (size - 1.0) ** 0.5 for size in sizes)
        self._shift = tuple(1.0 / (size - 1.0) ** 0.5 for size in sizes)
        kept = [float(j) for j, (i, c) in enumerate(states) if c < self.classes[i]]
        self._logits = tuple(float(i) for i in range(numbers)) + tuple(numbers + j for j in kept)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """``(n + K,)``."""
        return (self.numbers + len(self.classes),)

    @property
    def observed(self) -> bool:
        """Whether the inner network reads which entries of x are observed."""
        return bool(getattr(self.net, "observed", False))

    @staticmethod
    def inner_shape(numbers: int, classes: tuple[int, ...], mask: bool = False) -> tuple[int, ...]:
        """Event shape of the inner network: numbers, then the indicators of each category.

        Args:
            numbers: Number of numbers n.
            classes: Number of classes of each category.
            mask: Whether codes include the mask.
        """
        return (numbers + sum(classes) + mask * len(classes),)

    def _codes(self, count: int) -> list[int]:
        """Codes of the states of a category: its classes, then the mask."""
        return [*range(count), *([max(self.classes)] if self.mask else [])]

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        *,
        observed: Tensor | None = None,
        delta: Tensor | None = None,
        **cond: Tensor | None,
    ) -> Tensor:
        """Evaluates the network.

        Args:
            x: Numbers, then codes, in a floating tensor, ``(B, n + K)``.
            log_snr: Log-SNR in nats, ``(B,)``; infinities are allowed.
            observed: Whether each entry of ``x`` is observed, its shape; the indicators of others are 0.
            delta: Passed to the inner network if not None.
            **cond: Conditions of the inner network by name.

        Returns:
            Values of the numbers, then the logits of each category, ``(B, n + sum(classes))``, in the type of ``x``.

        Raises:
            ValueError, TypeError: As the inner network.
        """
        if x.shape[1:] != self.event_shape:
            raise ValueError(f"x must have the shape {('B', *self.event_shape)}, got {tuple(x.shape)}.")
        values, hot = self._inner_entries(x)
        if observed is not None:
            seen = observed[:, self.numbers :].bool()[:, constant(self._column, x).long()]
            hot, observed = hot * seen, torch.cat([observed[:, : self.numbers].bool(), seen], 1)
        known = cond.get("known")
        if known is not None:
            cond = {**cond, "known": torch.cat(self._inner_entries(known), 1)}
        out = self._inner_output(torch.cat([values, hot], 1), log_snr, observed=observed, delta=delta, **cond)
        return out[:, constant(self._logits, x).long()] if self.mask else out

    def _inner_entries(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers, and scaled indicators of the codes; NaN stays NaN."""
        codes = x[:, self.numbers :][:, constant(self._column, x).long()]
        hot = (codes == constant(self._state, x)).to(x.dtype)
        hot = hot * constant(self._scale, x).to(x.dtype) - constant(self._shift, x).to(x.dtype)
        return x[:, : self.numbers], torch.where(codes.isnan(), codes, hot)
