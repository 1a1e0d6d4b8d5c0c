"""denoising-diffusion-pytorch: networks trained by its own trainer on digits, against its own outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from digit_network import SHAPE, UNUSED_BY_LUCIDRAINS, DigitNetwork, stand_ins
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import scoresde as sd
from scoresde.bridges import lucidrains
from scoresde.bridges.opened import Opened
from scoresde.bridges.weights import read_weight_file
from scoresde.process.parameterization import X0, Eps, V

MODELS = Path(__file__).parent / "models" / "lucidrains"
UNET: dict[str, Any] = {"dim": 8, "dim_mults": (1, 2), "channels": 1, "attn_heads": 2, "attn_dim_head": 8}


def own(**settings: Any) -> Opened:
    return lucidrains.open_file(MODELS / "own.safetensors", DigitNetwork(scale=0.003), shape=SHAPE, **settings)


def check(opened: Opened, ddim: Opened, outputs: dict[str, Tensor]) -> None:
    """One call, DDIM with 50 steps and the chain of 1000, each with the peer's noise."""
    knots = opened.model.sde.schedule.knots(1000)
    taus = torch.tensor([knots[int(t) + 1] for t in outputs["t"]], dtype=torch.float64)
    prediction = opened.model(outputs["x"], taus)
    # the peer computes x_0 and ε of an output with float32 coefficients
    for name, ours, bound in (
        ("out", prediction.out, 2e-6),
        ("x0", prediction.x0, 1e-5),
        ("eps", prediction.eps, 1e-5),
    ):
        scale = outputs[name].abs().amax((1, 2, 3), keepdim=True)
        assert ((ours - outputs[name]).abs() / scale).max() < bound, name
    for name, each in (("ddim", ddim), ("ddpm", opened)):
        generator = torch.Generator().manual_seed(5)
        first = torch.randn((2, *SHAPE), generator=generator)
        assert each.sampler is not None
        ours = sd.sample(each.steered, 2, each.sampler, init=first, generator=generator).x
        assert ((ours + 1) / 2 - outputs[name]).abs().max() < 1e-5, name


def test_the_network_and_both_samplers_are_the_peers() -> None:
    check(own(), own(sampling_timesteps=50), load_file(MODELS / "own_outputs.safetensors"))


def test_raw_weights_are_those_as_trained_and_are_refused_where_there_are_none() -> None:
    file = read_weight_file(MODELS / "own.safetensors")
    net: Any = own(raw=True).model.net
    assert torch.equal(net.net.first.weight, file.tensors["model.model.first.weight"])
    with pytest.raises(ValueError, match=r"must hold weights named 'model\.model\.…'"):
        lucidrains.open_file(MODELS / "unet.safetensors", DigitNetwork(), raw=True)


def test_what_the_file_states_and_what_is_derived() -> None:
    findings = {f.name: f for f in own().findings}
    assert findings["weights"].value == "exponential moving average"
    assert "it also holds model.*" in findings["weights"].why
    assert (findings["clock"].value, findings["clock"].source) == ("cosine betas, 1000 steps", "derived")
    assert (findings["prediction"].value, findings["prediction"].source) == ("pred_noise", "derived")
    assert findings["trained for"].value == "2000 steps"
    assert {f.name: f for f in own(raw=True).findings}["weights"].value == "as trained, no average"
    with pytest.raises(ValueError, match="loss_weight is that of 'pred_noise', got objective='pred_v'"):
        own(objective="pred_v")


def test_a_file_of_its_trainer_is_opened(tmp_path: Path) -> None:
    file = read_weight_file(MODELS / "own.safetensors")
    assert lucidrains.recognize(file)
    tree: dict[str, Any] = {"step": 2000, "opt": {"state": {}, "param_groups": []}, "scaler": None, "version": "2.3.4"}
    averages = {k.removeprefix("ema."): v for k, v in file.tensors.items() if k.startswith("ema.")}
    tree["ema"] = averages | {"initted": torch.tensor(True), "step": torch.tensor(2000)}
    tree["model"] = {k.removeprefix("model."): v for k, v in file.tensors.items() if k.startswith("model.")}
    torch.save(tree, tmp_path / "model-1.pt")
    net, same = DigitNetwork(scale=0.003), DigitNetwork(scale=0.003)
    lucidrains.open_file(tmp_path / "model-1.pt", net, shape=SHAPE)
    lucidrains.open_file(MODELS / "own.safetensors", same, shape=SHAPE)
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), same.state_dict().values(), strict=True))
    average = file.tensors["ema.ema_model.model.first.weight"]
    assert torch.equal(net.first.weight, average)
    assert not torch.equal(average, file.tensors["model.model.first.weight"])


class Diffusion(nn.Module):
    """Stands for ``GaussianDiffusion``: its buffers by their published formulas."""

    def __init__(self, net: nn.Module, betas: Tensor, objective: str, gamma: float | None = None) -> None:
        super().__init__()
        self.model, self.channels, self.image_size, self.objective = net, 1, (8, 8), objective
        bars = (1 - betas.double()).cumprod(0)
        snr = bars / (1 - bars)
        clipped = snr if gamma is None else snr.clamp(max=gamma)
        weight = {"pred_noise": clipped / snr, "pred_x0": clipped, "pred_v": clipped / (snr + 1)}[objective]
        for name, value in {"betas": betas, "alphas_cumprod": bars, "loss_weight": weight}.items():
            self.register_buffer(name, value.float())


