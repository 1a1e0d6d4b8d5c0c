"""EDM and EDM2: models of exported state dicts, against the published formulas, written here once more."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import scoresde as sd
from scoresde.bridges import edm
from scoresde.bridges.weights import WeightFile

SHAPE = (3, 4, 4)


class Raw(nn.Module):
    """Our own small network with the call and the first names of EDM's; it stores what it received."""

    def __init__(self, label_dim: int = 0, outputs: int = 3) -> None:
        super().__init__()
        self.map_layer0 = nn.Linear(2, 8)
        self.map_layer1 = nn.Linear(8, 8)
        self.map_label = nn.Linear(label_dim, 8, bias=False) if label_dim else None
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.last = nn.Conv2d(8, outputs, 3, padding=1)

    def forward(self, x: Tensor, noise_labels: Tensor, class_labels: Tensor | None = None) -> Tensor:
        self.received = x, noise_labels, class_labels
        t = noise_labels.to(self.first.weight.dtype) / 100  # float32 steps have an error of 6e-5
        emb = self.map_layer1(torch.tanh(self.map_layer0(torch.stack([torch.sin(t), torch.cos(t)], 1))))
        if self.map_label is not None:
            assert class_labels is not None
            emb = emb + self.map_label(class_labels)
        return self.last(torch.tanh(self.first(x) + emb[:, :, None, None]))


class Precond(nn.Module):
    """EDM's preconditionings by their published formulas (Karras et al. 2022, table 1)."""

    def __init__(self, kind: str = "edm", label_dim: int = 0, sigma_data: float = 0.5) -> None:
        super().__init__()
        self.img_channels, self.img_resolution, self.label_dim, self.sigma_data = 3, 4, label_dim, sigma_data
        self.kind, self.model = kind, Raw(label_dim)

    def forward(self, x: Tensor, sigma: Tensor, class_labels: Tensor | None = None) -> Tensor:
        s, d = sigma.reshape(-1, 1, 1, 1), self.sigma_data
        if self.kind == "edm":
            c_skip, c_out = d**2 / (s**2 + d**2), s * d / (s**2 + d**2).sqrt()
            c_in, c_noise = 1 / (d**2 + s**2).sqrt(), s.log() / 4
        elif self.kind == "vp":
            c_skip, c_out, c_in = 1, -s, 1 / (s**2 + 1).sqrt()
            c_noise = 999 * ((0.1**2 + 2 * 19.9 * (1 + s**2).log()).sqrt() - 0.1) / 19.9
        elif self.kind == "ve":
            c_skip, c_out, c_in, c_noise = 1, s, 1, (0.5 * s).log()
        else:  # iddpm: u_0 … u_M, the step of the nearest
            c_skip, c_out, c_in = 1, -s, 1 / (s**2 + 1).sqrt()
            c_noise = (999 - (iddpm_levels() - s.reshape(-1, 1)).abs().argmin(1)).reshape(s.shape)
        return c_skip * x + c_out * self.model(c_in * x, c_noise.flatten(), class_labels)


def iddpm_levels() -> Tensor:
    """EDM's table of iDDPM's levels: u_{j-1} = √((u_j² + 1)/max(ᾱ_{j-1}/ᾱ_j, C1) − 1) from u_M = 0, C1 = .001."""
    bar = [math.sin(0.5 * math.pi * j / 1000 / 1.008) ** 2 for j in range(1001)]
    levels = [0.0]
    for j in range(1000, 0, -1):
        levels.append(math.sqrt((levels[-1] ** 2 + 1) / max(bar[j - 1] / bar[j], 1e-3) - 1))
    return torch.tensor(levels[::-1], dtype=torch.float64)


