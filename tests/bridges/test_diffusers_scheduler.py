"""`Scheduler`: our samplers in pipelines of diffusers, against `sample` on the same noise, bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bridges.tiny_diffusers import model_of, tiny_unet
from torch import Tensor

import scoresde as sd
from scoresde.bridges.diffusers.rules import model_rules
from scoresde.bridges.diffusers.settings import SchedulerSettings
from scoresde.guidance import Clipping, DynamicThresholding
from scoresde.model import Model
from scoresde.process import ou
from scoresde.sampling import (
    DDIM,
    DDPM,
    ERSDE,
    Adams,
    AnnealedLangevin,
    DPMSolver,
    DPMSolverPP,
    ExplicitGrid,
    Heun,
    Moments,
    NonStationary,
    PredictorCorrector,
    RungeKutta,
    SASolver,
    Spaced,
    UniPC,
    Whitened,
)

diffusers = pytest.importorskip("diffusers")
bridge = pytest.importorskip("scoresde.bridges.diffusers")
Scheduler = bridge.Scheduler

SAMPLERS = [
    DDPM(12),
    DDPM(12, rev_var="beta"),
    DDIM(12),
    DDIM(7, grid=Spaced("leading")),
    Adams(1),
    Adams(10),
    Adams(20),
    Adams(76),
    UniPC(10),
    DPMSolverPP(10),
    SASolver(10),
    ERSDE(10),
    NonStationary(8),
    Heun(8),
    Heun(8, churn=4.0),
    RungeKutta(3),
    DPMSolver(4, solver_order=3),
    PredictorCorrector(6),
]


class Recorded(Scheduler):
    """A scheduler that keeps the states and timesteps of a run."""

    states: list[Tensor]

    def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
        self.states = []
        super().set_timesteps(*args, **kwargs)

    def step(self, *args: Any, **kwargs: Any) -> Any:
        out = super().step(*args, **kwargs)
        self.states.append(out[0] if isinstance(out, tuple) else out.prev_sample)
        return out


def run(pipe: Any, scheduler: Any, steps: int, **options: Any) -> Tensor:
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = scheduler
    pipe(num_inference_steps=steps, output_type="np", **options)
    return scheduler.states[-1]


def seeded(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def unet() -> Any:
    return tiny_unet()


@pytest.fixture(scope="module")
def old() -> Any:
    return diffusers.DDPMScheduler(clip_sample=False)


@pytest.fixture(scope="module")
def pipe(unet: Any, old: Any) -> Any:
    return diffusers.DDPMPipeline(unet, old)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_a_pipeline_gives_the_samples_of_sample_bit_for_bit(sampler: Any, pipe: Any, unet: Any, old: Any) -> None:
    model = model_of(unet, old)
    start = float(model.sde.schedule.tau((1 + 6 * (1000 // 7)) / 1000)) if isinstance(sampler.grid, Spaced) else None
    expected = sd.sample(model, 2, sampler, generator=seeded(), start=start).x
    state = run(pipe, Recorded(sampler, old), sampler.steps, batch_size=2, generator=seeded())
    assert torch.equal(state, expected)
    assert expected.std() > 0.1


@pytest.mark.parametrize("kind", ["sample", "v_prediction"])
@pytest.mark.parametrize("schedule", ["scaled_linear", "squaredcos_cap_v2"])
def test_prediction_and_clock_are_those_of_the_replaced_scheduler(kind: str, schedule: str, unet: Any) -> None:
    old = diffusers.DDIMScheduler(prediction_type=kind, beta_schedule=schedule, clip_sample=False)
    pipe, sampler = diffusers.DDIMPipeline(unet, old), Adams(8)
    state = run(pipe, Recorded(sampler, old, event_shape=(1, 8, 8)), 8, batch_size=2, generator=seeded())
    assert torch.equal(state, sd.sample(model_of(unet, old), 2, sampler, generator=seeded()).x)


def test_zero_terminal_snr_is_part_of_the_clock(unet: Any) -> None:
    old = diffusers.DDIMScheduler(prediction_type="v_prediction", rescale_betas_zero_snr=True, clip_sample=False)
    pipe, sampler = diffusers.DDIMPipeline(unet, old), Adams(6)
    state = run(pipe, Recorded(sampler, old, event_shape=(1, 8, 8)), 6, batch_size=2, generator=seeded())
    model = model_of(unet, old)
    assert model.sde.tau_max == float("inf")
    assert torch.equal(state, sd.sample(model, 2, sampler, generator=seeded()).x)


@pytest.mark.parametrize(
    ("changes", "wrapper"),
    [
        ({"clip_sample": True}, Clipping),
        ({"clip_sample": True, "clip_sample_range": 0.5}, lambda model: Clipping(model, -0.5, 0.5)),
        (
            {"thresholding": True, "dynamic_thresholding_ratio": 0.9, "sample_max_value": 3.0},
            lambda model: DynamicThresholding(model, 0.9, 1.0, 3.0),
        ),
    ],
)
def test_clipping_is_that_of_the_replaced_scheduler(changes: Any, wrapper: Any, pipe: Any, unet: Any, old: Any) -> None:
    model: Model = wrapper(model_of(unet, old))
    state = run(pipe, Recorded(Adams(6), old, **changes), 6, batch_size=2, generator=seeded())
    assert torch.equal(state, sd.sample(model, 2, Adams(6), generator=seeded()).x)


@pytest.mark.parametrize("clip", [False, True])
def test_our_ddim_is_theirs(clip: bool, unet: Any) -> None:
    old = diffusers.DDIMScheduler(clip_sample=clip)
    pipe, sampler = diffusers.DDIMPipeline(unet, old), DDIM(10, grid=Spaced("leading"))
    pipe.set_progress_bar_config(disable=True)
    theirs = pipe(batch_size=2, generator=seeded(), num_inference_steps=10, output_type="np").images
    pipe.scheduler = Scheduler(sampler, old)
    ours = pipe(batch_size=2, generator=seeded(), num_inference_steps=10, output_type="np").images
    torch.testing.assert_close(torch.from_numpy(ours), torch.from_numpy(theirs), rtol=0, atol=5e-5)


@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "EulerDiscreteScheduler", "PNDMScheduler", "UniPCMultistepScheduler"]
)
def test_a_configuration_alone_tells_its_scheduler(name: str) -> None:
    old = getattr(diffusers, name)()
    assert Scheduler(Adams(), old.config).config["replaces"] == name
    back = getattr(diffusers, name).from_config(Scheduler(Adams(), old).config)
    assert {**back.config}.items() >= {key: v for key, v in old.config.items() if key[0] != "_"}.items()


class Denoiser(torch.nn.Module):
    """A nonlinear network of (x, t)."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.tanh(x + torch.cos(0.01 * t.reshape(-1, 1).to(x)))


