"""Folders of diffusers: one network call and whole chains against diffusers' own schedulers, on the same noise."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers_peer import FOLDERS, in_float64, peer_chain, peer_network, peer_scheduler, relative
from torch import Tensor

from scoresde.bridges.diffusers import open_folder, recognize
from scoresde.bridges.diffusers.settings import _OF_CLASS, _ONLY, BETA_CHAINS, DEFAULTS, EDM, FLOW, SchedulerSettings
from scoresde.bridges.opened import Opened
from scoresde.process.parameterization import Eps, V, Velocity
from scoresde.sampling import DDIM, DDPM, DPMSolverPP, Heun, SDEDPMSolverPP, StepSampler, UniPC, sample

diffusers = pytest.importorskip("diffusers")
CHAINS = ("linear", "zero-snr")
# diffusers converts tensors to NumPy in a way that NumPy 2 deprecates
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def first_state(seed: int = 0) -> Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def with_scheduler(tmp_path: Path, base: str, name: str, **settings: Any) -> Path:
    """A copy of a folder with another scheduler, written by diffusers."""
    folder = tmp_path / "copy"
    shutil.copytree(FOLDERS / base, folder)
    peer_scheduler(folder, name, **settings).save_pretrained(folder / "scheduler")
    return folder


def ours(opened: Opened, init: Tensor, generator: torch.Generator | None = None) -> Tensor:
    assert opened.sampler is not None
    steered = opened.steered.double() if init.dtype == torch.float64 else opened.steered
    return sample(steered, len(init), opened.sampler, start=opened.start, init=init, generator=generator).x


def finding(opened: Opened, name: str) -> str:
    return next(f"{entry.value}; {entry.why}" for entry in opened.findings if entry.name == name)


# --- one call ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHAINS)
def test_one_call_at_each_knot_is_the_networks_own(name: str) -> None:
    opened, network = open_folder(FOLDERS / name), peer_network(FOLDERS / name, torch.float32)
    clock, x = opened.model.sde.schedule, first_state().float()
    for k in (1, 2, 250, 999, 1000):
        with torch.no_grad():
            out = network(x, k - 1).sample
            assert relative(opened.model(x, clock.tau(k / 1000)).out, out) < 1e-6


@pytest.mark.parametrize(
    ("name", "scheduler", "parameterization"),
    [("linear", "DDPMScheduler", Eps()), ("zero-snr", "DDPMScheduler", V())],
)
def test_the_clock_is_that_of_the_float32_betas_in_float64(name: str, scheduler: str, parameterization: Any) -> None:
    model = open_folder(FOLDERS / name).model
    betas = peer_scheduler(FOLDERS / name, scheduler).betas
    assert model.sde.schedule.betas == tuple(betas.double().tolist())  # pyright: ignore[reportAttributeAccessIssue]
    assert model.parameterization == parameterization
    assert model.sde.tau_min == pytest.approx(-0.5 * math.log1p(-float(betas[0])), rel=1e-12)


@pytest.mark.parametrize(
    "settings",
    [
        {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"beta_schedule": "sigmoid"},
        {"beta_schedule": "scaled_linear", "rescale_betas_zero_snr": True},
        {"beta_schedule": "squaredcos_cap_v2", "rescale_betas_zero_snr": True},
        {"trained_betas": [0.1, 0.2, 0.3], "num_train_timesteps": 3},
    ],
    ids=str,
)
def test_betas_are_those_of_the_scheduler_bit_by_bit(settings: dict[str, Any]) -> None:
    from scoresde.bridges.diffusers.betas import beta_clock

    peer = diffusers.DDPMScheduler(**settings)
    clock = beta_clock(SchedulerSettings("DDPMScheduler", dict(peer.config)))
    assert clock.betas == tuple(peer.betas.double().tolist())


def test_schedulers_that_step_in_sigma_replace_the_last_alpha_bar_of_a_zero_terminal_snr() -> None:
    from scoresde.bridges.diffusers.betas import beta_clock

    peer = diffusers.EulerDiscreteScheduler(rescale_betas_zero_snr=True, beta_schedule="scaled_linear")
    clock = beta_clock(SchedulerSettings("EulerDiscreteScheduler", dict(peer.config)))
    assert math.exp(-2 * clock.tau_max) == pytest.approx(2**-24, rel=1e-9)
    assert float(peer.alphas_cumprod[-1]) == 2**-24


# --- chains -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("base", CHAINS)
@pytest.mark.parametrize("clipped_output", [False, True])
def test_fifty_steps_of_ddim_are_theirs_with_either_noise_estimate(base: str, clipped_output: bool) -> None:
    folder, x = FOLDERS / base, first_state()
    settings = {"clip_sample": True}
    scheduler = in_float64(peer_scheduler(folder, "DDIMScheduler", **settings))
    expected = peer_chain(scheduler, peer_network(folder), x, 50, use_clipped_model_output=clipped_output)
    opened = open_folder(folder, scheduler="DDIMScheduler", use_clipped_model_output=clipped_output)
    if base == "zero-snr":
        from scoresde.guidance import Clipping

        steered = Clipping(opened.model, keep_eps=not clipped_output)
        opened = Opened(opened.model, "diffusers", opened.findings, steered, opened.sampler, opened.start)
    assert relative(ours(opened, x), expected) < 1e-12
    other = peer_chain(scheduler, peer_network(folder), x, 50, use_clipped_model_output=not clipped_output)
    assert relative(other, expected) > 1e-3  # the two differ, so that the test tells them apart


def test_in_float32_the_difference_from_ddim_is_the_rounding_of_the_peer() -> None:
    folder, x = FOLDERS / "linear", first_state()
    exact = peer_chain(in_float64(peer_scheduler(folder, "DDIMScheduler")), peer_network(folder), x, 50)
    released = peer_chain(peer_scheduler(folder, "DDIMScheduler"), peer_network(folder, torch.float32), x.float(), 50)
    opened = open_folder(folder, scheduler="DDIMScheduler")
    assert relative(released.double(), exact) < 1e-5
    assert relative(ours(opened, x.float()).double(), exact) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("base", CHAINS)
def test_the_thousand_steps_of_ddpm_are_theirs(base: str) -> None:
    folder, x = FOLDERS / base, first_state()
    scheduler = in_float64(peer_scheduler(folder, "DDPMScheduler"))
    expected = peer_chain(scheduler, peer_network(folder), x, 1000, torch.Generator().manual_seed(1))
    opened = open_folder(folder)
    assert opened.sampler == DDPM(1000, opened.sampler.grid)  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    assert relative(ours(opened, x, torch.Generator().manual_seed(1)), expected) < 1e-9


SCHEDULERS = [
    *(
        ("linear", name, {"timestep_spacing": spacing}, kind)
        for spacing in ("leading", "linspace", "trailing")
        for name, kind in (
            ("DDPMScheduler", DDPM),
            ("DPMSolverMultistepScheduler", DPMSolverPP),
            ("UniPCMultistepScheduler", UniPC),
            ("EulerDiscreteScheduler", DDIM),
            ("EulerAncestralDiscreteScheduler", DDIM),
            ("HeunDiscreteScheduler", Heun),
        )
    ),
    ("linear", "DDIMScheduler", {"timestep_spacing": "trailing"}, DDIM),
    ("linear", "DDIMScheduler", {"steps_offset": 1, "set_alpha_to_one": False}, DDIM),
    ("zero-snr", "DDIMScheduler", {"set_alpha_to_one": False}, DDIM),
    ("linear", "DDIMScheduler", {"set_alpha_to_one": False, "clip_sample": False}, DDIM),
    ("linear", "DDPMScheduler", {"variance_type": "fixed_small_log"}, DDPM),
    ("linear", "DDPMScheduler", {"variance_type": "fixed_large"}, DDPM),
    ("linear", "DDPMScheduler", {"prediction_type": "sample", "clip_sample_range": 0.7}, DDPM),
    ("linear", "DDIMScheduler", {"thresholding": True, "sample_max_value": 1.5}, DDIM),
    ("linear", "DDIMScheduler", {"thresholding": True}, DDIM),
    ("zero-snr", "DDPMScheduler", {"thresholding": True, "dynamic_thresholding_ratio": 0.9}, DDPM),
    ("linear", "DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min"}, DPMSolverPP),
    ("linear", "DPMSolverMultistepScheduler", {"solver_order": 1, "thresholding": True}, DPMSolverPP),
    ("zero-snr", "DPMSolverMultistepScheduler", {}, DPMSolverPP),
    ("zero-snr", "UniPCMultistepScheduler", {"thresholding": True}, UniPC),
    ("linear", "UniPCMultistepScheduler", {"solver_order": 1}, UniPC),
    ("zero-snr", "EulerDiscreteScheduler", {}, DDIM),
    ("zero-snr", "HeunDiscreteScheduler", {"clip_sample": True}, Heun),
    ("linear", "EulerDiscreteScheduler", {"use_karras_sigmas": True}, DDIM),
    ("linear", "DPMSolverMultistepScheduler", {"use_karras_sigmas": True}, DPMSolverPP),
    ("zero-snr", "DPMSolverMultistepScheduler", {"use_lu_lambdas": True}, DPMSolverPP),
    ("zero-snr", "UniPCMultistepScheduler", {"use_karras_sigmas": True}, UniPC),
    ("linear", "EulerDiscreteScheduler", {"use_exponential_sigmas": True, "timestep_spacing": "leading"}, DDIM),
    ("linear", "HeunDiscreteScheduler", {"use_karras_sigmas": True, "timestep_spacing": "leading"}, Heun),
]


@pytest.mark.parametrize(("base", "name", "settings", "kind"), SCHEDULERS, ids=lambda v: str(v).replace(" ", ""))
def test_a_chain_of_20_steps_is_that_of_the_scheduler(
    base: str, name: str, settings: dict[str, Any], kind: type, tmp_path: Path
) -> None:
    folder, x = with_scheduler(tmp_path, base, name, **settings), first_state()
    opened, scheduler = open_folder(folder, steps=20), in_float64(peer_scheduler(folder, name))
    assert isinstance(opened.sampler, StepSampler)
    assert isinstance(opened.sampler, kind)
    scheduler.set_timesteps(20)
    in_sigma = name.startswith(("Euler", "Heun"))  # whose state is x/α
    alpha = math.exp(-(opened.model.sde.tau_max if opened.start is None else opened.start)) if in_sigma else 1.0
    noised, seeded = x * float(scheduler.init_noise_sigma), opened.sampler.stochastic
    expected = peer_chain(
        scheduler, peer_network(folder), noised, 20, torch.Generator().manual_seed(1) if seeded else None
    )
    drawn = ours(opened, noised * alpha, torch.Generator().manual_seed(1) if seeded else None)
    # Euler, Heun and DPM-Solver++ keep their noise levels and states in float32
    in_alpha_bar = name.startswith(("DDIM", "DDPM"))
    assert relative(drawn, expected.double()) < (1e-9 if in_alpha_bar else 1e-5)


@pytest.mark.parametrize("settings", [{"shift": 1.0}, {"shift": 3.0}], ids=str)
def test_flow_matching_steps_are_those_of_the_scheduler(settings: dict[str, Any], tmp_path: Path) -> None:
    folder, x = with_scheduler(tmp_path, "flow", "FlowMatchEulerDiscreteScheduler", **settings), first_state()
    expected = peer_chain(peer_scheduler(folder, "FlowMatchEulerDiscreteScheduler"), peer_network(folder), x, 28)
    assert relative(ours(open_folder(folder), x), expected) < 1e-5  # the scheduler's state is float32


def test_a_dynamic_shift_follows_the_number_of_tokens(tmp_path: Path) -> None:
    settings = {"use_dynamic_shifting": True, "base_image_seq_len": 16, "max_image_seq_len": 100}
    folder, x = with_scheduler(tmp_path, "flow", "FlowMatchEulerDiscreteScheduler", **settings), first_state()
    scheduler, network = peer_scheduler(folder, "FlowMatchEulerDiscreteScheduler"), peer_network(folder)
    from diffusers.pipelines.flux.pipeline_flux import calculate_shift

    mu = calculate_shift(64, 16, 100, scheduler.config.base_shift, scheduler.config.max_shift)
    scheduler.set_timesteps(10, mu=mu)
    scheduler.set_timesteps = lambda steps: None
    expected = peer_chain(scheduler, network, x, 10)
    assert relative(ours(open_folder(folder, steps=10), x), expected) < 1e-5


def test_one_call_of_a_flow_network_is_its_own() -> None:
    model, network = open_folder(FOLDERS / "flow").model, peer_network(FOLDERS / "flow", torch.float32)
    assert model.parameterization == Velocity()
    for sigma in (0.01, 0.4, 1.0):
        tau = float(model.sde.schedule.tau(sigma))
        noised = first_state().float()  # (1 - σ) x0 + σ ε
        with torch.no_grad():
            out = network(noised, torch.tensor(1000 * sigma)).sample
            assert relative(model(noised / float(model.sde.scale(tau)), tau).out, out) < 1e-6


def test_sde_dpm_solver_is_theirs(tmp_path: Path) -> None:
    settings = {"algorithm_type": "sde-dpmsolver++"}
    folder, x = with_scheduler(tmp_path, "linear", "DPMSolverMultistepScheduler", **settings), first_state().float()
    scheduler = peer_scheduler(folder, "DPMSolverMultistepScheduler")
    expected = peer_chain(scheduler, peer_network(folder, torch.float32), x, 20, torch.Generator().manual_seed(1))
    opened = open_folder(folder, steps=20)
    assert isinstance(opened.sampler, SDEDPMSolverPP)
    assert relative(ours(opened, x, torch.Generator().manual_seed(1)), expected) < 1e-5


def test_the_clipped_output_is_a_setting_of_ddim_alone() -> None:
    with pytest.raises(ValueError, match=r"is a setting of DDIM's step, got it with DDPMScheduler"):
        open_folder(FOLDERS / "linear", use_clipped_model_output=True)


# --- what has no equal ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "why"),
    [
        ("DDIMScheduler", {"timestep_spacing": "linspace"}, "its steps lead 50 timesteps down"),
        ("DDIMScheduler", {"set_alpha_to_one": False}, "its last step leads from τ_1 to τ_1"),
        ("DDPMScheduler", {"variance_type": "fixed_large_log"}, "which is NaN"),
        ("DDPMScheduler", {"variance_type": "fixed_large", "timestep_spacing": "trailing"}, "noise in its last step"),
        ("DPMSolverMultistepScheduler", {"solver_order": 3}, "no equal here"),
        ("DPMSolverMultistepScheduler", {"use_exponential_sigmas": True}, "have no equal here"),
        ("DPMSolverMultistepScheduler", {"use_beta_sigmas": True}, "have no equal here"),
        ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "sigma_max": 20.0}, "not those of its betas"),
        ("DPMSolverMultistepScheduler", {"solver_type": "heun"}, "no equal here"),
        ("UniPCMultistepScheduler", {"solver_order": 3}, "no equal here"),
        ("UniPCMultistepScheduler", {"solver_type": "bh1"}, "no equal here"),
        ("EulerDiscreteScheduler", {"final_sigmas_type": "sigma_min"}, "ends at sigma_min"),
        ("PNDMScheduler", {}, "no equal here"),
        ("LMSDiscreteScheduler", {}, "no equal here"),
        ("LCMScheduler", {}, "samples a distilled network"),
    ],
    ids=str,
)
def test_a_scheduler_without_an_equal_is_said_to_have_none(
    name: str, settings: dict[str, Any], why: str, tmp_path: Path
) -> None:
    opened = open_folder(with_scheduler(tmp_path, "linear", name, **settings), steps=20)
    assert opened.sampler is None
    assert why in finding(opened, "sampler")
    assert "; take " in finding(opened, "sampler")


def test_a_variance_of_one_value_per_element_is_refused(tmp_path: Path) -> None:
    folder = with_scheduler(tmp_path, "linear", "DDPMScheduler", variance_type="learned")
    with pytest.raises(ValueError, match="variance_type must be one of fixed_small, .* got 'learned'"):
        open_folder(folder)


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*BETA_CHAINS, *FLOW, *EDM, "ScoreSdeVeScheduler"])
def test_the_entries_and_the_defaults_of_a_scheduler_are_those_of_its_class(name: str) -> None:
    import inspect

    parameters = inspect.signature(getattr(diffusers, name).__init__).parameters
    settings = SchedulerSettings(name, {})
    for entry in DEFAULTS:
        if entry in parameters:
            assert settings[entry] == parameters[entry].default, entry
    for entry in _ONLY:
        stated = SchedulerSettings(name, {entry: "stated"})[entry]
        assert (stated == "stated") == (entry in parameters), entry
    assert set(_OF_CLASS) <= {*BETA_CHAINS, *FLOW, *EDM, "ScoreSdeVeScheduler"}


def test_what_the_file_leaves_out_is_assumed_and_said(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(FOLDERS / "linear", folder)
    (folder / "scheduler" / "scheduler_config.json").write_text('{"_class_name": "DDPMScheduler"}')
    opened = open_folder(folder)
    by_name = {entry.name: entry for entry in opened.findings}
    assert by_name["prediction"].source == by_name["clock"].source == "assumed"
    assert by_name["prediction"].why == "the default of DDPMScheduler"
    assert {entry.source for entry in open_folder(FOLDERS / "linear").findings if entry.name == "prediction"} == {
        "stated"
    }


def test_neither_the_bridge_nor_the_adapter_imports_diffusers() -> None:
    import subprocess
    import sys

    code = (
        "import sys, scoresde.adapters.diffusers_network, scoresde.bridges.diffusers; print('diffusers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- folders ----------------------------------------------------------------------------------------------------------


def test_folders_of_diffusers_are_recognized_by_their_small_files(tmp_path: Path) -> None:
    assert recognize(FOLDERS / "linear")
    assert recognize(FOLDERS / "linear" / "unet")
    assert not recognize(FOLDERS)
    assert not recognize(FOLDERS / "linear" / "model_index.json")
    assert not recognize(tmp_path / "absent")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert not recognize(tmp_path)


def test_a_model_folder_takes_the_scheduler_of_the_pipeline_around_it() -> None:
    whole, part = open_folder(FOLDERS / "linear"), open_folder(FOLDERS / "linear" / "unet")
    assert part.model.sde == whole.model.sde
    x = first_state().float()
    assert torch.equal(part.model(x, 0.5).out, whole.model(x, 0.5).out)


def test_a_path_or_an_event_shape_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="path must be a folder of diffusers, got .*absent"):
        open_folder(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"must hold one network, in a folder unet or transformer.*got none"):
        open_folder(tmp_path)
    with pytest.raises(ValueError, match=r"event_shape must be \(1, height, width\), got \(3, 8, 8\)"):
        open_folder(FOLDERS / "linear", event_shape=(3, 8, 8))
    opened = open_folder(FOLDERS / "linear", event_shape=(1, 16, 12))
    assert sample(opened.model, 2, DDIM(2)).data.shape == (2, 1, 16, 12)


def test_a_folder_without_a_scheduler_is_refused(tmp_path: Path) -> None:
    shutil.copytree(FOLDERS / "linear" / "unet", tmp_path / "unet")
    with pytest.raises(FileNotFoundError, match=r"must hold scheduler_config.json.*save_pretrained"):
        open_folder(tmp_path / "unet")


def test_a_pipeline_whose_network_lies_beside_its_index_is_opened(tmp_path: Path) -> None:
    """As early pipelines such as google/ddpm-cifar10-32 are stored; their scheduler does not name its class."""
    for file in ("unet/config.json", "unet/diffusion_pytorch_model.safetensors", "model_index.json"):
        shutil.copy(FOLDERS / "linear" / file, tmp_path)
    settings = json.loads((FOLDERS / "linear/scheduler/scheduler_config.json").read_text())
    del settings["_class_name"]
    (tmp_path / "scheduler_config.json").write_text(json.dumps(settings))
    opened, right = open_folder(tmp_path), open_folder(FOLDERS / "linear")
    assert opened.sampler == right.sampler
    assert torch.equal(opened.model(first_state().float(), 0.5).out, right.model(first_state().float(), 0.5).out)


def test_half_precision_weights_stay_so(tmp_path: Path) -> None:
    network = diffusers.UNet2DModel.from_pretrained(FOLDERS / "linear" / "unet", torch_dtype=torch.float16)
    network.save_pretrained(tmp_path / "unet", variant="fp16")
    shutil.copytree(FOLDERS / "linear" / "scheduler", tmp_path / "scheduler")
    opened, x = open_folder(tmp_path), first_state().float()
    assert {parameter.dtype for parameter in opened.model.parameters()} == {torch.float16}
    assert finding(opened, "size").startswith("90253 parameters, float16")
    out = opened.model(x, 0.5).out
    assert out.dtype == torch.float32
    assert relative(out, open_folder(FOLDERS / "linear").model(x, 0.5).out) < 0.01


def test_a_learned_variance_needs_a_network_that_returns_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must return twice the channels, got out_channels = 1"):
        open_folder(with_scheduler(tmp_path, "linear", "DDPMScheduler", variance_type="learned_range"))


def test_an_autoencoder_that_the_index_names_must_be_there(tmp_path: Path) -> None:
    shutil.copytree(FOLDERS / "linear", tmp_path / "copy")
    index = json.loads((tmp_path / "copy/model_index.json").read_text())
    (tmp_path / "copy/model_index.json").write_text(json.dumps({**index, "vae": ["diffusers", "AutoencoderKL"]}))
    with pytest.raises(FileNotFoundError, match=r"model_index.json names vae, but there is no .*vae; copy it"):
        open_folder(tmp_path / "copy")


def test_a_scheduler_without_rules_is_refused(tmp_path: Path) -> None:
    shutil.copytree(FOLDERS / "linear", tmp_path / "copy")
    (tmp_path / "copy/scheduler/scheduler_config.json").write_text('{"_class_name": "EulerDiscreteSchedulr"}')
    with pytest.raises(ValueError, match="no rules are known for the scheduler 'EulerDiscreteSchedulr'; did you mean"):
        open_folder(tmp_path / "copy")


def test_averaged_weights_are_taken_where_the_folder_has_them(tmp_path: Path) -> None:
    from diffusers.training_utils import EMAModel
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "copy"
    shutil.copytree(FOLDERS / "linear", folder)
    network = diffusers.UNet2DModel.from_pretrained(folder / "unet")
    average = EMAModel(network.parameters(), model_cls=diffusers.UNet2DModel, model_config=network.config)
    average.save_pretrained(folder / "unet_ema")  # its configuration has further entries
    assert "optimization_step" in json.loads((folder / "unet_ema" / "config.json").read_text())
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: 2 * value for name, value in load_file(file).items()}, file)
    x, right = first_state().float(), open_folder(FOLDERS / "linear").model
    averaged, raw = open_folder(folder), open_folder(folder, ema=False)
    assert torch.equal(averaged.model(x, 0.5).out, right(x, 0.5).out)
    assert not torch.equal(raw.model(x, 0.5).out, right(x, 0.5).out)
    assert finding(averaged, "weights").startswith("exponential moving average")
    with pytest.raises(ValueError, match="must hold averaged weights in unet_ema, got none"):
        open_folder(FOLDERS / "linear", ema=True)
    with pytest.raises(ValueError, match="is the folder of a network, got ema=True"):
        open_folder(folder / "unet", ema=True)


def test_variants_and_shards_are_read(tmp_path: Path) -> None:
    network = diffusers.UNet2DModel.from_pretrained(FOLDERS / "linear" / "unet")
    x, right = first_state().float(), open_folder(FOLDERS / "linear").model(first_state().float(), 0.5).out
    for options, passed in (
        ({"variant": "fp32"}, None),
        ({"variant": "fp32"}, "fp32"),
        ({"max_shard_size": "150KB"}, None),
        ({"max_shard_size": "150KB", "variant": "fp32"}, "fp32"),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(FOLDERS / "linear" / "scheduler", folder / "scheduler")
        network.save_pretrained(folder / "unet", **options)
        assert torch.equal(open_folder(folder, variant=passed).model(x, 0.5).out, right)
    with pytest.raises(FileNotFoundError, match=r"diffusion_pytorch_model.fp16.safetensors, got fp32; pass variant"):
        open_folder(folder, variant="fp16")


def test_a_network_that_is_given_gets_the_weights_and_diffusers_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    config = json.loads((FOLDERS / "linear" / "unet" / "config.json").read_text())
    network = diffusers.UNet2DModel.from_config(config)
    expected = open_folder(FOLDERS / "linear").model(first_state().float(), 0.5).out
    import sys

    monkeypatch.setitem(sys.modules, "diffusers", None)  # as where it is not installed
    with pytest.raises(ImportError, match=r"pip install 'scoresde\[diffusers\]'.*net="):
        open_folder(FOLDERS / "linear")
    opened = open_folder(FOLDERS / "linear", net=network.eval())
    assert torch.equal(opened.model(first_state().float(), 0.5).out, expected)
    assert opened.model.event_shape == (1, 8, 8)


def test_a_network_of_the_users_own_class_gets_the_weights() -> None:
    class Mine(diffusers.UNet2DModel):
        """Is called as net(x, t), and returns an object with a member `sample`."""

    network = Mine.from_config(json.loads((FOLDERS / "linear" / "unet" / "config.json").read_text()))
    opened = open_folder(FOLDERS / "linear", net=network.eval())
    assert opened.model.net.net is network
    x = first_state().float()
    assert torch.equal(opened.model(x, 0.5).out, open_folder(FOLDERS / "linear").model(x, 0.5).out)


def test_weights_that_do_not_fit_are_listed_and_nothing_is_loaded() -> None:
    network = diffusers.UNet2DModel.from_config(FOLDERS / "linear" / "unet", block_out_channels=(12, 12))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"the weights must fit the network.*of another shape: .*down_blocks"):
        open_folder(FOLDERS / "linear", net=network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_images_are_bytes_over_127_and_a_half() -> None:
    model = open_folder(FOLDERS / "linear").model
    assert model.data is not None
    values = torch.tensor([0, 100, 255], dtype=torch.uint8).reshape(3, 1, 1, 1).expand(3, 1, 8, 8)
    x = model.data.to_model(model.data.center(values))
    torch.testing.assert_close(
        x[:, 0, 0, 0], torch.tensor([0 / 127.5 - 1, 100 / 127.5 - 1, 1.0]) + 0.5 / 127.5 - 0.5 / 127.5
    )
    assert torch.equal(model.data.to_data(x), values)


def test_a_network_that_is_given_keeps_its_type(tmp_path: Path) -> None:
    network = diffusers.UNet2DModel.from_pretrained(FOLDERS / "linear" / "unet", torch_dtype=torch.float16)
    network.save_pretrained(tmp_path / "unet", variant="fp16")
    shutil.copytree(FOLDERS / "linear" / "scheduler", tmp_path / "scheduler")
    mine = diffusers.UNet2DModel.from_config(FOLDERS / "linear" / "unet")
    opened = open_folder(tmp_path, net=mine)
    assert {parameter.dtype for parameter in mine.parameters()} == {torch.float32}
    assert torch.equal(mine.conv_in.weight, network.conv_in.weight.float())
    assert finding(opened, "type of the weights") == "float32, as net has them; argument net"


def test_more_steps_than_the_chain_has_are_refused() -> None:
    with pytest.raises(ValueError, match="steps must be at most num_train_timesteps = 1000 of .*, got 1001"):
        open_folder(FOLDERS / "linear", steps=1001)
    assert open_folder(FOLDERS / "linear", steps=1000).sampler is not None
