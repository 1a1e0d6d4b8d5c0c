"""How is a `ScoreModel` rebuilt from a directory alone? Its settings are stored as text beside its weights.

The scaling of the data and what the network's output means are read from there and from nowhere else, so a model cannot
be sampled with another scaling than it was trained with.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import scoresde.data
import scoresde.nn
import scoresde.process.parameterization
import scoresde.process.schedule
import scoresde.process.sde
from scoresde.data import Description
from scoresde.model import ScoreModel
from scoresde.process.parameterization import Parameterization
from scoresde.process.sde import SDE
from scoresde.storage import spec
from scoresde.storage.checkpoint.posthoc_ema import reconstruct
from scoresde.storage.checkpoint.reading import Checkpoint, read_checkpoint
from scoresde.storage.checkpoint.state_dicts import load_into
from scoresde.storage.checkpoint.writing import write_checkpoint

__all__ = ["load", "model_settings", "require_same", "save"]


def save(
    model: ScoreModel,
    path: str | os.PathLike[str],
    *,
    ema: nn.Module | None = None,
    tensors: Mapping[str, Mapping[str, Tensor]] | None = None,
    meta: Mapping[str, Any] | None = None,
    keep: int = 2,
) -> Path:
    """Saves a model with all that is needed to rebuild it, as the run's next checkpoint (see `save`).

    Args:
        model: Its network's weights are the group `model`. A network that is a dataclass is stored by its settings;
            any other can be saved too, and is handed to `load` again.
        path: The run directory.
        ema: A `ScoreModel` or a network with the averaged weights, the group `ema`.
        tensors: More groups, e.g. an optimizer's.
        meta: More metadata (JSON), e.g. the step.
        keep: How many good checkpoints stay.

    Returns:
        The checkpoint's directory.

    Raises:
        TypeError: If `model` is not a `ScoreModel`, or its process, parameterization or data have no text form.
        ValueError: If `tensors` or `meta` have a name that is used here (`model`, `ema`).
        OSError: If it cannot be written; what was there is as it was.
    """
    if not isinstance(model, ScoreModel):
        raise TypeError(f"a ScoreModel can be saved, got a {type(model).__name__}; save the ScoreModel inside of it.")
    groups: dict[str, Mapping[str, Tensor]] = {"model": model.net.state_dict()}
    if ema is not None:
        groups["ema"] = (ema.net if isinstance(ema, ScoreModel) else ema).state_dict()
        if groups["ema"].keys() != groups["model"].keys():
            raise ValueError(
                "ema must have the names of the model's tensors, got others; pass the averaged network itself "
                "(torch's AveragedModel holds it as .module)."
            )
    taken = ({"model", "ema"} & set(tensors or {})) | ({"model"} & set(meta or {}))
    if taken:
        raise ValueError(f"the names of more tensors and metadata must be free, got {sorted(taken)}; rename them.")
    return write_checkpoint(
        path, {**groups, **(tensors or {})}, {**(meta or {}), "model": model_settings(model)}, keep=keep
    )


def load(
    path: str | os.PathLike[str] | Checkpoint,
    *,
    net: nn.Module | None = None,
    known: Mapping[str, type] | None = None,
    raw: bool = False,
    average: float | None = None,
    parameterization: Parameterization | None = None,
    sde: SDE | None = None,
    data: Description | None = None,
) -> ScoreModel:
    """Rebuilds a saved model: averaged weights where there are any, evaluation mode, on the CPU.

    Args:
        path: A run directory (its newest checkpoint), a checkpoint, or one that was loaded.
        net: A ready network that takes the weights, for networks whose class is not a dataclass.
        known: Classes of yours that the settings may name, e.g. `{"MyNet": MyNet}`, beside this package's own. Nothing
            else is ever called.
        raw: The weights as trained instead of the averaged ones.
        average: Relative length, in (0, 0.2887], of the average to take instead, of a run that kept averages
            (``Training(lengths=…)``); one that was not kept is combined from its snapshots (`reconstruct`).
        parameterization, sde, data: What you rely on; refused where the model was saved with another.

    Returns:
        The model. Global random state is left as it was.

    Raises:
        FileNotFoundError: If there is no checkpoint at `path`.
        RuntimeError: If it is damaged; names a good one.
        ValueError: If it holds no model or one of another `parameterization`, `sde` or `data`, names a class that is
            not known, or does not fit `net`.
    """
    checkpoint = path if isinstance(path, Checkpoint) else read_checkpoint(path)
    asked = {"parameterization": parameterization, "sde": sde, "data": data}
    settings = _stored(checkpoint)
    _refuse(checkpoint, {k: spec.to_text(v) for k, v in asked.items() if v is not None})
    if raw and average is not None:
        raise ValueError(f"weights are taken raw or averaged, got raw=True and average={average}; leave one out.")
    weights = checkpoint.tensors["ema" if "ema" in checkpoint.tensors and not raw else "model"]
    if average is not None:
        weights = {**checkpoint.tensors["model"], **reconstruct(checkpoint, average)}
    classes = {**_known_classes(), **(known or {})}
    if net is None:
        net = _build(settings, classes)
        types = {v.dtype for v in weights.values() if v.is_floating_point()}
        net = net.to(types.pop()) if len(types) == 1 else net
    model = ScoreModel(
        net,
        spec.parse(settings["sde"], classes, kind=SDE),
        spec.parse(settings["parameterization"], classes, kind=Parameterization),
        spec.parse(settings["event_shape"], {}),
        None if settings["data"] == "None" else spec.parse(settings["data"], classes, kind=Description),
        spec.parse(settings["learned_variance"], {}),
    )
    load_into(model.net, weights)
    return model.eval()


def require_same(checkpoint: Checkpoint, model: ScoreModel) -> None:
    """Refuses to go on with `model` where `checkpoint` holds another one (network, process, output, data).

    Args:
        checkpoint: A loaded checkpoint, by `save_model`.
        model: What is about to take its weights.

    Raises:
        ValueError: If a setting differs; names it with both values.
    """
    _refuse(checkpoint, {k: v for k, v in model_settings(model).items() if v is not None})


def model_settings(model: ScoreModel) -> dict[str, str | None]:
    """The texts of a model's parts, from which it is rebuilt; ``net`` is None for a network without a text form.

    Args:
        model: Whose process, parameterization and data have a text form.

    Raises:
        TypeError: If they have none.
    """
    try:
        net = spec.to_text(model.net)
    except TypeError:  # a network of the user's own that is no dataclass: its class is named, its object handed back
        net = None
    names = ("sde", "parameterization", "event_shape", "data", "learned_variance")
    parts = {n: spec.to_text(getattr(model, n)) for n in names}
    return {"net": net, "net_class": type(model.net).__name__, **parts}


def _known_classes() -> spec.Known:
    of = (
        scoresde.nn,
        scoresde.process.sde,
        scoresde.process.schedule,
        scoresde.process.parameterization,
        scoresde.data,
    )
    return spec.known_classes(*of)


def _stored(checkpoint: Checkpoint) -> dict[str, Any]:
    settings = checkpoint.meta.get("model")
    names = {"net", "net_class", "sde", "parameterization", "event_shape", "data"}
    if not isinstance(settings, dict) or not names <= set(settings) or "model" not in checkpoint.tensors:
        raise ValueError(f"{checkpoint.path} must hold a model, as save writes it, got {sorted(checkpoint.meta)}.")
    return {"learned_variance": "False", **settings}  # not written before a variance could be learned


def _refuse(checkpoint: Checkpoint, asked: Mapping[str, str | None]) -> None:
    settings = _stored(checkpoint)
    told = [f"{n} {settings[n]}, asked for is {v}" for n, v in asked.items() if settings[n] != v]
    if told:
        raise ValueError(
            f"a model is used as it was trained; {checkpoint.path} has {'; '.join(told)}. Leave the argument out to "
            "take what is stored, or train anew."
        )


def _build(settings: Mapping[str, Any], known: spec.Known) -> nn.Module:
    if settings["net"] is None:
        raise ValueError(
            f"a network is rebuilt from its settings, {settings['net_class']} was saved without (its class is not a "
            f"dataclass of plain settings); build it and pass load(path, net={settings['net_class']}(...))."
        )
    try:
        with torch.random.fork_rng(devices=[]):
            return spec.parse(settings["net"], known, kind=nn.Module)
    except ValueError as error:
        name = settings["net_class"]
        if name in known:
            raise
        raise ValueError(f"{error} A class of your own is handed over as known={{{name!r}: {name}}}.") from error
