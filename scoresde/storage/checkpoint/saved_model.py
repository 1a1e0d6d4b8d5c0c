"""Saved models: the settings of a `ScoreModel` as text next to its weights, so that the directory alone rebuilds it.

The scaling of the data and the parameterization are read from there only. So a model is always sampled with the scaling
that it was trained with.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import scoresde.adapters
import scoresde.data
import scoresde.nn
import scoresde.process
from scoresde._core.annotations import check_arguments
from scoresde._core.foreign_networks import inner_network
from scoresde.data import Description
from scoresde.model import ScoreModel
from scoresde.process.base import Process
from scoresde.process.parameterization import NetworkOutput
from scoresde.storage import spec
from scoresde.storage.checkpoint.posthoc_ema import reconstruct, widened
from scoresde.storage.checkpoint.reading import Checkpoint, read_checkpoint
from scoresde.storage.checkpoint.state_dicts import load_into, plain_state
from scoresde.storage.checkpoint.stored_network import is_inner, network_text, rebuilt
from scoresde.storage.checkpoint.writing import write_checkpoint

__all__ = ["load", "model_settings", "require_same", "save"]

_STUDENT = "AverageVelocity"  # the network of students, which `scoresde.distillation` defines and loads


def save(
    model: ScoreModel,
    path: str | os.PathLike[str],
    *,
    ema: nn.Module | None = None,
    tensors: Mapping[str, Mapping[str, Tensor]] | None = None,
    meta: Mapping[str, Any] | None = None,
    keep: int = 2,
) -> Path:
    """Saves a model as the next checkpoint of a run directory, e.g. ``save(model, "runs/mine")``, for `load`.

    The checkpoint holds the weights and all settings that `load` needs to rebuild the model.

    Args:
        model: Its network's weights are the group `model`. A network that is a dataclass is stored by its settings;
            any other must be passed to `load` as ``net``. Wrappers such as `torch.compile` are left out.
        path: The run directory; created if it does not exist.
        ema: A `ScoreModel` or a network with the averaged weights, the group `ema`.
        tensors: Further groups, e.g. an optimizer's.
        meta: Further metadata (JSON), e.g. the step.
        keep: Number of undamaged checkpoints that are kept.

    Returns:
        The checkpoint's directory, e.g. `runs/mine/checkpoint-000001`.

    Raises:
        TypeError: If `model` is not a `ScoreModel`, or its process, parameterization or data have no text form.
        ValueError: If `tensors` or `meta` have a name that is used here (`model`, `ema`).
        OSError: If it cannot be written; existing checkpoints do not change.
    """
    if not isinstance(model, ScoreModel):
        raise TypeError(f"model must be a ScoreModel, got a {type(model).__name__}; save the ScoreModel inside it.")
    check_arguments(save, locals())
    groups: dict[str, Mapping[str, Tensor]] = {"model": plain_state(model.net)}
    if ema is not None:
        groups["ema"] = plain_state(ema.net if isinstance(ema, ScoreModel) else ema)
        if groups["ema"].keys() != groups["model"].keys():
            raise ValueError(
                "ema must have the names of the model's tensors, got others; pass the averaged network itself "
                "(torch's AveragedModel holds it as .module)."
            )
    reserved = ({"model", "ema"} & set(tensors or {})) | ({"model"} & set(meta or {}))
    if reserved:
        raise ValueError(
            f"further tensors and metadata need other names than a model's, got {sorted(reserved)}; rename them."
        )
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
    parameterization: NetworkOutput | None = None,
    sde: Process | None = None,
    data: Description | None = None,
) -> ScoreModel:
    """Rebuilds a saved model, with its averaged weights if it has any, in evaluation mode, on the CPU.

    ``load("runs/mine")`` needs no further arguments if the network's class is one of this package. The averages of a
    run are float32 also where its weights are bf16; ``raw=True`` gives the weights in their own type.

    Args:
        path: A run directory (its newest checkpoint), a checkpoint, or one that was read.
        net: A network that gets the weights, if its class is not a dataclass. In a saved adapter such as `FromStep` it
            is the network inside.
        known: The user's own classes that the settings may name, e.g. `{"MyNet": MyNet}`. Only these and the package's
            classes are ever called.
        raw: Load the raw weights instead of the averaged ones.
        average: Relative length, in (0, 0.2887], of the EMA to load instead, from a run with ``Training(lengths=…)``.
            An EMA of another length is combined from the run's snapshots (`reconstruct`).
        parameterization, sde, data: Expected settings; a model saved with others is refused.

    Returns:
        The model. The global random state does not change.

    Raises:
        FileNotFoundError: If there is no checkpoint at `path`.
        RuntimeError: If it is damaged; names an undamaged one.
        ValueError: If it holds no model or one of another `parameterization`, `sde` or `data`, names an unknown class,
            or does not fit `net`.
    """
    check_arguments(load, locals())
    checkpoint = path if isinstance(path, Checkpoint) else read_checkpoint(path)
    expected = {"parameterization": parameterization, "sde": sde, "data": data}
    settings = _stored_settings(checkpoint)
    _check_settings(checkpoint, {k: spec.to_text(v) for k, v in expected.items() if v is not None})
    if raw and average is not None:
        raise ValueError(f"weights are raw or averaged, got raw=True and average={average}; leave one out.")
    weights = checkpoint.tensors["ema" if "ema" in checkpoint.tensors and not raw else "model"]
    if average is not None:
        buffers = {name: widened(value) for name, value in checkpoint.tensors["model"].items()}
        weights = {**buffers, **reconstruct(checkpoint, average)}
    classes = {**_known_classes(), **(known or {})}
    if settings["net_class"] == _STUDENT and _STUDENT not in classes:
        raise ValueError(
            f"{checkpoint.path} holds a few-step student; load it by scoresde.distillation.load_student(path)."
        )
    if net is None or is_inner(settings, net):
        net = rebuilt(settings, classes, net)
        types = {v.dtype for v in weights.values() if v.is_floating_point()}
        net = net.to(types.pop()) if len(types) == 1 else net
    model = ScoreModel(
        net,
        spec.parse(settings["sde"], classes, kind=Process),
        spec.parse(settings["parameterization"], classes, kind=NetworkOutput),
        spec.parse(settings["event_shape"], {}),
        None if settings["data"] == "None" else spec.parse(settings["data"], classes, kind=Description, stored=True),
        spec.parse(settings["learned_variance"], {}),
    )
    load_into(model.net, weights)
    return model.eval()


def require_same(checkpoint: Checkpoint, model: ScoreModel) -> None:
    """Checks that `checkpoint` holds a model with the settings of `model` (network, process, parameterization, data).

    Args:
        checkpoint: Of a model, by `save`.
        model: The model to compare with.

    Raises:
        ValueError: If a setting differs; names it with both values.
    """
    check_arguments(require_same, locals())
    _check_settings(checkpoint, {k: v for k, v in model_settings(model).items() if v is not None})


def model_settings(model: ScoreModel) -> dict[str, str | None]:
    """The text forms of a model's parts; ``net`` is None for a network without one.

    Args:
        model: Its process, parameterization and data must have a text form.

    Raises:
        TypeError: If they have none.
    """
    check_arguments(model_settings, locals())
    names = ("sde", "parameterization", "event_shape", "data", "learned_variance")
    parts = {n: spec.to_text(getattr(model, n)) for n in names}
    net = inner_network(model.net)
    return {"net": network_text(net), "net_class": type(net).__name__, **parts}


def _known_classes() -> spec.Known:
    return spec.known_classes(scoresde.nn, scoresde.adapters, scoresde.process, scoresde.data)


def _stored_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    settings = checkpoint.meta.get("model")
    names = {"net", "net_class", "sde", "parameterization", "event_shape", "data"}
    if not isinstance(settings, dict) or not names <= set(settings) or "model" not in checkpoint.tensors:
        raise ValueError(f"{checkpoint.path} must hold a model, as save writes it, got {sorted(checkpoint.meta)}.")
    return {"learned_variance": "False", **settings}  # older checkpoints do not have it


def _check_settings(checkpoint: Checkpoint, expected: Mapping[str, str | None]) -> None:
    settings = _stored_settings(checkpoint)
    differing = [f"{n} {settings[n]}, asked for is {v}" for n, v in expected.items() if settings[n] != v]
    if differing:
        raise ValueError(
            f"a model is used as it was trained; {checkpoint.path} has {'; '.join(differing)}. Leave the argument out "
            "to use the stored setting, or train a new model."
        )
