"""Labels of likelihoods: the quantity behind each unit, and whether a larger or a smaller number is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["BITS", "LOG_DENSITY", "Quantity", "quantity_of"]


@dataclass(frozen=True)
class Quantity:
    """What a likelihood's number is.

    Attributes:
        unit: As in `EventLikelihoods.unit`.
        name: Short name with the unit, for the head of a column.
        label: Complete label without commas, so that it can head a column of a CSV file.
        higher_is_better: Whether a larger number is better.
    """

    unit: str
    name: str
    label: str
    higher_is_better: bool

    @property
    def direction(self) -> str:
        """``higher is better`` or ``lower is better``."""
        return "higher is better" if self.higher_is_better else "lower is better"

    def to_json(self) -> dict[str, Any]:
        """JSON: unit, label and direction."""
        return {"unit": self.unit, "label": self.label, "higher_is_better": self.higher_is_better}


LOG_DENSITY = Quantity("nats", "log p, nats", "log p (nats in data units; higher is better)", True)
"""Log-density of an event in the units of the data."""

BITS = Quantity("bits/dim", "bits/dim", "bits per dimension (lower is better)", False)
"""Negative log-probability of integer values, per value of an event."""


def quantity_of(unit: str) -> Quantity:
    """The quantity of a unit: "nats" or "bits/dim"."""
    return {quantity.unit: quantity for quantity in (LOG_DENSITY, BITS)}[unit]
