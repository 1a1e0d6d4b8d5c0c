"""Conditions of a network as its inputs: checks of the declaration and of a call, and all conditions of one kind."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from scoresde._core.suggest import nearest
from scoresde.nn.conditions import Condition, Known

__all__ = ["ChannelInputs", "Context", "TokenInputs", "check_declared", "complete", "entering"]

Context = tuple[Tensor, Tensor]
"""Tokens ``(B, n, width)`` and which of them are present, bool, ``(B, n)``."""

_OTHER_INPUTS = ("x", "log_snr", "augment", "observed", "delta", "jump", "tau", "s", "self", "model", "sampler")


def check_declared(conditions: Mapping[str, Condition]) -> dict[str, Condition]:
    """The conditions as a dict, after checks of their names and classes.

    Raises:
        TypeError: If one is not a `Condition`.
        ValueError: If a name cannot be a keyword of the network's call.
    """
    for name, condition in conditions.items():
        taken = name in _OTHER_INPUTS or (isinstance(name, str) and hasattr(nn.ModuleDict, name))
        if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name) or taken:
            raise ValueError(
                "the name of a condition must be a name of Python, not one of its words, of the other inputs "
                f"({', '.join(_OTHER_INPUTS)}) or of a module's attributes, got {name!r}; label, text and low_res are "
                "usual."
            )
        if isinstance(condition, Known) != (name == "known"):
            raise ValueError(
                f"the condition of known entries is named known, got {name!r} for {condition!r}; write "
                'conditions={"known": Known(channels)}, and give other conditions other names.'
            )
        if not isinstance(condition, Condition):
            raise TypeError(
                f"conditions[{name!r}] must be a Condition, got {condition!r}; write Classes(10), Vector(6), "
                "Tokens(384) or Channels(3)."
            )
    return dict(conditions)


def entering(conditions: Mapping[str, Condition], *kinds: str) -> dict[str, Condition]:
    """The conditions that enter a network in one of the ways ``kinds``."""
    return {name: condition for name, condition in conditions.items() if condition.enters in kinds}


def complete(
    network: nn.Module,
    conditions: Mapping[str, Condition],
    given: Mapping[str, Tensor | None],
    log_snr: Tensor,
    event_shape: tuple[int, ...] = (),
) -> dict[str, Tensor]:
    """All conditions of a call, checked; null where one is left out.

    Args:
        network: Whose call it is, for the error.
        conditions: Those that it declares.
        given: Those of the call; None stands for one that is left out.
        log_snr: Nats, ``(B,)``.
        event_shape: Shape of one event.

    Raises:
        TypeError: If a name is unknown, or a value is not a tensor of the right kind of numbers.
        ValueError: If a value has another shape, or a condition without a null is left out.
    """
    values: dict[str, Tensor] = {}
    for name in given:
        if name not in conditions:
            raise TypeError(f"{type(network).__name__} reads no condition {name!r}; {_declared(name, conditions)}")
    for name, condition in conditions.items():
        value = given.get(name)
        if value is None:
            if not condition.null:
                raise ValueError(
                    f"{name} must be given, because {condition} has no null; pass {name}=…, or build and train the "
                    "network with null=True."
                )
            value = condition.left_out(log_snr, event_shape)
        condition.check(name, value, log_snr.shape[0], event_shape)
        values[name] = value
    return values


def _declared(name: str, conditions: Mapping[str, Condition]) -> str:
    if conditions:
        return nearest(name, conditions)
    return f"build it with conditions={{{name!r}: …}}."


class TokenInputs(nn.Module):
    """The tokens of all conditions that enter by cross-attention, at the width of the network's context."""

    def __init__(self, conditions: Mapping[str, Condition], width: int) -> None:
        super().__init__()
        encoders = {name: condition.encoder(width) for name, condition in entering(conditions, "tokens").items()}
        self.encoders = nn.ModuleDict(encoders)

    def forward(self, cond: Mapping[str, Tensor]) -> Context | None:
        """The tokens of all conditions and which are present; None without such conditions."""
        parts = [encoder(cond[name]) for name, encoder in self.encoders.items()]
        if len(parts) < 2:
            return parts[0] if parts else None
        return torch.cat([tokens for tokens, _ in parts], 1), torch.cat([present for _, present in parts], 1)


class ChannelInputs(nn.Module):
    """The channels of all conditions that are concatenated to the input, on the grid of the event.

    Attributes:
        features: Number of channels.
    """

    def __init__(self, conditions: Mapping[str, Condition], event_shape: tuple[int, ...]) -> None:
        super().__init__()
        used = entering(conditions, "channels")
        encoders = {name: condition.encoder(0) for name, condition in used.items()}
        known = conditions.get("known")
        if isinstance(known, Known) and known.channels != (*event_shape, 0)[0]:
            raise ValueError(
                f"known must have the entries, or channels, of the event {event_shape}, got {known}; write "
                f"Known({(*event_shape, 1)[0]}){'' if event_shape else ' and an event of one axis'}."
            )
        if used.keys() - {"known"} and len(event_shape) < 2:
            raise ValueError(
                f"a condition of channels needs an event of channels on a grid, got {event_shape}; use Vector(size)."
            )
        self.sizes = event_shape[1:]
        self.encoders = nn.ModuleDict(encoders)
        self.features = sum(cast("int", encoder.features) for encoder in encoders.values())

    def forward(self, cond: Mapping[str, Tensor]) -> Tensor:
        """The channels of all conditions, ``(B, features, *sizes)``; there must be such conditions."""
        return torch.cat([encoder(cond[name], self.sizes) for name, encoder in self.encoders.items()], 1)
