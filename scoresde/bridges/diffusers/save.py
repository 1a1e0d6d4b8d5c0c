"""`save`: a model as a folder of diffusers, with the scheduler's configuration and the weights of the network."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

import scoresde.nn
from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_integer
from scoresde._core.foreign_networks import inner_network
from scoresde.adapters import Adapter, FromSigma, FromStep, FromTime
from scoresde.bridges.diffusers.own_network import MODULE_NAME, NETWORK_CLASS, PREDICTION_TYPES, network_class
from scoresde.bridges.diffusers.peer import diffusers_package
from scoresde.model import ScoreModel, check_model, gaussian_output
from scoresde.process import VE, Flow, GeometricSigma, V, Velocity
from scoresde.storage import spec
from scoresde.storage.checkpoint import write_text

__all__ = ["save"]

_OWN_MODULE = f'''"""A network of scoresde; see scoresde.bridges.diffusers.own_network, which must be installed."""

from scoresde.bridges.diffusers.own_network import network_class

{NETWORK_CLASS} = network_class()
'''


def save(model: ScoreModel, folder: str | os.PathLike[str], *, steps: int = 1000) -> Path:
    """Writes a model as a folder that diffusers opens: ``unet`` or ``transformer``, and ``scheduler``.

    A network of diffusers inside an adapter is written as it is. ``DDPMPipeline.from_pretrained(folder)`` opens an
    unconditional UNet; any other network is opened by its class, ``from_pretrained(folder, subfolder="unet")``. A
    network of this package is written with a small module file, which calls it with DDPM's step. That folder is opened
    by ``DDPMPipeline.from_pretrained(folder, trust_remote_code=True)`` where this package is installed. `scoresde.load`
    opens every folder that this function wrote; no code in it is run.

    Args:
        model: The model. Its scaling of the data is not part of the format, whose pipelines show [-1, 1].
        folder: The folder; new or empty.
        steps: Length of the chain that is written for a network of this package.

    Returns:
        The folder.

    Raises:
        ImportError: If diffusers is not installed.
        FileExistsError: If the folder is not empty.
        TypeError: If the network is neither of diffusers nor of this package.
        ValueError: If no scheduler of diffusers expresses the adapter, the process and the parameterization.
    """
    check_model(model)
    if not isinstance(model, ScoreModel):
        raise TypeError(f"model must be a ScoreModel, got a {type(model).__name__}; pass the one inside it.")
    check_arguments(save, locals())
    check_integer("steps", steps)
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"the folder must be new or empty, got {folder}; choose another one.")
    diffusers = diffusers_package()
    if not isinstance(model.net, Adapter):
        return _save_own(model, folder, steps)
    network = inner_network(model.net.net)
    network: Any = inner_network(getattr(network, "net", network))  # DiffusersNetwork holds it as net
    if not isinstance(network, diffusers.ModelMixin):
        raise TypeError(
            f"the network must be one of diffusers or of this package, got a {type(network).__name__}; write it by "
            "scoresde.bridges.export.save_onnx, or by sd.save for this package."
        )
    name, config = _scheduler(model, model.net)
    scheduler = getattr(diffusers, name)(**config)
    if isinstance(network, diffusers.UNet2DModel) and name == "DDPMScheduler":
        diffusers.DDPMPipeline(network, scheduler).save_pretrained(folder)
        return folder
    kind = "transformer" if "Transformer" in type(network).__name__ else "unet"
    network.save_pretrained(folder / kind)
    scheduler.save_pretrained(folder / "scheduler")
    # a pipeline only where it makes the right images: others need encoders, or scale the first state
    pipeline = "DDPMPipeline" if isinstance(network, diffusers.UNet2DModel) and "Flow" in name else "DiffusionPipeline"
    _write_index(folder, pipeline, ["diffusers", name], **{kind: ["diffusers", type(network).__name__]})
    return folder


def _write_index(folder: Path, pipeline: str, scheduler: list[str], **network: list[str]) -> None:
    index = {
        "_class_name": pipeline,
        "_diffusers_version": diffusers_package().__version__,
        "scheduler": scheduler,
        **network,
    }
    write_text(folder / "model_index.json", json.dumps(index, indent=2) + "\n")


def _scheduler(model: ScoreModel, adapter: Adapter) -> tuple[str, dict[str, Any]]:
    """Class and settings of the scheduler that steps by this network's output."""
    target, sde = gaussian_output(model), model.sde
    if isinstance(adapter, FromStep) and adapter.offset == -1.0 and adapter.scale == 1.0:
        if target in PREDICTION_TYPES:
            betas = adapter.clock.to_betas(adapter.steps)
            return "DDPMScheduler", _chain(betas, PREDICTION_TYPES[target], model.learned_variance)
    elif isinstance(adapter, FromTime) and isinstance(sde, Flow) and target == Velocity():
        if adapter.scale == round(adapter.scale):
            return "FlowMatchEulerDiscreteScheduler", {"num_train_timesteps": round(adapter.scale)}
    elif isinstance(adapter, FromSigma) and isinstance(sde, VE) and isinstance(sde.schedule, GeometricSigma):
        signs = {"negative": "epsilon", "unchanged": "v_prediction"}
        if adapter.level == "quarter log" and adapter.output_form in signs and target == V(adapter.sigma_data or 0.5):
            return "EDMEulerScheduler", {
                "sigma_min": sde.schedule.sigma_min,
                "sigma_max": sde.schedule.sigma_max,
                "sigma_data": adapter.sigma_data,
                "prediction_type": signs[adapter.output_form],
            }
    raise ValueError(
        f"no scheduler of diffusers is known for {type(adapter).__name__} with {sde} and {target}. Known are "
        "FromStep (offset -1, scale 1) with Eps, X0 or V(); FromTime of Flow with Velocity; "
        "FromSigma(level='quarter log') of VE with V(sigma_data). Write the model by scoresde.bridges.export.save_onnx."
    )


