"""Figures of the page: panels that reflow, each an SVG or a sheet of images, with values that can be read off.

A panel is drawn by Matplotlib, once for the page and once for the PNG file, where the panels stand side by side.
"""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from scoresde.plots import style
from scoresde.process import ou

__all__ = ["SQUARE", "DrawnPanel", "Key", "Motion", "Panel", "Picture", "Values", "bare", "shown"]

SQUARE = (2.4, 2.4)
"""Size of a small square panel, inches."""

_PNG_WIDTH = 1440  # pixels
_LEAST = 62  # CSS pixels per inch; below, letters are too small
_LETTERS, _LINES = 13.0, 7.5  # of texts per inch
_FRAMES, _POINTS = 60, 30  # of a motion on the page
_SYMBOLS = {"o": "●", "s": "■", "D": "◆", "^": "▲", "v": "▼", "P": "✚", "X": "✖", "<": "◀"}
_SYMBOLS |= {"-": "━", "--": "╍", "-.": "┅", ":": "┈"}


@dataclass(frozen=True, eq=False)
class Values:
    """Values that are shown on hover, by the arrow keys, and in the table below the panel.

    Attributes:
        name: Of the series.
        x, y: Positions in the data coordinates of the axes, ``(n,)``.
        texts: The values in words, one per position.
    """

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    texts: Sequence[str]


@dataclass(frozen=True, eq=False)
class Motion:
    """Trajectories that the page plays on a panel: OU times ``tau``, ``(T,)``, falling, and states ``(T, n, 2)``."""

    tau: np.ndarray
    x: np.ndarray


@dataclass(frozen=True, eq=False)
class Key:
    """An entry of a legend: the name of a series, its color, and its marker or line style."""

    name: str
    color: str
    mark: str

    @property
    def variable(self) -> str:
        """Name of the color's CSS variable."""
        return style.COLORS[self.color]

    @property
    def symbol(self) -> str:
        """The mark as a letter."""
        return _SYMBOLS[self.mark]


