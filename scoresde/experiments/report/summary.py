"""The rows of the report's tables, from ``results.json``: one per sampler and weighting, one per likelihood.

Values are means over training seeds. With several seeds, the number after ± is the standard deviation over them. With
one seed it is the measured standard error: over held-out events for likelihoods, of one evaluation for distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

from scoresde._core.durations import duration
from scoresde.evaluation import Quantity, quantity_of
from scoresde.experiments.report.bound_table import BoundRow, bound_clause, bound_rows
from scoresde.experiments.report.difference import Difference
from scoresde.experiments.report.number_format import Number, mean
from scoresde.experiments.report.parts import DataPart, part_of

__all__ = ["BaselineRow", "LikelihoodRow", "SamplerRow", "Summary"]


@dataclass(frozen=True)
class SamplerRow:
    """One row of the table of distances: a sampler, real data, or the Gaussian.

    Attributes:
        name: Label of the row.
        weighting: Label of the weighting; None for real data and the Gaussian.
        nfe: Network calls per sample.
        seconds: Seconds of sampling.
        calibration_seconds: Seconds in which a calibrated sampler was fitted to the model, once.
        calibration_ratio: Its error on held-out noises, over that of the sampler before calibration.
        distance: Sliced Wasserstein distance to held-out data.
        ratio: That distance over the distance of real data.
        kernel: Squared kernel distance (MMD).
        classifier: Accuracy of a classifier of samples and real data.
        near: Median distance to the nearest training event, over that of held-out data.
        copies: Fraction of samples that are too near to a training event.
    """

    name: str
    weighting: str | None
    nfe: Number
    seconds: Number
    calibration_seconds: Number
    calibration_ratio: Number
    distance: Number
    ratio: Number
    kernel: Number
    classifier: Number
    near: Number
    copies: Number


@dataclass(frozen=True)
class LikelihoodRow:
    """One row of the table of likelihoods: a weighting.

    Attributes:
        name: Label of the weighting.
        value: In the unit of the likelihoods.
        held_out: Standard error over held-out events.
        probes: Standard error over trace probes.
        events: Number of scored events.
        nfe: Network calls per event.
        train_seconds: Seconds of training.
    """

    name: str
    value: Number
    held_out: Number
    probes: Number
    events: int
    nfe: Number
    train_seconds: Number


@dataclass(frozen=True)
class BaselineRow:
    """The likelihood of a model without a network, and the number of scored events."""

    name: str
    value: Number
    events: int


@dataclass(frozen=True)
class Summary:
    """Rows and labels for the templates and figures.

    Attributes:
        content: The content of ``results.json``.
    """

    content: dict[str, Any]

    @property
    def title(self) -> str:
        """The name of the data, with a capital first letter."""
        name = self.content["data"]["name"]
        return name[:1].upper() + name[1:]

    @cached_property
    def part(self) -> DataPart:
        """How events are called and drawn."""
        return part_of(self.content)

    @property
    def categories(self) -> bool:
        """Whether all values are categories."""
        return self.content["data"].get("classes") is not None

    @property
    def mask(self) -> str:
        """How the forward process draws a masked entry; empty if it has no masks."""
        if not self.categories or "absorbing" not in self.content["process"]:
            return ""
        if self.part.event == "text":
            return "as a dot"
        return "in blue" if self.content["data"]["classes"] == 2 else "in light gray"

    @property
    def mixed(self) -> bool:
        """Whether rows hold numbers and codes of categories."""
        return bool(self.content["data"].get("codes"))

    @property
    def by_bound(self) -> bool:
        """Whether the likelihood is a bound in continuous time, for want of a probability-flow ODE."""
        return self.categories or self.mixed

    @property
    def weightings(self) -> list[str]:
        """Labels of the weightings."""
        return self.content["weightings"]

    @property
    def samplers(self) -> list[str]:
        """Labels of the samplers."""
        return self.content["samplers"]

    @property
    def unit(self) -> str:
        """Unit of the likelihoods."""
        return self.content["runs"][0]["likelihood"]["unit"]

    @property
    def quantity(self) -> Quantity:
        """What the likelihoods are: log p or bits, and which direction is better."""
        return quantity_of(self.unit)

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller likelihood number is better: true for bits, false for log p."""
        return not self.quantity.higher_is_better

    def runs(self, weighting: str) -> list[dict[str, Any]]:
        """The runs of a weighting, one per seed."""
        return [run for run in self.content["runs"] if run["weighting"] == weighting]

    def measurements(self, weighting: str, sampler: str) -> list[dict[str, Any]]:
        """The measurements of a sampler, one per seed."""
        return [m for run in self.runs(weighting) for m in run["samples"] if m["sampler"] == sampler]

    @property
    def sampler_rows(self) -> list[SamplerRow]:
        """The table of distances, weighting by weighting."""
        weightings, samplers = self.weightings, self.samplers
        return [_sampler_row(s, w, self.measurements(w, s)) for w in weightings for s in samplers]

    @property
    def calibrated(self) -> bool:
        """Whether a sampler was calibrated."""
        return any(row.calibration_seconds.value is not None for row in self.sampler_rows)

    @property
    def reference_rows(self) -> list[SamplerRow]:
        """The first two rows of the table of distances: real data, and a Gaussian."""
        ratio = {"value": 1.0, "stderr": None}
        floor = {**self.content["floors"], "ratio": ratio, "copies": {"median_ratio": 1.0, "too_close": 0.01}}
        return [
            _sampler_row("real against real", None, [floor]),
            _sampler_row("Gaussian, full covariance", None, [self.content["gaussian"]]),
        ]

    @property
    def likelihood_rows(self) -> list[LikelihoodRow]:
        """The table of likelihoods."""
        return [_likelihood_row(w, self.runs(w)) for w in self.weightings]

    @property
    def bound_rows(self) -> list[BoundRow]:
        """The table of bounds, weighting by weighting, the ODE first; empty if no bounds were estimated."""
        return [row for weighting in self.weightings for row in bound_rows(weighting, self.runs(weighting))]

    @property
    def bound_clause(self) -> str:
        """Which bounds lie above or below the ODE, as a clause."""
        return bound_clause(self.bound_rows, self.lower_is_better)

    @property
    def baseline_rows(self) -> list[BaselineRow]:
        """Likelihoods of models without a network."""
        return [BaselineRow(b["name"], Number(b["value"], b["stderr"]), b["events"]) for b in self.content["baselines"]]

    @property
    def dequantization(self) -> str | None:
        """The dequantization of the likelihoods; None for data that are not quantized."""
        return self.content["runs"][0]["likelihood"].get("dequantization")

    @property
    def trained_on_centers(self) -> bool:
        """Whether the model was trained on bin centers instead of dequantized values."""
        return "dequantize=False" in self.content["training"]

    def differences(self, name: str) -> list[Difference]:
        """The paired differences of "likelihood" or "samples" to the first weighting or sampler."""
        return [Difference(**entry) for entry in self.content["differences"][name]]

    @property
    def stages(self) -> list[tuple[str, str]]:
        """Stages in their order, and their durations as text."""
        return [(name, duration(value)) for name, value in self.content["seconds"].items()]


