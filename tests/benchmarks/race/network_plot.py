"""Figure and tables of the benchmark on trained networks: error against calls, ours over the best released sampler."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from race.network_rounds import Result
from race.networks import CHOSEN_ON, JUDGED_ON
from race.plot import CALIBRATED, OURS, PEER, ROOT

__all__ = ["best_rows", "draw", "enough_calls", "tables"]

DEFAULT = OURS["recommended: Adams"]
STYLES = {"released": PEER, "ours": DEFAULT, "calibrated": CALIBRATED}
COLUMNS = 3


def best_rows(result: Result, group: str, by: str = "error") -> dict[int, Result]:
    """The row of the smallest error at each number of calls: released samplers, `Adams()`, or the calibrated one.

    Args:
        result: Of a network.
        group: ``"released"``, ``"ours"`` or ``"calibrated"``.
        by: ``"error"`` or ``"median"``.
    """
    best: dict[int, Result] = {}
    for row in result["rows"]:
        if row["group"] != group or (group == "ours" and not row["sampler"].startswith("recommended")):
            continue
        if row["calls"] not in best or row[by] < best[row["calls"]][by]:
            best[row["calls"]] = row
    return dict(sorted(best.items()))


def enough_calls(result: Result, group: str = "ours") -> int | None:
    """The number of calls from which on the distance to held-out data is that of the fine solution.

    Equal means within one standard error of the fine solution's distance. None if it is not equal at the most calls.
    """
    fine, error = result["fine"]
    enough = None
    for calls, row in reversed(best_rows(result, group).items()):
        if not abs(row["distance"][0] - fine) <= error:
            break
        enough = calls
    return enough


def _ordered(results: dict[str, Result]) -> list[Result]:
    return [results[name] for name in (*JUDGED_ON, *CHOSEN_ON) if name in results]


def draw(results: dict[str, Result], path: Path) -> None:
    """Draws one panel per network and writes the figure to ``path``."""
    plt.style.use(ROOT / "examples" / "figures.mplstyle")
    networks = _ordered(results)
    rows = -(-len(networks) // COLUMNS)
    figure, axes = plt.subplots(rows, COLUMNS, figsize=(11.0, 2.7 * rows), squeeze=False, sharex=True)
    for ax, result in zip(axes.flat, networks):
        _draw_panel(ax, result)
    for ax in axes.flat[len(networks) :]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_ylabel("error")
    for column in range(COLUMNS):
        lowest = [ax for ax, _ in zip(axes.flat, networks)][column::COLUMNS]
        if lowest:
            lowest[-1].set_xlabel("network calls")
            lowest[-1].tick_params(labelbottom=True)
    figure.savefig(path)
    plt.close(figure)


def _draw_panel(ax: Axes, result: Result) -> None:
    for group, (label, color) in STYLES.items():
        best = best_rows(result, group)
        if best:
            errors = [row["error"] for row in best.values()]
            ax.plot(list(best), errors, "-o", color=color, lw=2.2 if group == "ours" else 1.6, ms=4)
            if ax.get_subplotspec().is_first_col() and ax.get_subplotspec().is_first_row():  # pyright: ignore
                ax.plot([], [], "-o", color=color, label=label)
    if ax.get_legend_handles_labels()[0]:
        ax.legend(frameon=False, loc="lower left", fontsize="small")
    enough = enough_calls(result)
    if enough is not None:
        ax.axvline(enough, color=DEFAULT[1], lw=1, ls=":", zorder=1)
    calls = sorted({row["calls"] for row in result["rows"]})
    ax.set(xscale="log", yscale="log", xlim=(calls[0] * 0.88, calls[-1] * 1.12))
    ax.set_xticks(calls, [str(count) for count in calls])
    ax.minorticks_off()
    section = "chosen on" if result["network"] in CHOSEN_ON else "judged on"
    ax.set_title(f"{result['network']} ({section})", fontsize="medium")


def tables(results: dict[str, Result]) -> str:
    """Two Markdown tables, networks judged on and chosen on: error and median over the smallest released ones."""
    parts = []
    for title, names in (("judged on", JUDGED_ON), ("chosen on", CHOSEN_ON)):
        section = [results[name] for name in names if name in results]
        if section:
            parts.append("\n".join(_table(title, section)))
    return "\n\n".join(parts)


def _table(title: str, section: list[Result]) -> list[str]:
    calls = sorted({row["calls"] for result in section for row in result["rows"]})
    lines = [
        f"| {title} | {' | '.join(f'{count} calls' for count in calls)} | energy distance | floor | enough calls |",
        "|---" + "|---:" * (len(calls) + 3) + "|",
    ]
    for result in section:
        lines.append(_line(result, "ours", calls))
        if best_rows(result, "calibrated"):
            lines.append(_line(result, "calibrated", calls))
    return lines


def _line(result: Result, group: str, calls: list[int]) -> str:
    ratios, best = [(by, best_rows(result, "released", by)) for by in ("error", "median")], best_rows(result, group)
    cells = [
        " / ".join(f"{best[count][by] / least[count][by]:.2f}" for by, least in ratios) if count in best else ""
        for count in calls
    ]
    ends = [_measured(*result[key]) for key in ("fine", "floor")] if group == "ours" else ["", ""]
    name = result["network"] if group == "ours" else "&nbsp;&nbsp;calibrated"
    return f"| {name} | {' | '.join((*cells, *ends))} | {enough_calls(result, group) or ''} |"


def _measured(value: float, error: float) -> str:
    digits = 4 if error < 0.001 else 3
    return f"{value:.{digits}f} ± {error:.{digits}f}"
