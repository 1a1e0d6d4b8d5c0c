"""Folders of diffusers in and out: a model that is opened, sampled in its own pipeline, saved and opened again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers_peer import FOLDERS
from torch import Tensor

import scoresde as sd
from scoresde.bridges.diffusers import Scheduler, open_folder, save
from scoresde.process import Eps, Flow, V

diffusers = pytest.importorskip("diffusers")


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(4)


@pytest.mark.parametrize(("name", "target"), [("linear", Eps()), ("zero-snr", V())])
def test_the_pipeline_of_a_folder_gives_the_samples_of_the_opened_model(name: str, target: Any) -> None:
    opened = open_folder(FOLDERS / name)
    assert opened.model.parameterization == target
    pipe = diffusers.DDPMPipeline.from_pretrained(FOLDERS / name, local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    scheduler = Scheduler(sd.Adams(10), pipe.scheduler, event_shape=opened.model.event_shape, clip_sample=False)
    states: list[Tensor] = []
    step = scheduler.step
    scheduler.step = lambda *args, **named: (out := step(*args, **named), states.append(out.prev_sample))[0]
    pipe.scheduler = scheduler
    pipe(batch_size=2, generator=seeded(), num_inference_steps=10, output_type="np")
    assert torch.equal(states[-1], sd.sample(opened.model, 2, sd.Adams(10), generator=seeded()).x)


@pytest.mark.parametrize("name", ["linear", "zero-snr", "flow"])
def test_an_opened_model_that_is_saved_opens_as_the_same(name: str, tmp_path: Path) -> None:
    model = open_folder(FOLDERS / name).model
    again = open_folder(save(model, tmp_path / "saved")).model
    assert type(again.sde) is type(model.sde)
    assert again.parameterization == model.parameterization
    if not isinstance(model.sde, Flow):
        knots = [again.sde.schedule.knots(1000), model.sde.schedule.knots(1000)]
        torch.testing.assert_close(torch.tensor(knots[0][:-1]), torch.tensor(knots[1][:-1]), rtol=1e-5, atol=1e-9)
    x = torch.randn(2, *(model.event_shape or ()), generator=seeded())
    for tau in (0.02, 0.4, 2.0):
        torch.testing.assert_close(again(x, tau).out, model(x, tau).out, rtol=1e-4, atol=1e-4)


def test_a_pipeline_that_was_saved_with_our_scheduler_opens_with_its_sampler(tmp_path: Path) -> None:
    pipe = diffusers.DDPMPipeline.from_pretrained(FOLDERS / "linear", local_files_only=True)
    pipe.scheduler = Scheduler(sd.Adams(7), pipe.scheduler, event_shape=(1, 8, 8))
    pipe.save_pretrained(tmp_path)
    opened, plain = sd.open_model(tmp_path), open_folder(FOLDERS / "linear")
    assert opened.sampler == sd.Adams(7)
    assert open_folder(tmp_path, steps=5).sampler == sd.Adams(5)
    assert (opened.model.sde, opened.model.parameterization) == (plain.model.sde, plain.model.parameterization)
    x = torch.randn(2, 1, 8, 8, generator=seeded())
    assert torch.equal(sd.load(tmp_path)(x, 0.4).out, plain.model(x, 0.4).out)
    assert isinstance(open_folder(tmp_path, scheduler="DDIMScheduler", steps=10).sampler, sd.DDIM)
