"""Weights into a network: names without the prefixes of wrappers, averages where there are any, one complete error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from torch import Tensor, nn

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_kind
from scoresde._core.foreign_networks import inner_network
from scoresde.bridges.opened import Finding
from scoresde.bridges.weights.read import WeightFile

__all__ = ["choose", "fit", "without_wrappers"]

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile put before every name."""

SHADOW = "shadow_params."
"""Prefix of a list of averages in the order of the parameters that require a gradient."""


def without_wrappers(tensors: Mapping[str, Tensor], wrappers: Sequence[str] = WRAPPERS) -> dict[str, Tensor]:
    """The tensors under names without the prefixes that every name has.

    Args:
        tensors: Tensors by name.
        wrappers: The prefixes, removed as often as all names begin with one.
    """
    check_arguments(without_wrappers, locals())
    names = list(tensors)
    while names and (found := next((w for w in wrappers if all(name.startswith(w) for name in names)), None)):
        names = [name.removeprefix(found) for name in names]
    return dict(zip(names, tensors.values()))


def fit(net: nn.Module, tensors: Mapping[str, Tensor], wrappers: Sequence[str] = WRAPPERS) -> None:
    """Copies weights into a network, all of them or, after an error, none, and sets it to evaluation mode.

    Args:
        net: Gets the values in its own types; it stays on its device.
        tensors: Its state dict, by name; the prefixes of wrappers are removed. Of names that share their values in the
            network, one is enough.
        wrappers: As in `without_wrappers`.

    Raises:
        TypeError: If ``net`` is not a module.
        ValueError: If names are missing or unexpected, or shapes differ; all are listed. The network does not change.
    """
    check_kind("net", net, nn.Module)
    check_arguments(fit, locals())
    tensors, wrapped = without_wrappers(tensors, wrappers), net
    net = cast("nn.Module", inner_network(net))
    current = {name: value for name, value in net.state_dict().items() if isinstance(value, Tensor)}
    tensors = _with_tied(tensors, current)
    faults = {
        "missing": [name for name in current if name not in tensors],
        "unexpected": [name for name in tensors if name not in current],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} instead of {tuple(value.shape)}"
            for name, value in current.items()
            if name in tensors and tensors[name].shape != value.shape
        ],
    }
    if any(faults.values()):
        lists = "; ".join(f"{fault}: {_listed(names)}" for fault, names in faults.items() if names)
        groups = _prefixes(tensors, current)
        remedy = (
            f"the names of the network begin with {' or '.join(map(repr, groups))} in these weights, pass one group: "
            f"{{name.removeprefix(p): value for name, value in weights.items() if name.startswith(p)}} with p = "
            f"{groups[0]!r}."
            if groups
            else "build the network with the settings that it was trained with."
        )
        raise ValueError(
            f"the weights must fit the network, {type(net).__name__}, name by name, got {lists}. Nothing was loaded; "
            f"{remedy}"
        )
    net.load_state_dict({name: tensors[name] for name in current}, strict=False)
    wrapped.eval()


def _prefixes(tensors: Mapping[str, Tensor], current: Mapping[str, Tensor]) -> list[str]:
    """The prefixes under which weights hold all names of a network, such as ``"ema."``."""
    first = next(iter(current), None)
    if first is None:
        return []
    candidates = [name.removesuffix(first) for name in tensors if name.endswith(f".{first}")]
    return [prefix for prefix in candidates if all(prefix + name in tensors for name in current)]


def _with_tied(tensors: Mapping[str, Tensor], current: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, and those that a file left out because the network shares their values with another name."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, value in current.items():
        if value.numel() and value.device.type != "meta":
            groups.setdefault((value.data_ptr(), value.device, value.shape, value.stride()), []).append(name)
    filled = dict(tensors)
    for names in groups.values():
        stored = next((name for name in names if name in tensors), None)
        if stored is not None:
            filled |= {name: tensors[stored] for name in names if name not in tensors}
    return filled


def choose(
    file: WeightFile,
    net: nn.Module,
    averaged: Sequence[str],
    raw: Sequence[str],
    inner: str = "",
    want_raw: bool = False,
) -> tuple[dict[str, Tensor], Finding]:
    """The weights of a network among the groups of a file: the averaged ones where there are any.

    Args:
        file: The content of a file.
        net: The network; of it the order of parameters counts, for a list of averages.
        averaged: Prefixes of groups of averages, the preferred ones first; one that ends in ``shadow_params.`` is a
            list in the order of the parameters that require a gradient, completed from the raw group.
        raw: Prefixes of groups of raw weights; ``""`` for a file that is a state dict.
        inner: Prefix of the network's names inside a group.
        want_raw: Whether to take the raw weights although there are averages.

    Returns:
        State dict, and a finding that says which group it is.

    Raises:
        ValueError: If there is no such group, or a list of averages does not fit the parameters.
    """
    check_arguments(choose, locals())
    groups = [*((prefix, True) for prefix in averaged), *((prefix, False) for prefix in raw)]
    wanted = [(prefix, is_average) for prefix, is_average in groups if not (want_raw and is_average)]
    for prefix, is_average in wanted:
        tensors = _group(file.tensors, prefix, inner)
        if not tensors:
            continue
        if prefix.endswith(SHADOW):
            base = next((g for p in raw if (g := _group(file.tensors, p, inner))), {})
            tensors = _from_list(net, tensors, without_wrappers(base), f"{prefix}* in {file.path}")
        name = f"{prefix}{inner}*" if prefix + inner else "all entries"
        others = [p for p, other in groups if other != is_average and _group(file.tensors, p, inner)]
        value = "exponential moving average" if is_average else "as trained, no average"
        why = f"{name} in {file.path.name}" + (f"; it also holds {others[0] or 'raw weights'}*" if others else "")
        return tensors, Finding("weights", value, "stated" if is_average or others or prefix else "assumed", why)
    names = ", ".join(repr(f"{prefix}{inner}…") for prefix, _ in wanted)
    raise ValueError(
        f"{file.path} must hold weights named {names}, got {_listed(list(file.tensors))}; it has another origin."
    )


def _group(tensors: Mapping[str, Tensor], prefix: str, inner: str) -> dict[str, Tensor]:
    """The tensors of a group under the names of the network; wrappers inside the group are removed."""
    group = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    group = without_wrappers(group)
    return {name.removeprefix(inner): value for name, value in group.items() if name.startswith(inner)}


def _from_list(
    net: nn.Module, listed: Mapping[str, Tensor], base: Mapping[str, Tensor], where: str
) -> dict[str, Tensor]:
    net = cast("nn.Module", inner_network(net))
    names = [name for name, parameter in net.named_parameters() if parameter.requires_grad]
    shapes = [tuple(net.get_parameter(name).shape) for name in names]
    values = [listed[str(k)] for k in range(len(listed)) if str(k) in listed]
    if len(values) != len(listed) or [tuple(v.shape) for v in values] != shapes:
        differing = next((k for k, (v, s) in enumerate(zip(values, shapes)) if tuple(v.shape) != s), None)
        detail = "" if differing is None else f"; entry {differing} has shape {tuple(values[differing].shape)} "
        detail += "" if differing is None else f"where {names[differing]} has {shapes[differing]}"
        raise ValueError(
            f"{where} must have one entry for each of the {len(names)} parameters of {type(net).__name__} that require "
            f"a gradient, in their order, got {len(listed)}{detail}; build the network as it was trained."
        )
    return dict(base) | dict(zip(names, values))


def _listed(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return (", ".join(names[:12]) or "none") + rest
