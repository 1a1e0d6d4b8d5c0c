"""How do averages follow the weights? Several at once, each a network of its own that is never swapped in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

if TYPE_CHECKING:
    from scoresde.training.sharding import ShardedParameters

__all__ = ["EMA"]


class EMA:
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
        self._buffers = _buffers(self.net, net)

    def follow_pieces(self, pieces: ShardedParameters) -> None:
        """Averages this process's share of a network in pieces from now on; `gather` fills the whole."""
        self._weights = pieces.cut(self.net), [share.detach() for share in pieces.shares]
        self._buffers = _buffers(self.net, pieces.net)

    def gather(self, pieces: ShardedParameters) -> None:
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
        for own, new, name in self._buffers:
            old, now = own[name], new[name]
            if old is not None and now is not None:
                old.copy_(now)


_Named = dict[str, Tensor | None]


def _buffers(net: nn.Module, followed: nn.Module) -> list[tuple[_Named, _Named, str]]:
    """Where the buffers of both stand, by name: a network may put another tensor in a buffer's place."""
    both = zip(net.modules(), followed.modules(), strict=True)
    return [(own._buffers, new._buffers, name) for own, new in both for name in own._buffers]
