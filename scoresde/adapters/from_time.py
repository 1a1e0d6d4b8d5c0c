r"""`FromTime`: a network in the coordinates of a view that takes the clock's time, $t = scale \cdot u(\tau)$."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from scoresde._core.checks import check_kind, check_positive
from scoresde._core.tensors import expand, widest_dtype
from scoresde.adapters.base import Adapter
from scoresde.process import ou
from scoresde.process.sde import SDE

__all__ = ["FromTime"]


@dataclass(eq=False, repr=False, init=False)
class FromTime(Adapter):
    r"""Calls ``net(c x, scale u)``: the state in the coordinates of a view, and the time of its clock.

    Song's VP networks take ``scale=999``, flow-matching networks 1 or 1000 with the process `Flow`. Of a VP process the
    factor c is 1.

    Args:
        net: The network; its output is unwrapped as that of `FromStep`.
        sde: The process: clock and view.
        scale: Factor of u.

    Raises:
        TypeError: If ``net`` is not a module or ``sde`` not an SDE.
        ValueError: If ``scale`` is not positive and finite.
    """

    net: nn.Module
    sde: SDE
    scale: float = 1.0

    def __init__(self, net: nn.Module, sde: SDE, scale: float = 1.0) -> None:
        super().__init__(net)
        check_kind("sde", sde, SDE)
        check_positive(scale=scale)
        self.sde, self.scale = sde, scale

    def inputs(self, x: Tensor, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        tau = ou.tau_from_log_snr(log_snr.to(widest_dtype(log_snr.device)))
        t = self.sde.schedule.u(tau)
        assert isinstance(t, Tensor)
        return x * expand(self.sde.scale(tau), x), (self.scale * t).float()
