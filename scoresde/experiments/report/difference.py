"""A paired difference with its interval, as `scoresde.experiments.differences` stores it, and the sum of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scoresde.experiments.report.number_format import Number

__all__ = ["Difference", "tally"]


@dataclass(frozen=True)
class Difference:
    """A paired difference to the first weighting or sampler, with its joint 95 % interval.

    Attributes:
        name, reference: What is compared with what.
        value, low, high: The difference and its interval; None where it is unknown.
        count: Number of what the interval is over.
        over: "events", "seeds" or "real data".
    """

    name: str
    reference: str
    value: float | None
    low: float | None
    high: float | None
    count: int
    over: str

    @property
    def sign(self) -> int:
        """1 or -1 if the interval excludes 0, else 0."""
        if self.low is None or self.high is None:
            return 0
        return 1 if self.low > 0 else -1 if self.high < 0 else 0

    @property
    def number(self) -> Number:
        """The difference."""
        return Number(self.value)

    def interval(self, digits: int) -> str:
        """Both ends, "unknown" for a single event or seed."""
        if self.low is None or self.high is None:
            return "unknown"
        return f"{Number(self.low).text(digits)} … {Number(self.high).text(digits)}"


def tally(differences: Sequence[Difference], below: str, above: str) -> str:
    """How many differences are below and above 0 with their whole interval, and how many do neither.

    Args:
        differences: To the same reference.
        below, above: What they are then, e.g. "closer to the data".
    """
    counts = {below: -1, above: 1, "not distinguishable": 0}
    return ", ".join(f"{sum(d.sign == sign for d in differences)} {name}" for name, sign in counts.items())