def loop(scheduler: Any, x: Tensor, steps: int | None, **options: Any) -> Tensor:
    scheduler.set_timesteps(steps, **options)
    x = x * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        x = scheduler.step(Denoiser()(scheduler.scale_model_input(x, t), t), t, x, generator=seeded()).prev_sample
    return x


@pytest.mark.parametrize("sampler", [Adams(7), DDIM(7)], ids=lambda sampler: type(sampler).__name__)
def test_a_flow_is_sampled_bit_for_bit(sampler: Any) -> None:
    old = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler = Scheduler(sampler, old, event_shape=(3,))
    rules = model_rules(SchedulerSettings("FlowMatchEulerDiscreteScheduler", old.config))
    model = sd.ScoreModel(rules.adapter(Denoiser()), rules.process, rules.parameterization, event_shape=(3,))
    noise = torch.randn(4, 3, generator=seeded())
    assert torch.equal(loop(scheduler, noise, 7), sd.sample(model, 4, sampler, init=noise).x)
    assert scheduler.timesteps[0] == 1000
    assert scheduler.config.use_flow_sigmas  # Flux's pipeline then passes no noise levels


def test_given_sigmas_and_timesteps_are_the_grid() -> None:
    noise = torch.randn(4, 3, generator=seeded())
    flow = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    sigmas = [1.0, 0.8, 0.5, 0.2]
    ours = loop(Scheduler(DDIM(), flow), noise, None, sigmas=np.array(sigmas))
    flow.set_timesteps(sigmas=sigmas)
    x = noise
    for t in flow.timesteps:
        x = flow.step(Denoiser()(x, t), t, x).prev_sample
    torch.testing.assert_close(ours, x, rtol=0, atol=2e-6)
    old = diffusers.DDIMScheduler(clip_sample=False)
    scheduler = Scheduler(DDIM(), old)
    scheduler.set_timesteps(timesteps=[900, 700, 300, 10])
    assert scheduler.timesteps.tolist() == [900, 700, 300, 10]
    assert scheduler._loop.plan.taus[-1] == 0
    with pytest.raises(ValueError, match="given once, got timesteps and sigmas"):
        scheduler.set_timesteps(timesteps=[1], sigmas=[1.0])


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_edm_is_sampled_in_its_coordinates(kind: str) -> None:
    old = diffusers.EDMEulerScheduler(sigma_min=0.02, sigma_max=20.0, sigma_data=0.7, prediction_type=kind)
    rules = model_rules(SchedulerSettings("EDMEulerScheduler", old.config))
    model = sd.ScoreModel(rules.adapter(Denoiser()), rules.process, rules.parameterization, event_shape=(3,))
    noise = torch.randn(4, 3, generator=seeded())
    for sampler in (Adams(7), DDIM(7), Heun(5)):
        ours = loop(Scheduler(sampler, old, event_shape=(3,)), noise, sampler.steps)
        expected = sd.sample(model, 4, sampler, init=noise * 20.0).x
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    ours = loop(Scheduler(DDIM(), old), noise, None, sigmas=[20.0, 5.0, 1.0, 0.1])
    sigmas = torch.tensor([20.0, 5.0, 1.0, 0.1, 0.0])
    x = noise * 20.0
    for sigma, s in zip(sigmas, sigmas[1:]):  # EDM's table 1, and Euler's step
        weight = 0.7**2 + sigma**2
        out = Denoiser()(x / weight.sqrt(), (0.25 * sigma.log()).reshape(1))
        sign = 1.0 if kind == "epsilon" else -1.0
        denoised = x * 0.7**2 / weight + sign * out * sigma * 0.7 / weight.sqrt()
        x = x + (x - denoised) / sigma * (s - sigma)
    torch.testing.assert_close(ours, x, rtol=1e-5, atol=1e-5)