@pytest.mark.parametrize("gamma", [None, 5.0])
@pytest.mark.parametrize(("objective", "target"), [("pred_noise", Eps()), ("pred_x0", X0()), ("pred_v", V())])
def test_the_objective_follows_from_the_weights_of_the_loss(
    objective: str, target: object, gamma: float | None, tmp_path: Path
) -> None:
    diffusion = Diffusion(DigitNetwork(), torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), objective, gamma)
    save_file(diffusion.state_dict(), tmp_path / "bare.safetensors")
    opened = lucidrains.open_file(
        tmp_path / "bare.safetensors", Diffusion(DigitNetwork(), torch.ones(1) / 2, "pred_x0")
    )
    assert opened.model.parameterization == target
    assert opened.model.event_shape == SHAPE
    assert lucidrains.from_diffusion(diffusion).model.parameterization == target


def test_betas_of_another_schedule_are_those_of_the_buffer() -> None:
    betas = torch.linspace(0.01, 0.03, 100)
    opened = lucidrains.from_diffusion(Diffusion(DigitNetwork(), betas, "pred_v"))
    assert {f.name: f.value for f in opened.findings}["clock"] == "100 betas"
    assert torch.allclose(torch.tensor(opened.model.sde.schedule.to_betas(100)), betas, rtol=1e-6)


def test_self_conditioning_is_refused() -> None:
    net = DigitNetwork()
    net.self_condition = True
    with pytest.raises(ValueError, match="self-conditioning.*train with self_condition=False"):
        lucidrains.from_diffusion(Diffusion(net, torch.linspace(1e-4, 0.02, 10), "pred_v"))


def test_a_network_with_the_shapes_of_self_conditioning_is_refused(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.init_conv, self.final_conv = nn.Conv2d(2, 8, 7), nn.Conv2d(8, 1, 1)

    diffusion = Diffusion(Net(), torch.linspace(1e-4, 0.02, 10), "pred_v")
    save_file(diffusion.state_dict(), tmp_path / "bare.safetensors")
    with pytest.raises(ValueError, match="self-conditioning"):
        lucidrains.open_file(tmp_path / "bare.safetensors", Net())


def test_its_own_u_net_and_diffusion_live() -> None:
    with stand_ins(*UNUSED_BY_LUCIDRAINS):
        name = "denoising_diffusion_pytorch.denoising_diffusion_pytorch"
        peer: Any = pytest.importorskip(name, reason="the package is not installed", exc_type=ImportError)
    outputs = load_file(MODELS / "unet_outputs.safetensors")
    path = MODELS / "unet.safetensors"
    opened = lucidrains.open_file(path, peer.Unet(**UNET), shape=SHAPE)
    check(opened, lucidrains.open_file(path, peer.Unet(**UNET), shape=SHAPE, sampling_timesteps=50), outputs)
    assert {f.name: f.value for f in opened.findings}["clock"] == "sigmoid betas, 1000 steps"
    net: Any = opened.model.net
    diffusion = peer.GaussianDiffusion(net.net, image_size=8, sampling_timesteps=50, objective="pred_v")
    live = lucidrains.from_diffusion(diffusion)
    assert live.sampler == lucidrains.open_file(path, peer.Unet(**UNET), sampling_timesteps=50).sampler
    assert live.model.event_shape == SHAPE
    assert torch.equal(live.model(outputs["x"], 0.5).x0, opened.model(outputs["x"], 0.5).x0)


class _Guided(DigitNetwork):
    """The call and the names of its Unet for classifier-free guidance, which drops classes in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__(scale=0.003)
        self.classes_emb, self.cond_drop_prob = nn.Embedding(5, 1), 0.5

    def forward(self, x: Tensor, time: Tensor, classes: Tensor, cond_drop_prob: float | None = None) -> Tensor:
        drop = self.cond_drop_prob if cond_drop_prob is None else cond_drop_prob
        kept = torch.rand(len(x)) >= drop
        return super().forward(x, time) + (self.classes_emb(classes)[:, 0] * kept)[:, None, None, None]


class _Diffusion(nn.Module):
    """The attributes of a GaussianDiffusion that are read."""

    def __init__(self, model: nn.Module, **attributes: Any) -> None:
        super().__init__()
        self.model, self.objective, self.channels = model, "pred_noise", 1
        for name, value in attributes.items():
            setattr(self, name, value)
        self.register_buffer("betas", torch.linspace(1e-4, 0.02, 1000))


def test_classes_are_a_label_and_never_dropped(generator: torch.Generator) -> None:
    net = _Guided()
    opened = lucidrains.from_diffusion(_Diffusion(net, image_size=8))
    assert opened.model.event_shape == SHAPE
    assert opened.model.data is not None
    assert opened.model.data.conditions == {"label": sd.data.ClassCondition(5)}
    x, label = torch.randn(16, *SHAPE, generator=generator), torch.arange(16) % 5
    tau = opened.model.sde.schedule.knots(1000)[301]
    expected = net(x, torch.full((16,), 300.0), label, cond_drop_prob=0.0)
    assert (opened.model(x, tau, label=label).eps - expected).abs().max() < 1e-5
    with pytest.raises(ValueError, match="5 classes and no null, got no class"):
        opened.model(x, tau)


def test_series_have_no_bins() -> None:
    opened = lucidrains.from_diffusion(_Diffusion(nn.Conv1d(1, 1, 3), seq_length=32))
    assert opened.model.data == sd.Description("series", (1, 32), offset=0.5, scale=0.5)
