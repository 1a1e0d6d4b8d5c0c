"""The kind of a condition that no description states: found from its values, with the scaling of the train part.

Integers ``(N,)`` are classes. Numbers ``(N,)`` and vectors ``(N, size)`` are standardized by entry. Values of the rank
of the events are images, if the events have channels and a grid; other ``(N, length, size)`` are sequences of tokens.
"""

from __future__ import annotations

import keyword
import math
import re
import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from scoresde.data.conditions.base import ConditionKind
from scoresde.data.conditions.kinds import ClassCondition, ImageCondition, TokenCondition, VectorCondition
from scoresde.data.standardize import feature_moments, feature_range

__all__ = ["LABEL", "RESERVED", "check_name", "condition_name", "found_kind"]

_CLASSES = 1000  # so many classes are taken for classes, however few of them occur

LABEL = "label"
"""Name of the condition that holds class labels."""

RESERVED = frozenset(
    {
        "mask",
        "noise",
        "seed",
        "strength",
        "method",
        "noise_std",
        "particles",
        "populations",
        "x",
        "x0",
        "tau",
        "s",
        "u",
        "log_snr",
        "delta",
        "augment",
        "observed",
        "observation",
        "model",
        "sampler",
        "shape",
        "steps",
        "draws",
        "generator",
        "seeds",
        "batch_size",
        "progress",
        "strict",
        "trace",
        "solver",
        "nodes",
        "prior_log_prob",
        "values",
        "data",
        "grid",
        "decoder",
        "decode_at",
        "dequantization",
        "evaluations",
        "replicates",
        "timesteps",
        "profile",
        "points",
        "rev_var",
        "terms",
        "trajectories",
        "trajectory",
        "start",
        "init",
        "denoise",
        "device",
        "dtype",
        "previews",
        "coupled",
        "observe",
        "noises",
        "iterations",
        "search",
        "pool",
        "whiten",
        "loss",
        "levels",
        "repeats",
        "draw",
        "eps",
        "adjoint",
        "probes",
        "cond",
        "self",
    }
)
"""Names that are arguments of models, losses, samplers and likelihoods, so that no condition has them."""

_SCALED_BY_ENTRY = 1024  # entries of a vector; a longer one has one offset and scale
_RANGED = 64  # entries of a vector; a longer one is an embedding, whose entries have no range that a reader knows


def check_name(name: object) -> None:
    """Refuses a name under which a condition could not be passed as a keyword.

    Raises:
        ValueError: If it is no identifier, or one of `RESERVED`.
    """
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(
            f"a condition must have a name like 'label' or 'low_res', no word of Python, got {name!r}; rename it, e.g. "
            "class_."
        )
    if name in RESERVED:
        raise ValueError(
            f"a condition must have another name than {name!r}, an argument of models and samplers; rename it."
        )


def condition_name(text: str) -> str:
    """The name of the condition that is read from a column or folder: other signs than letters become ``_``."""
    name = re.sub(r"\W", "_", text.strip())
    return f"_{name}" if name[:1].isdigit() else name


def found_kind(name: str, parts: Mapping[str, Tensor], shape: tuple[int, ...], bins: int | None) -> ConditionKind:
    """The kind of a condition, fitted to its train part.

    Args:
        name: Of the condition.
        parts: Its values ``(N, *)`` by part, ``"train"`` and ``"test"``; a part may be empty.
        shape: Event shape of the data.
        bins: Of the data's events, which integer images share if they have at most so many; None for continuous events.

    Raises:
        ValueError: If the values fit no kind; the error says which to state.
    """
    values = parts["train"] if len(parts["train"]) else parts["test"]
    rank = values.ndim - 1
    integers = not values.is_floating_point()
    if name == LABEL or (rank == 0 and integers):
        count = max((int(part.max()) + 1 for part in parts.values() if part.numel()), default=1)
        different = len(torch.cat([part.reshape(-1) for part in parts.values()]).unique())
        if name != LABEL and count > max(_CLASSES, 2 * different):
            raise ValueError(
                f"condition {name!r} has {different} different integers up to {count - 1}, too few for classes; "
                f"pass floats for a number such as a year, or state Description(..., conditions={{{name!r}: "
                f"ClassCondition({count})}})."
            )
        return ClassCondition(max(1, count))
    if rank <= 1:
        return _vector(name, values if rank else values.unsqueeze(1))
    if rank == len(shape) >= 2 and (rank > 2 or values.shape[2:] == shape[1:]):
        return _image(values, bins)
    if rank == 2:
        (offset,), (scale,) = _scaling(name, values, per_entry=False)
        return TokenCondition(values.shape[2], offset, scale)
    raise ValueError(
        f"condition {name!r} of shape {tuple(values.shape)} beside events {shape} must be described; state its kind, "
        f"Description(..., conditions={{{name!r}: ImageCondition(shape)}})."
    )


def _vector(name: str, values: Tensor) -> VectorCondition:
    size = values.shape[1]
    offset, scale = _scaling(name, values, per_entry=size <= _SCALED_BY_ENTRY)
    low, high = feature_range(values) if values.numel() and size <= _RANGED else ([], [])
    known = all(math.isfinite(value) for value in (*low, *high))
    ranges = (tuple(low), tuple(high)) if low and known else (None, None)
    if len(offset) == 1:
        return VectorCondition(size, offset[0], scale[0], *ranges)
    return VectorCondition(size, tuple(offset), tuple(scale), *ranges)


def _image(values: Tensor, bins: int | None) -> ImageCondition:
    shape = tuple(values.shape[1:])
    if not values.is_floating_point():
        top = int(values.max()) if values.numel() else 0
        if bins is not None and top < bins:
            return ImageCondition(shape, bins)
        if values.dtype == torch.uint8:
            return ImageCondition(shape, 256)
    (offset,), (scale,) = _scaling("", values, per_entry=False)
    return ImageCondition(shape, offset=offset, scale=scale)


def _scaling(name: str, values: Tensor, per_entry: bool) -> tuple[list[float], list[float]]:
    """Mean and standard deviation by entry, or of all; a constant entry has the scale 1, so that it becomes 0."""
    if not values.numel():
        return [0.0], [1.0]
    mean, std = feature_moments(values, per_entry)
    rounding = 4 * torch.finfo(values.dtype).eps if values.is_floating_point() else 0.0
    std = [s if s > rounding * abs(m) else 0.0 for m, s in zip(mean, std, strict=True)]
    if name and not any(std):
        warnings.warn(
            f"condition {name!r} has one value in the train part, so it tells the network nothing; leave it out.",
            stacklevel=6,
        )
    return mean, [s if s > 0 else 1.0 for s in std]