def test_one_generator_per_sample_is_one_seed_per_sample(pipe: Any, unet: Any, old: Any) -> None:
    generators = [seeded(seed) for seed in (5, 6, 7)]
    state = run(pipe, Recorded(ERSDE(6), old), 6, batch_size=3, generator=generators)
    assert torch.equal(state, sd.sample(model_of(unet, old), 3, ERSDE(6), seeds=[5, 6, 7]).x)


def test_a_learned_variance_is_read(old: Any) -> None:
    unet = tiny_unet(out_channels=2)
    learned = diffusers.DDPMScheduler(clip_sample=False, variance_type="learned_range")
    sampler = DDPM(8, rev_var="learned")
    state = run(diffusers.DDPMPipeline(unet, learned), Recorded(sampler, learned), 8, batch_size=2, generator=seeded())
    model = model_of(unet, learned, learned_variance=True)
    assert torch.equal(state, sd.sample(model, 2, sampler, generator=seeded()).x)


def test_a_sampler_in_whitened_coordinates_leaves_the_first_call_idle(pipe: Any, unet: Any, old: Any) -> None:
    moments = Moments(torch.full((1, 8, 8), 0.2), torch.eye(64)[:, :5], torch.tensor([0.9, 0.5, 0.2, 0.2, 0.1]), 0.1)
    sampler = Whitened(Adams(7), moments)
    scheduler = Recorded(sampler, old)
    state = run(pipe, scheduler, 7, batch_size=2, generator=seeded())
    samples = sd.sample(model_of(unet, old), 2, sampler, generator=seeded())
    assert torch.equal(state, samples.x)
    assert len(scheduler.states) == samples.nfe + 1


