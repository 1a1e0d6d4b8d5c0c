"""Colors and fonts of figures: fixed colors in PNG, CSS variables of the page in inline SVG.

Series colors are Okabe & Ito's, which color-blind readers can tell apart. A figure is drawn once. In its SVG every
color is replaced by a CSS variable, so that the page chooses its light or dark theme.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from scoresde._core.atomic import atomic_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLORS", "FAINT", "GRAY", "INK", "MARKERS", "PAPER", "SERIES", "figure_style", "inline_svg", "save_png"]

INK, GRAY, FAINT, PAPER = "#1c2330", "#667085", "#e2e6ec", "#ffffff"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<")

COLORS = {INK: "ink", GRAY: "gray", FAINT: "faint", PAPER: "paper"} | {c: f"series-{i}" for i, c in enumerate(SERIES)}
"""Color to the name of its CSS variable."""

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
def figure_style(name: str) -> Iterator[None]:
    """Applies the settings of every figure.

    Args:
        name: Of the figure; fixes the identifiers in its SVG, so that the same data give the same text.
    """
    import matplotlib as mpl

    with mpl.rc_context(cast("Any", {**_SETTINGS, "svg.hashsalt": name})):
        yield


def save_png(figure: Figure, path: Path, dpi: float = 144) -> None:
    """Writes the figure on white, without a date."""
    with atomic_file(path) as temporary:
        figure.savefig(temporary, dpi=dpi, metadata={"Software": None})


def inline_svg(figure: Figure, label: str) -> str:
    """The figure as an inline ``<svg>`` element that fills its container and takes the page's colors.

    Args:
        figure: The figure.
        label: A description for screen readers.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    used = set(re.findall(r"#([\w-]+)", text))  # other identifiers would repeat on a page of several figures
    text = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", text)
    text = re.sub(r"#[0-9a-f]{6}", lambda m: f"var(--{COLORS[m[0]]})" if m[0] in COLORS else m[0], text)
    tag = re.match(r"<svg[^>]*>", text)
    assert tag is not None
    view_box = re.search(r'viewBox="[^"]*"', tag[0])
    assert view_box is not None
    quoted = label.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    new_tag = f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {view_box[0]} role="img" aria-label="{quoted}">'
    return new_tag + text[tag.end() :].strip()
