"""Altered copies of the training images: other hue, mirror image, place, scale, angle and skin tone."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from unclip.emoji import STYLES, Emoji, read_image

__all__ = ["altered", "copies", "rotate_hue", "toned"]


def rotate_hue(images: Tensor, angle: float) -> Tensor:
    """Colors turned around the gray axis by ``angle`` radians, ``(n, 3, H, W)``; clipped to [0, 1]."""
    axis = torch.full((3,), 1 / math.sqrt(3))
    cross = torch.linalg.cross(torch.eye(3), axis.expand(3, 3))
    turn = math.cos(angle) * torch.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * torch.outer(axis, axis)
    return torch.einsum("ij,njhw->nihw", turn, images).clamp(0, 1)


def altered(images: Tensor, generator: torch.Generator) -> Tensor:
    """Copies with another hue, mirror image, place, scale and angle, each at random; the margin is white.

    Args:
        images: float32 in [0, 1], ``(n, 3, H, W)``; all are altered in the same way.
        generator: Source of the alterations.
    """
    u = torch.rand(8, generator=generator).tolist()
    if u[0] < 0.6:
        images = rotate_hue(images, math.tau * u[1])
    zoom, angle = 2 ** (0.15 - 0.45 * u[2]), math.radians(30 * u[3] - 15)
    mirror = -1.0 if u[4] < 0.5 else 1.0
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    shift = [0.24 * u[5] - 0.12, 0.24 * u[6] - 0.12]
    theta = torch.tensor([[mirror * cos, -mirror * sin, shift[0]], [sin, cos, shift[1]]])
    grid = affine_grid(theta.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return 1 - grid_sample(1 - images, grid, align_corners=False)  # outside 1 - images is 0: white


def toned(emoji: list[Emoji], style: int, cache: Path, seed: int = 0) -> tuple[Tensor, Tensor]:
    """One skin tone, at random, of each emoji that has skin tones.

    Returns:
        Images, float32 in [0, 1], ``(n, 3, 64, 64)``; and the index of each one's emoji, ``(n,)``.
    """
    generator, images, indices = _generator(seed, style), [], []
    for index, each in enumerate(emoji):
        if each.tones:
            images.append(read_image(_one_of(each.tones, generator), STYLES[style], cache))
            indices.append(index)
    return torch.stack(images), torch.tensor(indices)


def copies(
    emoji: list[Emoji], style: int, cache: Path, images: Tensor, neighbors: Tensor, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """One altered copy of each emoji, in one of its skin tones, and its neighbors altered in the same way.

    Args:
        emoji: n of them.
        style: Index of the style.
        cache: Folder of packages.
        images: All training images, ``(m, 3, 64, 64)``.
        neighbors: Rows of ``images``, ``(n, k)``.
        seed: Of the alterations.

    Returns:
        Copies ``(n, 3, 64, 64)`` and their neighbors ``(n, k, 3, 64, 64)``, float32 in [0, 1].
    """
    generator, altered_images = _generator(seed, style), []
    for each, rows in zip(emoji, neighbors, strict=True):
        image = read_image(_one_of((each.code, *each.tones), generator), STYLES[style], cache)
        altered_images.append(altered(torch.cat([image[None], images[rows]]), generator))
    together = torch.stack(altered_images)
    return together[:, 0], together[:, 1:]


def _generator(seed: int, style: int) -> torch.Generator:
    return torch.Generator().manual_seed(2 * seed + style)


def _one_of(codes: tuple[str, ...], generator: torch.Generator) -> str:
    return codes[int(torch.randint(len(codes), (), generator=generator))]