def test_a_method_that_calls_the_network_elsewhere_first_leaves_a_call_idle(pipe: Any, unet: Any, old: Any) -> None:
    sampler = AnnealedLangevin(4, repeats=2)
    state = run(pipe, Recorded(sampler, old), 4, batch_size=2, generator=seeded())
    assert torch.equal(state, sd.sample(model_of(unet, old), 2, sampler, generator=seeded()).x)


def test_rounded_timesteps_are_integers(pipe: Any, unet: Any, old: Any) -> None:
    scheduler = Recorded(Adams(8), old, rounding=True)
    scheduler.set_timesteps(8)
    assert scheduler.timesteps.dtype == torch.int64
    model = model_of(unet, old)
    vars(model.net)["rounding"] = True
    state = run(pipe, scheduler, 8, batch_size=2, generator=seeded())
    assert torch.equal(state, sd.sample(model, 2, Adams(8), generator=seeded()).x)


def test_the_number_of_steps_is_that_of_the_pipeline(pipe: Any, unet: Any, old: Any) -> None:
    scheduler = Recorded(Adams(20), old)
    assert scheduler.num_inference_steps == 20
    state = run(pipe, scheduler, 9, batch_size=1, generator=seeded())
    assert torch.equal(state, sd.sample(model_of(unet, old), 1, Adams(9), generator=seeded()).x)
    assert scheduler.num_inference_steps == 9


def test_a_fixed_grid_has_its_number_of_steps(pipe: Any, unet: Any, old: Any) -> None:
    model = model_of(unet, old)
    times = Adams().grid.times(model.sde, 6)
    sampler = Adams(6, grid=ExplicitGrid(tuple(times)))
    with pytest.raises(ValueError, match="has 6 steps of fixed times, got 10; pass num_inference_steps=6"):
        Scheduler(sampler, old).set_timesteps(10)
    state = run(pipe, Recorded(sampler, old), 6, batch_size=2, generator=seeded())
    assert torch.equal(state, sd.sample(model, 2, sampler, generator=seeded()).x)


@pytest.mark.parametrize(
    "sampler",
    [
        DDIM(10),
        DDPM(10),
        UniPC(10, solver_order=2),
        UniPC(10),
        Heun(10),
        Adams(20, predictor_order=4, corrector_order=3, prediction="x0", variable="artanh_sigma"),
    ],
    ids=repr,
)
def test_a_run_that_begins_later_is_that_from_the_later_state(sampler: Any, unet: Any, old: Any) -> None:
    scheduler, model = Scheduler(sampler, old), model_of(unet, old)
    scheduler.set_timesteps(sampler.steps)
    first = 6 * scheduler.order
    timesteps = scheduler.timesteps[first:]
    scheduler.set_begin_index(first)
    data, noise = torch.randn(2, 2, 1, 8, 8, generator=seeded())
    x = scheduler.add_noise(data, noise, timesteps[:1])
    taus = sampler.for_model(model).grid.times(model.sde, sampler.steps)[6:]
    torch.testing.assert_close(x, ou.alpha(taus[0]) * data + ou.sigma(taus[0]) * noise)
    rest = replace(sampler, steps=len(taus) - 1, grid=ExplicitGrid(tuple(taus)))
    expected = sd.sample(model, x.shape, rest, init=x, start=taus[0], generator=seeded())
    generator = seeded()
    with torch.no_grad():
        for t in timesteps:
            x = scheduler.step(unet(x, t).sample, t, x, generator=generator).prev_sample
    assert torch.equal(x, expected.x)
    assert expected.nfe == len(timesteps)


