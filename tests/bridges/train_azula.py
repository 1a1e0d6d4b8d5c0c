"""Trains denoisers on digits by azula's own losses and stores them with its own outputs; not run in CI.

``PYTHONPATH=. python tests/bridges/train_azula.py``, with azula installed. Two denoisers: our `DigitNetwork` in a
``KarrasDenoiser`` with a ``VPSchedule``, and azula's ``UNet`` in a ``SimpleDenoiser`` with a ``RectifiedSchedule``.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent.parent))
from azula_backbone import AzulaUNet
from digit_network import SHAPE, DigitNetwork, digits

denoise: Any = importlib.import_module("azula.denoise")
noise: Any = importlib.import_module("azula.noise")
sample: Any = importlib.import_module("azula.sample")

OUT = Path(__file__).parent / "models" / "azula"
STEPS = 1500


def trained(denoiser: Any) -> Any:
    """The denoiser after `STEPS` steps of its own loss at uniform times."""
    images = digits().float() / 127.5 - 1
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=2e-3)
    for step in range(STEPS):
        x = images[torch.randint(len(images), (64,))]
        loss = denoiser.loss(x, torch.rand(len(x)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / STEPS)
        if step % 250 == 0:
            print(step, loss.item())
    return denoiser.eval()


@torch.no_grad()
def outputs(denoiser: Any) -> dict[str, torch.Tensor]:
    """One call at four times, and ends of chains of 50 steps from stored first states; noise is that of seed 5.

    States and times of the chains are float64: in float32 azula's Heun differs by 1.5e-5 from its own float64.
    """
    generator = torch.Generator().manual_seed(3)
    t = torch.tensor([0.02, 0.3, 0.7, 1.0])
    alpha, sigma = (scale.reshape(-1, 1, 1, 1) for scale in denoiser.schedule(t))
    x_t = torch.randn(4, *SHAPE, generator=generator) * (0.64 * alpha**2 + sigma**2).sqrt()
    first = torch.randn(2, *SHAPE, generator=generator)
    stored = {"t": t, "x_t": x_t, "mean": denoiser(x_t, t).mean, "first": first}
    for sampler in (sample.EulerSampler, sample.DDIMSampler, sample.HeunSampler, sample.DDPMSampler):
        torch.manual_seed(5)
        name = sampler.__name__.removesuffix("Sampler").lower()
        stored[name] = sampler(denoiser, steps=50, silent=True, dtype=torch.float64)(first.double())
    return {name: value.contiguous() for name, value in stored.items()}


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for name, denoiser in {
        "own": denoise.KarrasDenoiser(DigitNetwork(scale=0.25), noise.VPSchedule()),
        "unet": denoise.SimpleDenoiser(AzulaUNet(), noise.RectifiedSchedule()),
    }.items():
        trained(denoiser)
        save_file(denoiser.state_dict(), OUT / f"{name}.safetensors")
        save_file(outputs(denoiser), OUT / f"{name}_outputs.safetensors")


if __name__ == "__main__":
    main()
