"""`Opened`: a model of another code base as a `ScoreModel`, with what its files state and what is assumed."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_integer
from scoresde.data import ClassCondition, ConditionKind, Description, TokenCondition, VectorCondition
from scoresde.model import Model, ScoreModel
from scoresde.nn.conditions import Classes, Tokens, Vector
from scoresde.sampling import Sampler

__all__ = ["Finding", "Opened", "with_bins"]


@dataclass(frozen=True)
class Finding:
    """One fact about a foreign model.

    Args:
        name: What it is, e.g. ``"clock"``, ``"prediction"``, ``"range of the data"``.
        value: Its value as text.
        source: ``"stated"`` by the files, ``"derived"`` from what they state, or ``"assumed"``, as the origin's code
            does by default.
        why: The file and entry, or the reason of the assumption.
    """

    name: str
    value: str
    source: Literal["stated", "derived", "assumed"]
    why: str = ""


@dataclass(frozen=True, eq=False)
class Opened:
    """A model of another code base.

    Attributes:
        model: The network as a `ScoreModel`; its ``net`` is an adapter around the peer's module. The conditions that
            the network declares are added to the description of its data.
        origin: Name of the code base, e.g. ``"diffusers"``.
        findings: What is known about it, in the order of reading.
        steered: The model as the peer's sampler uses it, e.g. with its clipping; `model` itself if nothing is changed.
        sampler: The peer's own sampler with its number of steps; None if the files name none.
        start: OU time from which that sampler starts; None for the end of the clock.
    """

    model: ScoreModel
    origin: str
    findings: tuple[Finding, ...]
    steered: Model = field(default=None)  # pyright: ignore[reportAssignmentType]
    sampler: Sampler | None = None
    start: float | None = None

    def __post_init__(self) -> None:
        if self.steered is None:
            object.__setattr__(self, "steered", self.model)
        before = self.model.data
        if before is None:
            return
        absent = {n: kind for n, kind in _kinds(self.model.net).items() if n not in before.conditions}
        if absent:
            _describe(self, before, replace(before, conditions={**before.conditions, **absent}))


def _kinds(net: object) -> dict[str, ConditionKind]:
    """The conditions that a network declares as those of data, whose units are the network's."""
    kinds: dict[str, ConditionKind] = {}
    for name, condition in (getattr(net, "conditions", None) or {}).items():
        if isinstance(condition, Classes):
            kinds[name] = ClassCondition(condition.count)
        elif isinstance(condition, Vector):
            kinds[name] = VectorCondition(condition.size)
        elif isinstance(condition, Tokens):
            kinds[name] = TokenCondition(condition.size)
    return kinds


def _describe(opened: Opened, before: Description, data: Description) -> None:
    """Puts another description into the model and into the one that steers it."""
    for module in (*opened.model.modules(), *opened.steered.modules()):
        if isinstance(module, Model) and module.data == before:
            module.data = data


def with_bins(opened: Opened, bins: int) -> Opened:
    """The same model for integers 0 … bins - 1 that fill the same range of model units, in place of bytes.

    Args:
        opened: A model whose data are quantized; its description changes.
        bins: Number of integer values.

    Raises:
        ValueError: If ``bins`` is below 2, or the data are not known to be quantized.
    """
    check_arguments(with_bins, locals())
    check_integer("bins", bins, 2)
    before = opened.model.data
    if before is None or before.bins is None or isinstance(before.offset, tuple) or isinstance(before.scale, tuple):
        raise ValueError(f"bins need a model of images, whose shape is known, got data {before}; leave bins out.")
    assert before.offset is not None
    assert before.scale is not None
    low, high = (0.5 - before.offset) / before.scale, (before.bins - 0.5 - before.offset) / before.scale
    scale = (bins - 1) / (high - low)
    offset = 0.5 - low * scale
    data = Description(before.name, before.shape, bins, offset=offset, scale=scale, conditions=before.conditions)
    _describe(opened, before, data)
    name, value = "range of the data", f"integers 0 … {bins - 1} in [{low:g}, {high:g}]"
    stated = Finding(name, value, "stated", "argument `bins`")
    return replace(opened, findings=tuple(stated if f.name == name else f for f in opened.findings))
