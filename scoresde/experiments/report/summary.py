"""What does `results.json` say, in words and rounded numbers? One row per sampler and weighting, one per likelihood.

Means are over training seeds. What follows ± is the standard deviation over seeds where there are several, else the
standard error that was measured: over held-out events for likelihoods, of one evaluation for distances.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from scoresde.experiments.report.bound_table import BoundRow, bound_rows, in_words
from scoresde.experiments.report.numbers import Number, duration, mean
from scoresde.plots.image_grid import is_image

__all__ = ["LikelihoodRow", "BaselineRow", "SamplerRow", "Summary", "summarize"]


@dataclass(frozen=True)
class SamplerRow:
    """One line of the table of distances: a sampler, or real data, or the Gaussian."""

    name: str
    weighting: str | None
    nfe: Number
    seconds: Number
    distance: Number
    ratio: Number
    kernel: Number
    classifier: Number
    near: Number
    copies: Number

    @property
    def bar(self) -> float:
        """Length of the bar of the ratio, per cent: 3 floors fill it."""
        return 0.0 if self.ratio.value is None else min(100.0, 100.0 * self.ratio.value / 3.0)


@dataclass(frozen=True)
class LikelihoodRow:
    """One line of the table of likelihoods."""

    weighting: str
    value: Number
    held_out: Number
    probes: Number
    events: int
    nfe: Number
    train_seconds: Number


@dataclass(frozen=True)
class BaselineRow:
    """The likelihood of a model without a network, of so many held-out events."""

    name: str
    value: Number
    events: int


@dataclass(frozen=True)
class Summary:
    """All that the templates and the figures ask for; ``said`` is ``results.json`` itself."""

    said: dict[str, Any]

    @property
    def title(self) -> str:
        """The data's name with a large first letter."""
        name = self.said["data"]["name"]
        return name[:1].upper() + name[1:]

    @property
    def kind(self) -> str:
        """How an event can be shown: "picture", "plane" or "event"."""
        shape = tuple(self.said["data"]["shape"])
        return "picture" if is_image(shape) else "plane" if shape == (2,) else "event"

    @property
    def noun(self) -> str:
        """What an event is called."""
        return {"picture": "image", "plane": "point", "event": "event"}[self.kind]

    @property
    def unit(self) -> str:
        """Of the likelihoods."""
        return self.said["runs"][0]["likelihood"]["unit"]

    @property
    def lower_is_better(self) -> bool:
        """Of the likelihoods."""
        return self.unit == "bits/dim"

    def runs(self, weighting: str) -> list[dict[str, Any]]:
        """The runs with one weighting, one per seed."""
        return [run for run in self.said["runs"] if run["weighting"] == weighting]

    def drawn(self, weighting: str, sampler: str) -> list[dict[str, Any]]:
        """One sampler's measurements, one per seed."""
        return [d for run in self.runs(weighting) for d in run["samples"] if d["sampler"] == sampler]

    @property
    def rows(self) -> list[SamplerRow]:
        """The table of distances, weighting by weighting."""
        of = self.said
        return [_row(s, w, self.drawn(w, s)) for w in of["weightings"] for s in of["samplers"]]

    @property
    def marks(self) -> list[SamplerRow]:
        """The two lines to compare with: real data, and the Gaussian."""
        ratio = {"value": 1.0, "stderr": None}
        floor = {**self.said["floors"], "ratio": ratio, "copies": {"median_ratio": 1.0, "too_close": 0.01}}
        return [
            _row("real against real", None, [floor]),
            _row("Gaussian, full covariance", None, [self.said["gaussian"]]),
        ]

    @property
    def likelihoods(self) -> list[LikelihoodRow]:
        """The table of likelihoods."""
        return [_likelihood(w, self.runs(w)) for w in self.said["weightings"]]

    @property
    def bounds(self) -> list[BoundRow]:
        """The table of bounds, weighting by weighting, the ODE first; empty where none were estimated."""
        return [line for weighting in self.said["weightings"] for line in bound_rows(weighting, self.runs(weighting))]

    @property
    def in_words(self) -> str:
        """Which bounds lie on which side of the ODE, as a clause."""
        return in_words(self.bounds, self.lower_is_better)

    @property
    def references(self) -> list[BaselineRow]:
        """Likelihoods of models without a network; in older results of as many events as there are samples."""
        n, marks = self.said["n"], self.said["references"]
        return [BaselineRow(m["name"], Number(m["value"], m["stderr"]), m.get("events", n)) for m in marks]

    @property
    def law(self) -> str | None:
        """Of the places of levels in their cells, in likelihoods; None for other data, and in older results."""
        return self.said["runs"][0]["likelihood"].get("law")

    @property
    def trained_on_centers(self) -> bool:
        """Whether levels were left at the centers of their cells in training."""
        return "dequantize=False" in self.said["training"]

    @property
    def best(self) -> LikelihoodRow:
        """The weighting with the best likelihood that is known."""
        sign = 1.0 if self.lower_is_better else -1.0
        return min(self.likelihoods, key=lambda e: math.inf if e.value.value is None else sign * e.value.value)

    @property
    def closest(self) -> SamplerRow:
        """The sampler and weighting with the smallest ratio to the floor."""
        return min(self.rows, key=lambda row: math.inf if row.ratio.value is None else row.ratio.value)

    @property
    def stages(self) -> list[tuple[str, str]]:
        """Seconds of each stage, in the order in which they came."""
        return [(name, duration(value)) for name, value in self.said["seconds"].items()]

    def info(self, key: str) -> Any:
        """An entry of ``results.json``."""
        return self.said[key]


def summarize(said: dict[str, Any]) -> Summary:
    """The story of a comparison.

    Args:
        said: The content of ``results.json``.
    """
    return Summary(said)


def _row(name: str, weighting: str | None, drawn: list[dict[str, Any]]) -> SamplerRow:
    def over(key: str) -> Number:
        return mean([d.get(key) for d in drawn])

    def copies(key: str) -> Number:
        return Number(mean([(d.get("copies") or {}).get(key) for d in drawn]).value)

    nfe, seconds = Number(over("nfe").value), Number(over("seconds").value)
    distances = over("sliced_wasserstein"), over("ratio"), over("mmd"), over("classifier")
    return SamplerRow(name, weighting, nfe, seconds, *distances, copies("median_ratio"), copies("too_close"))


def _likelihood(weighting: str, runs: list[dict[str, Any]]) -> LikelihoodRow:
    scored = [run["likelihood"] for run in runs]
    return LikelihoodRow(
        weighting,
        mean([dict(s) for s in scored]),
        Number(None, mean([s["stderr"] for s in scored]).value),
        Number(None, mean([s["probe_stderr"] for s in scored]).value),
        scored[0]["events"],
        Number(fmean(s["nfe"] for s in scored)),
        Number(fmean(run["train_seconds"] for run in runs)),
    )
