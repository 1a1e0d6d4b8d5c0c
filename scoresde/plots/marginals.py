"""Marginals of a table's columns: histograms of numbers and dates, bars of categories, real data beside samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from scoresde.plots.style import GRAY, INK, MARKERS, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["ColumnValues", "Shares", "draw_marginal"]

_BINS = 30  # at most; fewer for few rows
_WHOLE = 24  # integers in so narrow a range have a bin each
_BARS = 8  # categories with a bar of their own
_SPIKE = 0.4  # share of a bin that would flatten all others
_LETTERS = 18  # of a category's text
_TAIL = 0.005  # share of the real values beyond each end of an axis; they count in the last bin


@dataclass(frozen=True, eq=False)
class ColumnValues:
    """A column of real data and of samples.

    Attributes:
        name: Of the column.
        kind: "numeric", "integer", "date" or "category".
        real: ``(n,)``: numbers, ``datetime64``, or codes.
        samples: Name of a set of samples to its column.
        texts: Of a category's codes.
    """

    name: str
    kind: str
    real: np.ndarray
    samples: Mapping[str, np.ndarray] = field(default_factory=dict)
    texts: Sequence[str] = ()


@dataclass(frozen=True, eq=False)
class Shares:
    """Shares of the rows in bins or categories, at positions in the data coordinates of the axes, ``(n,)``.

    Attributes:
        x, y: Positions.
        texts: Bin or category and its share.
    """

    x: np.ndarray
    y: np.ndarray
    texts: Sequence[str]


def draw_marginal(axes: Axes, column: ColumnValues) -> dict[str, Shares]:
    """Draws real data as a gray area or bars, each set of samples as a line or markers in its color.

    Args:
        axes: To draw into.
        column: The column.

    Returns:
        What is drawn, for "held out" and each set of samples.
    """
    return (_bars if column.kind == "category" else _histogram)(axes, column)


def _histogram(axes: Axes, marginal: ColumnValues) -> dict[str, Shares]:
    is_date = marginal.real.dtype.kind == "M"
    kind = marginal.real.dtype if is_date else np.dtype(np.float64)
    sets = {"held out": marginal.real, **marginal.samples}
    numbers = {name: values.astype(kind).astype(np.float64) for name, values in sets.items()}
    edges = _edges(numbers["held out"], marginal.kind)
    shown = edges.astype(np.int64).astype(kind) if is_date else edges
    shares = {name: np.histogram(np.clip(v, *edges[[0, -1]]), edges)[0] / max(len(v), 1) for name, v in numbers.items()}
    for i, name in enumerate(shares):
        counts = shares[name]
        x, y = np.repeat(shown, 2), np.concatenate([[0.0], np.repeat(counts, 2), [0.0]])
        if i == 0:
            axes.fill_between(x, y, color=GRAY, alpha=0.35, linewidth=0, label=name)
        else:
            axes.plot(x, y, color=SERIES[(i - 1) % len(SERIES)], linewidth=1.3, label=name)
    axes.set_ylim(0, _cut_spike(axes, shown, list(shares.values())))
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    axes.tick_params(labelsize=7.5)
    middles = 0.5 * (edges[1:] + edges[:-1])
    x = middles.astype(np.int64).astype(kind) if is_date else middles
    names = [str(value) if is_date else f"{value:.3g}" for value in x]
    read = {
        name: Shares(x, share, [f"near {at}: {100 * value:.1f} %" for at, value in zip(names, share)])
        for name, share in shares.items()
    }
    if not is_date:
        axes.locator_params(axis="x", nbins=4)
        return read
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(minticks=2, maxticks=4)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    return read


def _cut_spike(axes: Axes, edges: np.ndarray, shares: Sequence[np.ndarray]) -> float | None:
    """Where the axis ends: above the other bins if one bin has most rows, whose shares are written beside it."""
    top = int(np.argmax(shares[0]))
    others = max(float(np.delete(share, top).max(initial=0.0)) for share in shares)
    if shares[0][top] < _SPIKE or others <= 0 or shares[0][top] < 3 * others:
        return None
    right = top < len(shares[0]) / 2
    x = edges[top + 1] if right else edges[top]
    for i, share in enumerate(shares):
        color = GRAY if i == 0 else SERIES[(i - 1) % len(SERIES)]
        note: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7.5, "color": color, "va": "top"}
        offset = (4 if right else -4, -1 - 10 * i)
        at = (x, 1.0)
        axes.annotate(
            f"{100 * share[top]:.0f} %",
            at,
            offset,
            xycoords=("data", "axes fraction"),
            ha="left" if right else "right",
            **note,
        )
    return 1.5 * others


def _edges(real: np.ndarray, kind: str) -> np.ndarray:
    low, high = np.quantile(real, [_TAIL, 1 - _TAIL])
    if kind == "integer" and high - low <= _WHOLE:
        return np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
    if high <= low:  # all but a few values are equal
        low, high = real.min(), real.max()
    if high <= low:
        half = max(0.5, 1e-6 * abs(low))
        low, high = low - half, high + half
    return np.linspace(low, high, int(np.clip(1.5 * math.sqrt(len(real)), 8, _BINS)) + 1)


def _bars(axes: Axes, marginal: ColumnValues) -> dict[str, Shares]:
    """The most frequent categories of the real data, the others together."""
    count = len(marginal.texts)
    sets = {"held out": marginal.real, **marginal.samples}
    shares = {
        name: np.bincount(codes.astype(np.int64), minlength=count) / max(len(codes), 1) for name, codes in sets.items()
    }
    order = np.argsort(-shares["held out"], kind="stable")
    rest = order[_BARS - 1 :] if count > _BARS else order[:0]
    order = order[: count - len(rest)]
    texts = [_short(marginal.texts[int(i)] or "(empty)", _LETTERS) for i in order]
    texts += [f"{len(rest)} others"] if len(rest) else []
    y, read = np.arange(len(texts))[::-1], {}
    for i, (name, share) in enumerate(shares.items()):
        values = np.concatenate([share[order], [share[rest].sum()] if len(rest) else []])
        shift = 0.2 * ((len(shares) - 2) / 2 - (i - 1)) if i else 0.0  # equal shares of two sets stay visible
        read[name] = Shares(values, y + shift, [f"{at}: {100 * value:.1f} %" for at, value in zip(texts, values)])
        if i == 0:
            axes.barh(y, values, color=GRAY, alpha=0.35, height=0.72, label=name)
            continue
        style: dict[str, Any] = {"color": SERIES[(i - 1) % len(SERIES)], "linestyle": "none", "markersize": 5}
        axes.plot(values, y + shift, MARKERS[(i - 1) % len(MARKERS)], label=name, **style)
    axes.set_yticks(y, texts, fontsize=7.5, color=INK)
    axes.set_ylim(-0.6, len(texts) - 0.4)
    axes.set_xlim(0, None)
    axes.grid(axis="y", visible=False)
    axes.locator_params(axis="x", nbins=3)
    axes.tick_params(axis="x", labelsize=7.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    return read


def _short(text: str, letters: int) -> str:
    return text if len(text) <= letters else text[: letters - 1] + "…"
