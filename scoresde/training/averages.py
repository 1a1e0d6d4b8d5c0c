"""How do averages follow the weights? Several at once, each a network of its own that is never swapped in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

if TYPE_CHECKING:
    from scoresde.training.sharding import Pieces

__all__ = ["Average"]


class Average:
    """Averaged weights: a copy of the network that follows it; frozen and tied weights are, buffers are copied.

    `AveragedModel.update_parameters` would wait for the device in each call, and take 20 times as long on small
    networks; here torch's averaging function runs over lists that are made once.

    Args:
        net: What to average. The copy is in evaluation mode.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net: nn.Module = AveragedModel(net).module.eval()
        self.follow(net)

    def follow(self, net: nn.Module) -> None:
        """Averages the weights of ``net`` from now on: to be called again when they were moved."""
        self._weights = [p.detach() for p in self.net.parameters()], [p.detach() for p in net.parameters()]
        self._buffers = list(zip(self.net.buffers(), net.buffers(), strict=True))

    def follow_pieces(self, pieces: Pieces) -> None:
        """Averages this process's share of a network in pieces from now on; `gather` fills the whole."""
        self._weights = pieces.cut(self.net), [share.detach() for share in pieces.shares]
        self._buffers = list(zip(self.net.buffers(), pieces.net.buffers(), strict=True))

    def gather(self, pieces: Pieces) -> None:
        """Fills the whole averaged network from all processes' shares; every process must."""
        pieces.gather(self._weights[0], self.net)

    @torch.no_grad()
    def copy(self) -> None:
        """Begins as the weights that are followed."""
        for own, new in zip(*self._weights, strict=True):
            own.copy_(new)

    def update(self, decay: float) -> None:
        """average = decay * average + (1 - decay) * weights."""
        get_ema_multi_avg_fn(decay)(*self._weights, 0)
        for own, new in self._buffers:
            own.copy_(new)