@pytest.mark.parametrize(
    ("kind", "sampler", "gain"),
    [
        ("v_prediction", Adams(9, prediction="v", variable="angle"), lambda tau, s: 1.0),
        ("sample", UniPC(9), lambda tau, s: ou.sigma(s) / ou.sigma(tau)),
        ("sample", DPMSolverPP(9), lambda tau, s: ou.sigma(s) / ou.sigma(tau)),
        ("epsilon", UniPC(9, prediction="eps"), lambda tau, s: ou.alpha(s) / ou.alpha(tau)),
        ("v_prediction", NonStationary(9), lambda tau, s: 1.0),
    ],
    ids=lambda value: None if callable(value) else repr(value),
)
@pytest.mark.parametrize("changed", [1, 3, 6])
def test_a_change_of_the_state_by_the_pipeline_is_carried_on(kind: str, sampler: Any, gain: Any, changed: int) -> None:
    old = diffusers.DDIMScheduler(prediction_type=kind, clip_sample=False)
    out, x = torch.randn(2, 2, 3, generator=seeded())
    change = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, -2.0]])

    def last(at: int | None) -> tuple[Tensor, list[float]]:
        scheduler, state = Scheduler(sampler, old, event_shape=(3,)), x
        scheduler.set_timesteps(9)
        for i, t in enumerate(scheduler.timesteps):
            if i == at:
                state = state + change
            state = scheduler.step(out, t, state).prev_sample
        plan = scheduler._loop.plan
        return state, [plan.times[at or 0], plan.taus[-1]]

    (plain, _), (moved, (tau, s)) = last(None), last(changed)
    torch.testing.assert_close(moved - plain, gain(tau, s) * change, atol=2e-5, rtol=1e-4)


_FLOW = {"old": "FlowMatchEulerDiscreteScheduler", "options": {}}
_CHAIN = {"old": "DDIMScheduler", "options": {"clip_sample": False}}


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("sampler", [Adams(9), DDIM(9), RungeKutta(3)], ids=lambda sampler: type(sampler).__name__)
@pytest.mark.parametrize("kind", [_CHAIN, _FLOW], ids=["chain", "flow"])
def test_a_change_in_place_is_that_of_a_new_tensor(kind: Any, sampler: Any, dtype: Any, mode: Any) -> None:
    old = getattr(diffusers, kind["old"])(**kind["options"])
    out, x = torch.randn(2, 2, 3, generator=seeded()).to(dtype)

    def last(in_place: bool | None) -> Tensor:
        scheduler, state = Scheduler(sampler, old, event_shape=(3,)), x.clone()
        scheduler.set_timesteps(sampler.steps)
        with mode():
            for i, t in enumerate(scheduler.timesteps):
                if i in (2, 4) and in_place is not None:
                    state = state.mul_(0.5) if in_place else 0.5 * state
                state = scheduler.step(out, t, state).prev_sample
        return state

    assert torch.equal(last(True), last(False))
    assert not torch.equal(last(True), last(None))


def test_an_error_does_not_advance_the_run(old: Any) -> None:
    scheduler, reference = Scheduler(DDPM(4), old), Scheduler(DDPM(4), old)
    x, out = torch.randn(2, 2, 3, generator=seeded())
    times = reference.timesteps
    expected = reference.step(out, times[0], x, generator=seeded()).prev_sample
    with pytest.raises(ValueError, match="generators must be one per sample, 2 here, got 1"):
        scheduler.step(out, times[0], x, generator=[seeded()])
    assert torch.equal(scheduler.step(out, times[0], x, generator=seeded()).prev_sample, expected)
    with pytest.raises(ValueError, match="2, 1"):
        scheduler.step(out[:, :1], times[1], expected, generator=seeded())
    assert scheduler.step_index == 1
    a = scheduler.step(out, times[1], expected, generator=seeded()).prev_sample
    b = reference.step(out, times[1], expected.clone(), generator=seeded()).prev_sample
    torch.testing.assert_close(a, b)


def test_half_precision_keeps_a_wide_state(old: Any) -> None:
    scheduler = Scheduler(DDIM(50), old)
    scheduler.set_timesteps(50)
    x, wide, out = torch.ones(1, 4).half(), torch.ones(1, 4), torch.full((1, 4), 0.1)
    for t in scheduler.timesteps:
        x = scheduler.step(out.half(), t, x).prev_sample
    reference = Scheduler(DDIM(50), old)
    reference.set_timesteps(50)
    for t in reference.timesteps:
        wide = reference.step(out.half(), t, wide).prev_sample
    assert x.dtype == torch.float16
    assert torch.equal(x, wide.half())


