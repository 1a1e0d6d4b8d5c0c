"""The chain of a model against diffusers' own scheduler on the same network and noise, as a check of `verify`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.call_inputs import device_of
from scoresde._core.checks import check_integer, check_kind, check_seed
from scoresde.adapters import Adapter, FromStep, unwrapped
from scoresde.bridges.diffusers.folder import open_folder
from scoresde.bridges.diffusers.layout import read_layout
from scoresde.bridges.diffusers.rules import rounds_times, steered_model
from scoresde.bridges.diffusers.settings import SchedulerSettings
from scoresde.bridges.opened import Opened
from scoresde.evaluation.verify.verification import Check
from scoresde.model import Model, ScoreModel
from scoresde.sampling import StepSampler, sample

__all__ = ["diffusers_chain"]

_TOLERANCE = 1e-3  # schedulers keep their coefficients in float32; measured differences are 1e-6 to 1e-5
_ROUNDINGS = 10  # of a network in half precision, whose outputs differ by as many rounding errors
_NAME = "chain"


def diffusers_chain(
    folder: str | os.PathLike[str], steps: int = 20, seed: int = 0, **options: Any
) -> Callable[[Model], Check]:
    """A check of `verify`: ``verify(model, data, peer=diffusers_chain("my-pipeline"))``.

    The folder's scheduler steps the folder's network, and the model is sampled by the equal sampler of this package,
    from the same noise. An error of the peer makes the check undecidable, and is its sentence.

    Args:
        folder: A pipeline folder of diffusers, which must be installed.
        steps: Number of steps of both.
        seed: Of the noise.
        **options: Those with which the model was opened, as `scoresde.bridges.diffusers.open_folder` takes them, e.g.
            ``scheduler="DDIMScheduler"``, ``ema=False`` or ``net=…``.

    Returns:
        The function that `verify` calls with its model.

    Raises:
        ImportError: If diffusers is not installed.
        FileNotFoundError, ValueError: As `scoresde.bridges.diffusers.open_folder`.
        TypeError: If it has no such option.
    """
    check_arguments(diffusers_chain, {"folder": folder, "steps": steps, "seed": seed})
    check_integer("steps", steps)
    check_seed(seed)
    opened = open_folder(folder, steps=steps, **options)
    layout = read_layout(Path(folder), options.get("ema"))
    assert layout.scheduler is not None
    assert layout.scheduler_file is not None
    name = str(options.get("scheduler") or layout.scheduler.get("replaces") or layout.scheduler["_class_name"])
    is_ours = "replaces" in layout.scheduler and not options.get("scheduler")
    settings = SchedulerSettings(name, layout.scheduler, layout.scheduler_file.name)
    clipped = bool(options.get("use_clipped_model_output", False))

    def check(model: Model) -> Check:
        check_kind("model", model, Model)
        reason = "the folder's scheduler is one of this package" if is_ours else _why_not(opened, model)
        if reason is not None:
            return Check(_NAME, "undecidable", f"{name} has no chain to compare with: {reason}.")
        device = device_of(model) or torch.device("cpu")
        opened.model.to(device)
        first = torch.randn(4, *model.event_shape, generator=torch.Generator().manual_seed(seed))  # pyright: ignore
        try:
            start, theirs = _peer_chain(opened, settings, first.to(device), steps, seed, clipped)
        except Exception as error:
            return Check(_NAME, "undecidable", f"{name} of diffusers fails: {type(error).__name__}: {error}.")
        end = _our_end(opened, _as_sampled(model, settings, clipped), start, seed)
        return _compared(opened, f"{steps} steps of {type(opened.sampler).__name__} and of {name}", end, theirs, folder)

    return check


def _compared(opened: Opened, chains: str, end: Tensor, theirs: Tensor, folder: str | os.PathLike[str]) -> Check:
    difference = float((end.double() - theirs.double()).norm() / theirs.double().norm())
    evidence = {"relative difference": (difference, math.nan)}
    sentence = f"{chains}, from the same noise, end "
    kind = _dtype(opened)
    if difference < max(_TOLERANCE, _ROUNDINGS * torch.finfo(kind).eps):
        return Check(_NAME, "passed", f"{sentence}{difference:.1e} apart, relative.", "", evidence)
    if not bool(theirs.isfinite().all()):
        return Check(_NAME, "undecidable", f"the chain of diffusers is not finite in {kind}.", "", evidence)
    remedy = f"open the model by scoresde.load({os.fspath(folder)!r}), and change nothing about it."
    return Check(_NAME, "failed", f"{sentence}{difference:.2g} apart, relative.", remedy, evidence)


def _why_not(opened: Opened, model: Model) -> str | None:
    if not isinstance(opened.sampler, StepSampler):
        return "it has no equal among the samplers of this package"
    if getattr(opened.model.net, "conditions", {}):
        return "the network has conditions"
    if opened.model.event_shape is None or opened.model.event_shape != model.event_shape:
        return "the sizes of the events differ or are unknown"
    return None


def _as_sampled(model: Model, settings: SchedulerSettings, clipped: bool) -> Model:
    """The model as the scheduler samples it: with its clipping, and with its rounded times."""
    if not isinstance(model, ScoreModel):
        return model
    net = model.net
    if rounds_times(settings) and isinstance(net, FromStep):
        net = FromStep(net.net, net.clock, net.steps, net.offset, True, net.scale)
        parts = (model.sde, model.parameterization, model.event_shape, model.data, model.learned_variance)
        model = ScoreModel(net, *parts).eval()
    return steered_model(model, settings, clipped)[0]


def _our_end(opened: Opened, model: Model, init: Tensor, seed: int) -> Tensor:
    assert isinstance(opened.sampler, StepSampler)
    generator = torch.Generator().manual_seed(seed + 1)
    return sample(model, 4, opened.sampler, init=init, start=opened.start, generator=generator).x


def _peer_chain(
    opened: Opened, settings: SchedulerSettings, first: Tensor, steps: int, seed: int, clipped: bool
) -> tuple[Tensor, Tensor]:
    """The first state, in x, and the last one of the scheduler's chain."""
    import diffusers

    assert isinstance(opened.sampler, StepSampler)
    scheduler = getattr(diffusers, settings.class_name).from_config(dict(settings.stated))
    scheduler.set_timesteps(steps)
    noised = first * float(getattr(scheduler, "init_noise_sigma", 1.0))
    options: dict[str, Any] = {"use_clipped_model_output": True} if clipped else {}
    if opened.sampler.stochastic:
        options["generator"] = torch.Generator().manual_seed(seed + 1)
    theirs = _peer_end(scheduler, opened, noised, options)
    start = opened.model.sde.tau_max if opened.start is None else opened.start
    in_sigma = hasattr(scheduler, "sigmas") and type(scheduler).__name__.startswith(("Euler", "Heun"))  # x/α
    return (noised * math.exp(-start) if in_sigma else noised), theirs


def _dtype(opened: Opened) -> torch.dtype:
    return next((p.dtype for p in opened.model.parameters() if p.is_floating_point()), torch.float32)


def _peer_end(scheduler: Any, opened: Opened, x: Tensor, options: dict[str, Any]) -> Tensor:
    """The end of the loop of diffusers' pipelines, with the network in its own precision and the state in float32."""
    adapter, kind = opened.model.net, _dtype(opened)
    assert isinstance(adapter, Adapter)
    splits = _splits_variance(scheduler)
    with torch.no_grad():
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            out = unwrapped(adapter.net(scaled.to(kind), t.to(x.device).expand(len(x)))).to(x.dtype)
            if opened.model.learned_variance and not splits:
                out = out.chunk(2, 1)[0]
            x = scheduler.step(out, t, x, **options).prev_sample
    return x


def _splits_variance(scheduler: Any) -> bool:
    """Whether the scheduler's step takes outputs with a learned variance."""
    learned = getattr(scheduler.config, "variance_type", None) in ("learned", "learned_range")
    return learned and type(scheduler).__name__.startswith("DDPM")
