"""Sharded parameters (FSDP2): each process holds one shard of every weight, of its EMAs and of the optimizer's state.

The whole network stays on the CPU and is filled from the shards when it is needed. The settings are accelerate's
(``accelerate launch --use_fsdp --fsdp_version 2 …``). Mixed precision is autocast's, as without shards, so that times
keep full precision.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from scoresde.training.multi_process import fsdp_plugin

__all__ = ["ShardedParameters"]


class ShardedParameters:
    """A sharded network, and this process's shard of each weight as a separate parameter.

    Args:
        net: The whole network, on the CPU, where it stays.
        accelerator: Of the run.

    Attributes:
        net: The sharded network, on the accelerator's device.
        shards: This process's shard of each weight.
    """

    def __init__(self, net: nn.Module, accelerator: Accelerator) -> None:
        plugin = fsdp_plugin(accelerator)
        plugin.mixed_precision_policy, plugin.cpu_ram_efficient_loading = None, False
        accelerator.state.fsdp_plugin = plugin  # accelerate reads it from there, also on the CPU
        self._whole = list(net.parameters())
        with torch.no_grad():
            for p in self._whole:  # every process starts from the main one's weights
                p.copy_(_broadcast_from_main(p, accelerator))
        self.net = fsdp2_prepare_model(accelerator, copy.deepcopy(net).to(accelerator.device))
        self._weights: list[DTensor] = [p for p in self.net.parameters() if isinstance(p, DTensor)]
        assert len(self._weights) == len(self._whole)
        self.shards = [nn.Parameter(w.to_local().detach(), w.requires_grad) for w in self._weights]

    @property
    def trained_weights(self) -> list[DTensor]:
        """The weights that require a gradient."""
        return [w for w in self._weights if w.requires_grad]

    @property
    def trained_shards(self) -> list[nn.Parameter]:
        """This process's shards of the weights that require a gradient: the parameters of its optimizer."""
        return [shard for shard in self.shards if shard.requires_grad]

    def shard_optimizer(self, whole: torch.optim.Optimizer, sharded: torch.optim.Optimizer) -> None:
        """Fills the state of an optimizer over `trained_shards` from that of one over the whole weights."""
        for shard, weight, p in zip(self.trained_shards, self.trained_weights, self._trained_whole, strict=True):
            if p in whole.state:
                state = whole.state[p].items()
                sharded.state[shard] = {k: self._shard(v, weight) if v.ndim else v.clone() for k, v in state}

    def gather_optimizer(self, sharded: torch.optim.Optimizer, whole: torch.optim.Optimizer) -> None:
        """Fills the state of the optimizer over the whole weights; every process must call it."""
        for shard, weight, p in zip(self.trained_shards, self.trained_weights, self._trained_whole, strict=True):
            state: dict[str, Any] = sharded.state.get(shard, {})
            if state:
                whole.state[p] = {k: self._whole_tensor(v, weight) if v.ndim else v.cpu() for k, v in state.items()}

    def copy_gradients(self) -> None:
        """Gives the shards the gradients of the sharded network."""
        for shard, weight in zip(self.shards, self._weights, strict=True):
            gradient = weight.grad
            shard.grad = None if gradient is None else gradient.to_local()  # pyright: ignore[reportAttributeAccessIssue]

    def shard(self, net: nn.Module) -> list[Tensor]:
        """This process's shards of another network of the same shapes, such as an EMA's."""
        return [self._shard(p.detach(), weight) for p, weight in zip(net.parameters(), self._weights, strict=True)]

    @torch.no_grad()
    def gather(self, shards: list[Tensor], net: nn.Module) -> None:
        """Fills a whole network from all processes' ``shards``; every process must call it."""
        for shard, weight, p in zip(shards, self._weights, net.parameters(), strict=True):
            p.copy_(self._whole_tensor(shard, weight))
        for own, new in zip(net.buffers(), self.net.buffers(), strict=True):
            own.copy_(new)

    @property
    def _trained_whole(self) -> list[nn.Parameter]:
        return [p for p in self._whole if p.requires_grad]

    def _shard(self, whole: Tensor, weight: DTensor) -> Tensor:
        value = distribute_tensor(whole.to(weight.device), weight.device_mesh, weight.placements)
        return value.to_local().clone()

    def _whole_tensor(self, shard: Tensor, weight: DTensor) -> Tensor:
        value = DTensor.from_local(
            shard.detach(),
            weight.device_mesh,
            weight.placements,
            run_check=False,
            shape=weight.shape,
            stride=weight.stride(),
        )
        return value.full_tensor().cpu()


def _broadcast_from_main(value: Tensor, accelerator: Accelerator) -> Tensor:
    sent = value.detach().to(accelerator.device).clone()
    torch.distributed.broadcast(sent, 0)
    return sent.to(value.device)