@dataclass(frozen=True, eq=False)
class Panel:
    """One panel: ``draw``, ``sheet`` or ``texts``.

    Attributes:
        title: Stands above the panel.
        draw: Draws into the axes and returns the values that can be read.
        sheet: Images as bytes, ``(height, width, 4)``, one pixel per pixel.
        texts: Texts below each other, with their line breaks.
        size: Inches.
        motion: What can be played on it.
        framed: Whether there are axes to name; otherwise the drawing fills the panel.
    """

    title: str
    draw: Callable[[Axes], Sequence[Values] | None] | None = None
    sheet: np.ndarray | None = None
    texts: Sequence[str] = ()
    size: tuple[float, float] = (4.2, 2.8)
    motion: Motion | None = None
    framed: bool = True

    def titled(self, title: str) -> Panel:
        """The same panel with a title."""
        return replace(self, title=title)


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure of the report.

    Attributes:
        label: Says what it shows, for those who do not see it.
        panels: At least one.
        legend: Common to all panels.
        columns: Panels side by side in the PNG file; 0 is all of them, at most six.
    """

    label: str
    panels: Sequence[Panel]
    legend: Sequence[Key] = ()
    columns: int = 0

    def drawn(self, name: str) -> list[DrawnPanel]:
        """The panels for the page; ``name`` makes their identifiers unique."""
        return [_drawn(panel, f"{name}-{i}", self.label) for i, panel in enumerate(self.panels)]

    def save_png(self, name: str, path: Path) -> None:
        """Writes all panels as one file."""
        columns = self.columns or min(6, len(self.panels))
        rows = -(-len(self.panels) // columns)
        width, height = self.panels[0].size
        longest = max((len(key.name) for key in self.legend), default=0)
        keys = max(1, min(4, len(self.legend), int(columns * width / (0.09 * longest + 0.7))))  # of a line, in inches
        size = columns * width, rows * (height + 0.4) + 0.35 * -(-len(self.legend) // keys)
        with style.figure_style(name):
            figure = Figure(figsize=size, layout="constrained")
            grid = figure.subplots(rows, columns, squeeze=False).reshape(-1)
            for axes, panel in zip(grid, self.panels, strict=False):
                axes.set_title(textwrap.fill(panel.title, max(12, round(12 * width))), fontsize=9)
                _draw(panel, axes)
            for axes in grid[len(self.panels) :]:
                axes.set_visible(False)
            handles = [_handle(key) for key in self.legend]
            if handles:
                figure.legend(handles=handles, loc="outside upper center", ncols=keys)
            style.save_png(figure, path, dpi=_PNG_WIDTH / size[0])


@dataclass(frozen=True, eq=False)
class DrawnPanel:
    """A panel as the templates see it.

    Attributes:
        title: Stands above the panel.
        svg: Inline SVG; empty for a sheet and for texts.
        png: A sheet as PNG in base64; empty for others.
        texts: As in `Panel`.
        width: Smallest sensible width on the page, CSS pixels.
        ratio: Width over height.
        series: Values by series, for the table.
        points: ``[x, y, text]`` in the coordinates of the SVG, for hover and keys.
        motion: Angles φ, ``(T,)``, and positions ``(T, n, 2)`` in the coordinates of the SVG; None without a motion.
    """

    title: str
    width: int
    ratio: float
    svg: str = ""
    png: str = ""
    texts: Sequence[str] = ()
    series: Sequence[Values] = ()
    points: Sequence[tuple[float, float, str]] = ()
    motion: dict[str, list] | None = None

    @cached_property
    def pixels(self) -> tuple[int, int]:
        """Width and height of the sheet."""
        with Image.open(io.BytesIO(base64.b64decode(self.png))) as image:
            return image.size


def bare(axes: Axes) -> None:
    """Removes ticks, grid and frame."""
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def shown(value: float, digits: int = 3) -> str:
    """A number with ``digits`` significant digits and a minus sign."""
    return f"{value:.{digits}g}".replace("-", "−")


def _drawn(panel: Panel, name: str, label: str) -> DrawnPanel:
    width = round(_LEAST * panel.size[0])
    if panel.sheet is not None:
        height, across, _ = panel.sheet.shape
        return DrawnPanel(panel.title, width, across / height, png=_png(panel.sheet))
    if panel.texts:
        return DrawnPanel(panel.title, width, panel.size[0] / panel.size[1], texts=panel.texts)
    with style.figure_style(name):
        figure = Figure(figsize=panel.size, dpi=72)
        figure.set_layout_engine("constrained" if panel.framed else "none")
        axes = figure.add_subplot() if panel.framed else figure.add_axes((0.0, 0.0, 1.0, 1.0))
        values = _draw(panel, axes)
        svg = style.inline_svg(figure, f"{label} {panel.title}".strip())  # lays out the axes
    height = figure.bbox.height

    def position(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Data coordinates to those of the SVG, whose y points down."""
        points = axes.transData.transform(np.stack([np.ravel(x), np.ravel(y)], -1))
        return np.round(np.stack([points[:, 0], height - points[:, 1]], -1), 1)

    points = [
        (float(at[0]), float(at[1]), f"{each.name}: {text}" if each.name else text)
        for each in values
        for at, text in zip(position(axes.convert_xunits(each.x), np.asarray(each.y)), each.texts)
        if np.isfinite(at).all()
    ]
    motion = None if panel.motion is None else _played(panel.motion, position)
    ratio = panel.size[0] / panel.size[1]
    return DrawnPanel(panel.title, width, ratio, svg, series=values, points=points, motion=motion)


def _draw(panel: Panel, axes: Axes) -> Sequence[Values]:
    if panel.draw is not None:
        return panel.draw(axes) or ()
    bare(axes)
    if panel.sheet is not None:
        axes.imshow(panel.sheet)
        return ()
    across = max(8, round(_LETTERS * panel.size[0]))
    lines = [line for text in panel.texts for each in text.split("\n") for line in textwrap.wrap(each, across) or [""]]
    most = max(1, round(_LINES * panel.size[1]))
    axes.text(0.0, 1.0, "\n".join(lines[:most]), family="DejaVu Sans Mono", fontsize=8, va="top", parse_math=False)
    return ()


def _played(motion: Motion, position: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> dict[str, list]:
    rows = np.unique(np.linspace(0, len(motion.tau) - 1, _FRAMES).round().astype(int))
    x = motion.x[rows, :_POINTS]
    at = position(x[..., 0], x[..., 1]).reshape(x.shape)
    angles = [round(float(ou.angle(float(tau))), 4) for tau in motion.tau[rows]]
    return {"angles": angles, "at": at.tolist()}


def _handle(key: Key) -> Line2D:
    is_line = key.mark in ("-", "--", "-.", ":")
    marks: dict[str, Any] = {"linestyle": key.mark} if is_line else {"linestyle": "none", "marker": key.mark}
    return Line2D([], [], color=key.color, label=key.name, **marks)


def _png(sheet: np.ndarray) -> str:
    """Base64 of the smallest of the usual PNG forms."""
    image = Image.fromarray(sheet)
    if (sheet[..., 0] == sheet[..., 1]).all() and (sheet[..., 1] == sheet[..., 2]).all():
        image = image.convert("LA")
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
