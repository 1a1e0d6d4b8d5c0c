"""`Opened`: a foreign model as a `ScoreModel`, with what its files state and what had to be assumed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from scoresde.model import Model, ScoreModel
from scoresde.sampling import Sampler

__all__ = ["Finding", "Opened"]


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
        model: The network as a `ScoreModel`; its ``net`` is an adapter around the peer's module.
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
