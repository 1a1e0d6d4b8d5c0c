"""The chain of a model against diffusers' own scheduler on the same network and noise, as a check of `verify`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_integer, check_kind, check_seed
from scoresde.adapters import Adapter
from scoresde.bridges.diffusers.folder import open_folder
from scoresde.bridges.diffusers.layout import read_layout
from scoresde.bridges.diffusers.rules import steered_model
from scoresde.bridges.diffusers.settings import SchedulerSettings
from scoresde.bridges.opened import Opened
from scoresde.evaluation.verify.verification import Check
from scoresde.model import Model, ScoreModel
from scoresde.sampling import StepSampler, sample

__all__ = ["diffusers_chain"]

_TOLERANCE = 1e-3  # schedulers keep their coefficients in float32; measured differences are 1e-6 to 1e-5
_NAME = "chain"


def diffusers_chain(folder: str | os.PathLike[str], steps: int = 20, seed: int = 0) -> Callable[[Model], Check]:
    """A check of `verify`: ``verify(model, data, peer=diffusers_chain("my-pipeline"))``.

    The folder's scheduler steps the folder's network, and the model is sampled by the equal sampler of this package,
    from the same noise.

    Args:
        folder: A pipeline folder of diffusers, which must be installed.
        steps: Number of steps of both.
        seed: Of the noise.

    Returns:
        The function that `verify` calls with its model.

    Raises:
        ImportError: If diffusers is not installed.
        FileNotFoundError, ValueError: As `scoresde.bridges.diffusers.open_folder`.
    """
    check_arguments(diffusers_chain, locals())
    check_integer("steps", steps)
    check_seed(seed)
    layout = read_layout(Path(folder))
    opened = open_folder(folder, steps=steps)
    assert layout.scheduler is not None
    assert layout.scheduler_file is not None
    name = str(layout.scheduler["_class_name"])
    settings = SchedulerSettings(name, layout.scheduler, layout.scheduler_file.name)

    def check(model: Model) -> Check:
        check_kind("model", model, Model)
        reason = _why_not(opened, model)
        if reason is not None:
            return Check(_NAME, "undecidable", f"{name} has no chain to compare with: {reason}.")
        steered = steered_model(model, settings, False)[0] if isinstance(model, ScoreModel) else model
        difference = _difference(opened, steered, _scheduler(settings), steps, seed)
        sentence = f"{steps} steps of {type(opened.sampler).__name__} and of {name}, from the same noise, end "
        evidence = {"relative difference": (difference, math.nan)}
        if difference < _TOLERANCE:
            return Check(_NAME, "passed", f"{sentence}{difference:.1e} apart, relative.", "", evidence)
        remedy = f"open the model by scoresde.load({os.fspath(folder)!r}), and change nothing about it."
        return Check(_NAME, "failed", f"{sentence}{difference:.2g} apart, relative.", remedy, evidence)

    return check


def _why_not(opened: Opened, model: Model) -> str | None:
    if not isinstance(opened.sampler, StepSampler):
        return "it has no equal among the samplers of this package"
    if getattr(opened.model.net, "conditions", {}):
        return "the network has conditions"
    if opened.model.event_shape is None or opened.model.event_shape != model.event_shape:
        return "the sizes of the events differ or are unknown"
    return None


def _scheduler(settings: SchedulerSettings) -> Any:
    import diffusers

    return getattr(diffusers, settings.class_name).from_config(dict(settings.stated))


def _difference(opened: Opened, model: Model, scheduler: Any, steps: int, seed: int) -> float:
    """The relative distance of the ends of both chains."""
    assert isinstance(opened.sampler, StepSampler)
    assert model.event_shape is not None
    first = torch.randn(4, *model.event_shape, generator=torch.Generator().manual_seed(seed))
    scheduler.set_timesteps(steps)
    noised = first * float(getattr(scheduler, "init_noise_sigma", 1.0))
    theirs = _peer_end(scheduler, _peer_network(opened), noised, seed if opened.sampler.stochastic else None)
    start = opened.model.sde.tau_max if opened.start is None else opened.start
    in_sigma = hasattr(scheduler, "sigmas") and type(scheduler).__name__.startswith(("Euler", "Heun"))  # x/α
    init = noised * math.exp(-start) if in_sigma else noised
    generator = torch.Generator().manual_seed(seed + 1)
    end = sample(model, 4, opened.sampler, init=init, start=opened.start, generator=generator).x
    return float((end - theirs).norm() / theirs.norm())


def _peer_network(opened: Opened) -> nn.Module:
    adapter = opened.model.net
    assert isinstance(adapter, Adapter)
    return getattr(adapter.net, "net", adapter.net)


def _peer_end(scheduler: Any, network: nn.Module, x: Tensor, seed: int | None) -> Tensor:
    options = {} if seed is None else {"generator": torch.Generator().manual_seed(seed + 1)}
    with torch.no_grad():
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            x = scheduler.step(network(scaled, t).sample, t, x, **options).prev_sample
    return x
