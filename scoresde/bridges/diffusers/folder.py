"""`open_folder`: a pipeline or model folder of diffusers as a `ScoreModel`, with what its files state."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_integer, check_kind
from scoresde._core.foreign_networks import inner_network
from scoresde.adapters.diffusers_network import DiffusersNetwork
from scoresde.bridges.diffusers.latents import latent_description
from scoresde.bridges.diffusers.layout import Layout, current_names, folder_weights, read_layout, weights_file
from scoresde.bridges.diffusers.loop import steps_of, with_steps
from scoresde.bridges.diffusers.own_network import NETWORK_CLASS, open_own
from scoresde.bridges.diffusers.peer_sampler import PeerSampler
from scoresde.bridges.diffusers.rules import Rules, model_rules, steered_model
from scoresde.bridges.diffusers.samplers import default_steps, peer_sampler
from scoresde.bridges.diffusers.settings import SchedulerSettings
from scoresde.bridges.diffusers.stored import read_scheduler
from scoresde.bridges.opened import Finding, Opened
from scoresde.bridges.weights import fit
from scoresde.data import Description
from scoresde.model import ScoreModel
from scoresde.sampling import StepSampler, Whitened
from scoresde.storage.spec import to_text

__all__ = ["open_folder"]


def open_folder(
    path: str | os.PathLike[str],
    net: nn.Module | None = None,
    *,
    scheduler: str | None = None,
    steps: int | None = None,
    variant: str | None = None,
    ema: bool | None = None,
    event_shape: tuple[int, ...] | None = None,
    use_clipped_model_output: bool = False,
) -> Opened:
    """Opens a pipeline folder or a model folder of diffusers; nothing is downloaded and no code in it is run.

    Args:
        path: The folder, as ``save_pretrained`` writes it.
        net: The network, which gets the weights in its own type; without it, the network is built, for which diffusers
            is needed. Any module that is called as ``net(x, t)`` will do.
        scheduler: Name of the scheduler's class, in place of the one that the folder names, e.g. ``"DDIMScheduler"``.
            Its settings are those of the folder, as ``from_config`` takes them.
        steps: Number of steps of `Opened.sampler`; default that of the pipelines.
        variant: Variant of the weights, e.g. ``"fp16"``; default the one without a name, or the only one.
        ema: Whether to take the averaged weights of `unet_ema`; default if they are there.
        event_shape: ``(channels, height, width)``, where the configuration states no size.
        use_clipped_model_output: Of DDIM's step: the noise estimate follows from the clipped data estimate.

    Returns:
        `Opened.model` is the network as it is, `Opened.steered` with the scheduler's clipping.

    Raises:
        ImportError: If diffusers is needed and is not installed.
        FileNotFoundError: If files are missing.
        ValueError: If the folder holds something else, a scheduler without rules, or weights that do not fit.

    Example:
        >>> from scoresde import sample
        >>> from scoresde.bridges.diffusers import open_folder
        >>> opened = open_folder("tests/bridges/models/diffusers/linear", scheduler="DDIMScheduler")  # doctest: +SKIP
        >>> sample(opened.steered, 4, opened.sampler, start=opened.start).data.shape  # doctest: +SKIP
        torch.Size([4, 1, 8, 8])
    """
    check_arguments(open_folder, locals())
    if net is not None:
        check_kind("net", net, nn.Module)
    layout = read_layout(Path(path), ema)
    if layout.config.get("_class_name") == NETWORK_CLASS:  # a network of this package, which `save` wrote
        return open_own(layout, net, variant)
    settings = _scheduler_settings(layout, scheduler)
    rules = model_rules(settings)
    network, weights_findings = _network(layout, net, variant)
    shape = _shape_of(layout.config) if event_shape is None else _checked_shape(event_shape, layout.config)
    doubled = _has_learned_variance(layout.config)
    _check_settings(layout, settings, doubled, use_clipped_model_output)
    data, data_finding = _description(layout, shape, rules)
    parts = (rules.process, rules.parameterization, shape, data, doubled)
    model = ScoreModel(rules.adapter(network), *parts).eval()
    used = ScoreModel(rules.rounded(network), *parts).eval() if rules.rounded else model
    steered, clipping = steered_model(used, settings, use_clipped_model_output)
    if steps is not None:
        check_integer("steps", steps)
    stored = _stored_sampler(layout, steps) if scheduler is None else None
    count = steps or (default_steps(settings) if stored is None else steps_of(stored))
    if stored is None:
        _check_steps(count, settings)
    is_flux = layout.config.get("_class_name") == "FluxTransformer2DModel"
    peer = (
        peer_sampler(settings, rules.process, count, _tokens(layout.config, shape), is_flux)
        if stored is None
        else _stated(stored, settings.file)
    )
    findings = (
        Finding("network", _class_name(layout.config), "stated", "_class_name in config.json"),
        *layout.findings,
        *weights_findings,
        Finding("scheduler", settings.class_name, "stated" if scheduler is None else "assumed", settings.file),
        *rules.findings,
        *((_variance_finding(settings),) if doubled else ()),
        *((clipping,) if clipping else ()),
        data_finding,
        Finding("steps", str(count), "assumed", "the pipelines' default" if steps is None else "as passed"),
        *peer.findings,
    )
    return Opened(model, "diffusers", findings, steered, peer.sampler, peer.start)


def _scheduler_settings(layout: Layout, scheduler: str | None) -> SchedulerSettings:
    if layout.scheduler is None or layout.scheduler_file is None:
        raise FileNotFoundError(
            f"{layout.folder} must hold scheduler_config.json, which states the betas and the prediction, got none; "
            "copy it from the pipeline, or save it: scheduler.save_pretrained(folder)."
        )
    # a `Scheduler` of this package keeps the settings of the one that it replaces
    name = scheduler or layout.scheduler.get("replaces") or layout.scheduler.get("_class_name")
    if not isinstance(name, str):
        raise ValueError(f"{layout.scheduler_file} must name its class as _class_name, got {name!r}.")
    return SchedulerSettings(name, layout.scheduler, layout.scheduler_file.name)


def _stored_sampler(layout: Layout, steps: int | None) -> StepSampler | Whitened | None:
    """The sampler of a `Scheduler` of this package, which a pipeline saved."""
    if layout.scheduler is None or layout.scheduler_file is None or "replaces" not in layout.scheduler:
        return None
    sampler = read_scheduler(layout.scheduler_file.parent)[1]
    return sampler if steps is None else with_steps(sampler, steps)


def _stated(sampler: StepSampler | Whitened, file: str) -> PeerSampler:
    text = to_text(sampler.sampler if isinstance(sampler, Whitened) else sampler)
    return PeerSampler(sampler, None, (Finding("sampler", text, "stated", f"sampler in {file}"),))


def _check_settings(layout: Layout, settings: SchedulerSettings, doubled: bool, clipped_output: bool) -> None:
    """Refuses settings that the scheduler, or the network, does not have."""
    if clipped_output and not settings.class_name.startswith("DDIM"):
        raise ValueError(
            f"use_clipped_model_output is a setting of DDIM's step, got it with {settings.class_name}; leave it out, "
            "or pass scheduler='DDIMScheduler'."
        )
    if settings.class_name.startswith("DDPM") and settings["variance_type"] == "learned_range" and not doubled:
        raise ValueError(
            "with variance_type = 'learned_range' the network must return twice the channels, got out_channels = "
            f"{layout.config.get('out_channels')}; correct variance_type in {settings.file}."
        )


def _check_steps(steps: int, settings: SchedulerSettings) -> None:
    """Refuses more steps than the chain has; levels of flows and of VE processes are not those of a chain."""
    length = None if settings.class_name.startswith(_CONTINUOUS) else settings["num_train_timesteps"]
    if length is not None and steps > length:
        raise ValueError(
            f"steps must be at most num_train_timesteps = {length} of {settings.file}, got {steps}; pass fewer."
        )


_CONTINUOUS = ("FlowMatch", "EDM", "ScoreSde", "KarrasVe")


def _network(layout: Layout, net: nn.Module | None, variant: str | None) -> tuple[nn.Module, tuple[Finding, ...]]:
    """The network with the weights of the folder."""
    file, findings = weights_file(layout.network, variant)
    tensors = folder_weights(file)
    types = {value.dtype for value in tensors.values() if value.is_floating_point()}
    is_built = net is None
    if net is None:
        config = {name: value for name, value in layout.config.items() if not name.startswith("_")}
        net = DiffusersNetwork(_class_name(layout.config), json.dumps(config, sort_keys=True))
    elif DiffusersNetwork.knows(net):
        net = DiffusersNetwork.around(net)
    inner = inner_network(net.net if isinstance(net, DiffusersNetwork) else net)
    current = {parameter.dtype for parameter in inner.parameters()}
    if is_built and len(types) == 1 and types != current:
        inner.to(next(iter(types)))
    fit(inner, current_names(tensors, inner))
    if not is_built and types != current:
        findings += (Finding("type of the weights", f"{_types(current)}, as net has them", "stated", "argument net"),)
    count = sum(parameter.numel() for parameter in net.parameters())
    return net, (*findings, Finding("size", f"{count} parameters, {_types(types)}", "stated", file.name))


def _types(types: set[torch.dtype]) -> str:
    return ", ".join(sorted(str(kind).removeprefix("torch.") for kind in types))


_CURRENT = {"ada_norm_zero": "DiTTransformer2DModel", "ada_norm_single": "PixArtTransformer2DModel"}


def _class_name(config: Mapping[str, Any]) -> str:
    """The network's class; DiT and PixArt were stored as Transformer2DModel before diffusers 0.29."""
    name = str(config.get("_class_name"))
    return _CURRENT.get(str(config.get("norm_type")), name) if name == "Transformer2DModel" else name