def test_the_result_survives_a_folder(tmp_path: Path, pipe: Any, unet: Any, old: Any) -> None:
    scheduler = Scheduler(SASolver(12, corrector_order=2), old, clip_sample=True)
    scheduler.save_pretrained(tmp_path)
    loaded = Scheduler.from_pretrained(tmp_path)
    assert loaded._sampler == SASolver(12, corrector_order=2)
    assert loaded.config == scheduler.config
    assert torch.equal(loaded.timesteps, scheduler.timesteps)
    assert Scheduler.from_config(old.config, sampler=DDIM(4)).num_inference_steps == 4
    back = diffusers.DDIMScheduler.from_config({**scheduler.config})
    assert torch.equal(back.betas, old.betas)


def test_the_moments_of_a_calibrated_sampler_are_stored_beside_it(tmp_path: Path, old: Any) -> None:
    moments = Moments(torch.tensor([0.2, -0.1, 0.0]), torch.eye(3)[:, :2], torch.tensor([0.9, 0.1]), 0.3)
    taus = Adams().grid.times(model_of(torch.nn.Identity(), old).sde, 2)
    weighted = NonStationary(2, ExplicitGrid(tuple(taus)), weights=((1.0, -0.5), (1.0, -0.4, -0.2)))
    Scheduler(Whitened(weighted, moments), old).save_pretrained(tmp_path)
    assert Scheduler.from_pretrained(tmp_path)._sampler == Whitened(weighted, moments)
    old.save_pretrained(tmp_path / "old")
    with pytest.raises(ValueError, match="must be that of a Scheduler, got one of DDPMScheduler without a sampler"):
        Scheduler.from_pretrained(tmp_path / "old")


def test_a_pipeline_saves_and_opens_it(tmp_path: Path, unet: Any, old: Any) -> None:
    pipe = diffusers.DDPMPipeline(unet, old)
    pipe.scheduler = Scheduler(Adams(8), old)
    pipe.save_pretrained(tmp_path)
    opened = diffusers.DDPMPipeline.from_pretrained(tmp_path, local_files_only=True)
    assert isinstance(opened.scheduler, Scheduler)
    assert isinstance(opened.scheduler, diffusers.SchedulerMixin)
    assert opened.scheduler._sampler == Adams(8)


def test_wrong_uses_are_answered(old: Any) -> None:
    scheduler = Scheduler(DDIM(4), old)
    x = torch.zeros(1, 3)
    times = scheduler.timesteps
    with pytest.raises(ValueError, match="must be an entry of Scheduler.timesteps, got 3"):
        scheduler.step(x, 3, x)
    scheduler.step(x, times[0], x)
    with pytest.raises(ValueError, match="must come in their order, next is 749"):
        scheduler.step(x, times[2], x)
    for t in times[1:]:
        scheduler.step(x, t, x)
    with pytest.raises(ValueError, match="all steps have been made; call set_timesteps"):
        scheduler.step(x, times[0], x)
    scheduler.set_timesteps(4)
    with pytest.raises(ValueError, match="the noise of a step is the sampler's, got eta=0.5"):
        scheduler.step(x, times[0], x, eta=0.5)
    with pytest.raises(ValueError, match="generators must be one per sample, 1 here, got 2"):
        Scheduler(DDPM(4), old).step(x, times[0], x, generator=[seeded(), seeded()])
    with pytest.raises(TypeError, match="sampler must be a step sampler, whose calls are known"):
        Scheduler(sd.ODE(), old)
    with pytest.raises(ValueError, match="has no sampler; pass sampler="):
        Scheduler.from_config(old.config)
    with pytest.raises(ValueError, match="no rules are known for the scheduler 'Mine'"):
        Scheduler(DDIM(4), {"replaces": "Mine"})
    with pytest.raises(ValueError, match="does not tell the scheduler's class, got beta_start; pass the scheduler"):
        Scheduler(DDIM(4), {"beta_start": 0.1})
    with pytest.raises(ValueError, match="invert_sigmas counts time from noise to data"):
        Scheduler(DDIM(4), diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True))
    weighted = NonStationary(2, weights=((1.0, 0.0), (1.0, 0.0, 0.0)))
    with pytest.raises(ValueError, match="a calibrated sampler is fitted to whole runs"):
        Scheduler(weighted, old).set_begin_index(1)


