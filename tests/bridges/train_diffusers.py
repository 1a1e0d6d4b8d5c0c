"""Trains the small networks in ``tests/bridges/models/diffusers`` by diffusers' own loop, on scikit-learn's digits.

``python tests/bridges/train_diffusers.py [NAME …]``; not run by the tests. The loop is that of diffusers' training
scripts for unconditional and flow-matching models: its schedulers add the noise, its `EMAModel` averages the weights,
its learning-rate schedule, and its pipeline writes the folder. Images are bytes, x = k / 127.5 - 1.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FOLDER = Path(__file__).parent / "models" / "diffusers"
STEPS, BATCH = 6000, 64
SETTINGS: dict[str, dict[str, Any]] = {
    "linear": {"scheduler": "DDPMScheduler", "beta_schedule": "linear", "prediction_type": "epsilon"},
    "zero-snr": {
        "scheduler": "DDPMScheduler",
        "beta_schedule": "scaled_linear",
        "rescale_betas_zero_snr": True,
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "clip_sample": False,
    },
    "flow": {"scheduler": "FlowMatchEulerDiscreteScheduler", "shift": 3.0},
}


def digit_bytes() -> Tensor:
    """The first 1500 digits as bytes, ``(1500, 1, 8, 8)`` uint8; the other 297 are held out."""
    from sklearn.datasets import load_digits

    values = torch.tensor(load_digits(return_X_y=True)[0], dtype=torch.float32).reshape(-1, 1, 8, 8)
    return (values * (255 / 16)).round().to(torch.uint8)[:1500]


def noised(scheduler: Any, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Noised images, their timesteps and the targets, as diffusers' training scripts make them."""
    length = scheduler.config.num_train_timesteps
    if type(scheduler).__name__ == "FlowMatchEulerDiscreteScheduler":
        sigma = torch.rand(len(x))
        wide = sigma.reshape(-1, 1, 1, 1)
        return (1 - wide) * x + wide * noise, sigma * length, noise - x
    timesteps = torch.randint(0, length, (len(x),))
    noisy = scheduler.add_noise(x, noise, timesteps)
    if scheduler.config.prediction_type == "v_prediction":
        return noisy, timesteps, scheduler.get_velocity(x, noise, timesteps)
    return noisy, timesteps, noise


def train(name: str) -> None:
    """Trains one network and writes its folder."""
    diffusers: Any = importlib.import_module("diffusers")
    from diffusers.optimization import get_cosine_schedule_with_warmup
    from diffusers.training_utils import EMAModel

    torch.manual_seed(0)
    settings = dict(SETTINGS[name])
    scheduler = getattr(diffusers, settings.pop("scheduler"))(**settings)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(12, 24),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        add_attention=False,
    )
    print(name, sum(p.numel() for p in unet.parameters()), "parameters", flush=True)
    images = digit_bytes().float() / 127.5 - 1
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3, betas=(0.95, 0.999), weight_decay=1e-6)
    rate = get_cosine_schedule_with_warmup(optimizer, 200, STEPS)
    ema = EMAModel(unet.parameters(), decay=0.999, use_ema_warmup=True, inv_gamma=1.0, power=0.75)
    mean = 0.0
    for step in range(1, STEPS + 1):
        x = images[torch.randint(0, len(images), (BATCH,))]
        noisy, timesteps, target = noised(scheduler, x, torch.randn_like(x))
        loss = torch.nn.functional.mse_loss(unet(noisy, timesteps).sample, target)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        rate.step()
        optimizer.zero_grad()
        ema.step(unet.parameters())
        mean += (loss.item() - mean) / min(step, 500)
        if step % 500 == 0:
            print(f"{name} step {step}: loss {mean:.4f}", flush=True)
    ema.copy_to(unet.parameters())
    diffusers.DDPMPipeline(unet.eval(), scheduler).save_pretrained(FOLDER / name)


if __name__ == "__main__":
    for chosen in sys.argv[1:] or SETTINGS:
        train(chosen)
