"""The conditions of a default network: each described condition of the data as the network's input, with a null."""

from __future__ import annotations

from collections.abc import Sequence

from scoresde._core.suggest import unknown_name
from scoresde.data import ClassCondition, ConditionKind, Description, ImageCondition, TokenCondition, VectorCondition
from scoresde.data.conditions.fit import LABEL
from scoresde.nn import Channels, Classes, Condition, Known, Tokens, Vector

__all__ = ["chosen_conditions", "network_conditions"]


def chosen_conditions(description: Description, names: Sequence[str] | None) -> tuple[str, ...]:
    """Names of the conditions of a default network.

    Args:
        description: Of the data.
        names: Those that are wanted; None takes all but class labels, which most data have.

    Raises:
        ValueError: If one is not described; ``known``, the known entries of the event itself, needs no description.
    """
    if names is None:
        return tuple(name for name in description.conditions if name != LABEL)
    for name in names:
        if name not in description.conditions and name != "known":
            raise ValueError(unknown_name("condition of the data", name, [*description.conditions, "known"]))
    return tuple(dict.fromkeys(names))


def network_conditions(
    description: Description, names: Sequence[str], event_shape: tuple[int, ...] | None
) -> dict[str, Condition]:
    """What a network declares to read the conditions of these names.

    Args:
        description: Of the data.
        names: Of conditions that it describes, and ``known``.
        event_shape: Of the innermost network, None if it declares none.

    Raises:
        ValueError: If known entries are to be read of events that are not numbers with an axis.
    """
    declared = {name: _declared(description.conditions[name]) for name in names if name != "known"}
    if "known" in names:
        if not event_shape or (description.classes is not None and not description.codes):
            raise ValueError(
                f"known entries need events of numbers, or of numbers and categories, with an axis, got "
                f"{description.name!r}, {_what(description)} of shape {description.shape}; leave known out of the "
                "conditions."
            )
        declared["known"] = Known(event_shape[0])
    return declared


def _what(description: Description) -> str:
    return "numbers" if description.classes is None else f"{description.classes} classes"


def _declared(kind: ConditionKind) -> Condition:
    if isinstance(kind, ClassCondition):
        return Classes(kind.count)
    if isinstance(kind, VectorCondition):
        return Vector(kind.size)
    if isinstance(kind, TokenCondition):
        return Tokens(kind.size)
    assert isinstance(kind, ImageCondition)
    return Channels(kind.shape[0])
