"""score_sde_pytorch: a checkpoint in its layout, against the published formulas, written here once more."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import scoresde as sd
from scoresde.bridges import score_sde
from scoresde.bridges.weights import WeightFile

SHAPE = (1, 4, 4)


class Net(nn.Module):
    """Our own small network with the call of the repository's, ``net(x, labels)``; a buffer, and a frozen weight."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sigmas", torch.linspace(1.0, 2.0, 3))
        self.frozen = nn.Parameter(torch.tensor([0.7, 0.3]), requires_grad=False)
        self.all_modules = nn.ModuleList(
            [nn.Linear(2, 8), nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)]
        )

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        self.labels = labels
        t = labels.to(x.dtype) / 100
        first, middle, last = self.all_modules
        emb = first(torch.stack([torch.sin(t + self.frozen[0]), torch.cos(self.frozen[1] * t)], 1))
        return x + last(torch.tanh(middle(x) + emb[:, :, None, None]))


@pytest.fixture
def nets() -> tuple[Net, Net]:
    """The weights as trained, and their averages."""
    return Net(), Net()


def checkpoint(folder: Path, raw: Net, averaged: Net) -> Path:
    """``workdir/checkpoints/checkpoint_<n>.pth`` as the repository's ``save_checkpoint`` writes it."""
    shadow = [p.clone() for p in averaged.parameters() if p.requires_grad]
    state = {
        "optimizer": torch.optim.Adam(raw.parameters()).state_dict(),
        "model": nn.DataParallel(raw).state_dict(),
        "ema": {"decay": 0.9999, "num_updates": 4, "shadow_params": shadow},
        "step": 1234,
    }
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "checkpoint_9.pth").write_bytes(b"an older one")
    torch.save(state, folder / "checkpoints" / "checkpoint_10.pth")
    return folder


def test_the_last_checkpoint_of_a_run_is_opened_with_its_averages(tmp_path: Path, nets: tuple[Net, Net]) -> None:
    raw, averaged = nets
    net = Net()
    opened = score_sde.open_file(checkpoint(tmp_path, raw, averaged), net, shape=SHAPE)
    assert all(
        torch.equal(a, b) for a, b in zip(net.state_dict().values(), averaged.state_dict().values(), strict=True)
    )
    score_sde.open_file(tmp_path, other := Net(), raw=True)
    assert all(torch.equal(a, b) for a, b in zip(other.parameters(), raw.parameters(), strict=True))
    findings = {f.name: f for f in opened.findings}
    assert findings["weights"].value == "exponential moving average"
    assert findings["trained for"].value == "1234 steps"
    assert findings["clock"].source == "assumed"


def states(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return torch.randn(5, *SHAPE, generator=generator), torch.tensor([0.002, 0.1, 0.4, 0.7, 1.0], dtype=torch.float64)


def per_sample(value: Tensor) -> Tensor:
    return value.reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("process", ["vp", "subvp"])
def test_continuous_vp_and_sub_vp_scores_are_the_published_ones(process: str, generator: torch.Generator) -> None:
    net = Net().double()
    x_tilde, t = states(generator)
    log_mean = -0.25 * t**2 * 19.9 - 0.5 * t * 0.1
    std = (1 - torch.exp(2 * log_mean)).sqrt() if process == "vp" else 1 - torch.exp(2 * log_mean)
    expected = -net(x_tilde.double(), t * 999) / per_sample(std)
    model = score_sde.from_network(net, process=process, shape=SHAPE).model
    tau = 0.5 * torch.log1p((std / torch.exp(log_mean)) ** 2)
    assert torch.allclose(tau, torch.as_tensor(model.sde.schedule.tau(t)), rtol=1e-9)
    c = torch.exp(log_mean + tau)  # x̃ = c x, so the score in x̃ is 1/c of that in x
    ours = model(x_tilde.double() / per_sample(c), tau).score / per_sample(c)
    assert ((ours - expected).abs() / expected.abs().amax((1, 2, 3), keepdim=True)).max() < 1e-6
    assert (net.labels - 999 * t).abs().max() < 1e-4


def test_continuous_ve_scores_are_the_published_ones(generator: torch.Generator) -> None:
    net = Net()
    noise, t = states(generator)
    sigma = 0.01 * (50 / 0.01) ** t
    x_tilde = noise * per_sample(sigma).float()
    expected = net(x_tilde, sigma.float())
    opened = score_sde.from_network(net, process="ve", shape=SHAPE)
    tau = 0.5 * torch.log1p(sigma**2)
    c = per_sample(torch.exp(tau)).float()
    ours = opened.model(x_tilde / c, tau).score / c
    assert ((ours - expected).abs() / expected.abs().amax((1, 2, 3), keepdim=True)).max() < 1e-6
    data = opened.model.data
    assert data is not None
    assert data.to_data(torch.full((1, *SHAPE), 7 / 255)).unique().tolist() == [7]  # not centered: [0, 1]


def test_discrete_ve_takes_the_place_in_the_falling_table(generator: torch.Generator) -> None:
    net = Net()
    model = score_sde.from_network(net, process="ve", continuous=False, shape=SHAPE).model
    for step in (0, 17, 999):  # σ_i of the table, from 50 down
        sigma = 50 * (0.01 / 50) ** (step / 999)
        x_tilde = sigma * torch.randn(2, *SHAPE, generator=generator)
        c = math.sqrt(1 + sigma**2)
        ours = model(x_tilde / c, 0.5 * math.log1p(sigma**2)).score / c
        assert net.labels.tolist() == [step, step]
        expected = net(x_tilde, torch.full((2,), step))
        assert (ours - expected).abs().max() < 1e-6 * expected.abs().max()


def test_discrete_vp_is_the_ancestral_chain_on_linear_betas(generator: torch.Generator) -> None:
    net = Net()
    opened = score_sde.from_network(net, continuous=False, steps=100, shape=SHAPE)
    assert opened.sampler is not None
    first = torch.randn(3, *SHAPE, generator=generator, dtype=torch.float64)
    ours = sd.sample(opened.model, 3, opened.sampler, init=first, generator=torch.Generator().manual_seed(5)).x
    labels = net.labels
    x, noise, wide = first, torch.Generator().manual_seed(5), net.double()
    betas = torch.linspace(0.1 / 100, 20 / 100, 100, dtype=torch.float64)
    bars = (1 - betas).cumprod(0)
    with torch.no_grad():
        for k in reversed(range(100)):
            score = -wide(x, torch.full((3,), float(k), dtype=x.dtype)) / (1 - bars[k]).sqrt()
            x = (x + betas[k] * score) / (1 - betas[k]).sqrt()
            if k:
                x = x + betas[k].sqrt() * torch.randn(x.shape, generator=noise, dtype=x.dtype)
    assert labels.tolist() == [0.0, 0.0, 0.0]
    assert (ours - x).abs().max() < 1e-5 * x.abs().max()


def test_what_the_repository_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sub-VP has no discrete steps"):
        score_sde.from_network(Net(), process="subvp", continuous=False)
    with pytest.raises(ValueError, match="no process is named 'vpsde'"):
        score_sde.from_network(Net(), process="vpsde")
    with pytest.raises(ValueError, match=r"must hold files checkpoint_<n>\.pth"):
        score_sde.open_file(tmp_path, Net())
    assert score_sde.recognize(
        WeightFile(tmp_path, dict.fromkeys(["model.module.a", "ema.shadow_params.0"], torch.zeros(1)))
    )
    assert not score_sde.recognize(WeightFile(tmp_path, dict.fromkeys(["model.module.a", "ema.decay"], torch.zeros(1))))
