"""Sequences of categories as strips: one row for each sequence, one cell for each entry, colored by its class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import as_tensor
from scoresde._core.atomic import atomic_file
from scoresde._core.checks import check_integer
from scoresde.plots.style import FAINT, INK, PAPER, SERIES

__all__ = ["class_colors", "is_strip", "save_strips", "strips"]

_LONGEST = 512  # entries of a sequence that is shown as a strip
_WIDTH = 900  # pixels of a row, at most


def is_strip(shape: tuple[int, ...]) -> bool:
    """Whether events of this shape are sequences ``(L,)`` of 2 to 512 entries."""
    check_arguments(is_strip, locals())
    return len(shape) == 1 and 2 <= shape[0] <= _LONGEST


def class_colors(classes: int) -> np.ndarray:
    """A color for each class, bytes ``(classes, 3)``.

    Bits are light and dark. Up to six classes have the colors of series. More have colors around the circle of hues,
    neighbors far apart, because their order has no meaning.

    Args:
        classes: Number of classes, at least 2.
    """
    check_arguments(class_colors, locals())
    check_integer("classes", classes, 2)
    if classes == 2:
        return np.stack([_bytes(FAINT), _bytes(INK)])
    if classes <= len(SERIES):
        return np.stack([_bytes(color) for color in SERIES[:classes]])
    turn = (np.arange(classes) * 0.6180339887498949) % 1.0  # the golden section spreads neighbors
    phase = 2 * np.pi * (turn[:, None] + np.array([0.0, 1 / 3, 2 / 3]))
    light = 150 + 40 * (np.arange(classes) % 3 - 1)[:, None]
    return np.clip(light + 80 * np.cos(phase), 0, 255).astype(np.uint8)


def strips(x: np.ndarray, classes: int, gap: int = 3) -> np.ndarray:
    """Sequences as rows of colored cells.

    Args:
        x: Integers 0 … classes - 1, ``(n, L)``.
        classes: Number of classes.
        gap: Pixels between two rows.

    Returns:
        Bytes, ``(height, width, 3)``.

    Raises:
        ValueError: If ``x`` are not such integers, or no sequences, or none.
    """
    check_arguments(strips, locals())
    tensor = as_tensor(x, "x")
    if tensor.is_meta or tensor.dtype == torch.bool or tensor.is_floating_point() or tensor.is_complex():
        raise ValueError(f"strips show integers 0 … {classes - 1}, got {tensor.dtype}; pass samples.data.")
    x = tensor.detach().cpu().numpy()
    if x.ndim != 2 or not x.size:
        raise ValueError(f"strips show sequences (n, L), got shape {x.shape}; write these as .npz.")
    check_integer("gap", gap, 0)
    colors = class_colors(classes)
    if x.min() < 0 or x.max() >= classes:
        raise ValueError(f"strips show integers 0 … {classes - 1}, got {int(x.min())} … {int(x.max())}.")
    cell = max(2, min(20, _WIDTH // x.shape[1]))
    rows = colors[x].repeat(cell, 0).repeat(cell, 1).reshape(len(x), cell, -1, 3)
    canvas = np.empty((len(x), cell + gap, rows.shape[2], 3), np.uint8)
    canvas[:] = _bytes(PAPER)
    canvas[:, :cell] = rows
    return canvas.reshape(-1, *canvas.shape[2:])[: len(x) * (cell + gap) - gap]


def save_strips(path: Path, x: np.ndarray, classes: int) -> None:
    """Writes `strips` as PNG."""
    check_arguments(save_strips, locals())
    from PIL import Image

    image = Image.fromarray(strips(x, classes))
    with atomic_file(path) as temporary:
        image.save(temporary, format="PNG")


def _bytes(color: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(color[1:]), np.uint8)
