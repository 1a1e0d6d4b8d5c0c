"""The conditions of a default network: each described condition of the data as the network's input, with a null."""

from __future__ import annotations

from collections.abc import Sequence

from scoresde._core.suggest import unknown_name
from scoresde.data import ClassCondition, ConditionKind, Description, ImageCondition, TokenCondition, VectorCondition
from scoresde.data.conditions.fit import LABEL
from scoresde.nn import Channels, Classes, Condition, Tokens, Vector

__all__ = ["chosen_conditions", "network_conditions"]


def chosen_conditions(description: Description, names: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the conditions of a default network.

    Args:
        description: Of the data.
        names: Those that are wanted; None takes all but class labels, which most data have.

    Raises:
        ValueError: If one is not described.
    """
    if names is None:
        return tuple(name for name in description.conditions if name != LABEL)
    for name in names:
        if name not in description.conditions:
            raise ValueError(unknown_name("condition of the data", name, description.conditions))
    return tuple(dict.fromkeys(names))


def network_conditions(description: Description, names: Sequence[str]) -> dict[str, Condition]:
    """What a network declares to read the conditions of these names.

    Args:
        description: Of the data.
        names: Of conditions that it describes.
    """
    return {name: _declared(description.conditions[name]) for name in names}


def _declared(kind: ConditionKind) -> Condition:
    if isinstance(kind, ClassCondition):
        return Classes(kind.count)
    if isinstance(kind, VectorCondition):
        return Vector(kind.size)
    if isinstance(kind, TokenCondition):
        return Tokens(kind.size)
    assert isinstance(kind, ImageCondition)
    return Channels(kind.shape[0])