def _shape_of(config: Mapping[str, Any]) -> tuple[int, ...] | None:
    size, channels = config.get("sample_size"), config.get("in_channels")
    if config.get("_class_name") == "FluxTransformer2DModel" and channels:
        return channels // 4, 128, 128  # its channels are patches of 2×2 latents; its pipeline makes 1024 pixels
    if size is None or channels is None:
        return None
    return (channels, *(size if isinstance(size, (list, tuple)) else (size, size)))


def _checked_shape(shape: tuple[int, ...], config: Mapping[str, Any]) -> tuple[int, ...]:
    """The shape that the user states; of another size than the configuration's where the network allows it."""
    expected = _shape_of({**config, "sample_size": config.get("sample_size") or 1})
    if len(shape) != 3 or (expected is not None and shape[0] != expected[0]):
        channels = "channels" if expected is None else expected[0]
        raise ValueError(f"event_shape must be ({channels}, height, width), got {tuple(shape)}; leave it out.")
    return tuple(shape)


def _has_learned_variance(config: Mapping[str, Any]) -> bool:
    """Whether the network returns twice the channels; other differences are refused."""
    taken, returned = config.get("in_channels"), config.get("out_channels")
    if taken is None or returned is None or returned == taken:
        return False
    if returned == 2 * taken:
        return True
    raise ValueError(
        f"the network must return the channels that it takes, or twice as many with a learned variance, got "
        f"in_channels = {taken} and out_channels = {returned}; networks with further inputs, as for inpainting, cannot "
        "be opened."
    )


