"""A small network of our own for 8×8 digits, with the calls of several code bases, and the digits as bytes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import MagicMock

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

__all__ = ["SHAPE", "UNUSED_BY_K_DIFFUSION", "UNUSED_BY_LUCIDRAINS", "DigitNetwork", "digits", "stand_ins"]

SHAPE = (1, 8, 8)

UNUSED_BY_K_DIFFUSION = (
    "torchvision",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "skimage",
    "skimage.transform",
    "cleanfid",
    "cleanfid.inception_torchscript",
    "clip",
    "dctorch",
    "dctorch.functional",
    "jsonmerge",
    "kornia",
    "kornia.augmentation",
    "wandb",
)
"""Modules that k-diffusion imports and that its networks, wrappers and samplers do not need."""

UNUSED_BY_LUCIDRAINS = ("torchvision", "pytorch_fid", "pytorch_fid.fid_score", "pytorch_fid.inception")
"""Modules that denoising-diffusion-pytorch imports and that its networks, diffusion and samplers do not need."""


class DigitNetwork(nn.Module):
    """Residual convolutions, scaled and shifted by an embedding of ``scale * t``; called ``net(x, t)``.

    The attributes and the third argument are what denoising-diffusion-pytorch reads.
    """

    def __init__(self, width: int = 16, scale: float = 1.0) -> None:
        super().__init__()
        self.channels, self.out_dim, self.self_condition, self.scale = 1, 1, False, scale
        self.embedding = nn.Sequential(nn.Linear(12, 32), nn.SiLU(), nn.Linear(32, 6 * width))
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.norms = nn.ModuleList(nn.GroupNorm(4, width) for _ in range(3))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.last = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, x_self_cond: Tensor | None = None) -> Tensor:
        angles = (self.scale * t.to(x.dtype)).reshape(-1, 1) * torch.tensor([0.25, 0.5, 1, 2, 4, 8], dtype=x.dtype)
        modulation = self.embedding(torch.cat([angles.sin(), angles.cos()], 1))[:, :, None, None].chunk(6, 1)
        h = self.first(x)
        for k, (norm, conv) in enumerate(zip(self.norms, self.convs)):
            h = h + conv(nn.functional.silu(norm(h) * (1 + modulation[2 * k]) + modulation[2 * k + 1]))
        return self.last(h)


def digits() -> Tensor:
    """The digits of scikit-learn as images of bytes, ``(1797, 1, 8, 8)`` uint8."""
    images: Any = load_digits()
    values = torch.from_numpy(images.images)[:, None]
    return (values * 255 / 16).round().to(torch.uint8)


def _installed(name: str) -> bool:
    try:
        __import__(name)
    except ImportError:
        return False
    return True


@contextmanager
def stand_ins(*names: str) -> Iterator[None]:
    """Lets modules that are not installed be imported, as empty ones, while a peer is imported that names them."""
    absent = [name for name in names if not _installed(name)]
    sys.modules.update({name: MagicMock() for name in absent})
    try:
        yield
    finally:
        for name in absent:
            sys.modules.pop(name, None)
