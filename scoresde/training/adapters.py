r"""Low-rank adaptation by peft: a layer's weight is $W + \frac{\alpha}{r} B A$, of which only A and B are trained.

The adapters live inside the network while it trains. Its ``state_dict`` has the merged weights under the names of the
network without adapters, so that a checkpoint is loaded, and sampled from, without peft. A run also stores the adapters
themselves, from which it is resumed.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scoresde._core.checks import check_integer, check_seed
from scoresde.storage.checkpoint import Checkpoint, load_into

__all__ = [
    "adapter_tensors",
    "add_adapters",
    "check_same_adapters",
    "has_adapters",
    "load_adapters",
    "load_either",
]

_NAME = "default"  # of the adapter, which peft gives
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def add_adapters(net: nn.Module, rank: int, *, trained: Collection[str] = (), seed: int = 0) -> list[str]:
    """Adds an adapter to each linear layer and convolution; all other weights are frozen.

    The network computes the same as before until it is trained, because B starts at zero.

    Args:
        net: Changed in place.
        rank: Rank r of each adapter; α = r.
        trained: Names of parameters that are trained as a whole, such as those of a new condition; their layers get no
            adapter.
        seed: Of the initial A. The global random state does not change.

    Returns:
        The names of the layers.

    Raises:
        ModuleNotFoundError: If peft is missing.
        ValueError: If the rank is not a positive integer, there is no layer to adapt, or there are adapters already.

    Source: Hu et al. 2022 (LoRA).
    """
    check_integer("rank", rank)
    try:
        peft: Any = importlib.import_module("peft")  # an optional dependency
    except ImportError:
        raise ModuleNotFoundError(
            "low-rank adaptation needs peft, which is missing; pip install 'scoresde[peft]'."
        ) from None
    if has_adapters(net):
        raise ValueError("a network gets adapters once, got one that has some; train these, or load the run again.")
    names = [name for name, layer in net.named_modules() if _adapted(name, layer, rank, trained)]
    if not names:
        raise ValueError(f"adapters need linear layers or convolutions wider than their rank, got none for {rank}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(check_seed(seed))
        peft.inject_adapter_in_model(peft.LoraConfig(r=rank, lora_alpha=rank, target_modules=names), net)
    for name, weight in net.named_parameters():
        weight.requires_grad_(".lora_" in name or name in trained)
    net.register_state_dict_post_hook(_merge)
    return names


def has_adapters(net: nn.Module) -> bool:
    """Whether a network has adapters."""
    return next(_adapters(net), None) is not None


def adapter_tensors(net: nn.Module) -> dict[str, Tensor]:
    """All weights and buffers of a network with adapters, not merged, by name."""
    return {**dict(net.named_parameters()), **dict(net.named_buffers())}


@torch.no_grad()
def load_adapters(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copies what `adapter_tensors` gave into a network with the same adapters, bit for bit.

    Raises:
        ValueError: If names or shapes differ. The network does not change.
    """
    own = adapter_tensors(net)
    wrong = [name for name in own.keys() | tensors.keys() if _shape(own, name) != _shape(tensors, name)]
    if wrong:
        raise ValueError(
            f"adapters must have the names and shapes of the run's, got others: {', '.join(sorted(wrong)[:8])}; build "
            "the network with the same rank."
        )
    for name, tensor in tensors.items():
        own[name].copy_(tensor)


def check_same_adapters(net: nn.Module, stored: Checkpoint) -> None:
    """Refuses to resume a run with adapters without them, and the other way round.

    Raises:
        ValueError: If only one of network and checkpoint has adapters.
    """
    adapted = has_adapters(net)
    if adapted != ("adapters" in stored.tensors):
        raise ValueError(
            f"a run is resumed with its own adapters, {stored.path} has {'none' if adapted else 'some'}; add them as "
            "before, add_adapters(model.net, rank)."
        )


def load_either(net: nn.Module, stored: Checkpoint, group: str, adapters: str) -> None:
    """Restores a network from one group of a checkpoint, or one with adapters from another, before merging."""
    if has_adapters(net):
        load_adapters(net, stored.tensors[adapters])
    else:
        load_into(net, stored.tensors[group])


def _adapted(name: str, layer: nn.Module, rank: int, trained: Collection[str]) -> bool:
    if not isinstance(layer, _LAYERS) or getattr(layer, "groups", 1) != 1:
        return False
    return min(layer.weight.shape[:2]) > rank and f"{name}.weight" not in trained


def _adapters(net: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers with an adapter, by name."""
    for name, module in net.named_modules():
        if hasattr(module, "lora_A") and hasattr(module, "base_layer"):
            yield name, module


def _merge(net: nn.Module, state: dict[str, Any], prefix: str, _: object) -> None:
    """Replaces the entries of each adapted layer by those of the layer with the merged weight."""
    for name, layer in _adapters(net):
        start = f"{prefix}{name}."
        own = {key: state.pop(key) for key in list(state) if key.startswith(start)}
        merged = own[f"{start}base_layer.weight"] + layer.get_delta_weight(_NAME).detach()
        for key in own:
            if key.startswith(f"{start}base_layer."):
                state[start + key.removeprefix(f"{start}base_layer.")] = own[key]
        state[f"{start}weight"] = merged.to(own[f"{start}base_layer.weight"].dtype)


def _shape(tensors: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(tensors[name].shape) if name in tensors else None
