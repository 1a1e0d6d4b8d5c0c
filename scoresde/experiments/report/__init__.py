"""How does a comparison look? `write` turns its folder into a page, a Markdown file and PNGs; only this package draws.

`story` says what the numbers are called and how they are rounded, `charts` draws, `ink` holds colors and type, `tiles`
lays pictures side by side, and the templates hold the words. Nothing is computed that ``results.json`` does not say.
"""

from __future__ import annotations

from scoresde.experiments.report.html import write_report
from scoresde.experiments.report.summary import summarize
from scoresde.plots.histogram import save_histogram
from scoresde.plots.image_grid import save_image_grid, tile_images

__all__ = ["tile_images", "save_histogram", "save_image_grid", "summarize", "write_report"]
