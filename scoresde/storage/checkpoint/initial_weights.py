"""Weights of a finished run as the start of another one, whose network may have further inputs."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

import scoresde.nn
from scoresde._core.annotations import check_arguments
from scoresde._core.foreign_networks import inner_network, plain_names
from scoresde.model import ScoreModel
from scoresde.nn._condition_inputs import entering
from scoresde.nn.conditions import Condition
from scoresde.storage import spec
from scoresde.storage.checkpoint.reading import Checkpoint, read_checkpoint

__all__ = ["CopiedWeights", "start_from"]

_SHOWN = 8
_INPUT_LAYER = re.compile(r"(net\.)*(conv_in|linear_in)\.weight")  # of MLP and UNet; new channels come last


@dataclass(frozen=True)
class CopiedWeights:
    """What `start_from` copied.

    Attributes:
        copied: Names of the parameters that have the values of the run.
        widened: Those with zeros for new input channels, so that these have no effect at first.
        new: Those that the run does not have; they keep their initial values.
        unused: Those of the run that the network does not have.
    """

    copied: tuple[str, ...]
    widened: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]


def start_from(model: ScoreModel, run: str | os.PathLike[str] | Checkpoint, *, raw: bool = False) -> CopiedWeights:
    """Copies the weights of a run into a model, by name: the start of a training on new data or with new conditions.

    Only parameters are copied, not buffers, which may describe the data. Layers that the run does not have, such as the
    embedding of a new condition, keep their initial weights. The first layer of an `MLP` or `UNet` may have more input
    channels, those of conditions: their weights start at zero.

    Args:
        model: Its network gets the weights, in their own type and on their device.
        run: A run directory (its newest checkpoint), a checkpoint, or one that was read.
        raw: Take the raw weights instead of the averaged ones.

    Returns:
        The names of what was copied, is new and was not used.

    Raises:
        FileNotFoundError: If there is no checkpoint.
        ValueError: If no parameter has the name of one of the run's, shapes differ (they are listed), or the run's
            network estimates another target. The model does not change.

    Example:
        >>> import scoresde as sd, tempfile
        >>> from scoresde.nn import Classes
        >>> old = sd.ScoreModel(sd.MLP((2,), width=8, depth=1), sd.VPSDE())
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = sd.save(old, folder)
        ...     net = sd.MLP((2,), width=8, depth=1, conditions={"label": Classes(3)})
        ...     sd.start_from(sd.ScoreModel(net, sd.VPSDE()), folder).new
        ('conditioning.label_embedding.table.weight',)
    """
    if not isinstance(model, ScoreModel):
        raise TypeError(f"model must be a ScoreModel, got a {type(model).__name__}; pass the ScoreModel inside it.")
    check_arguments(start_from, {"raw": raw})
    stored = run if isinstance(run, Checkpoint) else read_checkpoint(run)
    if "model" not in stored.tensors:
        raise ValueError(f"{stored.path} must hold a model, got {sorted(stored.tensors)}.")
    _check_target(model, stored)
    source = stored.tensors["ema" if "ema" in stored.tensors and not raw else "model"]
    weights = plain_names(model.net, dict(model.net.named_parameters(remove_duplicate=False)))
    fitting = {name: _fitted(name, weight, source[name]) for name, weight in weights.items() if name in source}
    wrong = [
        f"{name} {list(source[name].shape)} for {list(weights[name].shape)}" for name, v in fitting.items() if v is None
    ]
    if wrong or not fitting:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        got = f"{', '.join(wrong[:_SHOWN])}{more}" if wrong else "none of its names"
        raise ValueError(
            f"the weights of {stored.path} must have the shapes of the network's, got {got}; build the network with "
            "the run's settings, and add to them. Nothing was copied."
        )
    widened = tuple(name for name in fitting if source[name].shape != weights[name].shape)
    if widened:
        _check_widened(inner_network(model.net), stored)
    with torch.no_grad():
        for name, value in fitting.items():
            assert value is not None
            weights[name].copy_(value)
    buffers = set(plain_names(model.net, dict(model.net.named_buffers())))
    return CopiedWeights(
        tuple(fitting),
        widened,
        tuple(name for name in weights if name not in source),
        tuple(name for name in source if name not in weights and name not in buffers),
    )


def _fitted(name: str, weight: nn.Parameter, value: Tensor) -> Tensor | None:
    """The value in the shape of a weight, with zeros for new input channels; None if it does not fit."""
    if value.shape == weight.shape:
        return value
    others = [axis for axis in range(weight.ndim) if axis != 1]
    if not _INPUT_LAYER.fullmatch(name) or value.ndim != weight.ndim or weight.shape[1] < value.shape[1]:
        return None
    if any(weight.shape[axis] != value.shape[axis] for axis in others):
        return None
    widened = torch.zeros(weight.shape, dtype=value.dtype)
    widened[:, : value.shape[1]] = value
    return widened


def _check_widened(net: nn.Module, stored: Checkpoint) -> None:
    """Checks that the new input channels come after those of the run, whose weights would else have other inputs.

    Raises:
        ValueError: If not, or if the run does not say which inputs its network has.
    """
    text = (stored.meta.get("model") or {}).get("net")
    former = None
    if text is not None:
        with contextlib.suppress(ValueError, TypeError), torch.random.fork_rng(devices=[]):
            former = spec.parse(text, spec.known_classes(scoresde.nn), kind=nn.Module, stored=True)
    before, now = (None if each is None else _inputs(each) for each in (former, net))
    if before is None or now is None or before[0] != now[0] or now[1][: len(before[1])] != before[1]:
        raise ValueError(
            "new input channels must follow those of the run, in its order; declare the run's conditions of channels "
            "first and then the new ones, and change no other input (fourier, observed). Nothing was copied."
        )


def _inputs(net: nn.Module) -> tuple[Any, list[Any]]:
    """What precedes the conditions of channels in the input of the innermost network, and these in their order."""
    while isinstance(getattr(net, "net", None), nn.Module):
        net = cast("nn.Module", net.net)
    fourier = getattr(net, "fourier", None)
    first = (None if fourier is None else spec.to_text(fourier), getattr(net, "observed", False))
    return first, list(entering(cast("dict[str, Condition]", getattr(net, "conditions", {})), "channels").items())


def _check_target(model: ScoreModel, stored: Checkpoint) -> None:
    settings = stored.meta.get("model")
    text = settings.get("parameterization") if isinstance(settings, dict) else None
    own = spec.to_text(model.parameterization)
    if text is not None and text != own:
        raise ValueError(
            f"weights are those of a network that estimates {text}, got a model with {own}; build it with the run's "
            "parameterization."
        )
