"""Models as folders of diffusers: opened by its own classes, with the same network output and the same chain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bridges.tiny_diffusers import model_of, tiny_unet
from torch import Tensor, nn

import scoresde as sd
from scoresde.adapters import FromSigma, FromStep, FromTime
from scoresde.process import VE, VPSDE, Eps, Flow, FromBetas, GeometricSigma, Parameterization, Score, V, Velocity, ou
from scoresde.sampling import Chain

diffusers = pytest.importorskip("diffusers")
save = pytest.importorskip("scoresde.bridges.diffusers").save


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(2)


def images(folder: Path, **options: Any) -> Tensor:
    """Images of the folder's pipeline, by its own scheduler, before they are clipped to [0, 1]."""
    pipe = diffusers.DDPMPipeline.from_pretrained(folder, local_files_only=True, **options)
    pipe.set_progress_bar_config(disable=True)
    states: list[Tensor] = []
    step = pipe.scheduler.step
    pipe.scheduler.step = lambda *args, **named: (out := step(*args, **named), states.append(out.prev_sample))[0]
    pipe(batch_size=2, generator=seeded(), num_inference_steps=len(pipe.scheduler), output_type="np")
    return states[-1]


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_their_pipeline_opens_their_network(kind: str, tmp_path: Path) -> None:
    unet, betas = tiny_unet(), torch.linspace(1e-3, 0.5, 20).tolist()
    old = diffusers.DDPMScheduler(20, trained_betas=betas, prediction_type=kind, clip_sample=False)
    model = model_of(unet, old)
    save(model, tmp_path / "model")
    opened = diffusers.UNet2DModel.from_pretrained(tmp_path / "model", subfolder="unet", local_files_only=True)
    x, t = torch.randn(2, 1, 8, 8, generator=seeded()), torch.tensor([3, 17])
    assert torch.equal(opened(x, t).sample, unet(x, t).sample)
    scheduler = diffusers.DDPMScheduler.from_pretrained(tmp_path / "model", subfolder="scheduler")
    assert torch.equal(scheduler.betas, old.betas)
    assert scheduler.config.prediction_type == kind
    expected = sd.sample(model, 2, sd.DDPM(20), generator=seeded()).x
    torch.testing.assert_close(images(tmp_path / "model"), expected, rtol=1e-4, atol=1e-4)


def test_a_flow_and_an_edm_network_have_their_schedulers(tmp_path: Path) -> None:
    unet, flow = tiny_unet(), Flow()
    model = sd.ScoreModel(FromTime(unet, flow, 500.0), flow, Velocity(), event_shape=(1, 8, 8))
    save(model, tmp_path / "flow")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(tmp_path / "flow", subfolder="scheduler")
    assert scheduler.config.num_train_timesteps == 500
    process = VE(GeometricSigma(0.02, 30.0), tau_min=1e-3)
    adapter = FromSigma(unet, 0.7, "quarter log", "negative")
    save(sd.ScoreModel(adapter, process, V(0.7), event_shape=(1, 8, 8)), tmp_path / "edm")
    edm = diffusers.EDMEulerScheduler.from_pretrained(tmp_path / "edm", subfolder="scheduler")
    assert (edm.config.sigma_min, edm.config.sigma_max, edm.config.sigma_data) == (0.02, 30.0, 0.7)
    assert edm.config.prediction_type == "epsilon"
    opened = diffusers.UNet2DModel.from_pretrained(tmp_path / "edm", subfolder="unet", local_files_only=True)
    assert torch.equal(opened.conv_in.weight, unet.conv_in.weight)


@pytest.mark.parametrize(("target", "kind"), [(V(), "v_prediction"), (Eps(), "epsilon"), (Score(), "v_prediction")])
def test_our_network_is_a_model_of_theirs(
    target: Parameterization, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers.utils import dynamic_modules_utils

    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    net = sd.UNet((1, 8, 8), channels=8, multipliers=(1, 2), blocks=1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=seeded()))
    model = sd.ScoreModel(net, VPSDE(), target, event_shape=(1, 8, 8)).eval()
    save(model, tmp_path / "model", steps=16)
    pipe = diffusers.DDPMPipeline.from_pretrained(tmp_path / "model", trust_remote_code=True, local_files_only=True)
    assert pipe.scheduler.config.prediction_type == kind
    x, tau = torch.randn(2, 1, 8, 8, generator=seeded()), float(model.sde.schedule.tau(6 / 16))
    prediction = model(x, tau)
    expected = prediction.out if target in (V(), Eps()) else prediction.v
    torch.testing.assert_close(pipe.unet(x, 5).sample, expected, rtol=1e-5, atol=1e-5)
    chain = sd.sample(model, 2, sd.DDPM(16, grid=Chain()), generator=seeded()).x
    state = images(tmp_path / "model", trust_remote_code=True)
    torch.testing.assert_close(state, chain, rtol=1e-3, atol=1e-3 * float(chain.abs().max()))


