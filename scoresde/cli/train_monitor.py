"""The callback by which ``scoresde train`` monitors a run: samples, and the loss on held-out events."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scoresde.data import Data
    from scoresde.training import Callback

__all__ = ["monitoring"]


def monitoring(out: Path, data: Data, every: int, dequantize: bool) -> list[Callback]:
    """The callback that monitors a run: samples, and the loss on held-out events; none for ``every`` 0."""
    from scoresde.cli.sample_output import joined_texts
    from scoresde.plots.image_grid import is_image, save_image_grid
    from scoresde.plots.strips import is_strip, save_strips
    from scoresde.training import Callback, Monitor

    if every == 0:
        return []
    show, about = None, data.description
    if about.alphabet is not None and len(about.shape) == 1:
        show = lambda path, x, description: path.with_suffix(".txt").write_text(  # noqa: E731
            joined_texts(description.texts(x)), encoding="utf-8"
        )
    elif about.classes is not None and is_strip(about.shape):
        show = lambda path, x, description: save_strips(path.with_suffix(".png"), x, description.classes)  # noqa: E731
    elif is_image(about.shape):
        show = lambda path, x, description: save_image_grid(path.with_suffix(".png"), x, description)  # noqa: E731
    return [Callback(every, Monitor(out, data, save_samples=show, dequantize=dequantize))]