def test_ours_of_ours_keeps_its_settings(old: Any) -> None:
    ours = Scheduler(Adams(8), old, event_shape=(1, 8, 8), rounding=True)
    again = Scheduler(DDIM(5), ours)
    assert (again.config.event_shape, again.config.rounding) == ((1, 8, 8), True)
    assert again.timesteps.dtype == torch.int64
    assert Scheduler(DDIM(5), ours.config, rounding=False).config.rounding is False
    assert again.config.replaces == "DDPMScheduler"


def test_wrong_arguments_of_a_scheduler_are_answered(pipe: Any, old: Any) -> None:
    with pytest.raises(TypeError, match="is named 'clip_sampel'; did you mean clip_sample"):
        Scheduler(DDIM(4), old, clip_sampel=False)
    with pytest.raises(TypeError, match=r"scheduler must be the one .* got None; pass pipe.scheduler"):
        Scheduler(DDIM(4), None)
    with pytest.raises(TypeError, match=r"scheduler must be the one .* got a DDPMPipeline; pass pipe.scheduler"):
        Scheduler(DDIM(4), pipe)
    assert repr(Scheduler(DDIM(4), old)) == "Scheduler(DDIM(steps=4, grid=Chain(), eta=0.0), DDPMScheduler)"
    with pytest.raises(TypeError, match=r"event_shape must be the shape of one sample, positive integers, got 64"):
        Scheduler(DDIM(4), old, event_shape=64)
    scheduler = Scheduler(DDIM(4), old)
    with pytest.raises(ValueError, match=r"timesteps must be one or more falling times, got \[\]"):
        scheduler.set_timesteps(timesteps=[])
    with pytest.raises(ValueError, match=r"a timestep must lie in \(-1, 999\] with this scheduler, got 5000"):
        scheduler.set_timesteps(timesteps=[5000, 10])
    with pytest.raises(ValueError, match=r"sigmas must be one or more falling times, got \[1.0, 2.0\]"):
        scheduler.set_timesteps(sigmas=[1.0, 2.0])
    scheduler.set_timesteps(4)
    with pytest.raises(ValueError, match=r"no call is left; with a strength, take one of at least 1/num_inference"):
        scheduler.set_begin_index(4)


@pytest.mark.parametrize(
    "sampler",
    [ERSDE(6), SASolver(6), DPMSolver(6), DPMSolverPP(6), PredictorCorrector(6), Heun(6), UniPC(6)],
    ids=lambda sampler: type(sampler).__name__,
)
def test_a_sampler_that_needs_signal_at_its_start_is_refused_with_those_that_do_not(sampler: Any) -> None:
    scheduler = Scheduler(sampler, diffusers.FlowMatchEulerDiscreteScheduler(), event_shape=(3,))
    name = type(sampler).__name__
    with pytest.raises(ValueError, match=rf"{name} needs a start with some signal, .*; take Adams, DDIM, DDPM, "):
        scheduler.set_timesteps(6)


@pytest.mark.parametrize("sampler", [Adams(6), DDIM(6), DDPM(6), NonStationary(6), RungeKutta(3)], ids=repr)
def test_the_samplers_of_that_answer_start_from_noise_alone(sampler: Any) -> None:
    old = diffusers.FlowMatchEulerDiscreteScheduler()
    x = torch.randn(2, 3, generator=seeded())
    assert loop(Scheduler(sampler, old, event_shape=(3,)), x, sampler.steps).isfinite().all()


def test_moments_are_kept_as_files_hold_them(tmp_path: Path, old: Any) -> None:
    axes = torch.linalg.qr(torch.randn(3, 3, generator=seeded())).Q[:, :2]
    moments = Moments(torch.zeros(3), axes.mT.contiguous().mT, torch.tensor([0.9, 0.1]), 0.3)
    assert moments.axes.is_contiguous()
    Scheduler(Whitened(Adams(4), moments), old).save_pretrained(tmp_path)
    assert Scheduler.from_pretrained(tmp_path)._sampler.moments.axes.stride() == moments.axes.stride()