@pytest.mark.parametrize("process", [VPSDE(), VPSDE(tau_min=2e-3)], ids=["default", "cut"])
def test_our_network_is_loaded_from_its_folder(process: Any, tmp_path: Path) -> None:
    net = sd.UNet((1, 8, 8), channels=8, multipliers=(1, 2), blocks=1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=seeded()))
    model = sd.ScoreModel(net, process, V(), event_shape=(1, 8, 8)).eval()
    loaded = sd.load(save(model, tmp_path / "model", steps=16))
    x = torch.randn(2, 1, 8, 8, generator=seeded())
    assert torch.equal(loaded(x, 0.7).out, model(x, 0.7).out)
    assert (loaded.sde, loaded.parameterization, loaded.event_shape) == (model.sde, V(), (1, 8, 8))


def test_every_folder_is_loaded_and_is_a_pipeline(tmp_path: Path) -> None:
    unet, flow = tiny_unet(), Flow()
    flow_model = sd.ScoreModel(FromTime(unet, flow, 500.0), flow, Velocity(), event_shape=(1, 8, 8)).eval()
    adapter, process = FromSigma(unet, 0.7, "quarter log", "negative"), VE(GeometricSigma(0.02, 30.0), tau_min=1e-3)
    edm_model = sd.ScoreModel(adapter, process, V(0.7), event_shape=(1, 8, 8)).eval()
    x = torch.randn(2, 1, 8, 8, generator=seeded())
    for name, model in {"flow": flow_model, "edm": edm_model}.items():
        loaded = sd.load(save(model, tmp_path / name))
        torch.testing.assert_close(loaded(x, 0.7).out, model(x, 0.7).out, rtol=1e-5, atol=1e-5)
    pipe = diffusers.DDPMPipeline.from_pretrained(tmp_path / "flow", local_files_only=True)
    assert type(pipe.scheduler).__name__ == "FlowMatchEulerDiscreteScheduler"


def test_a_learned_variance_is_the_second_half_of_the_channels(tmp_path: Path) -> None:
    from scoresde.bridges.diffusers.own_network import network_class

    net = sd.UNet((1, 8, 8), channels=8, multipliers=(1, 2), blocks=1, outputs=2)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=seeded()))
    model = sd.ScoreModel(net, VPSDE(), V(), event_shape=(1, 8, 8), learned_variance=True).eval()
    save(model, tmp_path / "model", steps=16)
    opened = network_class().from_pretrained(tmp_path / "model", subfolder="unet", local_files_only=True)
    x, tau = torch.randn(2, 1, 8, 8, generator=seeded()), float(model.sde.schedule.tau(6 / 16))
    out = opened(x, torch.tensor([5, 5])).sample
    prediction = model(x, tau)
    torch.testing.assert_close(out[:, :1], prediction.out, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(out[:, 1:], 2 * prediction.mix - 1, rtol=1e-5, atol=1e-5)
    scheduler = diffusers.DDPMScheduler.from_pretrained(tmp_path / "model", subfolder="scheduler")
    assert scheduler.config.variance_type == "learned_range"
    torch.testing.assert_close(scheduler.alphas_cumprod[5], torch.tensor(ou.alpha_bar(tau)), rtol=1e-5, atol=0)


def test_what_diffusers_cannot_express_is_refused(tmp_path: Path) -> None:
    unet, clock = tiny_unet(), FromBetas((0.1, 0.2, 0.3))
    process = VPSDE(clock, tau_min=clock.knots(3)[1])
    shifted = sd.ScoreModel(FromStep(unet, clock, 3, offset=0.0), process, Eps(), event_shape=(1, 8, 8))
    with pytest.raises(ValueError, match=r"no scheduler of diffusers is known for FromStep .*save_onnx"):
        save(shifted, tmp_path / "a")
    foreign = sd.ScoreModel(FromStep(nn.Linear(2, 2), clock, 3), process, Eps(), event_shape=(2,))
    with pytest.raises(TypeError, match="must be one of diffusers or of this package, got a Linear"):
        save(foreign, tmp_path / "b")

    class Own(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            return x

    with pytest.raises(TypeError, match=r"must be one of scoresde.nn, whose settings are text, got a Own"):
        save(sd.ScoreModel(Own(), VPSDE(), V(), event_shape=(1, 8, 8)), tmp_path / "c")
    with pytest.raises(ValueError, match="events have channels, got a clock that begins at tau = 0 and events"):
        save(sd.ScoreModel(sd.MLP((2,), width=4, depth=1), VPSDE(), V(), event_shape=(2,)), tmp_path / "d")
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match="must be new or empty"):
        save(shifted, tmp_path)
