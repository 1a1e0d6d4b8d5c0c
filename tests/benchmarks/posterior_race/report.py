"""Tables and figure of the posterior benchmark for the documentation."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.layout_engine import ConstrainedLayoutEngine
from posteriors import summary
from race.plot import insert
from torch import Tensor

from posterior_race.observed import PARTICLES, STATED
from posterior_race.ours import SAMPLERS
from posterior_race.problems import PROBLEMS, Problem, generator, problem
from scoresde import DPS, MMPS, JacobianFree, PiGDM, Posterior, sample, sample_posterior
from scoresde.guidance import PosteriorMethod
from scoresde.plots.style import GRAY, SERIES, figure_style, save_png

__all__ = ["document"]

ROOT = Path(__file__).parents[3]
Key = tuple[str, str]
Entries = dict[str, dict[Key, dict[str, Any]]]


def _number(value: float, digits: int) -> str:
    """Rounded, without the 0 before the point."""
    text = f"{value:.{digits}f}"
    return text[1:] if text.startswith("0.") else text


def _cell(entry: dict[str, Any] | None, modes: bool) -> str:
    if entry is None:
        return "–"
    if not math.isfinite(entry["error"]):
        return "diverges"
    text = _number(entry["error"], 2) + (f" ± {_number(entry['error se'], 2)}" if entry["runs"] > 1 else "")
    return f"{text} / {_number(entry['tv'], 3)}" if modes else text


def _entries(rows: list[dict[str, Any]]) -> Entries:
    return {name: {(e["group"], e["method"]): e for e in summary(rows, name)} for name in PROBLEMS}


def table(rows: list[dict[str, Any]]) -> str:
    """Every method on every problem, as Markdown, by the geometric mean of its errors over those of the exact model."""
    found = _entries([row for row in rows if row["group"] != "particles"])
    keys = {key for entries in found.values() for key in entries}

    def mean_log(key: Key) -> float:
        errors = [(entries[key]["error"], entries) for entries in found.values() if key in entries]
        exact = [next(e["error"] for k, e in entries.items() if k[0] == "exact") for _, entries in errors]
        return sum(math.log(error / own) for (error, _), own in zip(errors, exact, strict=True)) / len(errors)

    heads = " | ".join(PROBLEMS)
    lines = [f"| method · sampler | {heads} | CPU s, E |", "|---|" + "---|" * len(PROBLEMS) + "---:|"]
    for key in sorted(keys, key=mean_log):
        cells = [_cell(found[name].get(key), name != "A") for name in PROBLEMS]
        seconds = found["E"].get(key)
        cells.append("–" if seconds is None else f"{seconds['seconds']:.1f}")
        name = f"*{key[0]}* {key[1]}" if key[0] in ("azula", "deepinv") else key[1]
        name = f"**{name}**" if key == ("ours", "sample_posterior, its default") else name
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _seeds(rows: list[dict[str, Any]]) -> str:
    """How many seeds have all methods, as a sentence."""
    counts = {name: min((entry["runs"] for entry in summary(rows, name)), default=0) for name in PROBLEMS}
    least = sorted(set(counts.values()))
    if len(least) == 1:
        return f"*{least[0]} seeds.*"
    return "*Seeds: " + ", ".join(f"{count} on {name}" for name, count in counts.items()) + ".*"


def particle_table(rows: list[dict[str, Any]]) -> str:
    """The particle methods at stated numbers of particles."""
    found = _entries(rows)
    lines = [
        "| problem | particles | " + " | ".join(STATED) + " | exact conditional model |",
        "|---|---:|---|---|---|---|",
    ]
    for name in "ABC":
        for count in PARTICLES:
            cells = [_cell(found[name].get(("particles", f"{kind}, {count}")), name != "A") for kind in STATED]
            exact = next(e for key, e in found[name].items() if key[0] == "exact")
            first = count == PARTICLES[0]
            cells.append(_cell(exact, name != "A") if first else "")
            lines.append(f"| {name if first else ''} | {count} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _panel(axis: Axes, x: Tensor, case: Problem, title: str) -> None:
    axis.axvline(float(case.observation.y[0]), color=GRAY, linewidth=0.8)
    axis.scatter(*x.mT.tolist(), s=2.5, linewidths=0, color=SERIES[0], rasterized=True)
    axis.set_title(title, fontsize=9)
    axis.set(xlim=(0.6, 2.0), ylim=(-1.4, 1.4), aspect="equal", xticks=[], yticks=[])
    axis.spines[:].set_visible(False)
    axis.set_xlabel(f"modes off by {case.total_variation(x):.0%}", loc="left", fontsize=9)


def _steered(method: PosteriorMethod, sampler: str, case: Problem) -> Tensor:
    model = Posterior(case.model, case.observation, method)
    return sample(model, case.count, SAMPLERS[sampler](400 // model.cost), generator=generator(0)).x


def draw(path: Path) -> None:
    """Samples of problem C, x_1 seen: the exact posterior beside five methods."""
    case = problem("C", 2, 2000)
    methods: dict[str, Callable[[Problem], Tensor]] = {
        "exact": lambda case: case.exact(0),
        "sample_posterior()": lambda case: sample_posterior(case.model, case.observation, case.count, seeds=[0]).x[0],
        "MMPS, much noise": partial(_steered, MMPS(), "SASolver, Eta(4)"),
        "PiGDM": partial(_steered, PiGDM(), "Adams"),
        "JacobianFree": partial(_steered, JacobianFree(), "Adams"),
        "DPS(0.3), published": partial(_steered, DPS(0.3, 200), "DDPM"),
    }
    with figure_style("posteriors"):
        figure, axes = plt.subplots(2, 3, figsize=(4.9, 7.0), layout=ConstrainedLayoutEngine(h_pad=0.1))
        for axis, (title, samples) in zip(axes.flat, methods.items(), strict=True):
            _panel(axis, samples(case), case, title)
        save_png(figure, path)


def document(rows: list[dict[str, Any]]) -> None:
    """Writes the figure and the tables of the stored runs to the documentation."""
    docs = ROOT / "docs"
    draw(docs / "img" / "posteriors.png")
    insert(docs / "choosing" / "guidance.md", "posteriors", f"{table(rows)}\n\n{_seeds(rows)}")
    insert(docs / "particle-posteriors.md", "particles", particle_table(rows))
    print("wrote docs/img/posteriors.png and the tables of docs/choosing/guidance.md and docs/particle-posteriors.md")
