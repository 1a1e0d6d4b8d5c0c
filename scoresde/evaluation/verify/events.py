"""The events that `verify` denoises: a part of the data in stated model units, with their conditions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from scoresde._core.arrays import ArrayLike, as_tensor
from scoresde._core.checks import check_event_shape, check_finite
from scoresde.data import ClassCondition, Data
from scoresde.data.conditions.parts import select
from scoresde.model import Model, ScoreModel
from scoresde.training.condition_checks import conditions_of, model_cond

__all__ = ["Events", "events_of"]

_LEAST = 32
ENOUGH = 2 * _LEAST
"""With fewer held-out events, those of training are used too."""
_MOST_FITTED = 4096
_MOST_VALUES = 1 << 14  # low-dimensional events are cheap: more of them, and several noises each


@dataclass(frozen=True, eq=False)
class Events:
    """Events to denoise, and others for the moments of the data.

    Attributes:
        x0: To denoise, ``(n, d)`` float64 in stated model units.
        rest: For the linear denoiser, ``(m, d)``: other events, the same ones if there are too few.
        all: Both, ``(n + m, d)``.
        shape: Shape of one event.
        cond: Conditions of ``x0`` as the network takes them.
        classes: Number of classes of conditions that are class labels, by name.
        repeats: Noises per event.
    """

    x0: Tensor
    rest: Tensor
    all: Tensor
    shape: tuple[int, ...]
    cond: dict[str, Any]
    classes: dict[str, int]
    repeats: int


def events_of(
    model: Model, data: Data | ArrayLike, units: str, cond: Mapping[str, Any] | None, limit: int, seed: int
) -> Events:
    """Chooses the events, see `verify`.

    Raises:
        ValueError: If there are too few, or conditions are absent.
    """
    y, given = _given(data, cond)
    if y.is_floating_point():
        check_finite(y, "data")  # before the choice, so that the index is that of the user's data
    generator = torch.Generator().manual_seed(seed)
    check_event_shape(y, None, "data")
    order = torch.randperm(len(y), generator=generator)[:_MOST_FITTED]
    if len(order) < _LEAST:
        raise ValueError(f"a comparison needs at least {_LEAST} events, got {len(order)}; pass more of your data.")
    x = _in_model_units(model, y[order], units, generator)
    shape = tuple(x.shape[1:])
    x = x.detach().cpu().double()
    x = x.reshape(len(x), -1)
    most = max(limit, min(16 * limit, _MOST_VALUES // max(x.shape[1], 1)))
    count = min(most, len(x) // 2 if len(x) >= ENOUGH else len(x))
    x0, rest = x[:count], x[count:] if len(x) >= ENOUGH else x
    rows = order[:count]
    return Events(
        x0, rest, x, shape, _conditions(model, given, rows), _classes(model), max(1, min(8, most // max(count, limit)))
    )


def _given(data: Data | ArrayLike, cond: Mapping[str, Any] | None) -> tuple[Tensor, dict[str, Any]]:
    if not isinstance(data, Data):
        return as_tensor(data, "data"), {name: as_tensor(value, name) for name, value in (cond or {}).items()}
    if cond is not None:
        raise ValueError("a Data brings the conditions of its events, got cond too; leave one of them out.")
    complete = data.complete()
    if len(complete.test) >= ENOUGH:
        return complete.test, dict(complete.test_cond)
    joined = {
        n: torch.cat([v, complete.test_cond[n]]) for n, v in complete.train_cond.items() if n in complete.test_cond
    }
    return torch.cat([complete.train, complete.test]), joined


def _in_model_units(model: Model, y: Tensor, units: str, generator: torch.Generator) -> Tensor:
    if not isinstance(units, str) or units not in ("data", "model"):
        raise ValueError(f'units must be "data" or "model", got {units!r}.')
    y = y.cpu()
    if model.data is not None and units == "data":
        if model.data.is_quantized(y):
            y = model.data.dequantize(y, generator)
        y = model.data.to_model(y)
    if not y.is_floating_point():
        raise TypeError(f"data in model units must be floating, got {y.dtype}; give the model its Description.")
    check_event_shape(y, model.event_shape, "data")
    return y


def _conditions(model: Model, given: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    if isinstance(model, ScoreModel) and conditions_of(model.net) and model.data is not None:
        return model_cond(model, given, model.data, rows)
    if isinstance(model, ScoreModel) and not conditions_of(model.net) and model.data is not None:
        return {}  # conditions of the data that the network does not read
    return select(given, rows)


def _classes(model: Model) -> dict[str, int]:
    kinds = {} if model.data is None else model.data.conditions
    declared = conditions_of(getattr(model, "net", model))
    counts = {name: kind.count for name, kind in kinds.items() if isinstance(kind, ClassCondition)}
    return counts | {n: c.count for n, c in declared.items() if hasattr(c, "count")}