def _variance_finding(settings: SchedulerSettings) -> Finding:
    if settings["variance_type"] == "learned_range":
        return Finding("variance", "learned, (v + 1)/2", "stated", f"variance_type in {settings.file}")
    return Finding("variance", "learned, (v + 1)/2", "derived", "out_channels is twice in_channels")


def _description(layout: Layout, shape: tuple[int, ...] | None, rules: Rules) -> tuple[Description | None, Finding]:
    if shape is None:
        return None, Finding("range of the data", "unknown", "assumed", "config.json states no size; pass event_shape")
    if layout.vae is not None:
        return latent_description(layout.vae, shape)
    if rules.kind == "sde_ve":
        data = Description(layout.folder.name, shape, 256, offset=0.5, scale=255.0)
        return data, Finding("range of the data", "bytes k as k/255", "assumed", "as ScoreSdeVePipeline returns them")
    data = Description(layout.folder.name, shape, 256, offset=128.0, scale=127.5)
    return data, Finding(
        "range of the data", "bytes k as k/127.5 - 1", "assumed", "as diffusers' pipelines return them"
    )


def _tokens(config: Mapping[str, Any], shape: tuple[int, ...] | None) -> int | None:
    """Number of tokens of an image in a transformer, on which a dynamic shift depends."""
    if shape is None or len(shape) != 3:
        return None
    patch = 2 if config.get("_class_name") == "FluxTransformer2DModel" else config.get("patch_size") or 1
    return (shape[1] // patch) * (shape[2] // patch)
