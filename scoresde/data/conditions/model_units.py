"""Conditions in data units to model units, each by its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from scoresde._core.checks import check_kind
from scoresde._core.suggest import unknown_name
from scoresde.data.conditions.base import ConditionKind

__all__ = ["cond_in_model_units"]


def cond_in_model_units(
    kinds: Mapping[str, ConditionKind], cond: Mapping[str, Any], warn: bool = True
) -> dict[str, Tensor]:
    """Conditions in model units.

    Args:
        kinds: The kind of each condition that is described.
        cond: Values in data units by name, one entry per event.
        warn: Whether values far from those of the train part are named in a warning; not where they train a network.

    Raises:
        ValueError: If a condition is not described, or its values are not as described.
    """
    check_kind("cond", cond, Mapping)
    result = {}
    for name, values in cond.items():
        if name not in kinds:
            raise ValueError(unknown_name("condition", str(name), kinds))
        kind = kinds[name]
        checked = kind.as_values(values, name)
        kind.check(checked, name)
        if warn:
            kind.warn_of_far_values(checked, name)
        result[name] = kind.to_model(checked)
    return result
