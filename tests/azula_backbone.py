"""azula's U-Net with an embedding of its time, as its tutorials build a backbone; needs azula."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["AzulaUNet"]

unet: Any = importlib.import_module("azula.nn.unet")


class AzulaUNet(nn.Module):
    """Called as ``net(x, log_sigma)`` for x of shape ``(B, 1, 8, 8)``."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Sequential(nn.Linear(8, 32), nn.SiLU(), nn.Linear(32, 32))
        self.unet = unet.UNet(1, 1, hid_channels=(12, 16), hid_blocks=(1, 1), mod_features=32)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        angles = 0.25 * t.reshape(-1, 1) * torch.tensor([0.5, 1.0, 2.0, 4.0])
        return self.unet(x, self.embedding(torch.cat([angles.sin(), angles.cos()], 1)))
