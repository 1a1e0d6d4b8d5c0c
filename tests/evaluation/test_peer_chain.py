"""`diffusers_chain`: the chain of an opened model against diffusers' scheduler, with the options of its opening."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers_peer import FOLDERS
from torch import Tensor, nn

import scoresde as sd
from scoresde.bridges.diffusers import open_folder
from scoresde.evaluation.verify import Check, diffusers_chain

FOLDER = FOLDERS / "linear"


@pytest.fixture(autouse=True)
def _peer() -> None:
    pytest.importorskip("diffusers")


def difference(check: Check) -> float:
    return check.evidence["relative difference"][0]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # in the schedulers of diffusers
@pytest.mark.parametrize("scheduler", [None, "DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"])
def test_a_right_model_ends_where_the_scheduler_does(scheduler: str | None) -> None:
    model = open_folder(FOLDER, scheduler=scheduler).model
    check = diffusers_chain(FOLDER, 10, scheduler=scheduler)(model)
    assert check.outcome == "passed", check
    assert difference(check) < 1e-4


def test_a_folder_with_a_sampler_of_this_package_has_no_chain_of_the_peer(tmp_path: Path) -> None:
    from scoresde.bridges.diffusers import Scheduler

    shutil.copytree(FOLDER, tmp_path / "ours")
    config = json.loads((FOLDER / "scheduler" / "scheduler_config.json").read_text())
    Scheduler(sd.Adams(4), config).save_pretrained(tmp_path / "ours" / "scheduler")
    opened = open_folder(tmp_path / "ours")
    assert opened.sampler == sd.Adams(4)
    check = diffusers_chain(tmp_path / "ours", 4)(opened.model)
    assert check.outcome == "undecidable"
    assert "the folder's scheduler is one of this package" in check.sentence


def test_a_wrong_parameterization_fails() -> None:
    right = open_folder(FOLDER).model
    wrong = sd.ScoreModel(right.net, right.sde, sd.V(), right.event_shape, right.data).eval()
    check = diffusers_chain(FOLDER, 10)(wrong)
    assert check.outcome == "failed", check
    assert difference(check) > 0.1


def test_the_peer_steps_the_network_that_is_passed(tmp_path: Path) -> None:
    shutil.copytree(FOLDER, tmp_path / "copy")
    opened = open_folder(FOLDER)
    inner: Any = opened.model.net.net
    check = diffusers_chain(tmp_path / "copy", 10, net=inner)(opened.model)
    assert check.outcome == "passed", check
    with torch.no_grad():
        next(inner.parameters()).mul_(1.5)  # of both
    other = diffusers_chain(FOLDER, 10)(opened.model)
    assert other.outcome == "failed", other


def test_options_of_the_opening_are_those_of_the_peer(tmp_path: Path) -> None:
    folder = tmp_path / "averaged"
    shutil.copytree(FOLDER, folder)
    shutil.copytree(folder / "unet", folder / "unet_ema")
    from safetensors.torch import load_file, save_file

    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: 1.2 * value for name, value in load_file(file).items()}, file)
    model = open_folder(folder, ema=False).model
    assert diffusers_chain(folder, 10, ema=False)(model).outcome == "passed"
    assert diffusers_chain(folder, 10)(model).outcome == "failed"  # the averaged weights, which the model has not


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_has_a_chain(tmp_path: Path, kind: torch.dtype) -> None:
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "half"
    shutil.copytree(FOLDER, folder)
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: value.to(kind) for name, value in load_file(file).items()}, file)
    model = open_folder(folder, scheduler="DDIMScheduler").model
    assert next(model.parameters()).dtype == kind
    check = diffusers_chain(folder, 10, scheduler="DDIMScheduler")(model)
    assert check.outcome == "passed", check
    wrong = sd.ScoreModel(model.net, model.sde, sd.V(), model.event_shape, model.data).eval()
    assert diffusers_chain(folder, 10, scheduler="DDIMScheduler")(wrong).outcome == "failed"


class Doubled(nn.Module):
    """A network with a variance beside its noise estimate."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.cat([self.weight * x, torch.tanh(x)], 1)


def learned_variance(folder: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    from safetensors.torch import save_file

    shutil.copytree(FOLDER, folder)
    for file, change in ((folder / "unet" / "config.json", {"out_channels": 2}), (_scheduler(folder), {})):
        content = {**json.loads(file.read_text()), **change}
        if file.name == "scheduler_config.json":
            edit(content)
        file.write_text(json.dumps(content))
    save_file(Doubled().state_dict(), folder / "unet" / "diffusion_pytorch_model.safetensors")
    return folder


def _scheduler(folder: Path) -> Path:
    return folder / "scheduler" / "scheduler_config.json"


@pytest.mark.parametrize(("scheduler", "variance"), [("DDIMScheduler", None), ("DDPMScheduler", "learned_range")])
def test_a_learned_variance_is_passed_to_schedulers_that_take_one(
    tmp_path: Path, scheduler: str, variance: str | None
) -> None:
    def edit(settings: dict[str, Any]) -> None:
        if variance:
            settings["variance_type"] = variance

    folder, net = learned_variance(tmp_path / "doubled", edit), Doubled()
    model = open_folder(folder, net, scheduler=scheduler).model
    check = diffusers_chain(folder, 10, scheduler=scheduler, net=net)(model)
    assert check.outcome == "passed", check
    assert difference(check) < 1e-4


class Failing(Doubled):
    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        raise RuntimeError("this network takes no such times")


def test_an_error_of_the_peer_is_the_sentence_of_an_undecidable_check(tmp_path: Path) -> None:
    folder, net = learned_variance(tmp_path / "failing", lambda _: None), Failing()
    model = open_folder(folder, net, scheduler="DDIMScheduler").model
    check = diffusers_chain(folder, 10, scheduler="DDIMScheduler", net=net)(model)
    assert check.outcome == "undecidable"
    assert "RuntimeError: this network takes no such times" in check.sentence


def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="schedular"):
        diffusers_chain(FOLDER, schedular="DDIMScheduler")