def _sampler_row(name: str, weighting: str | None, measurements: list[dict[str, Any]]) -> SamplerRow:
    def over_seeds(key: str) -> Number:
        return mean([m.get(key) for m in measurements])

    def nested(group: str, key: str) -> Number:
        return Number(mean([(m.get(group) or {}).get(key) for m in measurements]).value)

    return SamplerRow(
        name,
        weighting,
        Number(over_seeds("nfe").value),
        Number(over_seeds("seconds").value),
        nested("calibration", "seconds"),
        Number(mean([_calibration_ratio(m.get("calibration")) for m in measurements]).value),
        over_seeds("sliced_wasserstein"),
        over_seeds("ratio"),
        over_seeds("mmd"),
        over_seeds("classifier"),
        nested("copies", "median_ratio"),
        nested("copies", "too_close"),
    )


def _calibration_ratio(record: dict[str, Any] | None) -> float | None:
    """The calibrated sampler's error over the original's; None without a calibration or an error."""
    return record["error"] / record["original_error"] if record and record["original_error"] else None


def _likelihood_row(weighting: str, runs: list[dict[str, Any]]) -> LikelihoodRow:
    likelihoods = [run["likelihood"] for run in runs]
    return LikelihoodRow(
        weighting,
        mean([dict(entry) for entry in likelihoods]),
        Number(None, mean([entry["stderr"] for entry in likelihoods]).value),
        Number(None, mean([entry["probe_stderr"] for entry in likelihoods]).value),
        likelihoods[0]["events"],
        Number(fmean(entry["nfe"] for entry in likelihoods)),
        Number(fmean(run["train_seconds"] for run in runs)),
    )
