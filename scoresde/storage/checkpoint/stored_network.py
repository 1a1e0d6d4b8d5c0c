"""Networks as text and back: the call that makes a network, with `Given` for one whose class has no text form."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import nn

from scoresde._core.foreign_networks import inner_network
from scoresde.adapters import Adapter, Given
from scoresde.storage import spec

__all__ = ["is_inner", "network_text", "rebuilt"]


def network_text(net: nn.Module) -> str | None:
    """Text of a network; None without one. Inside an adapter a network without text is written as `Given`."""
    try:
        return spec.to_text(net)
    except TypeError:
        return spec.to_text(_with_given(net)) if isinstance(net, Adapter) else None


def _with_given(net: Adapter) -> nn.Module:
    inner = inner_network(net.net)
    inner = _with_given(inner) if isinstance(inner, Adapter) else Given(type(inner).__name__)
    return dataclasses.replace(cast("Any", net), net=inner)


def is_inner(settings: Mapping[str, Any], net: nn.Module) -> bool:
    """Whether ``net`` goes inside the stored adapter, rather than being the whole network."""
    return "Given(" in (settings["net"] or "") and type(net).__name__ != settings["net_class"]


def rebuilt(settings: Mapping[str, Any], known: spec.Known, given: nn.Module | None) -> nn.Module:
    """The network of stored settings, untrained, with the user's network in place of `Given`.

    Raises:
        ValueError: If it has no settings, names an unknown class, or needs a network that was not given.
    """
    if settings["net"] is None:
        raise ValueError(
            f"a network is rebuilt from its settings, {settings['net_class']} was saved without them (its class is not "
            f"a dataclass of plain settings); build it and pass load(path, net={settings['net_class']}(...))."
        )
    try:
        with torch.random.fork_rng(devices=[]):
            net = spec.parse(settings["net"], known, kind=nn.Module, stored=True)
    except ValueError as error:
        name = settings["net_class"]
        if name in known:
            raise
        raise ValueError(f"{error} Pass your own class as known={{{name!r}: {name}}}.") from error
    return _filled(net, given)


def _filled(net: nn.Module, given: nn.Module | None) -> nn.Module:
    """The network with the user's in place of `Given`."""
    outer = net
    while isinstance(outer, Adapter) and isinstance(outer.net, Adapter):
        outer = outer.net
    if not isinstance(outer, Adapter) or not isinstance(outer.net, Given):
        return net
    name = outer.net.class_name
    if given is None:
        raise ValueError(
            f"the weights are those of a network of the class {name}, which has no settings to rebuild it from; build "
            f"it and pass load(path, net={name}(...))."
        )
    outer.net = given
    return net
