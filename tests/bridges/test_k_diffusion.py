"""k-diffusion: networks trained by its own code on digits, against its own outputs, stored and (if installed) live."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from digit_network import SHAPE, UNUSED_BY_K_DIFFUSION, DigitNetwork, stand_ins
from safetensors.torch import load_file
from torch import Tensor, nn

import scoresde as sd
from scoresde.bridges import k_diffusion
from scoresde.bridges.conventions import sigma_grid
from scoresde.bridges.opened import Opened
from scoresde.bridges.weights import read_weight_file

MODELS = Path(__file__).parent / "models" / "k_diffusion"


class VDenoiser(nn.Module):
    """Stands for the peer's wrapper of this name: what the bridge reads of it."""

    def __init__(self, inner_model: nn.Module) -> None:
        super().__init__()
        self.inner_model = inner_model


class DiscreteEpsDDPMDenoiser(VDenoiser):
    """As above, with a table of levels."""

    def __init__(self, inner_model: nn.Module, sigmas: Tensor, quantize: bool = False) -> None:
        super().__init__(inner_model)
        self.quantize = quantize
        self.register_buffer("sigmas", sigmas)


def opened(name: str) -> tuple[Opened, dict[str, Tensor]]:
    """The stored network with our own code for the network, and the peer's outputs."""
    outputs = load_file(MODELS / f"{name}_outputs.safetensors")
    if name == "own":
        return k_diffusion.open_file(MODELS / "own.safetensors", DigitNetwork(scale=0.25)), outputs
    net = DigitNetwork(scale={"v": 3.0, "eps": 0.003}[name])
    net.load_state_dict(load_file(MODELS / f"{name}.safetensors"))
    wrapper = VDenoiser(net) if name == "v" else DiscreteEpsDDPMDenoiser(net, outputs["table"])
    levels: dict[str, Any] = {"sigma_min": 0.02, "sigma_max": 40.0} if name == "v" else {}
    return k_diffusion.from_wrapper(wrapper, shape=SHAPE, **levels), outputs


def start(outputs: dict[str, Tensor], model: sd.Model) -> dict[str, Any]:
    """The first state, in the coordinates of the process, and its time."""
    high = float(outputs["sigmas"][0])
    tau = min(0.5 * math.log1p(high**2), model.sde.tau_max)
    return {"init": outputs["first"] * float(model.sde.scale(tau)) / math.sqrt(1 + high**2), "start": tau}


def chain(
    model: sd.Model, outputs: dict[str, Tensor], sampler: type[sd.sampling.StepSampler], **options: Any
) -> Tensor:
    grid = sigma_grid(outputs["sigmas"].tolist())
    return sd.sample(
        model, 2, sampler(20, grid, **options), generator=torch.Generator().manual_seed(5), **start(outputs, model)
    ).x


def relative(ours: Tensor, theirs: Tensor) -> float:
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()


@pytest.mark.parametrize("name", ["own", "v", "eps"])
def test_one_call_is_the_peers(name: str) -> None:
    model, outputs = opened(name)[0].model, opened(name)[1]
    sigma = outputs["sigma"].double()
    factor = torch.rsqrt(1 + sigma**2).float().reshape(-1, 1, 1, 1)
    ours = model(outputs["noisy"] * factor, 0.5 * torch.log1p(sigma**2)).x0
    scale = outputs["denoised"].abs().amax((1, 2, 3))
    errors = (ours - outputs["denoised"]).abs().amax((1, 2, 3)) / scale
    if name == "eps":
        errors = errors / sigma.clamp(min=1.0)  # x_0 is a difference of two terms of order σ̃
    assert errors.max() < 2e-6  # 5e-7 on the processor that stored them; others round otherwise


@pytest.mark.parametrize("name", ["own", "v", "eps"])
def test_euler_ends_where_the_peer_ends(name: str) -> None:
    model, outputs = opened(name)[0].model, opened(name)[1]
    assert relative(chain(model, outputs, sd.DDIM), outputs["euler"]) < 1e-5


def test_heun_dpm_solver_and_ancestral_sampling_end_where_the_peer_ends() -> None:
    model, outputs = opened("own")[0].model, opened("own")[1]
    assert relative(chain(model, outputs, sd.Heun), outputs["heun"]) < 1e-5
    assert relative(chain(model, outputs, sd.sampling.DPMSolverPP), outputs["dpmpp_2m"]) < 1e-5
    assert relative(chain(model, outputs, sd.DDPM), outputs["ancestral"]) < 1e-5


def test_what_the_file_states_and_what_is_assumed() -> None:
    model = opened("own")[0]
    findings = {f.name: (f.value, f.source) for f in model.findings}
    assert findings["sigma_data"] == ("0.8", "stated")
    assert findings["sigma_max"] == ("40", "stated")
    assert findings["range of the data"] == ("images of bytes in [-1, 1]", "assumed")
    assert findings["weights"] == ("exponential moving average", "assumed")
    assert model.model.event_shape == SHAPE
    samples = sd.sample(model.model, 4, model.sampler, seeds=range(4))  # pyright: ignore[reportArgumentType]
    assert samples.nfe == 50
    assert 0.5 < float(samples.x.std()) < 1.1  # digits have .79


