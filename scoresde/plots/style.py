"""Which colors and letters does a figure have? One set for PNGs, and variables of the page's theme for inline SVG.

Series colors are Okabe & Ito's, which stay apart for color-blind eyes. A figure is drawn once: for the page, every
color in its SVG is replaced by a CSS variable, so that light and dark are the page's choice.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import matplotlib as mpl
from matplotlib.figure import Figure

from scoresde._core.atomic import atomic_file

__all__ = ["COLORS", "FAINT", "GRAY", "INK", "MARKERS", "PAPER", "SERIES", "png", "style", "svg"]

INK, GRAY, FAINT, PAPER = "#1c2330", "#667085", "#e2e6ec", "#ffffff"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<")

COLORS = {INK: "ink", GRAY: "gray", FAINT: "faint", PAPER: "paper"} | {c: f"series-{i}" for i, c in enumerate(SERIES)}
"""Color -> name of its CSS variable."""

_SETTINGS = {
    "figure.facecolor": PAPER,
    "axes.facecolor": "none",
    "axes.edgecolor": GRAY,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "text.color": INK,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.image_inline": True,
    "image.interpolation": "none",
}


@contextmanager
def style(name: str) -> Iterator[None]:
    """The settings of every figure; ``name`` fixes the identifiers in its SVG: the same data give the same text."""
    with mpl.rc_context(cast("Any", {**_SETTINGS, "svg.hashsalt": name})):
        yield


def png(figure: Figure, path: Path) -> None:
    """Writes the figure on white, 144 dots per inch, without a date."""
    with atomic_file(path) as aside:
        figure.savefig(aside, dpi=144, metadata={"Software": None})


def svg(figure: Figure, label: str) -> str:
    """The figure as an inline ``<svg>`` element that fills its container and takes the page's colors.

    Args:
        figure: What is drawn.
        label: What it shows, for those who do not see it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"#[0-9a-f]{6}", lambda m: f"var(--{COLORS[m[0]]})" if m[0] in COLORS else m[0], text)
    head = re.match(r"<svg[^>]*>", text)
    assert head is not None
    box = re.search(r'viewBox="[^"]*"', head[0])
    assert box is not None
    quoted = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    new = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box[0]} role="img" aria-label="{quoted}">'
    return new + text[head.end() :].strip()
