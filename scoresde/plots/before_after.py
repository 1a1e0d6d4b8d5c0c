"""Sheets of images before and after: originals at the left, what became of them at the right, one row for each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import as_tensor
from scoresde._core.atomic import atomic_file
from scoresde._core.checks import check_values
from scoresde.plots.image_grid import gray_range, grid, is_image, to_bytes

if TYPE_CHECKING:
    from scoresde.data import Description

__all__ = ["before_and_after", "save_before_and_after"]

_HIDDEN = (214, 93, 14)  # orange: neither a gray nor usual in photographs
_LEAST_SIDE = 600  # pixels of the longer side of a sheet
_GAP = 3


def before_and_after(
    before: np.ndarray, after: np.ndarray, description: Description | None, hidden: np.ndarray | None = None
) -> np.ndarray:
    """A sheet of images: in each row the original, the original with hidden pixels in orange, and the results.

    Args:
        before: Originals in data units, ``(n, *D)``.
        after: Results in data units, ``(n, k, *D)``.
        description: Of the data. Its bins or range set black and white; otherwise the range of the originals does.
        hidden: Which entries were not seen, bool, ``(n, *D)``; None leaves that column out.

    Returns:
        Bytes, ``(height, width, 4)``, with an opacity channel.

    Raises:
        ValueError: If the events are not images, or the shapes do not fit.
    """
    check_arguments(before_and_after, locals())
    before, after = _numbers(before, "before"), _numbers(after, "after")
    fits = after.ndim == before.ndim + 1 and (len(after), *after.shape[2:]) == before.shape
    if not is_image(before.shape[1:]) or not fits:
        raise ValueError(
            f"a sheet shows images, (n, *D) before and (n, k, *D) after, got {before.shape} and {after.shape}."
        )
    n, k = after.shape[:2]
    low, high = gray_range(before, description)
    left = [to_bytes(before, low, high)]
    if hidden is not None:
        tensor = as_tensor(hidden, "hidden")
        check_values("hidden", tensor)
        mask = tensor.detach().cpu().numpy()
        if mask.dtype != bool or mask.shape != before.shape:
            raise ValueError(f"hidden must be bool, {before.shape} as before, got {mask.dtype}, {mask.shape}.")
        pixels = np.expand_dims(np.any(mask.reshape(n, -1, *before.shape[-2:]), axis=1), -1)
        left.append(np.where(pixels, np.array(_HIDDEN, np.uint8), left[0]))
    right = to_bytes(after.reshape(n * k, *before.shape[1:]), low, high)
    height, width = left[0].shape[1:3]
    scale = max(1, math.ceil(_LEAST_SIDE / max((len(left) + k) * width, n * height)))
    pair = np.stack(left, 1).reshape(-1, height, width, 3)
    parts = [grid(_larger(part, scale), columns, _GAP, n) for part, columns in ((pair, len(left)), (right, k))]
    space = np.zeros((parts[0].shape[0], 4 * _GAP, 4), np.uint8)
    return np.concatenate([parts[0], space, parts[1]], axis=1)


def save_before_and_after(
    path: Path,
    before: np.ndarray,
    after: np.ndarray,
    description: Description | None,
    hidden: np.ndarray | None = None,
) -> None:
    """Writes the sheet of `before_and_after` as PNG."""
    check_arguments(save_before_and_after, locals())
    from PIL import Image

    image = Image.fromarray(before_and_after(before, after, description, hidden))
    with atomic_file(path) as temporary:
        image.save(temporary, format="PNG")


def _numbers(values: np.ndarray, name: str) -> np.ndarray:
    tensor = as_tensor(values, name)
    if tensor.is_meta or not tensor.numel() or not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} must hold finite images, got {tuple(tensor.shape)}; draw them again.")
    return tensor.detach().cpu().numpy()


def _larger(images: np.ndarray, scale: int) -> np.ndarray:
    return images.repeat(scale, 1).repeat(scale, 2)
