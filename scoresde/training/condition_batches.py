"""Conditions of the events of a batch, in model units, some of them replaced by their nulls."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scoresde.data import Description
from scoresde.nn.conditions import reads_known
from scoresde.training.condition_checks import all_conditions, check_dropout
from scoresde.training.settings import Training

__all__ = ["ConditionBatches", "random_known"]

_RESIDENT = 1 << 30  # largest conditions, bytes, that stay on the device; larger ones are sent batch by batch


class ConditionBatches:
    """The conditions that a network reads: on the device if they are small, in the units of the model.

    Floating conditions and classes are converted once; images of integers, which are small as they are, by batch.

    Args:
        net: The network, which declares its conditions.
        cond: Their values in data units, ``(N, *)`` by name, as its data checks return them.
        description: Of the data; None without conditions.
        settings: Of the run: ``condition_dropout``.
        device: Of the batches.
        dtype: Of floating conditions.

    Raises:
        ValueError: If ``condition_dropout`` names a condition that the network does not have, or one without a null.
    """

    def __init__(
        self,
        net: nn.Module,
        cond: Mapping[str, Tensor],
        description: Description | None,
        settings: Training,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._conditions: Mapping[str, Any] = all_conditions(net)
        self._dropout = check_dropout(net, settings.condition_dropout)
        self._reads_known = reads_known(net)
        self._kinds = {} if description is None else dict(description.conditions)
        self._device, self._dtype = device, dtype
        resident = sum(values.nbytes for values in cond.values()) <= _RESIDENT
        self._values: dict[str, Tensor] = {}
        self._scaled: set[str] = set()
        for name, values in sorted(cond.items()):
            stored = values.to(device) if resident else values
            if resident and (values.is_floating_point() or values.ndim == 1):
                stored = self._to_model(name, stored)
                self._scaled.add(name)
            self._values[name] = stored

    def draw(self, index: Tensor, x0: Tensor) -> dict[str, Tensor]:
        """The conditions of some events, by name; draws from the global random state which ones are dropped.

        Args:
            index: Indices of the events, ``(B,)``.
            x0: The events in model units, NaN at missing values; which entries are known is drawn at random.
        """
        cond: dict[str, Tensor] = {}
        for name, values in self._values.items():
            entries = values[index.to(values.device)].to(self._device, non_blocking=True)
            if name not in self._scaled:
                entries = self._to_model(name, entries)
            share = self._dropout.get(name, 0.0)
            if share:
                dropped = torch.rand(len(entries), device=self._device) < share
                dropped = dropped.reshape(-1, *(1 for _ in entries.shape[1:]))
                entries = torch.where(dropped, self._conditions[name].null_like(entries), entries)
            cond[name] = entries
        return {**cond, "known": random_known(x0, self._dropout.get("known", 0.0))} if self._reads_known else cond

    def _to_model(self, name: str, values: Tensor) -> Tensor:
        values = self._kinds[name].to_model(values)
        return values.to(self._dtype) if values.is_floating_point() else values


def random_known(x0: Tensor, nothing: float = 0.0) -> Tensor:
    """A random part of the entries of each event, NaN elsewhere; its share is uniform in [0, 1].

    The channels of a position on a grid are known together.

    Args:
        x0: Events, ``(B, *D)``; missing values, which are NaN, stay unknown.
        nothing: Probability that no entry of an event is known.

    Source: Tashiro et al. 2021 (CSDI), the random strategy.
    """
    share = torch.rand(len(x0), *(1 for _ in x0.shape[1:]), device=x0.device)
    dropped = torch.rand(share.shape, device=x0.device) < nothing
    positions = x0 if x0.ndim < 3 else x0[:, :1]
    known = torch.rand(positions.shape, device=x0.device) < share.where(~dropped, 0.0)
    return torch.where(known, x0, math.nan)