def _chain(betas: list[float], prediction: str, learned_variance: bool) -> dict[str, Any]:
    return {
        "num_train_timesteps": len(betas),
        "trained_betas": torch.tensor(betas, dtype=torch.float32).tolist(),
        "prediction_type": prediction,
        "variance_type": "learned_range" if learned_variance else "fixed_small",
        "clip_sample": False,
        "timestep_spacing": "trailing",
    }


def _save_own(model: ScoreModel, folder: Path, steps: int) -> Path:
    """A network of this package: its class for diffusers, its settings as text, and a chain on its clock."""
    diffusers = diffusers_package()
    clock, shape, own = model.sde.schedule, model.event_shape, inner_network(model.net)
    if clock.tau_start > 0 or shape is None or len(shape) < 2:
        raise ValueError(
            f"a chain of diffusers begins at the data and its events have channels, got a clock that begins at tau = "
            f"{clock.tau_start:g} and events of shape {shape}; use scoresde.bridges.export.save_onnx."
        )
    try:
        text = spec.to_text(own)
        spec.parse(text, spec.known_classes(scoresde.nn), kind=nn.Module, stored=True)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"the network must be one of scoresde.nn, whose settings are text, got a {type(own).__name__}; write it "
            "by scoresde.bridges.export.save_onnx, or by sd.save for this package."
        ) from error
    target = gaussian_output(model)
    network = network_class()(
        net=text,
        clock=spec.to_text(clock),
        parameterization=spec.to_text(target),
        steps=steps,
        in_channels=shape[0],
        sample_size=list(shape[1:]),
        learned_variance=model.learned_variance,
        process=spec.to_text(model.sde),
    )
    network.network.load_state_dict(own.state_dict())
    network.save_pretrained(folder / "unet")
    write_text(folder / "unet" / f"{MODULE_NAME}.py", _OWN_MODULE)
    prediction = PREDICTION_TYPES.get(target, "v_prediction")
    scheduler = diffusers.DDPMScheduler(**_chain(clock.to_betas(steps), prediction, model.learned_variance))
    scheduler.save_pretrained(folder / "scheduler")
    _write_index(folder, "DDPMPipeline", ["diffusers", "DDPMScheduler"], unet=[MODULE_NAME, NETWORK_CLASS])
    return folder