def states(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    sigma = torch.tensor([0.01, 0.3, 2.0, 60.0], dtype=torch.float64)
    noisy = torch.randn(4, *SHAPE, generator=generator) * (0.25 + sigma.reshape(-1, 1, 1, 1) ** 2).sqrt()
    return noisy.float(), sigma, 0.5 * torch.log1p(sigma**2)


@pytest.mark.parametrize("kind", ["edm", "vp", "ve"])
def test_a_raw_network_is_its_preconditioned_denoiser(kind: str, generator: torch.Generator) -> None:
    peer = Precond(kind)
    model = edm.from_network(peer.model, form="raw", preconditioning=kind, shape=SHAPE).model
    noisy, sigma, tau = states(generator)
    expected = peer(noisy, sigma.float())
    x = noisy * torch.exp(-tau).float().reshape(-1, 1, 1, 1)
    ours = model(x, tau).x0
    scale = expected.abs().amax((1, 2, 3))
    assert ((ours - expected).abs().amax((1, 2, 3)) / scale).max() < 1e-6


def test_iddpm_steps_are_those_of_the_table(generator: torch.Generator) -> None:
    peer, levels = Precond("iddpm"), iddpm_levels()
    model = edm.from_network(
        peer.model, form="raw", preconditioning="iddpm", shape=SHAPE, sigma_min=levels[999].item()
    ).model
    for step in (0, 3, 500, 990):
        sigma = levels[999 - step]
        noisy = torch.randn(1, *SHAPE, generator=generator) * float(1 + sigma**2) ** 0.5
        tau = 0.5 * math.log1p(float(sigma) ** 2)
        ours = model(noisy * math.exp(-tau), tau).eps
        assert peer.model.received[1].tolist() == [step]
        expected = -(peer(noisy, sigma.reshape(1).float()) - noisy) / sigma
        assert (ours - expected).abs().max() < 2e-5 * max(1.0, 1 / float(sigma))  # float32 in x̃ − σ̃F


def test_a_denoiser_with_classes_takes_labels_and_zeros_for_the_null(generator: torch.Generator) -> None:
    peer = Precond(label_dim=3)
    opened = edm.from_network(peer)
    assert opened.model.event_shape == SHAPE
    noisy, sigma, tau = states(generator)
    x, label = noisy * torch.exp(-tau).float().reshape(-1, 1, 1, 1), torch.tensor([0, 2, 1, 3])
    ours = opened.model(x, tau, label=label).x0
    vectors = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 0, 0]])
    expected = peer(noisy, sigma.float(), vectors)
    assert (ours - expected).abs().max() < 1e-6 * expected.abs().max()
    with pytest.raises(ValueError, match="label must lie in 0 … 3, .* got 0 … 4"):
        opened.model(x, tau, label=torch.tensor([0, 2, 1, 4]))
    assert opened.model.null_cond({"label": label})["label"].tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize("form", ["denoiser", "raw"])
def test_an_exported_state_dict_is_opened_and_sampled_as_edm_does(
    form: str, tmp_path: Path, generator: torch.Generator
) -> None:
    peer = Precond()
    save_file(peer.state_dict(), tmp_path / "edm.safetensors")
    fresh = Precond()
    assert edm.recognize(WeightFile(tmp_path, peer.state_dict()))
    assert edm.recognize(WeightFile(tmp_path, peer.model.state_dict()))
    opened = edm.open_file(
        tmp_path / "edm.safetensors", fresh if form == "denoiser" else fresh.model, form=form, shape=SHAPE
    )
    assert opened.model.data is not None
    values = torch.arange(240.0).reshape(5, *SHAPE)
    assert torch.equal(opened.model.data.to_data(values / 127.5 - 1), values.to(torch.uint8))
    assert opened.sampler is not None
    noise = torch.randn(3, *SHAPE, generator=generator)
    ours = sd.sample(opened.model, 3, opened.sampler, init=80 * noise.double()).x
    expected = heun(peer.double(), 80 * noise.double(), 18)
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()


