"""The report of a comparison: its sections, and the files: one page, a Markdown file, figures as PNG."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scoresde._core.atomic import atomic_file
from scoresde.experiments.report import charts
from scoresde.experiments.report.difference import tally
from scoresde.experiments.report.page import Section, render, render_page
from scoresde.experiments.report.parts import tables as table_part
from scoresde.experiments.report.pictures import Picture
from scoresde.experiments.report.report_tables import tables
from scoresde.experiments.report.summary import Summary
from scoresde.experiments.results import Results, read_results

__all__ = ["PICTURES", "Report", "write_report"]

_CHARTS = ("cost", "sampler-differences", "likelihoods", "likelihood-differences", "bounds", "noise", "training")
_PARTS = ("forward", "samples", "marginals", "dependence", "plane", "spectrum", "values", "autocorrelation", "mean")
_CATEGORIES = ("shares", "agreement")
PICTURES = (*_CHARTS, *_PARTS, "spread", *_CATEGORIES)
"""Names of all figures that a report can have; their files end in .png."""


def write_report(folder: str | os.PathLike[str]) -> Path:
    """Writes figures as PNG, ``report.md`` and ``index.html`` next to ``results.json``.

    The page contains all of its figures and loads nothing from elsewhere. The same results give the same page. A figure
    that these results do not have is removed.

    Args:
        folder: Holds ``results.json`` and ``arrays.npz``.

    Returns:
        The path of ``index.html``.

    Raises:
        FileNotFoundError: If there are no results.
        ValueError: If the files are not those of a comparison.
    """
    results = read_results(folder)
    report = Report.of(results)
    for name in PICTURES:
        path = results.folder / f"{name}.png"
        if name in report.pictures:
            report.pictures[name].save_png(name, path)
        else:
            path.unlink(missing_ok=True)
    for name, text in (("report.md", report.markdown()), ("index.html", report.page())):
        with atomic_file(results.folder / name) as path:
            path.write_text(text, encoding="utf-8")
    return results.folder / "index.html"


@dataclass(frozen=True, eq=False)
class Report:
    """The texts and the pictures of a report.

    Attributes:
        title: Of the window.
        sections: In their order.
        pictures: By name.
        context: Variables of the templates.
    """

    title: str
    sections: list[Section]
    pictures: dict[str, Picture]
    context: dict[str, Any]

    @classmethod
    def of(cls, results: Results) -> Report:
        """The report of the results of a comparison."""
        summary = Summary(results.content)
        samples, statistics = _pictures_of_data(results, summary)
        pictures = {**samples, **statistics, **_charts(summary), "forward": summary.part.forward(results)}
        sections = _sections(summary, list(samples), list(statistics))
        context = {
            "header": "report/header.html.j2",
            "footer": "report/footer.html.j2",
            "summary": summary,
            "content": results.content,
            "pictures": pictures,
            "tables": tables(summary),
            "sample_pictures": list(samples),
            "statistics": list(statistics),
            "tally": tally,
            "words": {"event": summary.part.event, "events": summary.part.events, "n": results.content["n"]},
            "sections": sections,
        }
        title = f"{results.content['data']['name']}: one network, {len(summary.samplers)} samplers"
        return cls(title, sections, pictures, context)

    def markdown(self) -> str:
        """The text of ``report.md``."""
        return render("report/report.md.j2", self.context)

    def page(self) -> str:
        """The text of ``index.html``, with its figures."""
        return render_page(self.title, self.sections, self.context)


def _pictures_of_data(results: Results, summary: Summary) -> tuple[dict[str, Picture], dict[str, Picture]]:
    """Samples and statistics, with those of a table for other data with named columns."""
    part = summary.part
    samples = part.samples(results, summary)
    statistics = {} if part.statistics is None else part.statistics(results, summary)
    if "table" in results.content and part is not table_part.PART:
        statistics |= table_part.samples(results, summary) | table_part.statistics(results, summary)
    return samples, statistics


def _charts(summary: Summary) -> dict[str, Picture]:
    likelihoods, samples = summary.differences("likelihood"), summary.differences("samples")
    drawn = {
        "cost": charts.cost(summary),
        "sampler-differences": charts.differences(
            samples, "Distance of each sampler minus that of the first.", f"minus {summary.samplers[0]}, × floor"
        ),
        "likelihoods": charts.likelihoods(summary),
        "likelihood-differences": charts.differences(
            likelihoods,
            "Likelihood of each weighting minus that of the first.",
            f"minus {summary.weightings[0]}, {summary.unit}",
        ),
        "bounds": charts.bounds(summary),
        "noise": charts.error_by_noise(summary),
        "training": charts.training(summary),
    }
    return {name: picture for name, picture in drawn.items() if picture is not None}


def _sections(summary: Summary, samples: list[str], statistics: list[str]) -> list[Section]:
    events = summary.part.events

    def section(anchor: str, title: str, pictures: list[str] | None = None, tables: list[str] | None = None) -> Section:
        return Section(anchor, title, f"report/{anchor}.html.j2", pictures or [], tables or [])

    return [
        section("process", f"Forward process: {events} turn into noise", ["forward"]),
        section("reverse", f"Reverse process: samples next to real {events}", samples),
        section("structure", summary.part.statistics_title, statistics),
        section(
            "distance",
            "Distance of the samples to real data",
            ["cost", "sampler-differences"],
            ["distances", "sampler-differences"],
        ),
        section("rows", "Columns, their dependence, and copies", [], ["scores", "columns"]),
        section(
            "likelihood",
            f"Likelihood of held-out {events}",
            ["likelihoods", "likelihood-differences"],
            ["likelihoods", "likelihood-differences"],
        ),
        section("bound", "Variational bounds, and why no theorem orders them", ["bounds"], ["bounds"]),
        section("error", "Error by noise level", ["noise"]),
        section("curves", "Training", ["training"]),
        section("settings", "Settings and computer"),
    ]
