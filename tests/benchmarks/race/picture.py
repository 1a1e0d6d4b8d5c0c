"""How does the race look in the documentation? A picture of error against network calls, and the tables under it."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from race.heats import Row

__all__ = ["draw", "insert", "noisy_table", "tables"]

ROOT = Path(__file__).parents[3]
TITLES = {"ring": "eight Gaussians on a ring, 2-D", "mixture": "ten Gaussians, 64-D"}
NAMED = {  # ours, by entrant: label and color
    "DDIM angle": ("DDIM", "#56B4E9"),
    "DPM-Solver-2": ("DPM-Solver-2", "#CC79A7"),
    "DPM-Solver++(2M)": ("DPM-Solver++ 2M", "#E69F00"),
    "UniPC-2": ("UniPC-2", "#009E73"),
    "recommended: Adams": ("Adams()", "#0072B2"),
}
PEER, FITTED = ("best released", "#777777"), ("Adams, calibrated", "#D55E00")
Which = Callable[[Row], bool]


def _released(row: Row) -> bool:
    return not row["ours"] and not row["lent"]


def _calibrated(row: Row) -> bool:
    return row["ours"] and row["entrant"].startswith("calibrated")


def _recommended(row: Row) -> bool:
    return row["ours"] and row["entrant"].startswith("recommended")


def _best(rows: list[Row], which: Which) -> dict[int, Row]:
    """The row of the smallest error at each number of calls."""
    best: dict[int, Row] = {}
    for row in filter(which, rows):
        if row["calls"] not in best or row["error"] < best[row["calls"]]["error"]:
            best[row["calls"]] = row
    return dict(sorted(best.items()))


def _finals(rows: list[Row]) -> dict[str, list[Row]]:
    """Finals of each problem."""
    finals = {name: [row for row in rows if row["problem"] == name and row["final"]] for name in TITLES}
    return {name: found for name, found in finals.items() if found}


def draw(rows: list[Row], path: Path) -> None:
    """Draws the finals among ``rows``, and writes the picture."""
    plt.style.use(ROOT / "examples" / "pictures.mplstyle")
    finals = _finals(rows)
    figure, axes = plt.subplots(1, len(finals), figsize=(5.6 * len(finals), 4.6), squeeze=False)
    for ax, (name, found) in zip(axes[0], finals.items()):
        _panel(ax, found)
        ax.set_title(TITLES[name])
    axes[0, 0].set_ylabel("root mean square error at the end")
    figure.savefig(path)


def _panel(ax: Axes, rows: list[Row]) -> None:
    lines = {PEER: _best(rows, _released)}
    for entrant, how in NAMED.items():
        lines[how] = _best(rows, lambda row, entrant=entrant: row["entrant"] == entrant)
    for (label, color), line in lines.items():
        wide, dot, layer = (2.6, 4.5, 3) if label in (PEER[0], "Adams()") else (1.2, 3, 2)
        ax.plot(list(line), [row["error"] for row in line.values()], "-o", color=color, lw=wide, ms=dot, zorder=layer)
    calls = list(lines[PEER])
    ax.set(xscale="log", yscale="log", xlabel="network calls", xlim=(calls[0] * 0.88, calls[-1] * 1.12))
    ax.set_xticks(calls, [str(count) for count in calls])
    ax.minorticks_off()
    fitted = [(count, row["error"]) for count, row in _best(rows, _calibrated).items()]
    if fitted:
        ax.plot(*zip(*fitted), "o-", color=FITTED[1], lw=1.6, ms=7, mec="white", zorder=4)
        below = (6, -17)
        ax.annotate(
            FITTED[0], fitted[-1], below, textcoords="offset points", color=FITTED[1], weight="bold", ha="right"
        )
    _label_ends(ax, {how: list(line.values())[-1]["error"] for how, line in lines.items() if line})


def _label_ends(ax: Axes, ends: dict[tuple[str, str], float], gap: float = 0.052) -> None:
    """Names at the right of the panel, at the height of the lines' ends or as near as they fit."""
    to_panel = ax.transData + ax.transAxes.inverted()
    placed = -1.0
    for (label, color), end in sorted(ends.items(), key=lambda item: item[1]):
        placed = max(placed + gap, float(to_panel.transform((1.0, end))[1]))
        weight = "bold" if label in (PEER[0], "Adams()") else "normal"
        ax.text(1.02, placed, label, color=color, transform=ax.transAxes, va="center", weight=weight)


def tables(rows: list[Row]) -> str:
    """One Markdown table a problem: the best peer, ours as recommended, ours calibrated, at each number of calls."""
    parts = []
    for name, found in _finals(rows).items():
        peers, plain, fitted = (_best(found, which) for which in (_released, _recommended, _calibrated))
        lines = [
            f"| {name}, calls | best released | its error | `Adams()` | over it | calibrated | over it |",
            "|---:|---|---:|---:|---:|---:|---:|",
        ]
        for count, peer in peers.items():
            ours = [_cells(each.get(count), peer["error"]) for each in (plain, fitted)]
            lines.append(f"| {count} | {peer['entrant']} | {_number(peer['error'])} | {' | '.join(ours)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _cells(row: Row | None, best: float) -> str:
    return " | " if row is None else f"{_number(row['error'])} | {row['error'] / best:.2f}"


def _number(error: float) -> str:
    return f"{error:.1e}".replace("e-0", "e-")


def noisy_table(rows: list[Row]) -> str:
    """A Markdown table of ours and of the best peer: width over the truth's, by problem and number of calls."""
    finals = [(name, row) for name, found in _finals(rows).items() for row in found]
    columns = sorted(
        {(name, row["calls"]) for name, row in finals}, key=lambda each: (list(TITLES).index(each[0]), each[1])
    )
    names = list(dict.fromkeys(row["entrant"] for _, row in finals if row["ours"]))
    lines = [
        "| | " + " | ".join(f"{name}, {calls} calls" for name, calls in columns) + " |",
        "|---" + "|---:" * len(columns) + "|",
    ]
    for entrant in names:
        here = {(name, row["calls"]): row["ratio"] for name, row in finals if row["entrant"] == entrant}
        lines.append(f"| {entrant} | " + " | ".join(f"{here[c]:.3f}" if c in here else "" for c in columns) + " |")
    peers: dict[tuple[str, int], float] = {}
    for name, row in finals:
        column = name, row["calls"]
        if _released(row) and abs(row["ratio"] - 1) < abs(peers.get(column, math.inf) - 1):
            peers[column] = row["ratio"]
    lines.append("| best released | " + " | ".join(f"{peers[c]:.3f}" if c in peers else "" for c in columns) + " |")
    return "\n".join(lines)


def insert(page: Path, mark: str, text: str) -> None:
    """Puts ``text`` between the comments ``<!-- mark -->`` and ``<!-- /mark -->`` of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(f"<!-- {mark} -->\n")
    _, _, after = rest.partition(f"<!-- /{mark} -->")
    if not after:
        raise ValueError(f"{page.name} must have <!-- {mark} --> and <!-- /{mark} -->, got neither or one.")
    page.write_text(f"{before}<!-- {mark} -->\n\n{text}\n\n<!-- /{mark} -->{after}", encoding="utf-8")