def test_a_checkpoint_of_its_training_script_is_opened_with_its_averages(tmp_path: Path) -> None:
    file = read_weight_file(MODELS / "own.safetensors")
    config = json.loads(str(file.values["config"]))
    raw = {name: torch.zeros_like(value) for name, value in file.tensors.items()}
    path = tmp_path / "digits_00001500.pth"
    torch.save({"config": config, "model": raw, "model_ema": dict(file.tensors), "epoch": 3, "step": 1500}, path)
    read = read_weight_file(path)
    assert k_diffusion.recognize(read)
    assert k_diffusion.recognize(file)
    ours = k_diffusion.open_file(path, DigitNetwork(scale=0.25))
    assert ours.model.event_shape == SHAPE
    zero: Any = k_diffusion.open_file(path, DigitNetwork(scale=0.25), raw=True).model.net
    assert not zero.net.first.weight.any()
    with pytest.raises(ValueError, match="must hold weights named 'model.…'"):
        k_diffusion.open_file(MODELS / "own.safetensors", DigitNetwork(scale=0.25), raw=True)
    x = torch.ones(1, *SHAPE)
    assert torch.equal(ours.model(x, 0.5).x0, opened("own")[0].model(x, 0.5).x0)


def test_integers_are_the_nearest_entries_of_the_table() -> None:
    class Steps(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            self.t = t
            return x

    net, sigmas = Steps(), torch.tensor([0.1, 1.0, 10.0])
    model = k_diffusion.from_wrapper(DiscreteEpsDDPMDenoiser(net, sigmas, quantize=True)).model
    for sigma, place in ((0.1, 0), (0.31, 0), (0.32, 1), (3.1, 1), (3.2, 2), (10.0, 2)):
        model(torch.zeros(1, 2), 0.5 * math.log1p(sigma**2))
        assert net.t.tolist() == [place]
        assert net.t.dtype == torch.int64
    with pytest.raises(ValueError, match="leave out sigma_min"):
        k_diffusion.from_wrapper(DiscreteEpsDDPMDenoiser(net, sigmas), sigma_min=0.1)


def test_any_other_wrapper_is_called_as_a_denoiser() -> None:
    class Halving(nn.Module):
        def forward(self, x: Tensor, sigma: Tensor) -> Tensor:
            return x / 2 + sigma.reshape(-1, 1)

    model = k_diffusion.from_wrapper(Halving()).model
    tau = 0.5 * math.log1p(9.0)
    assert torch.allclose(model(torch.ones(1, 2), tau).x0, torch.full((1, 2), math.sqrt(10) / 2 + 3))


def test_a_file_without_configuration_asks_for_it(tmp_path: Path) -> None:
    torch.save({"model_ema": {"a": torch.ones(1)}}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="holds no configuration; pass config="):
        k_diffusion.open_file(tmp_path / "a.pth", nn.Linear(1, 1))


def test_its_own_network_and_samplers_live() -> None:
    with stand_ins(*UNUSED_BY_K_DIFFUSION):
        peer: Any = pytest.importorskip("k_diffusion", reason="k-diffusion is not installed", exc_type=ImportError)
    config = json.loads(str(read_weight_file(MODELS / "image_v1.safetensors").values["config"]))
    ours = k_diffusion.open_file(MODELS / "image_v1.safetensors", peer.config.make_model(config))
    outputs = load_file(MODELS / "image_v1_outputs.safetensors")
    net: Any = ours.model.net
    denoiser = peer.config.make_denoiser_wrapper(config)(net.net)
    sigma = outputs["sigma"].double()
    with torch.no_grad():
        live = denoiser(outputs["noisy"], outputs["sigma"])
        call = ours.model(
            outputs["noisy"] * torch.rsqrt(1 + sigma**2).float().reshape(-1, 1, 1, 1), 0.5 * torch.log1p(sigma**2)
        )
    assert relative(call.x0, live) < 1e-6
    assert relative(live, outputs["denoised"]) < 2e-6
    assert relative(chain(ours.model, outputs, sd.DDIM), outputs["euler"]) < 1e-5
    assert relative(chain(ours.model, outputs, sd.Heun), outputs["heun"]) < 1e-5
    assert relative(chain(ours.model, outputs, sd.sampling.DPMSolverPP), outputs["dpmpp_2m"]) < 1e-5
    assert relative(chain(ours.model, outputs, sd.DDPM), outputs["ancestral"]) < 1e-5
    wrapped = k_diffusion.from_wrapper(peer.layers.Denoiser(net.net, sigma_data=0.8), shape=SHAPE)
    assert torch.equal(wrapped.model(outputs["first"] / 40, 1.0).x0, ours.model(outputs["first"] / 40, 1.0).x0)


def test_classes_are_a_label_whose_last_embedding_is_null(generator: torch.Generator) -> None:
    class Net(nn.Module):
        """The call and the embedding of its image transformers: as many classes as the data have, and a null."""

        def __init__(self) -> None:
            super().__init__()
            self.class_emb = nn.Embedding(4, 1)

        def forward(self, x: Tensor, sigma: Tensor, class_cond: Tensor | None = None) -> Tensor:
            assert class_cond is not None
            return x * self.class_emb(class_cond)[:, :, None, None]

    net = Net()
    config = {"model": {"sigma_data": 0.5, "input_size": [8, 8], "input_channels": 1}}
    model = k_diffusion.from_network(net, config).model
    assert model.data is not None
    assert model.data.conditions == {"label": sd.data.ClassCondition(3)}
    x, label = torch.randn(4, 1, 8, 8, generator=generator), torch.tensor([0, 2, 1, 3])
    outs = model(x, 0.3, label=label).out / model(x, 0.3, label=torch.zeros(4, dtype=torch.long)).out
    expected = net.class_emb.weight[label, 0] / net.class_emb.weight[0, 0]
    assert (outs - expected[:, None, None, None]).abs().max() < 1e-5 * expected.abs().max()
    null = model(x, 0.3, label=torch.full((4,), 3)).out
    assert torch.equal(model(x, 0.3).out, null)
