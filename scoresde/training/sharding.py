"""How is a network trained that is too large for each process? In pieces (FSDP2), gathered to be saved.

Each process holds its piece of every weight, of its average and of the optimizer's state; the whole network, on the
CPU, is filled from the pieces when it is asked for. The settings are accelerate's (``accelerate launch --use_fsdp
--fsdp_version 2 …``); mixed precision is autocast's as elsewhere, so that times keep theirs.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils.fsdp_utils import fsdp2_prepare_model
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from scoresde.training.processes import fsdp_plugin

__all__ = ["ShardedParameters"]


class ShardedParameters:
    """A network in pieces, and this process's share of each weight as a tensor of its own.

    Args:
        net: The whole network, on the CPU; left there.
        accelerator: Of the run.

    Attributes:
        net: The network in pieces, on the accelerator's device.
    """

    def __init__(self, net: nn.Module, accelerator: Accelerator) -> None:
        plugin = fsdp_plugin(accelerator)
        plugin.mixed_precision_policy, plugin.cpu_ram_efficient_loading = None, False
        accelerator.state.fsdp_plugin = plugin  # where it is looked for, also on the CPU
        self._whole = list(net.parameters())
        with torch.no_grad():
            for p in self._whole:  # every process begins with the main one's
                p.copy_(_from_main(p, accelerator))
        self.net = fsdp2_prepare_model(accelerator, copy.deepcopy(net).to(accelerator.device))
        self._weights: list[DTensor] = [p for p in self.net.parameters() if isinstance(p, DTensor)]
        assert len(self._weights) == len(self._whole)
        self.shares = [nn.Parameter(w.to_local().detach(), w.requires_grad) for w in self._weights]

    @property
    def trained(self) -> list[DTensor]:
        """The weights that require a gradient."""
        return [w for w in self._weights if w.requires_grad]

    @property
    def moved(self) -> list[nn.Parameter]:
        """The shares of the weights that require a gradient: what this process's optimizer moves."""
        return [share for share in self.shares if share.requires_grad]

    def cut_optimizer(self, whole: torch.optim.Optimizer, own: torch.optim.Optimizer) -> None:
        """Gives an optimizer over `moved` its share of the state of one over the whole weights."""
        for share, weight, p in zip(self.moved, self.trained, self._trained_whole, strict=True):
            if p in whole.state:
                own.state[share] = {k: self._cut(v, weight) if v.ndim else v.clone() for k, v in whole.state[p].items()}

    def gather_optimizer(self, own: torch.optim.Optimizer, whole: torch.optim.Optimizer) -> None:
        """Fills the state of the optimizer over the whole weights; every process must."""
        for share, weight, p in zip(self.moved, self.trained, self._trained_whole, strict=True):
            state: dict[str, Any] = own.state.get(share, {})
            if state:
                whole.state[p] = {k: self._full(v, weight) if v.ndim else v.cpu() for k, v in state.items()}

    def pass_gradients(self) -> None:
        """Gives the shares the gradients of the weights."""
        for share, weight in zip(self.shares, self._weights, strict=True):
            gradient = weight.grad
            share.grad = None if gradient is None else gradient.to_local()  # pyright: ignore[reportAttributeAccessIssue]

    def cut(self, net: nn.Module) -> list[Tensor]:
        """This process's share of another network's weights, such as an average's."""
        return [self._cut(p.detach(), weight) for p, weight in zip(net.parameters(), self._weights, strict=True)]

    @torch.no_grad()
    def gather(self, shares: list[Tensor], net: nn.Module) -> None:
        """Fills a whole network from all processes' shares; every process must."""
        for share, weight, p in zip(shares, self._weights, net.parameters(), strict=True):
            p.copy_(self._full(share, weight))
        for own, new in zip(net.buffers(), self.net.buffers(), strict=True):
            own.copy_(new)

    @property
    def _trained_whole(self) -> list[nn.Parameter]:
        return [p for p in self._whole if p.requires_grad]

    def _cut(self, whole: Tensor, weight: DTensor) -> Tensor:
        value = distribute_tensor(whole.to(weight.device), weight.device_mesh, weight.placements)
        return value.to_local().clone()

    def _full(self, share: Tensor, weight: DTensor) -> Tensor:
        value = DTensor.from_local(
            share.detach(),
            weight.device_mesh,
            weight.placements,
            run_check=False,
            shape=weight.shape,
            stride=weight.stride(),
        )
        return value.full_tensor().cpu()


def _from_main(value: Tensor, accelerator: Accelerator) -> Tensor:
    sent = value.detach().to(accelerator.device).clone()
    torch.distributed.broadcast(sent, 0)
    return sent.to(value.device)
