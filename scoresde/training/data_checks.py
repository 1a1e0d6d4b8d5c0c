"""Checks that data, conditions and augmentation fit a model, before anything is changed."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from scoresde._core.arrays import as_tensor
from scoresde._core.tensors import has_values
from scoresde.data import Augment, ClassCondition, Data, Description
from scoresde.data.tables.missing_cells import MissingCells
from scoresde.data.value_checks import check_values
from scoresde.model import ScoreModel
from scoresde.objective.observed import check_reads_observed
from scoresde.process import ou
from scoresde.process.base import Process
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.mixed import Mixed
from scoresde.process.parameterization import V
from scoresde.training.condition_checks import checked_cond
from scoresde.training.source import TrainingSource

__all__ = [
    "check_augment",
    "check_process",
    "check_quantized",
    "check_weight_types",
    "checked_events",
    "converted_data",
    "observed_share",
]


def converted_data(data: object) -> Data | Tensor | TrainingSource:
    """A `Data` or `TrainingSource` as it is; an array, frame or list of numbers as a tensor.

    Raises:
        TypeError: If ``data`` is something else; names the call that trains on it, also for a torch Dataset or
            DataLoader.
        ValueError: See `scoresde._core.arrays.as_tensor`.
    """
    if isinstance(data, (Data, TrainingSource)):
        return data
    name, dataset, settings = "dataset", data, ""
    if isinstance(data, DataLoader):
        name, dataset = "loader.dataset", data.dataset
        settings = f", sd.Training(batch_size={data.batch_size})" if data.batch_size else ""
    elif not isinstance(data, Dataset):
        events = as_tensor(data, "data")
        if not has_values(events):
            raise ValueError("data must have values, got a tensor on the meta device; move them to the CPU.")
        return events
    events = f"{name}.tensors[0]" if isinstance(dataset, TensorDataset) else f"torch.stack([x for x, *_ in {name}])"
    raise TypeError(
        f"data must be a Data or a tensor of events (N, *D), got a {type(data).__name__}, but training orders batches "
        f"itself; pass its events as a tensor: sd.train(model, {events}{settings})."
    )


def check_weight_types(model: ScoreModel, scaled: bool) -> None:
    """Refuses float16 weights: their gradients underflow, and scaled ones cannot be unscaled in float16.

    Args:
        model: To train.
        scaled: Whether gradients are scaled (precision "fp16" on a GPU), so that frozen float16 weights do no harm.

    Raises:
        TypeError: If a trained weight is float16, or a frozen one without scaling; names the first.
    """
    for name, weight in model.named_parameters():
        if weight.dtype == torch.float16 and (weight.requires_grad or not scaled):
            raise TypeError(
                f"weights to train must be float32, float64 or bfloat16, got float16 ({name}), whose gradients "
                'underflow; keep float32 weights, model.float(), and set Training(precision="fp16") on a GPU or '
                '"bf16", or use bfloat16 weights, model.bfloat16().'
            )


def checked_events(model: ScoreModel, data: Data | Tensor) -> tuple[Tensor, dict[str, Tensor], Description | None]:
    """The events to train on, after checks.

    Args:
        model: To train.
        data: See `scoresde.training.train`.

    Returns:
        Events ``(N, *D)``; the conditions that the network reads, in data units; the description or None.

    Raises:
        TypeError: If a tensor of data is not floating and the model has no description.
        ValueError: If there are no events, or one is not finite or not as described; if ``data`` and ``model.data``
            differ; if the conditions of the network do not fit those of the data.
    """
    events = data.train if isinstance(data, Data) else data
    description = data.description if isinstance(data, Data) else model.data
    if model.data is not None and not _same_data(model.data, description):
        raise ValueError(
            f"data must have the model's description, {model.data}, got {description}; build the model without data, "
            "or with this one."
        )
    if events.ndim == 0 or not len(events):
        raise ValueError(f"data must hold at least one event, (N, *D), got shape {tuple(events.shape)}.")
    expected = model.event_shape if description is None else description.shape
    if expected is not None and tuple(events.shape[1:]) != expected:
        raise ValueError(f"events must have the model's shape {expected}, got {tuple(events.shape[1:])}.")
    if description is None:
        if isinstance(model.sde, DiscreteProcess):
            model.sde.check_codes(events, "data", model.sde.most_classes)
        elif not events.is_floating_point():
            raise TypeError(f"a tensor of data must be floating, in model units, got {events.dtype}; pass a Data.")
        check_values(events, 0, bins=None, low=None, high=None)
    elif not isinstance(data, Data):  # a Data has checked its values
        description.validate(events)
    if description is not None:
        check_process(model.sde, description)
    _warn_of_signal(model.sde)
    given = data.train_cond if isinstance(data, Data) else {}
    return events, checked_cond(model.net, given, description), description


def check_process(process: Process, description: Description) -> None:
    """Refuses a process of another kind than the data, or with another number of classes.

    Args:
        process: Of the model.
        description: Of the data.

    Raises:
        ValueError: Names the process that fits.
    """
    if description.codes or isinstance(process, Mixed):
        _check_mixed(process, description)
        return
    classes, discrete = description.classes, isinstance(process, DiscreteProcess)
    if classes is None and not discrete:
        return
    if classes is None:
        raise ValueError(
            f"{type(process).__name__} takes categories, got {description.name!r} without classes; describe integers "
            "as categories by classes= (--classes), or use a Gaussian process such as VPSDE()."
        )
    own = process.classes if isinstance(process, DiscreteProcess) else None
    if own == classes:
        return
    fitting = "Binomial() or Categorical(2)" if classes == 2 else f"Categorical({classes})"
    got = f"{own} classes" if discrete else "a Gaussian process"
    raise ValueError(
        f"data of {classes} classes need {fitting}, got {type(process).__name__}, {got}; use it, or describe integers "
        "with an order, such as gray values, by bins= (--bins)."
    )


def _check_mixed(process: Process, description: Description) -> None:
    own = process.categorical.classes if isinstance(process, Mixed) else None
    if own == description.codes:
        return
    if not description.codes:
        raise ValueError(
            f"Mixed takes numbers and codes of categories, got {description.name!r} without codes; read a table with "
            "columns of categories, load_data(path), and without one_hot=True."
        )
    got = type(process).__name__ if own is None else f"classes {own}"
    raise ValueError(
        f"a table with codes of {description.codes} classes needs Mixed(VPSDE(), Categorical({description.codes})), "
        f"got {got}; use it, or read the table with one-hot categories: load_data(path, one_hot=True) (--read "
        "one_hot=true)."
    )


def _warn_of_signal(process: Process) -> None:
    """Warns of a process that masks entries on a clock at whose end some are not masked."""
    codes = process.categorical if isinstance(process, Mixed) else process
    if isinstance(codes, DiscreteProcess) and codes.kernel == "absorbing":
        left = float(ou.alpha_bar(codes.tau_max))
        if left > 0:
            warnings.warn(
                f"samples of the absorbing kernel begin with masks everywhere, but at the end of {codes.schedule} an "
                f"entry is not masked with probability {left:.2g}: the model will have no finite bound; use a clock "
                "that ends without signal, LinearAlphaBar().",
                stacklevel=4,
            )


def _same_data(known: Description, description: Description | None) -> bool:
    """Whether data have the description of a model, which may lack conditions that the data have."""
    if description is None:
        return False
    shared = {name: kind for name, kind in description.conditions.items() if name in known.conditions}
    for name, kind in shared.items():
        mine = known.conditions[name]
        if isinstance(kind, ClassCondition) and isinstance(mine, ClassCondition) and mine.names is None:
            shared[name] = mine if kind.count <= mine.count else kind  # a foreign network does not name its classes
    return known == replace(description, conditions=shared)


def check_quantized(model: ScoreModel, description: Description, dequantize: bool) -> None:
    """Checks data for a network whose formula contains the bins of quantized data.

    Args:
        model: With such a network, e.g. `scoresde.nn.QuantizedSkip`.
        description: Of the data.
        dequantize: Whether the run dequantizes integer values.

    Raises:
        ValueError: If bins or scale differ from the network's, the data are dequantized, or the target is not v.
    """
    net: Any = model.net
    name = type(net).__name__
    if description.bins is None or isinstance(description.offset, tuple) or isinstance(description.scale, tuple):
        raise ValueError(
            f"{name} needs integer data with one scale, got bins={description.bins}, offset={description.offset} and "
            f"scale={description.scale}; describe them so, or use its inner network alone."
        )
    assert description.offset is not None
    assert description.scale is not None
    if dequantize:
        raise ValueError(
            f"{name} must be trained on bin centers, got Training(dequantize=True); set dequantize=False, or --centers."
        )
    if model.parameterization != V():
        raise ValueError(f"{name} estimates v, got {model.parameterization}; build the model with V().")
    ends = ((edge - description.offset) / description.scale for edge in (0.0, description.bins))
    expected, actual = (description.bins, *ends), (net.bins, net.low, net.high)
    if any(abs(a - b) > 1e-6 for a, b in zip(actual, expected, strict=True)):
        need, got = (f"bins={bins}, low={low:.6g}, high={high:.6g}" for bins, low, high in (expected, actual))
        raise ValueError(f"{name} must have the data's bins, {need}, got {got}; build it with {need}.")


def observed_share(model: ScoreModel, events: Tensor, description: Description) -> float:
    """The share of values that are observed, for data of which some may be missing.

    Args:
        model: To train.
        events: Of the train part, ``(N, *D)``, NaN at missing values.
        description: Of the data.

    Raises:
        TypeError: If the network does not read which values are observed.
        ValueError: If a column, an entry of the event, is missing in every event.
    """
    check_reads_observed(model, "data with missing values")
    columns = description.columns
    cells = MissingCells.of_events(events, names=None if columns is None else columns.names)
    cells.check_columns()
    return 1.0 - sum(cells.counts.values()) / events.numel()


def check_augment(
    model: ScoreModel, events: Tensor, missing: bool = False, cond: Mapping[str, Tensor] | None = None
) -> None:
    """Checks that the data are images and that the network takes the parameters of the augmentation.

    Args:
        model: To train.
        events: Of the train part, ``(N, *D)``.
        missing: Whether values may be missing.
        cond: The conditions that the network reads.

    Raises:
        ValueError: If not; if values may be missing, which interpolation would spread; or if a condition is an image,
            which would have to be transformed along.
    """
    for name, values in (cond or {}).items():
        if values.ndim > 3:
            raise ValueError(
                f"augment transforms the events alone, got images as the condition {name!r}, which would no longer fit "
                "them; leave augment= out, or transform both in the data."
            )
    if missing:
        raise ValueError(
            "augment needs complete images, got data with missing values; leave augment= out, or fill them."
        )
    net, count = model.net, getattr(model.net, "augment", 0)
    if events.ndim != 4:
        raise ValueError(f"augment changes images (C, H, W), got events {tuple(events.shape[1:])}; leave it out.")
    if count != Augment.dims:
        raise ValueError(
            f"augment needs a network that takes its {Augment.dims} parameters as input, or the model would sample "
            f"augmented images, got {type(net).__name__} which takes {count or 'none'}; build it as UNet or DiT with "
            f"augment={Augment.dims}, or leave Training's augment out."
        )
