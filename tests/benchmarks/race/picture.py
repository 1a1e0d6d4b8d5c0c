"""How does the race look? Error against network calls, one panel a problem: the best peer, ours, ours calibrated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from race.heats import Row

__all__ = ["draw"]

ROOT = Path(__file__).parents[3]
TITLES = {"ring": "eight Gaussians on a ring, 2-D", "mixture": "ten Gaussians, 64-D"}
NAMED = {  # ours, by entrant: label and colour
    "DDIM angle": ("DDIM", "#56B4E9"),
    "Heun": ("Heun", "#CC79A7"),
    "DPM-Solver++(2M)": ("DPM-Solver++ 2M", "#E69F00"),
    "UniPC-2": ("UniPC-2", "#009E73"),
    "recommended: Adams": ("Adams()", "#0072B2"),
}
PEER, FITTED = ("best released", "#777777"), ("Adams, calibrated", "#D55E00")


def draw(rows: list[Row], path: Path) -> None:
    """Draws the finals among ``rows``, and writes the picture."""
    plt.style.use(ROOT / "examples" / "pictures.mplstyle")
    problems = [name for name in TITLES if any(row["problem"] == name for row in rows)]
    figure, axes = plt.subplots(1, len(problems), figsize=(5.6 * len(problems), 4.6), squeeze=False)
    for ax, name in zip(axes[0], problems):
        _panel(ax, [row for row in rows if row["problem"] == name and row["final"]])
        ax.set_title(TITLES[name])
    axes[0, 0].set_ylabel("root mean square error at the end")
    figure.savefig(path)


def _panel(ax: Axes, rows: list[Row]) -> None:
    lines = {PEER: _best(rows, lambda row: not row["ours"] and not row["lent"])}
    for entrant, how in NAMED.items():
        lines[how] = _best(rows, lambda row, entrant=entrant: row["entrant"] == entrant)
    fitted = _best(rows, lambda row: row["entrant"].startswith("calibrated"))
    for (label, colour), line in lines.items():
        wide, dot, layer = (2.6, 4.5, 3) if label in (PEER[0], "Adams()") else (1.2, 3, 2)
        ax.plot(*zip(*line), "-o", color=colour, lw=wide, ms=dot, zorder=layer)
    ax.plot(*zip(*fitted), "o-", color=FITTED[1], lw=1.6, ms=7, mec="white", zorder=4)
    calls = [count for count, _ in lines[PEER]]
    ax.set(xscale="log", yscale="log", xlabel="network calls", xlim=(calls[0] * 0.88, calls[-1] * 1.12))
    ax.set_xticks(calls, [str(count) for count in calls])
    ax.minorticks_off()
    ax.annotate(FITTED[0], fitted[0], (-2, -16), textcoords="offset points", color=FITTED[1], weight="bold")
    _label_ends(ax, {how: line[-1][1] for how, line in lines.items() if line})


def _best(rows: list[Row], which: Callable[[Row], bool]) -> list[tuple[int, float]]:
    """The smallest error at each number of calls."""
    chosen = [row for row in rows if which(row)]
    counts = sorted({row["calls"] for row in chosen})
    return [(count, min(row["error"] for row in chosen if row["calls"] == count)) for count in counts]


def _label_ends(ax: Axes, ends: dict[tuple[str, str], float], gap: float = 0.052) -> None:
    """Names at the right of the panel, at the height of the lines' ends or as near as they fit."""
    to_panel = ax.transData + ax.transAxes.inverted()
    placed = -1.0
    for (label, colour), end in sorted(ends.items(), key=lambda item: item[1]):
        placed = max(placed + gap, float(to_panel.transform((1.0, end))[1]))
        weight = "bold" if label in (PEER[0], "Adams()") else "normal"
        ax.text(1.02, placed, label, color=colour, transform=ax.transAxes, va="center", weight=weight)
