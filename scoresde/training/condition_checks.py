"""Checks that the conditions of a network are those of the data: names, kinds, sizes, classes and nulls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scoresde._core.suggest import unknown_name
from scoresde.data import ClassCondition, Description
from scoresde.data.conditions.entries import null_entries
from scoresde.data.conditions.model_units import cond_in_model_units
from scoresde.data.conditions.parts import select
from scoresde.model import ScoreModel
from scoresde.nn.conditions import Known

__all__ = ["all_conditions", "check_dropout", "checked_cond", "conditions_of", "in_turn", "model_cond"]


def all_conditions(net: nn.Module) -> Mapping[str, Any]:
    """The conditions that a network declares, by name; empty for one that declares none."""
    return getattr(net, "conditions", None) or {}


def conditions_of(net: nn.Module) -> dict[str, Any]:
    """The conditions that the data of a network must have, by name: all but the known entries of the event itself."""
    return {name: condition for name, condition in all_conditions(net).items() if not isinstance(condition, Known)}


def checked_cond(net: nn.Module, given: Mapping[str, Tensor], description: Description | None) -> dict[str, Tensor]:
    """The conditions that a network reads.

    Args:
        net: The network.
        given: Conditions of the data in data units, each ``(N, *)``.
        description: Of the data.

    Returns:
        Those of the network, by name, in data units.

    Raises:
        ValueError: If one is absent, of another kind or size, or has null entries and the network has no null.
    """
    needed = conditions_of(net)
    absent = [name for name in needed if name not in given]
    if absent:
        others = f"they have {', '.join(given)}" if given else "they have none"
        raise ValueError(
            f"a network with the condition {absent[0]!r} needs it in the data, {others}; name it where the data are "
            f"read (condition={absent[0]}), pass Data(..., train_cond={{{absent[0]!r}: values}}), or build the network "
            "without it."
        )
    for name, condition in needed.items():
        if description is None or name not in description.conditions:
            known = ", ".join(() if description is None else description.conditions) or "none"
            raise ValueError(
                f"a network with the condition {name!r} needs its kind in the description of the data, which has "
                f"{known}; pass Description(..., conditions={{{name!r}: kind}}), e.g. ClassCondition(10)."
            )
        _check_one(name, condition, given[name], description)
    return {name: given[name] for name in needed}


def _check_one(name: str, condition: Any, values: Tensor, description: Description) -> None:
    kind = description.conditions[name]
    count: int | None = getattr(condition, "count", None)
    if isinstance(kind, ClassCondition) != (count is not None):
        raise ValueError(
            f"condition {name!r} must be of one kind in network and data, got {condition} for {kind.describe()}; build "
            "the network for the data's (default_recipe does), or convert the data."
        )
    if isinstance(kind, ClassCondition) and count is not None and kind.count > count:
        raise ValueError(
            f"condition {name!r} has {kind.count} classes in the data, the network {condition}; build it with "
            f"{type(condition).__name__}({kind.count}), or merge classes."
        )
    try:
        condition.check(name, kind.to_model(values[:1]), len(values[:1]), description.model_shape)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"condition {name!r} of the data, {kind.describe()}, must fit the network's {condition}: {error}"
        ) from error
    nulls = null_entries(values)
    if not condition.null and bool(nulls.any()):
        raise ValueError(
            f"condition {name!r} of the network has no null, got {int(nulls.sum())} null entries (NaN) in the data, "
            f"the first at index {int(nulls.nonzero()[0])}; build it with null=True, or leave those events out."
        )


def check_dropout(net: nn.Module, dropout: float | Mapping[str, float]) -> dict[str, float]:
    """The probability with which each condition is dropped, without those that never are.

    Args:
        net: The network.
        dropout: As in `Training`.

    Raises:
        ValueError: If a name is unknown, or its condition has no null.
    """
    conditions = all_conditions(net)
    if not isinstance(dropout, Mapping):
        return {name: dropout for name, condition in conditions.items() if condition.null and dropout}
    for name, share in dropout.items():
        if name not in conditions:
            raise ValueError(unknown_name("condition in condition_dropout", name, conditions))
        if share and not conditions[name].null:
            raise ValueError(
                f"a condition is dropped to its null, {name!r} has none ({conditions[name]}); build the network with "
                "null=True, or leave it out of condition_dropout."
            )
    return {name: share for name, share in dropout.items() if share}


def model_cond(
    model: ScoreModel,
    given: Mapping[str, Tensor],
    description: Description,
    rows: Tensor | slice,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """The conditions of some events as the network of a model reads them: in model units, of its floating type.

    Args:
        model: Its network declares conditions; empty if it declares none.
        given: Conditions of the data in data units, each ``(N, *)``.
        description: Of the data.
        rows: The events.
        device: Of the result; default that of the values.

    Raises:
        ValueError: As `checked_cond`.
    """
    if not conditions_of(model.net):
        return {}
    chosen = select(checked_cond(model.net, given, description), rows)
    dtype = next((p.dtype for p in model.parameters() if p.dtype == torch.float64), torch.float32)
    cond = cond_in_model_units(description.conditions, chosen, warn=False)
    return {n: v.to(device, dtype if v.is_floating_point() else None) for n, v in cond.items()}


def in_turn(labels: Tensor) -> Tensor:
    """Indices of events so ordered that their classes follow in turn, ``(N,)``: one of each, then the next of each.

    Args:
        labels: Classes, ``(N,)``, on the CPU.
    """
    order = torch.argsort(labels, stable=True)
    counts = torch.bincount(labels)
    ranks = torch.arange(len(labels)) - (counts.cumsum(0) - counts)[labels[order]]
    return order[torch.argsort(ranks, stable=True)]
