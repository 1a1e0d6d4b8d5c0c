"""guided-diffusion: a state dict in its layout, against the published formulas, written here once more."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import scoresde as sd
from scoresde.bridges import guided_diffusion
from scoresde.bridges.guided_diffusion import respaced_steps
from scoresde.bridges.weights import WeightFile

SHAPE = (1, 4, 4)


class Net(nn.Module):
    """Our own small network with the call and the first and last names of the repository's U-Net."""

    def __init__(self, outputs: int = 2, classes: int = 0) -> None:
        super().__init__()
        self.time_embed = nn.Sequential(nn.Linear(2, 8), nn.SiLU(), nn.Linear(8, 8))
        self.label_emb = nn.Embedding(classes, 8) if classes else None
        self.input_blocks = nn.Sequential(nn.Sequential(nn.Conv2d(1, 8, 3, padding=1)))
        self.out = nn.Sequential(nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, outputs, 3, padding=1))

    def forward(self, x: Tensor, timesteps: Tensor, y: Tensor | None = None) -> Tensor:
        self.received = timesteps
        t = timesteps.to(x.dtype) / 100
        emb = self.time_embed(torch.stack([torch.sin(t), torch.cos(t)], 1))
        if self.label_emb is not None:
            assert y is not None
            emb = emb + self.label_emb(y)
        return self.out(self.input_blocks(x) + emb[:, :, None, None])


def betas(schedule: str, length: int) -> Tensor:
    if schedule == "linear":
        return torch.linspace(0.1 / length, 20 / length, length, dtype=torch.float64)
    bar = [math.cos((k / length + 0.008) / 1.008 * math.pi / 2) ** 2 for k in range(length + 1)]
    return torch.tensor([min(1 - b / a, 0.999) for a, b in zip(bar, bar[1:])], dtype=torch.float64)


def p_sample_loop(
    net: nn.Module, x: Tensor, schedule: str, kept: list[int], length: int, factor: float, ddim: bool
) -> Tensor:
    """The repository's loop with learned range and clip_denoised, on the betas of the kept steps."""
    noise = torch.Generator().manual_seed(5)
    all_bars = (1 - betas(schedule, length)).cumprod(0)
    bars = all_bars[kept]
    before = torch.cat([torch.ones(1, dtype=bars.dtype), bars[:-1]])
    beta = 1 - bars / before
    posterior = beta * (1 - before) / (1 - bars)
    log_posterior = torch.cat([posterior[1:2], posterior[1:]]).log()
    with torch.no_grad():
        for i in reversed(range(len(kept))):
            eps, v = net(x, torch.full((len(x),), kept[i] * factor, dtype=x.dtype)).chunk(2, 1)
            x0 = ((x - (1 - bars[i]).sqrt() * eps) / bars[i].sqrt()).clamp(-1, 1)
            if ddim:
                eps = (x - bars[i].sqrt() * x0) / (1 - bars[i]).sqrt()
                x = before[i].sqrt() * x0 + (1 - before[i]).sqrt() * eps
                continue
            mean = beta[i] * before[i].sqrt() / (1 - bars[i]) * x0
            mean = mean + (1 - before[i]) * (1 - beta[i]).sqrt() / (1 - bars[i]) * x
            log_variance = (v + 1) / 2 * beta[i].log() + (1 - v) / 2 * log_posterior[i]
            x = mean
            if i:
                x = x + (0.5 * log_variance).exp() * torch.randn(x.shape, generator=noise, dtype=x.dtype)
    return x


