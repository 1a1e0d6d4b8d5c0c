"""How does a folder of results become a page? Figures as PNG and as inline SVG, words from templates."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import jinja2
from matplotlib.figure import Figure

from scoresde._core.atomic import atomic_file
from scoresde.experiments.report import charts
from scoresde.experiments.report import images as pictures
from scoresde.experiments.report.numbers import duration
from scoresde.experiments.report.summary import Summary, summarize
from scoresde.experiments.results import Results, read
from scoresde.plots import style as ink

__all__ = ["write_report"]

Draw = Callable[[Results, Summary], "Figure | None"]

_FIGURES: dict[str, tuple[Draw, str]] = {
    "film": (pictures.film, "The forward process: events dissolve into noise from left to right."),
    "samples": (pictures.samples, "Real data beside samples of every way back."),
    "plane": (pictures.plane, "Density of the model and trajectories of every way back."),
    "cost": (lambda _, story: charts.cost(story), "Distance to held-out data against network calls."),
    "likelihoods": (lambda _, story: charts.likelihoods(story), "Held-out likelihood of each weighting."),
    "bounds": (lambda _, story: charts.bounds(story), "Likelihood by the equation beside bounds on it."),
    "noise": (lambda _, story: charts.noise_levels(story), "Error and weight by log-SNR."),
}


def write_report(folder: str | os.PathLike[str]) -> Path:
    """Draws what a comparison's folder says: PNGs, ``report.md`` and ``index.html`` beside ``results.json``.

    The page holds everything it shows and asks for nothing from elsewhere. The same results give the same page; a
    figure of earlier results that these do not have is removed.

    Args:
        folder: Holds ``results.json`` and ``arrays.npz``.

    Returns:
        The path of ``index.html``.

    Raises:
        FileNotFoundError: If there are no results.
        ValueError: If they are not a comparison's.
    """
    results = read(folder)
    story = summarize(results.said)
    inline: dict[str, str] = {}
    for name, (draw, label) in _FIGURES.items():
        with ink.style(name):
            figure, path = draw(results, story), results.folder / f"{name}.png"
            if figure is None:
                path.unlink(missing_ok=True)
            else:
                ink.png(figure, path)
                inline[name] = ink.svg(figure, label)
    environment, labels = _environment(), {name: label for name, (_, label) in _FIGURES.items()}
    for template, target in (("report.md.j2", "report.md"), ("report.html.j2", "index.html")):
        text = environment.get_template(template).render(
            story=story,
            said=results.said,
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
