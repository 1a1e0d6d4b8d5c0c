"""State dicts of modules and optimizers: restored bit for bit, either all tensors or, after an error, none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scoresde._core.annotations import check_arguments
from scoresde._core.foreign_networks import inner_network, plain_names
from scoresde.storage import spec

__all__ = ["load_into", "load_optimizer", "optimizer_state", "plain_state"]


def load_into(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copies saved tensors into a module, bit for bit; either all of them or, after an error, none.

    Args:
        module: Gets the values; it stays on its device. Wrappers of torch in it, such as `torch.compile`, do not count.
        tensors: Name -> tensor, exactly the names, shapes and types of `module.state_dict()`, as `plain_state` has it.

    Raises:
        ValueError: If names are missing or extra, or shapes or types differ (all are listed), or if tensors that the
            module ties together differ. The module does not change.
    """
    check_arguments(load_into, locals())
    names = plain_names(module, {name: name for name in module.state_dict()})
    current = {k: v for k, v in plain_state(module).items() if isinstance(v, Tensor)}
    tensors = plain_names(module, tensors)
    faults = {
        "missing": [k for k in current if k not in tensors],
        "extra": [k for k in tensors if k not in current],
        "different": [
            f"{k} is {_describe(tensors[k])} in the checkpoint and {_describe(v)} in the module"
            for k, v in current.items()
            if k in tensors and (v.shape != tensors[k].shape or v.dtype != tensors[k].dtype)
        ],
    }
    if not any(faults.values()):
        faults["tied in the module but unequal in the checkpoint"] = _unequal_ties(current, tensors)
    messages = [f"{fault}: {', '.join(names)}" for fault, names in faults.items() if names]
    if messages:
        raise ValueError(
            f"a checkpoint must fit the module, {type(inner_network(module)).__name__}, tensor by tensor, got "
            f"{'; '.join(messages)}; build the module with the settings stored with the weights. Nothing was loaded."
        )
    module.load_state_dict({names[name]: value for name, value in tensors.items()})


def plain_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict of a module under the names that it has without wrappers of torch, such as `torch.compile`."""
    check_arguments(plain_state, locals())
    return plain_names(module, module.state_dict())


def optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], str]:
    """An optimizer's state as tensors, and as text for everything that is not a tensor.

    Args:
        optimizer: Its `state_dict` holds tensors, numbers, strings, bools, None and tuples of these (AdamW, SGD ...).

    Returns:
        `(tensors, text)`: the tensors, not copied, under names such as `state.0.exp_avg`; the text form of the rest,
        with the parameters' shapes (`scoresde.storage.spec.to_text`).

    Raises:
        TypeError: If the state holds something else, such as LBFGS's lists of tensors.
    """
    check_arguments(optimizer_state, locals())
    stored = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    rest: dict[str, Any] = {"class": type(optimizer).__name__, "shapes": _shapes(optimizer)}
    rest["state"] = {k: _without_tensors(v, f"state.{k}", tensors) for k, v in stored["state"].items()}
    rest["group"] = {i: _without_tensors(v, f"group.{i}", tensors) for i, v in enumerate(stored["param_groups"])}
    return tensors, spec.to_text(rest)


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], text: str) -> None:
    """Restores the state of `optimizer_state`, so that the next step is the same, bit for bit, as without saving.

    Args:
        optimizer: Of the same class, over parameters of the same shapes in the same order.
        tensors: As saved. Copied, moved to the parameters' devices.
        text: As saved.

    Raises:
        ValueError: If class, groups or shapes differ, or the text or the tensors are not such a state. The optimizer
            does not change.
    """
    check_arguments(load_optimizer, locals())
    rest = spec.parse(text, {}, kind=dict)
    current = {"class": type(optimizer).__name__, "shapes": _shapes(optimizer)}
    for name, value in current.items():
        if rest.get(name) != value:
            raise ValueError(
                f"the optimizer must have the {name} it was saved with, {_brief(rest.get(name))}, got {_brief(value)}; "
                "build it as before, over the same parameters in the same order. Nothing was loaded."
            )
    for name, tensor in tensors.items():
        part, _, (index, _, key) = *name.partition(".")[:2], name.partition(".")[2].partition(".")
        if part not in ("state", "group") or not index.isdigit() or int(index) not in rest[part]:
            raise ValueError(f"tensors of an optimizer are named like state.0.exp_avg, got {name!r}; pass those saved.")
        rest[part][int(index)][key] = tensor.clone()
    optimizer.load_state_dict({"state": rest["state"], "param_groups": list(rest["group"].values())})
    # in the memory format of the weights, e.g. channels last: a fused step reads both together
    for weight, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == weight.shape and value.stride() != weight.stride():
                state[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _without_tensors(values: Mapping[str, Any], name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """The values that are not tensors; adds the tensors to `tensors`."""
    tensors.update({f"{name}.{k}": v.detach() for k, v in values.items() if isinstance(v, Tensor)})
    return {k: v for k, v in values.items() if not isinstance(v, Tensor)}


def _shapes(optimizer: torch.optim.Optimizer) -> list[list[tuple[int, ...]]]:
    return [[tuple(p.shape) for p in group["params"]] for group in optimizer.param_groups]


def _unequal_ties(current: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """Pairs of names that share memory in the module and differ in the checkpoint."""
    first: dict[tuple[int, torch.device], str] = {}
    pairs = []
    for name, tensor in current.items():
        other = first.setdefault((tensor.data_ptr(), tensor.device), name)
        same = other == name or not tensor.numel() or tensors[other].shape != tensors[name].shape
        if not same and not torch.equal(tensors[other], tensors[name]):
            pairs.append(f"{other} = {name}")
    return pairs


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _brief(value: Iterable | str | None) -> str:
    text = str(value)
    return text if len(text) < 200 else f"{text[:150]} ... {text[-40:]}"
