"""Classes of diffusers that this package needs: the base class of its schedulers, and those of its results."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from scoresde.bridges.diffusers.settings import BETA_CHAINS, EDM, FLOW

__all__ = ["CLASS_NAME", "class_name_of", "class_of_diffusers", "diffusers_package", "frozen_config", "output_of_step"]

CLASS_NAME = "PipelineScheduler"
"""The name under which pipelines of diffusers find `Scheduler` in a saved folder."""


@functools.lru_cache
def class_of_diffusers(cls: type) -> type:
    """A scheduler's class with diffusers' base class, by which its pipelines recognize schedulers.

    Args:
        cls: The class without it; one that has it is returned.

    Raises:
        ImportError: If diffusers is not installed.
    """
    mixin = diffusers_package().SchedulerMixin
    if issubclass(cls, mixin):
        return cls
    return type(CLASS_NAME, (cls, mixin), {"__module__": cls.__module__, "__doc__": cls.__doc__})


def class_name_of(config: Mapping[str, Any]) -> str:
    """The scheduler's class of a configuration: what it states, or the class with exactly these entries.

    Args:
        config: A configuration of diffusers.

    Raises:
        ValueError: If there is no such class.
    """
    stated = config.get("replaces") or config.get("_class_name")
    if stated:
        return str(stated)
    diffusers, entries = diffusers_package(), {name for name in config if not name.startswith("_")}
    for name in sorted((*BETA_CHAINS, *FLOW, *EDM), key=len):  # DDIM before DDIMParallel, with the same entries
        if {*inspect.signature(getattr(diffusers, name).__init__).parameters} - {"self"} == entries:
            return name
    raise ValueError(
        f"the configuration does not tell the scheduler's class, got {', '.join(sorted(entries))}; pass the scheduler "
        "itself, pipe.scheduler."
    )


def frozen_config(entries: Mapping[str, Any]) -> Any:
    """The entries as a configuration of diffusers, whose entries are attributes too."""
    from diffusers.configuration_utils import FrozenDict

    return FrozenDict(entries)


def output_of_step(state: Tensor) -> Any:
    """The result of a step as an object of diffusers, with the state as ``prev_sample``."""
    from diffusers.schedulers.scheduling_utils import SchedulerOutput

    return SchedulerOutput(prev_sample=state)


def diffusers_package() -> Any:
    """The package diffusers.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import diffusers
    except ImportError as error:
        raise ImportError("this needs diffusers: pip install 'scoresde[diffusers]'.") from error
    return diffusers
