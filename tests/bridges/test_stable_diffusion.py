"""Our samplers in pipelines with text, guidance, callbacks and img2img, against `sample` on the same noise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from bridges.tiny_diffusers import model_of
from bridges.tiny_stable_diffusion import GuidedUNet, components
from torch import Tensor

import scoresde as sd
from scoresde.model import ScoreModel
from scoresde.sampling import DDIM, ERSDE, Adams, ExplicitGrid, Heun, SASolver, UniPC

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("transformers")
Scheduler = pytest.importorskip("scoresde.bridges.diffusers").Scheduler

WEIGHT = 4.0


@pytest.fixture(scope="module")
def old() -> Any:
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    return diffusers.DDIMScheduler(**betas, clip_sample=False, set_alpha_to_one=False, steps_offset=1)


@pytest.fixture(scope="module")
def parts(old: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return components(tmp_path_factory.mktemp("vocabulary"), old)


@pytest.fixture(scope="module")
def pipe(parts: dict[str, Any]) -> Any:
    pipe = diffusers.StableDiffusionPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def model(pipe: Any, old: Any) -> ScoreModel:
    """The guided network as a model, by the pipeline's embeddings of the prompt."""
    with torch.no_grad():
        prompt, null = pipe.encode_prompt("a cat", "cpu", 1, True, None)
    return model_of(GuidedUNet(pipe.unet, null, prompt, WEIGHT), old, (4, 8, 8))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def options(sampler: Any, **more: Any) -> dict[str, Any]:
    generated = {"generator": seeded(), "output_type": "latent", "num_inference_steps": sampler.steps}
    return {"prompt": "a cat", "guidance_scale": WEIGHT, **generated, **more}


@pytest.mark.parametrize("sampler", [Adams(10), Heun(4), SASolver(6), ERSDE(6)], ids=lambda s: type(s).__name__)
def test_a_guided_text_pipeline_gives_the_samples_of_sample(sampler: Any, pipe: Any, old: Any, model: Any) -> None:
    pipe.scheduler = Scheduler(sampler, old)
    latents = pipe(**options(sampler, height=16, width=16)).images
    assert torch.equal(latents, sd.sample(model, 1, sampler, generator=seeded()).x)


def test_a_callback_sees_every_call_and_may_change_the_state(pipe: Any, old: Any, model: Any) -> None:
    seen: list[tuple[int, float]] = []

    def watch(_: Any, i: int, t: Tensor, values: dict[str, Tensor]) -> dict[str, Tensor]:
        seen.append((i, float(t)))
        return {"latents": values["latents"] * 0 + 0.25} if i == 3 else {}

    sampler = DDIM(6)
    pipe.scheduler = Scheduler(sampler, old)
    latents = pipe(**options(sampler, height=16, width=16, callback_on_step_end=watch)).images
    times = sampler.grid.times(model.sde, 6)
    assert seen == list(enumerate(pipe.scheduler.timesteps.tolist()))
    rest = DDIM(2, grid=ExplicitGrid(tuple(times[4:])))
    constant = torch.full((1, 4, 8, 8), 0.25)
    assert torch.equal(latents, sd.sample(model, 1, rest, init=constant, start=times[4], generator=seeded()).x)


@pytest.mark.parametrize("sampler", [DDIM(10), UniPC(10), Heun(10)], ids=lambda s: type(s).__name__)
def test_img2img_is_a_run_from_the_noised_latents(sampler: Any, parts: dict[str, Any], old: Any, model: Any) -> None:
    pipe = diffusers.StableDiffusionImg2ImgPipeline(**parts)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = Scheduler(sampler, old)
    first: list[Tensor] = []
    step = pipe.scheduler.step
    pipe.scheduler.step = lambda out, t, x, **more: (first.append(x), step(out, t, x, **more))[1]
    image = torch.rand(1, 3, 16, 16, generator=seeded())
    latents = pipe(**options(sampler, image=image, strength=0.4)).images
    times = sampler.for_model(model).grid.times(model.sde, 10)[6:]
    rest = replace(sampler, steps=4, grid=ExplicitGrid(tuple(times)))
    expected = sd.sample(model, 1, rest, init=first[0], start=times[0], generator=seeded())
    assert torch.equal(latents, expected.x)
    assert len(first) == expected.nfe
