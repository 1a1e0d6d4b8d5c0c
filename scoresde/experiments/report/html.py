"""Rendering of the report: figures as PNG and inline SVG, and the templates filled with the summary."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from scoresde._core.atomic import atomic_file
from scoresde._core.durations import duration
from scoresde.experiments.report import charts, images, tables
from scoresde.experiments.report.summary import Summary
from scoresde.experiments.results import Results, read_results
from scoresde.plots import style

__all__ = ["write_report"]

Draw = Callable[[Results, Summary], "Figure | None"]

_FIGURES: dict[str, tuple[Draw, str]] = {
    "forward": (images.forward_process, "The forward process: from left to right, noise replaces the data."),
    "samples": (images.samples, "Real data next to samples of every sampler."),
    "marginals": (tables.marginals, "Every column: held-out rows beside samples."),
    "dependence": (
        tables.dependence,
        "Pairwise dependence of the columns: held-out rows, samples, and the difference.",
    ),
    "plane": (images.plane, "Density of the model and trajectories of every sampler."),
    "cost": (lambda _, summary: charts.cost(summary), "Distance to held-out data against network calls."),
    "likelihoods": (lambda _, summary: charts.likelihoods(summary), "Held-out likelihood of each weighting."),
    "bounds": (lambda _, summary: charts.bounds(summary), "Likelihood by the ODE next to variational bounds."),
    "noise": (lambda _, summary: charts.error_by_noise(summary), "Error and weight by log-SNR."),
}
"""Name of the file to the function that draws the figure, and its description."""


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
    summary = Summary(results.content)
    inline: dict[str, str] = {}
    for name, (draw, label) in _FIGURES.items():
        with style.figure_style(name):
            figure, path = draw(results, summary), results.folder / f"{name}.png"
            if figure is None:
                path.unlink(missing_ok=True)
            else:
                style.save_png(figure, path)
                inline[name] = style.inline_svg(figure, label)
    environment, labels = _environment(), {name: label for name, (_, label) in _FIGURES.items()}
    for template, target in (("report.md.j2", "report.md"), ("report.html.j2", "index.html")):
        text = environment.get_template(template).render(
            summary=summary,
            table_rows=tables.table_rows(summary),
            column_rows=tables.column_rows(summary),
            best_samples=tables.best_samples(summary) if "table" in results.content else {},
            content=results.content,
            figures=inline,
            labels=labels,
        )
        with atomic_file(results.folder / target) as path:
            path.write_text(text.strip() + "\n", encoding="utf-8")
    return results.folder / "index.html"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.j2",)),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["duration"] = duration
    environment.filters["cell"] = lambda text: text.replace("|", "\\|")  # of a table in Markdown
    return environment
