"""Single figures: their style, grids of images, and histograms. Matplotlib is imported when a figure is drawn."""

from __future__ import annotations

from scoresde.plots.before_after import before_and_after, save_before_and_after
from scoresde.plots.histogram import draw_histogram, save_histogram
from scoresde.plots.image_grid import enlarged, grid, is_image, save_image_grid, tile_images, to_bytes
from scoresde.plots.strips import class_colors, is_strip, save_strips, strips

__all__ = [
    "before_and_after",
    "class_colors",
    "enlarged",
    "grid",
    "draw_histogram",
    "tile_images",
    "is_image",
    "is_strip",
    "save_before_and_after",
    "save_histogram",
    "save_image_grid",
    "save_strips",
    "strips",
    "to_bytes",
]
