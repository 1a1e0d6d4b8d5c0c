"""The scheduler that a `Scheduler` replaces: its class and its configuration, with changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from scoresde._core.suggest import nearest
from scoresde.bridges.diffusers.peer import class_name_of
from scoresde.bridges.diffusers.settings import DEFAULTS

__all__ = ["replaced_config"]


def replaced_config(
    scheduler: Any, event_shape: Any, rounding: bool | None, changes: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """The class of a scheduler that is replaced, and its configuration with changes.

    Args:
        scheduler: The scheduler, or its configuration.
        event_shape, rounding: Entries of the configuration of a `Scheduler`; None keeps those that it has.
        changes: New values by name.

    Raises:
        TypeError: If ``scheduler`` is neither, or there is no entry of a name.
        ValueError: If its time runs from noise to data.
    """
    is_pipeline = hasattr(scheduler, "scheduler")
    if not isinstance(scheduler, Mapping) and (is_pipeline or not hasattr(scheduler, "config")):
        got = f"a {type(scheduler).__name__}" if is_pipeline else repr(scheduler)
        raise TypeError(
            f"scheduler must be the one that is replaced, or its configuration, got {got}; pass pipe.scheduler."
        )
    given = dict(scheduler if isinstance(scheduler, Mapping) else scheduler.config)
    own_class = {} if isinstance(scheduler, Mapping) else {"_class_name": type(scheduler).__name__}
    name = class_name_of({**own_class, **given})
    config = {key: value for key, value in given.items() if not key.startswith("_")}
    _check_changes(changes, config)
    shape = _checked_shape(config.get("event_shape") if event_shape is None else event_shape)
    rounding = bool(config.get("rounding", False) if rounding is None else rounding)
    config.update(changes, replaces=name, rounding=rounding, event_shape=shape)
    if config.get("invert_sigmas"):
        raise ValueError(
            "invert_sigmas counts time from noise to data, which no sampler here does, got True; keep the pipeline's "
            "own scheduler."
        )
    return name, config


def _check_changes(changes: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Refuses changes of entries that no scheduler has.

    Args:
        changes: New values by name.
        config: The configuration that is changed.

    Raises:
        TypeError: If there is no such entry; names the nearest.
    """
    known = sorted({*config, *DEFAULTS} - {"replaces", "sampler", "event_shape", "rounding"})
    for name in changes:
        if name not in known:
            raise TypeError(f"no entry of a scheduler's configuration is named {name!r}; {nearest(name, known)}")


def _checked_shape(shape: Any) -> tuple[int, ...] | None:
    """An event shape as a tuple; None if it is unknown.

    Args:
        shape: Positive integers, or None.

    Raises:
        TypeError: If it is anything else.
    """
    sizes: list[Any] = list(shape) if isinstance(shape, Sequence) and not isinstance(shape, str) else [None]
    if shape is not None and not (sizes and all(type(size) is int and size > 0 for size in sizes)):
        raise TypeError(
            f"event_shape must be the shape of one sample, positive integers, got {shape!r}; pass (4, 64, 64)."
        )
    return None if shape is None else tuple(sizes)