def heun(denoiser: nn.Module, x: Tensor, steps: int) -> Tensor:
    """Algorithm 1 of Karras et al. 2022, with σ from 80 to .002 and ρ = 7."""
    i = torch.arange(steps, dtype=torch.float64)
    t = [*((80 ** (1 / 7) + i / (steps - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7).tolist(), 0.0]
    with torch.no_grad():
        for now, then in zip(t, t[1:]):
            d = (x - denoiser(x, torch.full((len(x),), now, dtype=x.dtype))) / now
            moved = x + (then - now) * d
            if then > 0:
                d = (d + (moved - denoiser(moved, torch.full((len(x),), then, dtype=x.dtype))) / then) / 2
            x = x + (then - now) * d
    return x


def test_settings_that_the_file_does_not_state_are_assumed_and_wrong_ones_refused() -> None:
    findings = {f.name: f for f in edm.from_network(Raw(), form="raw", shape=SHAPE).findings}
    assert (findings["sigma_data"].value, findings["sigma_data"].source) == ("0.5", "assumed")
    assert findings["classes"].source == "assumed"
    assert {f.name: f for f in edm.from_network(Precond(label_dim=3)).findings}["classes"].source == "stated"
    with pytest.raises(ValueError, match="no preconditioning is named 'vpp'"):
        edm.from_network(Raw(), preconditioning="vpp")
    with pytest.raises(ValueError, match="sigma_min must be a positive"):
        edm.from_network(Raw(), sigma_min=0.0)


def test_latents_are_no_bytes() -> None:
    opened = edm.from_network(Precond(), shape=(4, 8, 8))
    assert opened.model.data == sd.Description("values", (4, 8, 8))
    findings = {f.name: f for f in opened.findings}
    assert findings["range of the data"].value == "values as the network receives them"


class _Limited(Precond):
    sigma_min, sigma_max = 0.02, 50


def test_the_form_follows_from_the_second_argument_and_contradictions_are_refused(generator: torch.Generator) -> None:
    peer = Precond()
    opened = edm.from_network(peer.model, shape=SHAPE)
    noisy, sigma, tau = states(generator)
    ours = opened.model(noisy * torch.exp(-tau).float().reshape(-1, 1, 1, 1), tau).x0
    expected = peer(noisy, sigma.float())
    assert (ours - expected).abs().max() < 1e-5 * expected.abs().max()
    findings = {f.name: f for f in opened.findings}
    assert (findings["form"].value, findings["form"].source) == ("raw", "derived")
    assert findings["preconditioning"].source == "assumed"
    assert {f.name: f for f in edm.from_network(nn.Identity()).findings}["form"].source == "assumed"
    with pytest.raises(ValueError, match=r"is of the form 'raw' \(second argument noise_labels\), got form='denoiser'"):
        edm.from_network(peer.model, form="denoiser")
    with pytest.raises(ValueError, match="a denoiser contains its preconditioning, got preconditioning='vp'"):
        edm.from_network(peer, preconditioning="vp")


def test_levels_of_the_network_limit_the_sampler() -> None:
    opened = edm.from_network(_Limited())
    taus = opened.sampler.grid.taus  # pyright: ignore
    assert math.sqrt(math.expm1(2 * taus[0])) == pytest.approx(50)
    assert math.sqrt(math.expm1(2 * taus[-2])) == pytest.approx(0.02)
    raw = edm.from_network(Raw(), preconditioning="ve", sigma_max=200.0)
    assert {f.name: f for f in raw.findings}["clock"].value == "σ̃ from 0.02 to 100"


@pytest.mark.parametrize("own", [2, torch.tensor(2.0)])
def test_sigma_data_of_the_network_is_a_number(own: object) -> None:
    net = Raw()
    net.sigma_data = own  # pyright: ignore
    assert edm.from_network(net).model.parameterization == sd.V(2.0)
    net.sigma_data = "2"  # pyright: ignore
    with pytest.raises(TypeError, match="sigma_data must be a number, got '2'"):
        edm.from_network(net)
