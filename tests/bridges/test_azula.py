"""azula: denoisers trained by its own loss on digits, against its own outputs, stored and (if installed) live."""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from digit_network import SHAPE, DigitNetwork
from safetensors.torch import load_file
from torch import Tensor, nn

import scoresde as sd
from scoresde.bridges import azula
from scoresde.bridges.opened import Opened
from scoresde.model import gaussian_process

MODELS = Path(__file__).parent / "models" / "azula"


class VPSchedule:
    """azula's schedule of this name by its published formula."""

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        alpha = torch.exp(math.log(1e-3) * t**2)
        return alpha, torch.sqrt(1 - alpha**2 + 1e-6)


class KarrasDenoiser(nn.Module):
    """Stands for azula's class of this name: what the bridge reads of it."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone, self.schedule = backbone, VPSchedule()


def relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


def check(opened: Opened, schedule: Any, outputs: dict[str, Tensor]) -> None:
    """One call at four times, and the ends of chains of 50 steps with the peer's noise."""
    alpha, sigma = schedule(outputs["t"].double())
    scale = (alpha**2 + sigma**2).sqrt()
    taus = 0.5 * torch.log1p((sigma / alpha) ** 2)
    ours = opened.model(outputs["x_t"] / scale.float().reshape(-1, 1, 1, 1), taus).x0
    assert relative(ours, outputs["mean"]) < 2e-6  # 7e-7 on the processor that stored them; others round otherwise
    first, last = (float(sum(s * s for s in schedule(torch.tensor(t).double())) ** 0.5) for t in (1.0, 0.0))
    grid = azula.time_grid(schedule, 50)
    for name, sampler in {"euler": sd.DDIM, "ddim": sd.DDIM, "heun": sd.Heun, "ddpm": sd.DDPM}.items():
        start = {"init": outputs["first"].double() / first, "generator": torch.Generator().manual_seed(5)}
        end = sd.sample(opened.model, 2, sampler(50, grid), **start).x
        assert relative(end * last, outputs[name]) < 1e-5, name


def test_the_denoiser_and_its_samplers_are_the_peers() -> None:
    denoiser = KarrasDenoiser(DigitNetwork(scale=0.25))
    opened = azula.open_file(MODELS / "own.safetensors", denoiser, shape=SHAPE)
    check(opened, denoiser.schedule, load_file(MODELS / "own_outputs.safetensors"))


def test_a_denoiser_of_another_class_is_called_with_its_own_time(generator: torch.Generator) -> None:
    class Mean:
        def __init__(self, mean: Tensor) -> None:
            self.mean = mean

    class GaussianDenoiser(nn.Module):
        """Exact for data of variance 4 and mean 1."""

        schedule = VPSchedule()

        def forward(self, x_t: Tensor, t: Tensor) -> Mean:
            self.t = t
            alpha, sigma = (c.reshape(-1, 1) for c in self.schedule(t.double()))
            gain = 4 * alpha / (4 * alpha**2 + sigma**2)
            return Mean((1 + gain * (x_t - alpha)).to(x_t.dtype))

    denoiser = GaussianDenoiser()
    opened = azula.from_denoiser(denoiser, shape=(2,))
    t = torch.tensor([0.0, 1e-3, 0.05, 0.5, 1.0], dtype=torch.float64)
    alpha, sigma = denoiser.schedule(t)
    tau = 0.5 * torch.log1p((sigma / alpha) ** 2)
    x = torch.randn(5, 2, generator=generator)
    ours = opened.model(x, tau)
    assert torch.allclose(denoiser.t.double(), t, atol=2e-6)
    exact = sd.Gaussian(torch.ones(2), 4.0, sd.VPSDE(sd.LogLinear(20.0, -20.0)))(x, tau)
    assert torch.allclose(ours.x0, exact.x0, rtol=1e-4, atol=1e-5)


def test_the_ends_of_the_process_are_those_of_the_schedule() -> None:
    class VESchedule:
        def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
            return torch.ones_like(t), torch.exp(math.log(1e-2) * (1 - t) + math.log(50.0) * t)

    denoiser = KarrasDenoiser(DigitNetwork())
    sde = azula.from_denoiser(denoiser).model.sde
    assert sde.tau_max == pytest.approx(0.5 * math.log1p(1e6), rel=1e-6)
    assert sde.tau_min == pytest.approx(0.5 * math.log1p(1e-6), rel=1e-6)
    denoiser.schedule = VESchedule()  # pyright: ignore[reportAttributeAccessIssue]
    assert gaussian_process(azula.from_denoiser(denoiser).model).prior_std == pytest.approx(50 / math.sqrt(2501))
    denoiser.schedule = lambda t: (1 - t, t)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="must rise from a positive to a finite one"):
        azula.from_denoiser(denoiser)
    with pytest.raises(TypeError, match="has a member `schedule`, got Linear without one"):
        azula.from_denoiser(nn.Linear(1, 1))


def test_its_own_network_live() -> None:
    peer: Any = pytest.importorskip("azula.denoise", reason="azula is not installed")
    noise: Any = importlib.import_module("azula.noise")
    sample: Any = importlib.import_module("azula.sample")
    from azula_backbone import AzulaUNet

    denoiser = peer.SimpleDenoiser(AzulaUNet(), noise.RectifiedSchedule())
    outputs = load_file(MODELS / "unet_outputs.safetensors")
    check(azula.open_file(MODELS / "unet.safetensors", denoiser, shape=SHAPE), denoiser.schedule, outputs)
    with torch.no_grad():
        live = sample.EulerSampler(denoiser, steps=50, silent=True, dtype=torch.float64)(outputs["first"].double())
    assert relative(live, outputs["euler"]) < 1e-5

    karras = peer.KarrasDenoiser(DigitNetwork(scale=0.25), noise.VPSchedule())
    opened = azula.open_file(MODELS / "own.safetensors", karras, shape=SHAPE)
    check(opened, karras.schedule, load_file(MODELS / "own_outputs.safetensors"))
