r"""`FromSchedule`: a denoiser $D(\tilde x, t)$ that carries its schedule, $t \mapsto (\tilde\alpha, \tilde\sigma)$."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scoresde._core.tensors import expand, widest_dtype
from scoresde.adapters.base import Adapter

__all__ = ["FromSchedule"]

_HALVINGS = 40  # of [0, 1]


@dataclass(eq=False, repr=False, init=False)
class FromSchedule(Adapter):
    r"""Calls ``net(x̃, t).mean`` with $\tilde x = \sqrt{\tilde\alpha^2 + \tilde\sigma^2}\,x$.

    t in [0, 1] follows from $\log\tilde\sigma_t - \log\tilde\alpha_t = -\tfrac12\,\mathrm{logSNR}$ by bisection, to
    1e-12; before 0 and after 1 it is that of the end.

    Args:
        net: A denoiser with a member ``schedule``, a function of t that returns the two scales and whose noise level
            rises. It returns an object whose member ``mean`` estimates x_0.

    Raises:
        TypeError: If ``net`` is not a module, or has no such member.
    """

    net: nn.Module

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        if type(net).__name__ != "Given" and not callable(getattr(net, "schedule", None)):
            raise TypeError(f"the denoiser must have a member `schedule`, a function of t; got {type(net).__name__}.")

    def inputs(self, x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        level = -0.5 * log_snr.to(widest_dtype(log_snr.device))
        low, high = torch.zeros_like(level), torch.ones_like(level)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            alpha, sigma = self._scales(middle)
            below = torch.log(sigma) - torch.log(alpha) < level
            low, high = middle.where(below, low), high.where(below, middle)
        t = 0.5 * (low + high)
        alpha, sigma = self._scales(t)
        return x * expand((alpha * alpha + sigma * sigma).sqrt(), x), t.to(torch.promote_types(x.dtype, torch.float32))

    def _scales(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return self.net.schedule(t)  # pyright: ignore[reportCallIssue]

    def forward(self, x: Tensor, log_snr: Tensor, **cond: Tensor) -> Tensor:
        posterior = self.call_net(*self.inputs(x, log_snr), **cond)
        if not isinstance(mean := getattr(posterior, "mean", None), Tensor):
            raise TypeError(f"the denoiser must return an object with a tensor `mean`, got {type(posterior).__name__}.")
        return mean
