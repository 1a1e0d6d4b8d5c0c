"""Figure and tables of the sampler benchmark for the documentation: error against network calls."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from race.rounds import Row

__all__ = ["draw", "insert", "stochastic_table", "tables"]

ROOT = Path(__file__).parents[3]
TITLES = {"ring": "eight Gaussians on a ring, 2-D", "mixture": "ten Gaussians, 64-D"}
OURS = {  # sampler -> label and color
    "DDIM angle": ("DDIM", "#56B4E9"),
    "DPM-Solver-2": ("DPM-Solver-2", "#CC79A7"),
    "DPM-Solver++(2M)": ("DPM-Solver++ 2M", "#E69F00"),
    "UniPC-2": ("UniPC-2", "#009E73"),
    "recommended: Adams": ("Adams()", "#0072B2"),
}
PEER, CALIBRATED = ("best released", "#777777"), ("Adams, calibrated", "#D55E00")
Condition = Callable[[Row], bool]


def _released(row: Row) -> bool:
    return not row["ours"] and not row["custom_spacing"]


def _calibrated(row: Row) -> bool:
    return row["ours"] and row["sampler"].startswith("calibrated")


def _recommended(row: Row) -> bool:
    return row["ours"] and row["sampler"].startswith("recommended")


def _best(rows: list[Row], condition: Condition) -> dict[int, Row]:
    """The row with the smallest error at each number of calls."""
    best: dict[int, Row] = {}
    for row in filter(condition, rows):
        if row["calls"] not in best or row["error"] < best[row["calls"]]["error"]:
            best[row["calls"]] = row
    return dict(sorted(best.items()))


def _finals(rows: list[Row]) -> dict[str, list[Row]]:
    """Rows of the final of each problem."""
    finals = {name: [row for row in rows if row["problem"] == name and row["final"]] for name in TITLES}
    return {name: final for name, final in finals.items() if final}


def draw(rows: list[Row], path: Path) -> None:
    """Draws the rows of the finals, and writes the figure to ``path``."""
    plt.style.use(ROOT / "examples" / "figures.mplstyle")
    finals = _finals(rows)
    figure, axes = plt.subplots(1, len(finals), figsize=(5.6 * len(finals), 4.6), squeeze=False)
    for ax, (name, final) in zip(axes[0], finals.items()):
        _draw_panel(ax, final)
        ax.set_title(TITLES[name])
    axes[0, 0].set_ylabel("root mean square error at the end")
    figure.savefig(path)


def _draw_panel(ax: Axes, rows: list[Row]) -> None:
    lines = {PEER: _best(rows, _released)}
    for sampler, style in OURS.items():
        lines[style] = _best(rows, lambda row, sampler=sampler: row["sampler"] == sampler)
    for (label, color), line in lines.items():
        width, marker, layer = (2.6, 4.5, 3) if label in (PEER[0], "Adams()") else (1.2, 3, 2)
        ax.plot(
            list(line), [row["error"] for row in line.values()], "-o", color=color, lw=width, ms=marker, zorder=layer
        )
    calls = list(lines[PEER])
    ax.set(xscale="log", yscale="log", xlabel="network calls", xlim=(calls[0] * 0.88, calls[-1] * 1.12))
    ax.set_xticks(calls, [str(count) for count in calls])
    ax.minorticks_off()
    calibrated = [(count, row["error"]) for count, row in _best(rows, _calibrated).items()]
    if calibrated:
        ax.plot(*zip(*calibrated), "o-", color=CALIBRATED[1], lw=1.6, ms=7, mec="white", zorder=4)
        offset = (6, -17)
        ax.annotate(
            CALIBRATED[0],
            calibrated[-1],
            offset,
            textcoords="offset points",
            color=CALIBRATED[1],
            weight="bold",
            ha="right",
        )
    _label_ends(ax, {style: list(line.values())[-1]["error"] for style, line in lines.items() if line})


def _label_ends(ax: Axes, ends: dict[tuple[str, str], float], gap: float = 0.052) -> None:
    """Labels at the right of the panel, at the ends of the lines or as close to them as they fit."""
    to_panel = ax.transData + ax.transAxes.inverted()
    height = -1.0
    for (label, color), end in sorted(ends.items(), key=lambda item: item[1]):
        height = max(height + gap, float(to_panel.transform((1.0, end))[1]))
        weight = "bold" if label in (PEER[0], "Adams()") else "normal"
        ax.text(1.02, height, label, color=color, transform=ax.transAxes, va="center", weight=weight)


def tables(rows: list[Row]) -> str:
    """One Markdown table per problem: the best peer, `Adams()` and the calibrated one, at each number of calls."""
    parts = []
    for name, final in _finals(rows).items():
        peers, default, calibrated = (_best(final, condition) for condition in (_released, _recommended, _calibrated))
        lines = [
            f"| {name}, calls | best released | its error | `Adams()` | over it | calibrated | over it |",
            "|---:|---|---:|---:|---:|---:|---:|",
        ]
        for count, peer in peers.items():
            ours = [_cells(best.get(count), peer["error"]) for best in (default, calibrated)]
            lines.append(f"| {count} | {peer['sampler']} | {_number(peer['error'])} | {' | '.join(ours)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _cells(row: Row | None, reference: float) -> str:
    return " | " if row is None else f"{_number(row['error'])} | {row['error'] / reference:.2f}"


def _number(error: float) -> str:
    return f"{error:.1e}".replace("e-0", "e-")


def stochastic_table(rows: list[Row]) -> str:
    """Markdown table of our samplers and the best peer: width over the exact one, by problem and number of calls."""
    finals = [(name, row) for name, final in _finals(rows).items() for row in final]
    columns = sorted(
        {(name, row["calls"]) for name, row in finals}, key=lambda column: (list(TITLES).index(column[0]), column[1])
    )
    names = list(dict.fromkeys(row["sampler"] for _, row in finals if row["ours"]))
    lines = [
        "| | " + " | ".join(f"{name}, {calls} calls" for name, calls in columns) + " |",
        "|---" + "|---:" * len(columns) + "|",
    ]
    for sampler in names:
        ratios = {(name, row["calls"]): row["ratio"] for name, row in finals if row["sampler"] == sampler}
        lines.append(f"| {sampler} | " + " | ".join(f"{ratios[c]:.3f}" if c in ratios else "" for c in columns) + " |")
    peers: dict[tuple[str, int], float] = {}
    for name, row in finals:
        column = name, row["calls"]
        if _released(row) and abs(row["ratio"] - 1) < abs(peers.get(column, math.inf) - 1):
            peers[column] = row["ratio"]
    lines.append("| best released | " + " | ".join(f"{peers[c]:.3f}" if c in peers else "" for c in columns) + " |")
    return "\n".join(lines)


def insert(page: Path, mark: str, text: str) -> None:
    """Replaces the text between the comments ``<!-- mark -->`` and ``<!-- /mark -->`` of a page by ``text``."""
    before, _, rest = page.read_text(encoding="utf-8").partition(f"<!-- {mark} -->\n")
    _, _, after = rest.partition(f"<!-- /{mark} -->")
    if not after:
        raise ValueError(f"{page.name} must contain both <!-- {mark} --> and <!-- /{mark} -->.")
    page.write_text(f"{before}<!-- {mark} -->\n\n{text}\n\n<!-- /{mark} -->{after}", encoding="utf-8")