@pytest.mark.parametrize(
    ("schedule", "length", "respacing", "rescale"),
    [("linear", 1000, "", False), ("cosine", 400, "10,20", True), ("linear", 1000, "ddim25", False)],
)
def test_chains_of_an_opened_file_are_the_repositorys(
    schedule: str, length: int, respacing: str, rescale: bool, tmp_path: Path, generator: torch.Generator
) -> None:
    peer = Net()
    torch.save(peer.state_dict(), tmp_path / "ema_0.9999_250000.pt")
    opened = guided_diffusion.open_file(
        tmp_path / "ema_0.9999_250000.pt",
        Net(),
        noise_schedule=schedule,
        diffusion_steps=length,
        timestep_respacing=respacing,
        rescale_timesteps=rescale,
        shape=SHAPE,
    )
    findings = {f.name: f for f in opened.findings}
    assert (findings["weights"].value, findings["weights"].source) == ("exponential moving average", "stated")
    assert findings["variance"].value == "learned"
    assert opened.sampler is not None
    first = torch.randn(2, *SHAPE, generator=generator, dtype=torch.float64)
    options = {"init": first, "start": opened.start, "generator": torch.Generator().manual_seed(5)}
    ours = sd.sample(opened.steered, 2, opened.sampler, **options).x
    kept = respaced_steps(length, respacing)
    factor = 1000 / length if rescale else 1.0
    expected = p_sample_loop(peer.double(), first, schedule, kept, length, factor, respacing.startswith("ddim"))
    assert (ours - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("respacing", "text"), [(250, "250"), ((10, 10, 20), "10,10,20")], ids=str)
def test_a_respacing_is_a_text_or_numbers(respacing: int | tuple[int, ...], text: str) -> None:
    given, as_text = (
        guided_diffusion.from_network(Net(), timestep_respacing=r, shape=SHAPE) for r in (respacing, text)
    )
    assert given.sampler == as_text.sampler
    assert given.findings == as_text.findings


def test_a_network_receives_every_step_as_it_counts_them() -> None:
    net = Net()
    model = guided_diffusion.from_network(net, learn_sigma=True, shape=SHAPE).model
    knots = model.sde.schedule.knots(1000)
    assert model.sde.tau_min == knots[1]
    for step in (0, 1, 500, 998, 999):
        model(torch.zeros(1, *SHAPE), knots[step + 1])
        assert net.received.tolist() == [step]


def test_classes_are_derived_and_passed_as_y(tmp_path: Path) -> None:
    peer = Net(outputs=1, classes=7)
    torch.save(peer.state_dict(), tmp_path / "model010000.pt")
    opened = guided_diffusion.open_file(
        tmp_path / "model010000.pt", Net(outputs=1, classes=7), shape=SHAPE, sigma_small=True
    )
    findings = {f.name: f.value for f in opened.findings}
    assert findings["classes"] == "7, label is passed as y"
    assert (findings["channels"], findings["variance"]) == ("1 in, 1 out", "beta_tilde")
    x, y = torch.ones(2, *SHAPE), torch.tensor([1, 6])
    knots = opened.model.sde.schedule.knots(1000)
    ours = opened.model(x, knots[301], label=y).eps
    assert torch.allclose(ours, peer(x, torch.tensor([300.0, 300.0]), y), atol=1e-6)
    with pytest.raises(ValueError, match=r"7 classes and no null, got no class; pass label=…"):
        opened.model(x, knots[301])
    with pytest.raises(ValueError, match=r"label must lie in 0 … 6, got 1 … 7"):
        opened.model(x, knots[301], label=torch.tensor([1, 7]))
    assert opened.model.data is not None
    assert opened.model.data.conditions == {"label": sd.data.ClassCondition(7)}


@pytest.mark.parametrize(
    ("length", "respacing", "steps"),
    [
        (10, "", [*range(10)]),
        (1000, "ddim25", [*range(0, 1000, 40)]),
        (10, "4", [0, 3, 6, 9]),
        (10, "2,3", [0, 4, 5, 7, 9]),
        (11, "2,1", [0, 5, 6]),
    ],
)
def test_respacing_keeps_the_steps_that_the_repository_keeps(length: int, respacing: str, steps: list[int]) -> None:
    assert respaced_steps(length, respacing) == steps


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="needs an integer stride"):
        respaced_steps(1000, "ddim300")
    with pytest.raises(ValueError, match=r"a part of 5 steps has 1 … 5 of them, got 9"):
        respaced_steps(10, "9,2")
    with pytest.raises(ValueError, match="is numbers of steps"):
        respaced_steps(10, "fast")
    with pytest.raises(ValueError, match="no noise_schedule is named 'linar'; .*linear"):
        guided_diffusion.from_network(Net(), noise_schedule="linar")
    weights = Net().state_dict()
    assert guided_diffusion.recognize(WeightFile(Path(), weights))
    part = {name: value for name, value in weights.items() if name.startswith("time_embed")}
    assert not guided_diffusion.recognize(WeightFile(Path(), part))
