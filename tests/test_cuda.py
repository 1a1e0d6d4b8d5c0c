"""On a GPU, samplers and losses give the results of the CPU and do not synchronize with the host."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch
from sampler_cases import every, every_discrete
from subclasses import concrete

from scoresde._core.noise import Noise
from scoresde.analytic import Gaussian
from scoresde.guidance import CFG, Autoguidance, ClassifierGuidance, Composed, Mask, Observation
from scoresde.inverse import FPSSMC, PosteriorContext, PosteriorSampler, Tilted, TwistedSMC
from scoresde.inverse.tilted import ParticleRun
from scoresde.model import ScoreModel
from scoresde.nn import MLP, CategoricalNet, Classes
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import DiscreteTimesteps, StratifiedTimesteps, Timesteps, UniformTimesteps
from scoresde.objective.weighting import ELBO, MinSNR, Simple, Weighting
from scoresde.process import ou
from scoresde.process.categorical import Binomial, Categorical
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.parameterization import Eps, Parameterization, V
from scoresde.process.sde import VPSDE
from scoresde.sampling import (
    DDIM,
    ODE,
    DiscreteSampler,
    Eta,
    ExactSimulation,
    Sampler,
    SamplingContext,
    SASolver,
    StepSampler,
    TorchSDE,
    VirtualBrownianTree,
    sample,
)

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
    for parameter in model.parameters():  # the output of an untrained MLP is 0
        torch.nn.init.normal_(parameter, std=0.1)
    return model.to("cuda", dtype)


@pytest.mark.parametrize(
    "sampler", [*(p for p in STEPS if not p.values[0].stochastic), ODE(rtol=1e-8, atol=1e-8)], ids=repr
)
def test_deterministic_samplers_agree_on_both_devices(sampler: Sampler) -> None:
    x = torch.randn(5, 2, dtype=torch.float64)
    mean, cov = torch.tensor([0.7, -1.3], dtype=torch.float64), torch.tensor([[1.0, 0.3], [0.3, 0.5]])
    ends = [
        sample(Gaussian(mean.to(d), cov.to(d)), 5, sampler, init=x.to(d), start=4.0).x.cpu() for d in ("cpu", "cuda")
    ]
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-9, atol=1e-9)  # growth of the state also amplifies rounding


@pytest.mark.parametrize("sampler", STEPS)
def test_a_sampler_with_noise_from_the_cpu_agrees_on_both_devices(sampler: StepSampler) -> None:
    mean = torch.tensor([0.7, -1.3], dtype=torch.float64)
    ends = []
    for device in ("cpu", "cuda"):
        model = Gaussian(mean.to(device), 0.25)
        context = SamplingContext(model.predict, model.sde, Noise(torch.Generator().manual_seed(1)), 4.0)
        ends.append(sampler.run(torch.full((5, 2), 0.3, dtype=torch.float64, device=device), context)[0].cpu())
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("sampler", [p for p in STEPS if p.values[0].strong_order is not None])
def test_a_coupled_sampler_does_not_synchronize_and_agrees_with_the_cpu(sampler: StepSampler) -> None:
    mean, ends = torch.tensor([0.7, -1.3], dtype=torch.float64), []
    for device in ("cpu", "cuda"):
        model, x = Gaussian(mean.to(device), 0.25), torch.full((4, 2), 0.3, dtype=torch.float64, device=device)
        context = SamplingContext(model.predict, model.sde, Noise(), 4.0, None, VirtualBrownianTree(x, [3, 4, 5, 6]))
        with torch.no_grad():
            end, _ = sampler.run(x, context)
            if device == "cuda":
                with _no_synchronization():
                    sampler.run(x, context)
        ends.append(end.cpu())
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("sampler", STEPS)
@pytest.mark.parametrize("parameterization", [V(), Eps()], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_step_synchronizes_with_the_host(
    sampler: StepSampler, parameterization: Parameterization, dtype: torch.dtype
) -> None:
    model = _model(dtype, parameterization).eval()
    x, noise = torch.randn(4, 3, device="cuda"), Noise(torch.Generator("cuda").manual_seed(1))
    context = SamplingContext(model.predict, model.sde, noise, model.sde.tau_max)
    with torch.no_grad():
        sampler.run(x, context)  # the first call may create tables and handles
        with _no_synchronization():
            end, _ = sampler.run(x, context)
    assert end.dtype == torch.float32
    assert end.isfinite().all()


PROCESSES = [Categorical(3), Categorical(3, "absorbing"), Categorical((2, 3, 2)), Binomial()]


def _categories(process: DiscreteProcess, device: str) -> ScoreModel:
    mask, classes = process.states > process.most_classes, process.most_classes
    net = CategoricalNet(MLP(CategoricalNet.inner_shape((3,), classes, mask), 16, 1), (3,), classes, mask)
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():  # the output of an untrained MLP is 0
        torch.nn.init.normal_(parameter, std=0.3, generator=generator)
    return ScoreModel(net.double(), process).to(device).eval()


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
@pytest.mark.parametrize("sampler", every_discrete(9))
def test_a_sampler_of_categories_does_not_synchronize_and_agrees_with_the_cpu(
    sampler: DiscreteSampler, process: DiscreteProcess
) -> None:
    ends = []
    for device in ("cpu", "cuda"):
        model, like = _categories(process, device), torch.empty(64, 3, dtype=torch.float64, device=device)
        generator = torch.Generator().manual_seed(1)  # the same numbers on both devices
        context = SamplingContext(model.predict, process, Noise(generator), process.tau_max)
        with torch.no_grad():
            ends.append(sampler.run(process.prior(like, context.noise), context)[0].cpu())
            if device == "cuda":
                context.noise = Noise(torch.Generator("cuda").manual_seed(1))
                x = process.prior(like, context.noise)
                sampler.run(x, context)
                with _no_synchronization():
                    sampler.run(x, context)
    assert torch.equal(ends[1], ends[0])


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_exact_simulation_agrees_with_the_cpu(process: DiscreteProcess) -> None:
    process = replace(process, tau_min=0.01)
    ends = []
    for device in ("cpu", "cuda"):
        model, noise = _categories(process, device), Noise(torch.Generator().manual_seed(1))
        x = process.prior(torch.empty(64, 3, dtype=torch.float64, device=device), noise)
        with torch.no_grad():
            end, _ = ExactSimulation().run(x, SamplingContext(model.predict, process, noise, process.tau_max))
        ends.append(end.cpu())
    assert torch.equal(ends[1], ends[0])


@pytest.mark.parametrize("scale", [3.0, torch.tensor([0.0, 1.0, 2.0, 3.0])], ids=["number", "per sample"])
def test_no_guidance_synchronizes_with_the_host(scale: float | torch.Tensor) -> None:
    model = ScoreModel(MLP((3,), width=16, conditions={"label": Classes(3)}), VPSDE(), V(), (3,)).to("cuda").eval()
    labels = torch.tensor([0, 1, 2, 2], device="cuda")
    x, tau = torch.randn(4, 3, device="cuda"), torch.tensor([0.1, 0.5, 1.0, 2.0], device="cuda").double()
    for guided in (
        CFG(model, scale, interval=(0.2, 1.5), rescale=0.5),
        CFG(model, scale, null={"label": 3}),
        Autoguidance(model, model, scale),
        Composed(model, {"label": scale}),
        ClassifierGuidance(model, lambda x, tau, label: -x.square().sum(1), scale, (0.2, 1.5)),
    ):
        predict = partial(guided.predict, label=labels)
        with torch.no_grad():
            predict(x, tau)
            with _no_synchronization():
                assert predict(x, tau).v.shape == predict(x, 0.5).v.shape == (4, 3)


def test_weighted_particles_do_not_synchronize_with_the_host() -> None:
    model = ScoreModel(MLP((3,), width=16, conditions={"label": Classes(3)}), VPSDE(), V(), (3,)).to("cuda").eval()
    like, tilted = torch.empty(2, 8, 3, device="cuda"), Tilted(SASolver(4, noise=Eta(2.0)), threshold=0.9)
    cond = {"label": torch.zeros(16, dtype=torch.int64, device="cuda")}
    with torch.no_grad():
        for context in (nullcontext, _no_synchronization):
            noise = Noise(torch.Generator("cuda").manual_seed(1))
            run = ParticleRun(tilted, CFG(model, 2.0), like, noise, cond)
            with context():
                states = run.states()
    assert states.isfinite().all()


@pytest.mark.parametrize("weighting", [Simple(), ELBO(), MinSNR()], ids=repr)
@pytest.mark.parametrize("times", [UniformTimesteps(), StratifiedTimesteps(), DiscreteTimesteps(100)], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_no_loss_synchronizes_with_the_host(weighting: Weighting, times: Timesteps, dtype: torch.dtype) -> None:
    model, loss = _model(dtype), Loss(weighting, times)
    x0, generator = torch.randn(4, 3, device="cuda"), torch.Generator("cuda").manual_seed(1)
    loss(model, x0, generator)
    with _no_synchronization():
        value = loss(model, x0, generator)
        value.sum().backward()
    assert value.isfinite().all()


@pytest.mark.parametrize("sampler", [*STEPS, ODE(), TorchSDE(steps=5)], ids=repr)
def test_a_half_precision_network_is_sampled_in_single_precision(sampler: Sampler) -> None:
    samples = sample(_model(torch.bfloat16), 4, sampler, seeds=range(4))
    assert samples.x.dtype == torch.float32
    assert samples.x.device.type == "cuda"
    denoised = sample(_model(torch.bfloat16), 4, sampler, seeds=range(4), denoise=True)
    assert denoised.x.isfinite().all()


def test_a_model_on_another_device_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"x is on cuda:0, the model on cpu; move one"):
        sample(Gaussian(torch.zeros(2), 1.0), 3, DDIM(2), device="cuda:0")


def test_float64_times_keep_their_digits_on_the_gpu() -> None:
    tau = torch.tensor([1e-7, 1e-3, 20.0], dtype=torch.float64)
    torch.testing.assert_close(ou.log_snr(tau.cuda()).cpu(), ou.log_snr(tau), rtol=1e-14, atol=0)


@pytest.mark.parametrize("cls", concrete(PosteriorSampler), ids=lambda cls: cls.__name__)
def test_a_posterior_sampler_does_not_synchronize(cls: type) -> None:
    method = cls(steps=5, particles=64) if cls in (TwistedSMC, FPSSMC) else cls(steps=5)
    model, like = _model(), torch.empty(2, method.states(3), 3, device="cuda")
    seen = Observation(Mask(torch.tensor([True, False, True])), torch.zeros(2, 3), noise_std=0.1).to("cuda")
    index, noise = torch.arange(2, device="cuda"), Noise(torch.Generator("cuda").manual_seed(0))
    context = PosteriorContext(model, seen, method.prepare(model, seen, like), index, 3, like, noise, {})
    with torch.no_grad():
        method.run(context)
        with _no_synchronization():
            assert method.run(context).x.shape == (2, 3, 3)
