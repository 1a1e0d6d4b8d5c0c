"""Exponential moving averages (EMA) of the weights: average = decay · average + (1 - decay) · weights, in float32."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from scoresde._core.tensors import is_narrow

if TYPE_CHECKING:
    from scoresde.training.sharding import ShardedParameters

__all__ = ["EMA"]


class EMA:
    """A second network whose weights average those of a first one; buffers are copied, frozen weights averaged too.

    Averages of weights of less than 32 bits (bf16, fp16) are float32, as are its copies of such buffers: an update by
    ``1 - decay`` of a difference is smaller than half of a bf16 weight's last place, which a bf16 average would lose.

    `AveragedModel.update_parameters` would wait for the device in each call, and takes 20 times as long on small
    networks. Here torch's averaging function runs over lists that are built once.

    Args:
        net: The network to average.

    Attributes:
        net: The network with the averaged weights, in evaluation mode, of at least float32. Tied weights stay tied.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net: nn.Module = AveragedModel(net).module.eval()
        _widen(self.net)
        self.track(net)

    def track(self, net: nn.Module) -> None:
        """Averages the weights of ``net`` from now on; call it again after its parameters were replaced."""
        self._averages, self._weights = ([p.detach() for p in each.parameters()] for each in (self.net, net))
        self._buffers = _buffers(self.net, net)

    def track_shards(self, sharded: ShardedParameters) -> None:
        """Averages this process's shards of a sharded network from now on."""
        self._averages, self._weights = sharded.shard(self.net), [shard.detach() for shard in sharded.shards]
        self._buffers = _buffers(self.net, sharded.net)

    def gather(self, sharded: ShardedParameters) -> None:
        """Fills `net` from the averages of all processes' shards; every process must call it."""
        sharded.gather(self._averages, self.net)

    @torch.no_grad()
    def reset(self) -> None:
        """Sets the average to the current weights."""
        for average, weight in zip(self._averages, self._weights, strict=True):
            average.copy_(weight)

    def update(self, decay: float) -> None:
        """average = decay · average + (1 - decay) · weights."""
        pairs = zip(self._averages, self._weights, strict=True)
        weights = [weight.to(average.dtype) for average, weight in pairs]  # the same tensor, if it has that type
        get_ema_multi_avg_fn(decay)(self._averages, weights, 0)
        for own, tracked, name in self._buffers:
            old, new = own[name], tracked[name]
            if old is not None and new is not None:
                old.copy_(new)


_NamedBuffers = dict[str, Tensor | None]


def _widen(net: nn.Module) -> None:
    """Converts floating parameters and buffers of less than 32 bits to float32, in place; what is tied stays tied."""
    for p in net.parameters():
        if is_narrow(p):
            p.data = p.data.float()
    wide: dict[int, Tensor] = {}
    narrow = [(m._buffers, name, b) for m in net.modules() for name, b in m._buffers.items() if b is not None]
    for buffers, name, buffer in narrow:
        if is_narrow(buffer):
            buffers[name] = wide.setdefault(id(buffer), buffer.float())


def _buffers(net: nn.Module, tracked: nn.Module) -> list[tuple[_NamedBuffers, _NamedBuffers, str]]:
    """The buffer dictionaries of both networks, and a name; a network may replace the tensor under a name."""
    pairs = zip(net.modules(), tracked.modules(), strict=True)
    return [(own._buffers, other._buffers, name) for own, other in pairs for name in own._buffers]
