"""Table and figure of the posterior benchmark for the documentation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from posteriors import summary
from race.plot import insert
from torch import Tensor

from posterior_race.ours import SAMPLERS
from posterior_race.problems import PROBLEMS, Problem, generator, problem
from scoresde import DPS, MMPS, JacobianFree, PiGDM, Posterior, sample
from scoresde.guidance import PosteriorMethod

__all__ = ["document"]

ROOT = Path(__file__).parents[3]


def _label(method: str) -> str:
    for long, short in (
        ("iterations=", ""),
        ("prior_variance=1.0", ""),
        ("eta_b=1.0", ""),
        ("zeta=None, steps=1000", ""),
    ):
        method = method.replace(long, short)
    return method


def _cell(entry: dict[str, Any] | None, modes: bool) -> str:
    if entry is None:
        return "–"
    if not math.isfinite(entry["error"]):
        return "diverges"
    text = f"{entry['error']:.2f}" + (f" ± {entry['error se']:.2f}" if entry["runs"] > 1 else "")
    return f"{text} / {entry['tv']:.3f}" if modes else text


def table(rows: list[dict[str, Any]]) -> str:
    """Every method on every problem, as Markdown: the order is that of the mean rank."""
    found = {name: {(e["group"], e["method"]): e for e in summary(rows, name)} for name in PROBLEMS}
    keys = {key for entries in found.values() for key in entries}

    def rank(key: tuple[str, str]) -> float:
        ranks = []
        for entries in found.values():
            order = sorted(entries, key=lambda other: entries[other]["error"])
            if key in entries:
                ranks.append(order.index(key) / len(order))
        return sum(ranks) / len(ranks)

    lines = ["| method · sampler | " + " | ".join(PROBLEMS) + " |", "|---|" + "---|" * len(PROBLEMS)]
    common = [key for key in keys if sum(key in entries for entries in found.values()) > 1]
    for key in sorted(common, key=rank):
        cells = [_cell(found[name].get(key), name != "A") for name in PROBLEMS]
        name = _label(key[1])
        lines.append(f"| {name if key[0] != 'azula' else f'*azula* {name}'} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _panel(axis: Axes, x: Tensor, case: Problem, title: str) -> None:
    axis.scatter(*x.mT.tolist(), s=2, linewidths=0, rasterized=True)
    axis.axvline(float(case.observation.y[0]), color="0.6", linewidth=0.8, zorder=0)
    axis.set(title=title, xlim=(0.2, 2.2), ylim=(-1.4, 1.4), aspect="equal", xticks=[], yticks=[])


def draw(path: Path) -> None:
    """Samples of problem C, x_1 seen: the exact posterior beside three methods."""
    plt.style.use(ROOT / "examples" / "figures.mplstyle")
    case = problem("C", 2, 2000)
    methods: dict[str, tuple[PosteriorMethod, str]] = {
        "MMPS": (MMPS(), "Adams"),
        "MMPS, more noise": (MMPS(), "Langevin"),
        "PiGDM": (PiGDM(), "Adams"),
        "JacobianFree": (JacobianFree(), "Adams"),
        "DPS(0.3), as published": (DPS(0.3, 200), "DDPM"),
    }
    figure, axes = plt.subplots(1, len(methods) + 1, figsize=(1.9 * (len(methods) + 1), 2.9))
    _panel(axes[0], case.exact(0), case, "exact")
    for axis, (title, (method, sampler)) in zip(axes[1:], methods.items(), strict=True):
        model = Posterior(case.prior, case.observation, method)
        x = sample(model, case.count, SAMPLERS[sampler](400 // model.cost), generator=generator(0)).x
        _panel(axis, x, case, f"{title}\nmodes off by {case.total_variation(x):.0%}")
    figure.savefig(path, dpi=150, bbox_inches="tight")


def document(rows: list[dict[str, Any]]) -> None:
    """Writes the figure and the table of the last run to the documentation."""
    docs = ROOT / "docs"
    draw(docs / "img" / "posteriors.png")
    insert(docs / "inverse-problems.md", "posteriors", table(rows))
    print("wrote docs/img/posteriors.png and the table of docs/inverse-problems.md")
