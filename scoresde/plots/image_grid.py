"""Grids of images as arrays of bytes, enlarged by integer factors so that every pixel stays a square."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import as_tensor
from scoresde._core.atomic import atomic_file
from scoresde._core.checks import check_integer, check_kind
from scoresde.plots.strips import class_colors

if TYPE_CHECKING:
    from scoresde.data import Description

__all__ = ["enlarged", "gray_range", "grid", "is_image", "save_image_grid", "tile_images", "to_bytes"]

_LEAST_SIDE = 600  # pixels of the longer side of a grid that is written as a file


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether events of this shape are images: ``(H, W)`` or ``(C, H, W)``, at least 4 pixels in each direction."""
    check_arguments(is_image, locals())
    return len(shape) in (2, 3) and min(shape[-2:]) >= 4


def to_bytes(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Images as bytes ``(n, H, W, 3)``; values outside [low, high] are clipped.

    Args:
        x: ``(n, H, W)`` or ``(n, C, H, W)``. Three channels are colors; otherwise the first channel is shown in gray.
        low, high: The values shown as black and white.
    """
    check_arguments(to_bytes, locals())
    x = np.asarray(x, dtype=np.float64)
    x = x[:, None] if x.ndim == 3 else x
    x = x if x.shape[1] == 3 else x[:, :1]
    scaled = np.clip((x - low) / (high - low), 0.0, 1.0) * 255.0
    count, _, height, width = x.shape
    return np.broadcast_to(scaled.round().astype(np.uint8).transpose(0, 2, 3, 1), (count, height, width, 3))


def enlarged(images: np.ndarray, target: int = 40) -> np.ndarray:
    """Images ``(n, H, W, 3)`` with each pixel repeated so that the longer side comes near ``target`` pixels."""
    check_arguments(enlarged, locals())
    scale = max(1, round(target / max(images.shape[1:3])))
    return images.repeat(scale, 1).repeat(scale, 2)


def grid(images: np.ndarray, columns: int | None = None, gap: int = 3, rows: int | None = None) -> np.ndarray:
    """Images ``(n, H, W, 3)`` in rows, with a transparent gap between them.

    Args:
        images: Bytes.
        columns: Images per row; by default as many columns as rows.
        gap: Pixels between two images.
        rows: Number of rows; by default as many as the images fill.

    Returns:
        Bytes, ``(height, width, 4)``, with an opacity channel.

    Raises:
        ValueError: If there are more images than ``rows * columns``.
    """
    check_arguments(grid, locals())
    n, height, width, _ = images.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else columns
    rows = math.ceil(n / columns) if rows is None else rows
    if n > rows * columns:
        raise ValueError(
            f"a grid of {rows} x {columns} holds {rows * columns} images, got {n}; draw fewer or enlarge it."
        )
    canvas = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8)
    for i in range(n):
        top, left = (i // columns) * (height + gap), (i % columns) * (width + gap)
        canvas[top : top + height, left : left + width, :3] = images[i]
        canvas[top : top + height, left : left + width, 3] = 255
    return canvas


def tile_images(
    x: np.ndarray, description: Description | None, rows: int | None = None, columns: int | None = None
) -> np.ndarray:
    """Samples as one grid of images; each pixel becomes a square, so that the longer side has at least 600 pixels.

    Args:
        x: Data units, ``(n, *D)``.
        description: Of the data. Its bins or range set black and white; otherwise the range of the samples does. More
            than two classes of categories have colors, see `scoresde.plots.strips.class_colors`.
        rows, columns: Number of images in each direction; by default as many columns as rows. Cells without an image
            are transparent.

    Returns:
        Bytes, ``(height, width, 4)``.

    Raises:
        ValueError: If the samples are not images, or more than the grid holds.
    """
    check_arguments(tile_images, locals())
    if description is not None:
        from scoresde.data import Description

        check_kind("description", description, Description)
    tensor = as_tensor(x, "x")
    if tensor.is_meta:
        raise ValueError("images must have values, got a tensor on the meta device.")
    x = tensor.detach().cpu().numpy()
    for name, count in (("rows", rows), ("columns", columns)):
        if count is not None:
            check_integer(name, count)
    if x.dtype.kind not in "biuf" or not np.isfinite(x).all():
        raise ValueError(f"images must hold finite numbers, got an array of {x.dtype}; draw the samples again.")
    if not is_image(x.shape[1:]) or not len(x):
        raise ValueError(
            f"a PNG shows images (n, H, W) or (n, C, H, W), got shape {x.shape}; write these as .npz or .npy."
        )
    columns = math.ceil(math.sqrt(len(x))) if columns is None else columns
    rows = math.ceil(len(x) / columns) if rows is None else rows
    classes = None if description is None else description.classes
    images = to_bytes(x, *gray_range(x, description))
    if classes is not None and classes > 2 and (x.ndim == 3 or x.shape[1] == 1):
        images = class_colors(classes)[x.reshape(len(x), *x.shape[-2:]).astype(np.int64)]
    longest = max(columns * images.shape[2], rows * images.shape[1])
    scale = max(1, math.ceil(_LEAST_SIDE / longest))
    return grid(images.repeat(scale, 1).repeat(scale, 2), columns, rows=rows)


def gray_range(x: np.ndarray, description: Description | None) -> tuple[float, float]:
    """The values shown as black and white: those of the bins, of the declared range, or of the samples."""
    if description is not None and not hasattr(description, "bins"):
        raise TypeError(f"description must be a Description, got {type(description).__name__}; pass data.description.")
    if description is not None and description.bins is not None:
        return 0.0, description.bins - 1.0
    if description is not None and description.classes is not None:
        return 0.0, description.classes - 1.0
    if description is not None and description.low is not None and description.high is not None:
        return description.low, description.high
    return float(x.min()), float(max(x.max(), x.min() + 1e-12))


def save_image_grid(
    path: Path, x: np.ndarray, description: Description | None, rows: int | None = None, columns: int | None = None
) -> None:
    """Writes the grid of `tile_images` as PNG."""
    check_arguments(save_image_grid, locals())
    from PIL import Image

    image = Image.fromarray(tile_images(x, description, rows, columns))
    with atomic_file(path) as temporary:
        image.save(temporary, format="PNG")
