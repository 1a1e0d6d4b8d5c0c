"""The conditions of a data set's two parts: tensors of one entry per event, with the same names and kinds in both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from scoresde._core.arrays import as_tensor
from scoresde.data.conditions.base import ConditionKind
from scoresde.data.conditions.entries import check_real
from scoresde.data.conditions.fit import LABEL, check_name, found_kind
from scoresde.data.conditions.kinds import ClassCondition, VectorCondition

__all__ = ["Conditions", "checked_conditions", "label_kind", "select"]

Conditions = Mapping[str, Tensor]
"""Values by name, ``(N, *)``, one entry per event."""

_COUNTS = {"train": "train_cond", "test": "test_cond"}


def checked_conditions(
    parts: Mapping[str, Mapping[str, Any]],
    counts: Mapping[str, int],
    stated: Mapping[str, ConditionKind],
    shape: tuple[int, ...],
    bins: int | None,
) -> tuple[dict[str, dict[str, Tensor]], dict[str, ConditionKind]]:
    """The conditions of both parts as tensors, and the kind of each.

    Args:
        parts: ``"train"`` and ``"test"``: values by name. That of a part without events may be empty.
        counts: Number of events of each part.
        stated: Kinds that the description states; the others are found from the values.
        shape, bins: Of the events.

    Returns:
        The values of each part by name, and the kinds of all conditions, those without values included.

    Raises:
        ValueError: If the parts differ in names or shapes, there is not one entry per event, or values contradict
            their kind.
    """
    names = sorted({name for part in parts.values() for name in part})
    kinds = dict(stated)
    result: dict[str, dict[str, Tensor]] = {part: {} for part in parts}
    for name in names:
        check_name(name)
        values = {part: _values(name, part, parts, counts, stated.get(name)) for part in parts}
        _check_alike(name, values)
        if name not in kinds:
            kinds[name] = found_kind(name, values, shape, bins)
        kind = kinds[name]
        for part, tensor in values.items():
            tensor = kind.as_values(tensor, name)
            try:
                kind.check(tensor, name)
            except ValueError as error:
                raise ValueError(f"{part} part: {error}") from error
            result[part][name] = tensor
    return result, kinds


def select(cond: Conditions, rows: Tensor | slice) -> dict[str, Tensor]:
    """The entries of some events: ``rows`` are indices, a mask or a slice."""
    return {name: values[rows.to(values.device) if isinstance(rows, Tensor) else rows] for name, values in cond.items()}


def _values(
    name: str,
    part: str,
    parts: Mapping[str, Mapping[str, Any]],
    counts: Mapping[str, int],
    kind: ConditionKind | None,
) -> Tensor:
    """One condition of one part; without events also where it is absent, of the other part's shape."""
    argument, count = f"{_COUNTS[part]}[{name!r}]", counts[part]
    if name not in parts[part]:
        if count:
            raise ValueError(
                f"both parts must have the same conditions, {_COUNTS[part]} has no {name!r} for {count} events; add it."
            )
        other = next(part for part in parts if name in parts[part])
        values = _values(name, other, parts, counts, kind)
        return values[:0]
    values = parts[part][name]
    values = as_tensor(values, argument) if kind is None else kind.as_values(values, name)
    if values.ndim == 0 or len(values) != count:
        raise ValueError(
            f"{argument} must have one entry per event, shape ({count}, ...), got {tuple(values.shape)}; pass one per "
            "event."
        )
    check_real(values, argument)
    if kind is None and name == LABEL and (values.is_floating_point() or values.is_complex() or values.ndim != 1):
        what = f"shape {tuple(values.shape)}" if values.ndim != 1 else f"{values.dtype}"
        raise ValueError(f"{argument} must be integers, 0, 1, ..., got {what}; encode classes as integers.")
    if kind is None and values.ndim == 1:
        integers = not values.is_floating_point()
        values = values.long() if integers else values.unsqueeze(1)
    if isinstance(kind, VectorCondition) and not values.is_floating_point():
        values = values.to(torch.get_default_dtype())
    return values


def _check_alike(name: str, values: Mapping[str, Tensor]) -> None:
    train, test = values["train"], values["test"]
    alike = train.shape[1:] == test.shape[1:] and train.is_floating_point() == test.is_floating_point()
    if len(train) and len(test) and not alike:
        raise ValueError(
            f"condition {name!r} must be alike in both parts, got {train.dtype} {tuple(train.shape)} and {test.dtype} "
            f"{tuple(test.shape)}; bring them to one shape and type."
        )


def label_kind(names: tuple[str, ...] | None) -> dict[str, ConditionKind]:
    """The description of class labels with names; empty without names."""
    return {} if names is None else {LABEL: ClassCondition(len(names), names)}
