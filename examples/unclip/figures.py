"""The figures of the evaluation and of the quick check: guidance curves, held-out captions, variations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from unclip.page import Row, enlarged

__all__ = ["draw_curve", "draw_figures", "draw_rows", "draw_sheet"]

_STYLE = Path(__file__).parent.parent / "figures.mplstyle"


def draw_rows(rows: list[Row], path: Path) -> None:
    """Rows of pictures under their headings."""
    with plt.style.context(_STYLE):
        figure, axes = plt.subplots(len(rows), 1, figsize=(9, 1.45 * len(rows)), squeeze=False)
        for ax, row in zip(axes[:, 0], rows, strict=True):
            ax.imshow(np.concatenate([np.asarray(enlarged(picture.image)) for picture in row.pictures], 1))
            ax.set_title(row.heading, fontsize=9, loc="left")
            ax.axis("off")
        figure.savefig(path)
        plt.close(figure)


def draw_figures(figures: dict[str, Any], out: Path) -> None:
    """Writes ``guidance.png`` and ``sheet.png``."""
    with plt.style.context(_STYLE):
        draw_curve(figures["curve"], out / "guidance.png")
        draw_sheet(figures["sheet"], out / "sheet.png")


def draw_curve(points: list[dict[str, Any]], path: Path) -> None:
    """Text-image score and coverage against the decoder's guidance scale, ± 2 standard errors."""
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.2))
    scales = [point["scale"] for point in points]
    titles = {"score": "text-image score", "cosine": "cosine to the real image", "coverage": "coverage of real images"}
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        values = np.array([point[name] for point in points])
        ax.errorbar(scales, values[:, 0], yerr=2 * values[:, 1], marker="o", capsize=3)
        ax.set(title=title, xlabel="guidance scale of the decoder")
    figure.savefig(path)
    plt.close(figure)


def draw_sheet(entries: list[dict[str, Any]], path: Path, columns: int = 5) -> None:
    """Real image, sample and nearest training image of each caption."""
    rows = -(-len(entries) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(13, 1.35 * rows), squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, entry in zip(axes.flat, entries, strict=False):
        row = np.concatenate([np.asarray(enlarged(entry[name])) for name in ("real", "sample", "nearest")], 1)
        ax.imshow(row)
        ax.set_title(entry["caption"][:34], fontsize=8.5)
    figure.suptitle("In each: real image · sample from the caption · nearest training image", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)
