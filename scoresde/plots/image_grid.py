"""How are pictures laid side by side? As one array of bytes, enlarged by whole numbers: every pixel stays a square."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from scoresde._core.atomic import atomic_file
from scoresde.data import Description

__all__ = ["enlarged", "grid", "is_image", "tile_images", "save_image_grid", "to_bytes"]


def is_image(shape: tuple[int, ...]) -> bool:
    """Whether events of this shape can be shown as pictures: ``(H, W)`` or ``(C, H, W)``, at least 4 pixels a side."""
    return len(shape) in (2, 3) and min(shape[-2:]) >= 4


def to_bytes(x: np.ndarray, low: float, high: float) -> np.ndarray:
    """Pictures as bytes ``(n, H, W, 3)``; values outside [low, high] are cut.

    Args:
        x: ``(n, H, W)`` or ``(n, C, H, W)``: three channels are colors, of others the first one is shown.
        low, high: What becomes black and white.
    """
    x = np.asarray(x, dtype=np.float64)
    x = x[:, None] if x.ndim == 3 else x
    x = x if x.shape[1] == 3 else x[:, :1]
    scaled = np.clip((x - low) / (high - low), 0.0, 1.0) * 255.0
    return np.broadcast_to(scaled.round().astype(np.uint8).transpose(0, 2, 3, 1), (*_sizes(x), 3))


def _sizes(x: np.ndarray) -> tuple[int, int, int]:
    return x.shape[0], x.shape[2], x.shape[3]


def enlarged(pictures: np.ndarray, target: int = 40) -> np.ndarray:
    """Each pixel repeated so often that the longer side comes near ``target``; ``(n, H, W, 3)`` to the same, larger."""
    scale = max(1, round(target / max(pictures.shape[1:3])))
    return pictures.repeat(scale, 1).repeat(scale, 2)


def grid(pictures: np.ndarray, columns: int | None = None, gap: int = 3) -> np.ndarray:
    """Pictures ``(n, H, W, 3)`` side by side, row by row, with a transparent gap; ``(rows, columns, 4)`` bytes.

    Args:
        pictures: Bytes.
        columns: Default as many as rows.
        gap: Pixels between two.
    """
    n, high, wide, _ = pictures.shape
    columns = math.ceil(math.sqrt(n)) if columns is None else columns
    rows = math.ceil(n / columns)
    sheet = np.zeros((rows * (high + gap) - gap, columns * (wide + gap) - gap, 4), np.uint8)
    for i in range(n):
        top, left = (i // columns) * (high + gap), (i % columns) * (wide + gap)
        sheet[top : top + high, left : left + wide, :3] = pictures[i]
        sheet[top : top + high, left : left + wide, 3] = 255
    return sheet


def tile_images(x: np.ndarray, description: Description | None) -> np.ndarray:
    """A sheet of samples.

    Args:
        x: Data units, ``(n, *D)``.
        description: Of the data; its bins or range are what becomes black and white, else the samples' own.

    Returns:
        ``(rows, columns, 4)`` bytes.

    Raises:
        ValueError: If the samples are not pictures.
    """
    if not is_image(x.shape[1:]) or not len(x):
        raise ValueError(
            f"a PNG shows pictures (n, H, W) or (n, C, H, W), got shape {x.shape}; write these as .npz or .npy."
        )
    low, high = gray_range(x, description)
    return grid(enlarged(to_bytes(x, low, high)))


def gray_range(x: np.ndarray, description: Description | None) -> tuple[float, float]:
    """What becomes black and white: the levels, the declared range, or the values' own."""
    if description is not None and description.bins is not None:
        return 0.0, description.bins - 1.0
    if description is not None and description.low is not None and description.high is not None:
        return description.low, description.high
    return float(x.min()), float(max(x.max(), x.min() + 1e-12))


def save_image_grid(path: Path, x: np.ndarray, description: Description | None) -> None:
    """Writes a sheet of samples as PNG; see `picture`."""
    from PIL import Image

    sheet = Image.fromarray(tile_images(x, description))
    with atomic_file(path) as aside:
        sheet.save(aside)
