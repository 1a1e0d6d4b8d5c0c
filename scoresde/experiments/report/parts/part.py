"""What a form of data contributes to the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scoresde.experiments.report.pictures import Panel, Picture
from scoresde.experiments.results import Results

if TYPE_CHECKING:
    from scoresde.experiments.report.summary import Summary

__all__ = ["DataPart", "frame_title", "sample_panels"]

Pictures = dict[str, Picture]
"""Name of the file to the picture."""


@dataclass(frozen=True)
class DataPart:
    """How events of one form are called and drawn.

    Attributes:
        event, events: An event, several events.
        advice: What to look for in the samples, a sentence.
        forward: Draws the frames of the forward process.
        samples: Draws samples next to held-out events.
        statistics: Draws statistics in which samples and held-out events can be compared.
        statistics_title: Heading of the statistics.
        statistics_text: Says what they are, in some sentences.
    """

    event: str
    events: str
    advice: str
    forward: Callable[[Results], Picture]
    samples: Callable[[Results, Summary], Pictures]
    statistics: Callable[[Results, Summary], Pictures] | None = None
    statistics_title: str = ""
    statistics_text: str = ""


def frame_title(results: Results, i: int) -> str:
    """Time and log-SNR of a frame of the forward process."""
    labels = results.content["forward"]
    log_snr = labels["log_snr"][i]
    shown = "∞" if log_snr is None else f"{log_snr:.1f}".replace("-", "−")
    return f"τ {labels['tau'][i]:.2g}, log-SNR {shown}"


def sample_panels(results: Results, summary: Summary, draw: Callable[..., Panel]) -> list[Panel]:
    """For each weighting a panel of held-out events, then one per sampler, for the first seed.

    Args:
        results: Of the comparison.
        summary: Of the same.
        draw: A function of (title, events, index of the weighting; None for held-out events).
    """
    panels = []
    for i, weighting in enumerate(summary.weightings):
        panels.append(draw("held out", results.arrays["real"], None))
        panels += [
            draw(f"{weighting}, {measured['sampler']}", results.arrays[measured["array"]], i)
            for measured in summary.runs(weighting)[0]["samples"]
        ]
    return panels
