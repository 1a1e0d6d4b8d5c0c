"""Chains of diffusers' own schedulers, in float32 as released, or with its coefficients in float64."""

from __future__ import annotations

import copy
import importlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

FOLDERS = Path(__file__).parent / "bridges" / "models" / "diffusers"
NAMES = ("linear", "zero-snr", "flow")


def peer_network(folder: Path, dtype: torch.dtype = torch.float64) -> nn.Module:
    """The network of a folder, loaded by diffusers."""
    diffusers: Any = importlib.import_module("diffusers")
    network = diffusers.UNet2DModel.from_pretrained(folder / "unet").eval()
    return copy.deepcopy(network) if dtype == torch.float32 else nn.Module.to(network, dtype)


def peer_scheduler(folder: Path, name: str, **settings: Any) -> Any:
    """A scheduler with the settings of a folder, changed by ``settings``."""
    diffusers: Any = importlib.import_module("diffusers")
    scheduler = getattr(diffusers, name)
    return scheduler.from_pretrained(folder / "scheduler", **settings)


def in_float64(scheduler: Any) -> Any:
    """The scheduler with its ᾱ in float64, computed from its own float32 betas."""
    least = float(scheduler.alphas_cumprod[-1])
    scheduler.alphas_cumprod = torch.cumprod(1.0 - scheduler.betas.double(), 0)
    if least == 2.0**-24:  # in place of 0, in schedulers that step in σ/α
        scheduler.alphas_cumprod[-1] = least
    if hasattr(scheduler, "final_alpha_cumprod"):
        one = torch.tensor(1.0, dtype=torch.float64)
        scheduler.final_alpha_cumprod = one if scheduler.config.set_alpha_to_one else scheduler.alphas_cumprod[0]
    if hasattr(scheduler, "one"):
        scheduler.one = torch.tensor(1.0, dtype=torch.float64)
    return scheduler


def peer_chain(
    scheduler: Any, network: nn.Module, x: Tensor, steps: int, generator: torch.Generator | None = None, **options: Any
) -> Tensor:
    """The loop of diffusers' pipelines from the state ``x`` of the first step, in the scheduler's coordinates."""
    scheduler.set_timesteps(steps)
    if generator is not None:
        options["generator"] = generator
    kind = next(network.parameters()).dtype
    with torch.no_grad():
        for t in scheduler.timesteps:
            scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            out = network(scaled.to(kind), t).sample
            x = scheduler.step(out, t, x, **options).prev_sample
    return x


def relative(a: Tensor, b: Tensor) -> float:
    """‖a - b‖ / ‖b‖."""
    a, b = a.detach(), b.detach()
    return float((a - b).norm() / b.norm())
