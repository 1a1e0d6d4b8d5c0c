"""Does a GPU give what the CPU gives, without waiting for the host on the way?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from sampler_cases import every

from scoresde._core.noise import Noise
from scoresde.analytic import Gaussian
from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import DiscreteTimesteps, StratifiedTimesteps, Timesteps, UniformTimesteps
from scoresde.objective.weighting import ELBO, MinSNR, Simple, Weighting
from scoresde.process import ou
from scoresde.process.parameterization import Eps, Parameterization, V
from scoresde.process.sde import VPSDE
from scoresde.sampling import DDIM, ODE, Brownian, Sampler, SamplingContext, StepSampler, TorchSDE, sample

pytestmark = pytest.mark.cuda

STEPS = every(9)


@contextmanager
def _no_synchronization() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _model(dtype: torch.dtype = torch.float32, parameterization: Parameterization | None = None) -> ScoreModel:
    model = ScoreModel(MLP((3,), width=16, depth=2), VPSDE(tau_min=1e-4), parameterization or V(), (3,))
    for parameter in model.parameters():  # an untrained MLP gives 0
        torch.nn.init.normal_(parameter, std=0.1)
    return model.to("cuda", dtype)


@pytest.mark.parametrize(
    "sampler", [*(p for p in STEPS if not p.values[0].stochastic), ODE(rtol=1e-8, atol=1e-8)], ids=repr
)
def test_both_devices_end_at_the_same_place(sampler: Sampler) -> None:
    x = torch.randn(5, 2, dtype=torch.float64)
    mean, cov = torch.tensor([0.7, -1.3], dtype=torch.float64), torch.tensor([[1.0, 0.3], [0.3, 0.5]])
    ends = [
        sample(Gaussian(mean.to(d), cov.to(d)), 5, sampler, init=x.to(d), start=4.0).x.cpu() for d in ("cpu", "cuda")
    ]
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-9, atol=1e-9)  # what has grown has grown with its rounding


@pytest.mark.parametrize("sampler", STEPS)
def test_a_stochastic_walk_is_the_same_with_noise_from_the_cpu(sampler: StepSampler) -> None:
    mean = torch.tensor([0.7, -1.3], dtype=torch.float64)
    ends = []
    for device in ("cpu", "cuda"):
        model = Gaussian(mean.to(device), 0.25)
        path = SamplingContext(model.predict, model.sde, Noise(torch.Generator().manual_seed(1)), 4.0)
        ends.append(sampler.run(torch.full((5, 2), 0.3, dtype=torch.float64, device=device), path)[0].cpu())
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("sampler", [p for p in STEPS if p.values[0].strong_order is not None])
def test_no_coupled_walk_waits_for_the_host_and_all_follow_the_cpu_s_path(sampler: StepSampler) -> None:
    mean, ends = torch.tensor([0.7, -1.3], dtype=torch.float64), []
    for device in ("cpu", "cuda"):
        model, x = Gaussian(mean.to(device), 0.25), torch.full((4, 2), 0.3, dtype=torch.float64, device=device)
        path = SamplingContext(model.predict, model.sde, Noise(), 4.0, None, Brownian(x, [3, 4, 5, 6]))
        with torch.no_grad():
            end, _ = sampler.run(x, path)
            if device == "cuda":
                with _no_synchronization():
                    sampler.run(x, path)
        ends.append(end.cpu())
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("sampler", STEPS)
@pytest.mark.parametrize("parameterization", [V(), Eps()], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_step_waits_for_the_host(
    sampler: StepSampler, parameterization: Parameterization, dtype: torch.dtype
) -> None:
    model = _model(dtype, parameterization).eval()
    x, noise = torch.randn(4, 3, device="cuda"), Noise(torch.Generator("cuda").manual_seed(1))
    path = SamplingContext(model.predict, model.sde, noise, model.sde.tau_max)
    with torch.no_grad():
        sampler.run(x, path)  # the first calls may build tables and handles
        with _no_synchronization():
            end, _ = sampler.run(x, path)
    assert end.dtype == torch.float32
    assert end.isfinite().all()


@pytest.mark.parametrize("weighting", [Simple(), ELBO(), MinSNR()], ids=repr)
@pytest.mark.parametrize("times", [UniformTimesteps(), StratifiedTimesteps(), DiscreteTimesteps(100)], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_loss_waits_for_the_host(weighting: Weighting, times: Timesteps, dtype: torch.dtype) -> None:
    model, loss = _model(dtype), Loss(weighting, times)
    x0, generator = torch.randn(4, 3, device="cuda"), torch.Generator("cuda").manual_seed(1)
    loss(model, x0, generator)
    with _no_synchronization():
        value = loss(model, x0, generator)
        value.sum().backward()
    assert value.isfinite().all()


@pytest.mark.parametrize("sampler", [*STEPS, ODE(), TorchSDE(steps=5)], ids=repr)
def test_a_half_precision_network_is_sampled_in_single_precision(sampler: Sampler) -> None:
    drawn = sample(_model(torch.bfloat16), 4, sampler, seeds=range(4))
    assert drawn.x.dtype == torch.float32
    assert drawn.x.device.type == "cuda"
    whole = sample(_model(torch.bfloat16), 4, sampler, seeds=range(4), denoise=True)
    assert whole.x.isfinite().all()


def test_a_model_left_on_the_cpu_gives_one_clear_message() -> None:
    with pytest.raises(ValueError, match=r"x is on cuda:0, the model on cpu; move one"):
        sample(Gaussian(torch.zeros(2), 1.0), 3, DDIM(2), device="cuda:0")


def test_float64_times_keep_their_digits_on_the_gpu() -> None:
    tau = torch.tensor([1e-7, 1e-3, 20.0], dtype=torch.float64)
    torch.testing.assert_close(ou.log_snr(tau.cuda()).cpu(), ou.log_snr(tau), rtol=1e-14, atol=0)
