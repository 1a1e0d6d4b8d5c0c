"""Tiny networks of diffusers with random weights, and the same as models of this package."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from scoresde import ScoreModel
from scoresde.adapters import FromStep
from scoresde.process import VPSDE, X0, Eps, FromBetas, Parameterization, V

__all__ = ["PARAMETERIZATIONS", "model_of", "tiny_unet"]

PARAMETERIZATIONS: dict[str, Parameterization] = {"epsilon": Eps(), "sample": X0(), "v_prediction": V()}


def tiny_unet(seed: int = 0, **settings: Any) -> Any:
    """A UNet2DModel of 8 × 8 images with one channel, in evaluation mode."""
    from diffusers.models.unets.unet_2d import UNet2DModel

    blocks = {"down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D")}
    size = {"sample_size": 8, "block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DModel(**{"in_channels": 1, "out_channels": 1, **blocks, **size, **settings}).eval()


def model_of(net: nn.Module, scheduler: Any, shape: tuple[int, ...] = (1, 8, 8), **options: Any) -> ScoreModel:
    """A network of diffusers and its scheduler as a model."""
    clock = FromBetas(tuple(scheduler.betas.double().tolist()))
    steps = len(clock.betas)
    sde = VPSDE(clock, tau_min=clock.knots(steps)[1])
    target = PARAMETERIZATIONS[scheduler.config.prediction_type]
    return ScoreModel(FromStep(net, clock, steps), sde, target, event_shape=shape, **options)
