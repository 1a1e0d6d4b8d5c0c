"""Altered copies of the training images: other hue, mirror image, place, scale, angle and skin tone."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from unclip.emoji import STYLES, Emoji, read_image

__all__ = ["altered", "copies", "rotate_hue", "toned"]


def rotate_hue(image: Tensor, angle: float) -> Tensor:
    """Colors turned around the gray axis by ``angle`` radians, ``(3, H, W)``; clipped to [0, 1]."""
    axis = torch.full((3,), 1 / math.sqrt(3))
    cross = torch.linalg.cross(torch.eye(3), axis.expand(3, 3))
    turn = math.cos(angle) * torch.eye(3) + math.sin(angle) * cross + (1 - math.cos(angle)) * torch.outer(axis, axis)
    return torch.einsum("ij,jhw->ihw", turn, image).clamp(0, 1)


def altered(image: Tensor, generator: torch.Generator) -> Tensor:
    """A copy with another hue, mirror image, place, scale and angle, each at random; the margin is white.

    Args:
        image: float32 in [0, 1], ``(3, H, W)``.
        generator: Source of the alterations.
    """
    u = torch.rand(8, generator=generator).tolist()
    if u[0] < 0.6:
        image = rotate_hue(image, math.tau * u[1])
    zoom, angle = 2 ** (0.15 - 0.45 * u[2]), math.radians(30 * u[3] - 15)
    mirror = -1.0 if u[4] < 0.5 else 1.0
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    shift = [0.24 * u[5] - 0.12, 0.24 * u[6] - 0.12]
    theta = torch.tensor([[mirror * cos, -mirror * sin, shift[0]], [sin, cos, shift[1]]])
    grid = affine_grid(theta[None], [1, 3, *image.shape[1:]], align_corners=False)
    return 1 - grid_sample(1 - image[None], grid, align_corners=False)[0]  # outside 1 - image is 0: white


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


def copies(emoji: list[Emoji], style: int, cache: Path, seed: int = 0) -> Tensor:
    """One altered copy of each emoji, in one of its skin tones; float32 in [0, 1], ``(n, 3, 64, 64)``."""
    generator, images = _generator(seed, style), []
    for each in emoji:
        code = _one_of((each.code, *each.tones), generator)
        images.append(altered(read_image(code, STYLES[style], cache), generator))
    return torch.stack(images)


def _generator(seed: int, style: int) -> torch.Generator:
    return torch.Generator().manual_seed(2 * seed + style)


def _one_of(codes: tuple[str, ...], generator: torch.Generator) -> str:
    return codes[int(torch.randint(len(codes), (), generator=generator))]
