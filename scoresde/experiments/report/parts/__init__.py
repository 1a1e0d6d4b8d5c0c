"""The parts of the report that depend on the data: images, points, tables, series, volumes, categories, other events.

Each module states in one `DataPart` how its events are called and drawn. To show another form of data, add a module and
its entry here.
"""

from __future__ import annotations

from typing import Any

from scoresde.experiments.report.parts import categories, events, images, points, series, tables, volumes
from scoresde.experiments.report.parts.part import DataPart
from scoresde.plots.image_grid import is_image

__all__ = ["DataPart", "part_of"]


def part_of(content: dict[str, Any]) -> DataPart:
    """The part for the data of a comparison.

    Args:
        content: The content of ``results.json``.
    """
    shape, model_shape = (tuple(content["data"][name]) for name in ("shape", "model_shape"))
    if content["data"].get("classes"):
        return categories.part_for(content)
    if is_image(shape):
        return images.PART
    if shape == (2,) == model_shape and not content["data"].get("codes"):
        return points.PART
    if content.get("table"):
        return tables.PART
    if len(shape) == 4 and min(shape[1:]) > 1:
        return volumes.PART
    return series.PART if len(shape) in (1, 2) and shape[-1] > 2 else events.PART
