"""Models by one call, `load`: our runs, files of other code bases, what is refused, and opened models as runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import one_line, run
from digit_network import DigitNetwork
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import scoresde as sd
from scoresde.bridges import diffusers, k_diffusion, open_model, save_opened
from scoresde.bridges.weights import fit, read_weights
from scoresde.data import ClassCondition, TokenCondition, VectorCondition
from scoresde.training.condition_checks import checked_cond

MODELS = Path(__file__).parent / "models"
PIPELINE, CHECKPOINT = MODELS / "diffusers" / "linear", MODELS / "k_diffusion" / "own.safetensors"


def _network() -> DigitNetwork:
    return DigitNetwork(scale=0.25)


def _same(a: sd.Model, b: sd.Model, generator: torch.Generator) -> bool:
    x = torch.randn(3, 1, 8, 8, generator=generator)
    return torch.equal(a(x, 0.4).eps, b(x, 0.4).eps)


def test_a_run_of_this_package_is_loaded_as_before(tmp_path, generator):
    model = sd.ScoreModel(sd.MLP((1, 8, 8), width=8, depth=1), sd.VPSDE())
    sd.save(model, tmp_path / "run")
    loaded = sd.load(tmp_path / "run", parameterization=sd.V())
    assert _same(model, loaded, generator)


def test_a_pipeline_folder_is_opened_in_one_line(generator):
    pytest.importorskip("diffusers")
    assert _same(sd.load(PIPELINE), diffusers.open_folder(PIPELINE).model, generator)
    with pytest.raises(ValueError, match=r"has parameterization Eps\(\)"):
        sd.load(PIPELINE, parameterization=sd.V())


def test_a_file_of_weights_is_recognized_and_opened_with_its_network(generator):
    opened = open_model(CHECKPOINT, _network())
    assert opened.origin == "k-diffusion"
    expected = k_diffusion.open_file(CHECKPOINT, _network()).model
    assert _same(opened.model, expected, generator)
    assert _same(sd.load(CHECKPOINT, _network()), expected, generator)


def test_an_opened_model_becomes_a_run_that_is_loaded_again(tmp_path, generator):
    opened = open_model(CHECKPOINT, _network())
    stored = save_opened(opened, tmp_path / "run")
    assert _same(sd.load(tmp_path / "run", _network()), opened.model, generator)
    meta = json.loads((stored / "state.json").read_text())["meta"]
    assert meta["origin"] == "k-diffusion"
    assert {finding["source"] for finding in meta["findings"]} <= {"stated", "derived", "assumed"}
    with pytest.raises(ValueError, match=r"class DigitNetwork, .* load\(path, net=DigitNetwork"):
        sd.load(tmp_path / "run")


def test_a_pipeline_becomes_a_run_that_needs_no_network(tmp_path, generator):
    pytest.importorskip("diffusers")
    opened = open_model(PIPELINE)
    save_opened(opened, tmp_path / "run")
    assert _same(sd.load(tmp_path / "run"), opened.model, generator)


def test_what_is_not_recognized_is_refused_with_the_known_layouts(tmp_path):
    (tmp_path / "notes.txt").write_text("text")
    with pytest.raises(FileNotFoundError, match=r"known layouts .*model_index.json.* got notes.txt.*origin="):
        sd.load(tmp_path)
    save_file({"first.weight": torch.ones(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(FileNotFoundError, match=r"got plain.safetensors"):
        sd.load(tmp_path / "plain.safetensors", nn.Linear(1, 2))
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_model(tmp_path / "absent")


def test_a_repository_of_the_hub_is_answered_with_the_download():
    for call in (sd.load, open_model):
        with pytest.raises(
            FileNotFoundError, match=r"nothing is downloaded.*snapshot_download\('google/ddpm-cat-256'\)"
        ):
            call("google/ddpm-cat-256")
    with pytest.raises(FileNotFoundError, match="there must be a checkpoint at tests/absent"):
        sd.load("tests/absent")  # in a folder that is there


def test_a_network_or_a_pipeline_in_place_of_a_path_is_refused_with_the_call():
    class Pipeline:
        def save_pretrained(self, folder: str) -> None: ...

    calls: tuple[Any, ...] = (sd.load, open_model)
    for call in calls:
        with pytest.raises(TypeError, match=r"got a Linear; it is in memory already: ScoreModel\(net, .*FromStep"):
            call(nn.Linear(2, 2))
        with pytest.raises(TypeError, match=r"got a Pipeline; save it, and .*save_pretrained\(folder\)"):
            call(Pipeline())


def test_weights_of_a_network_of_ones_own_are_answered_with_what_reads_them(tmp_path):
    net, other = nn.Linear(2, 2), nn.Linear(2, 2)
    torch.save({f"module.{name}": value for name, value in net.state_dict().items()}, tmp_path / "net.pt")
    with pytest.raises(FileNotFoundError, match=r"of your own need no origin: .*fit\(net, read_weights\(path\)\)"):
        sd.load(tmp_path / "net.pt", other)
    fit(other, read_weights(tmp_path / "net.pt"))
    assert torch.equal(net.weight, other.weight)


@pytest.mark.parametrize(
    "wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")], ids=["DP", "compile"]
)
def test_a_wrapped_network_of_diffusers_gets_the_weights_and_is_saved_without_the_wrapper(tmp_path, generator, wrap):
    pytest.importorskip("diffusers")
    from diffusers.models.unets.unet_2d import UNet2DModel

    config = json.loads((PIPELINE / "unet" / "config.json").read_text())
    net = UNet2DModel(**{name: value for name, value in config.items() if name[0] != "_"})
    opened, expected = sd.load(PIPELINE, wrap(net)), sd.load(PIPELINE)
    assert _same(opened, expected, generator)
    diffusers.save(opened, tmp_path / "pipeline")
    assert _same(sd.load(tmp_path / "pipeline"), expected, generator)
    sd.save(opened, tmp_path / "run")
    assert _same(sd.load(tmp_path / "run"), expected, generator)
    own = sd.ScoreModel(wrap(sd.UNet((1, 8, 8), channels=8)), sd.VPSDE())
    diffusers.save(own, tmp_path / "own")
    assert _same(sd.load(tmp_path / "own"), own, generator)


@pytest.mark.parametrize("name", ["checkpoint-500", "checkpoint-100000"])
def test_what_training_scripts_of_diffusers_write_is_opened(tmp_path, generator, name):
    pytest.importorskip("diffusers")
    shutil.copytree(PIPELINE, tmp_path / "out")
    shutil.copytree(PIPELINE / "unet", tmp_path / "out" / name / "unet_ema")
    shutil.copytree(PIPELINE / "unet", tmp_path / "out" / name / "unet")
    expected = sd.load(PIPELINE)
    assert _same(sd.load(tmp_path / "out"), expected, generator)
    assert _same(sd.load(tmp_path / "out" / name), expected, generator)


def test_weights_without_their_network_are_refused_with_the_call():
    with pytest.raises(ValueError, match=r"holds weights of k_diffusion, but not the network .* net=…"):
        sd.load(CHECKPOINT)


def test_an_unknown_origin_or_option_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"no origin is named 'difusers'.*diffusers"):
        open_model(PIPELINE, origin="difusers")
    with pytest.raises(TypeError, match=r"score_sde has no option 'sigma_mim'.*sigma_min"):
        open_model(CHECKPOINT, _network(), origin="score_sde", sigma_mim=0.1)


def test_options_of_runs_are_refused_for_other_files():
    with pytest.raises(ValueError, match="raw, average and known are for runs of this package"):
        sd.load(CHECKPOINT, _network(), raw=True)


def test_a_bare_dictionary_of_weights_is_opened_by_its_origin(tmp_path, generator):
    weights = {name.removeprefix("model."): value for name, value in load_file(CHECKPOINT).items()}
    network = DigitNetwork()
    names = network.state_dict()
    fitting = {**names, **{name: value for name, value in weights.items() if name in names}}
    save_file({name: value.clone() for name, value in fitting.items()}, tmp_path / "net.safetensors")
    opened = open_model(tmp_path / "net.safetensors", network, origin="score_sde", process="vp", shape=(1, 8, 8))
    assert opened.model.event_shape == (1, 8, 8)
    assert {finding.name: finding.source for finding in opened.findings}["process"] == "assumed"


def test_the_command_opens_prints_and_writes_a_run(tmp_path):
    pytest.importorskip("diffusers")
    shown = run("open", PIPELINE)
    assert shown.exit_code == 0, shown.output
    assert "prediction" in shown.output
    assert "assumed, not stated: range of the data" in one_line(shown)
    written = run("open", PIPELINE, "--out", tmp_path / "run")
    assert f"next: scoresde verify {tmp_path / 'run'} --data DATA" in written.output.replace("\n", "")
    sampled = run("sample", tmp_path / "run", "-n", 2, "--sampler", "Adams(steps=4)", "--out", tmp_path / "a.npz", "-q")
    assert sampled.exit_code == 0, sampled.output
    refused = run("open", PIPELINE, "--out", tmp_path / "run")
    assert "--out must be a new directory" in one_line(refused)
    refused = run("open", PIPELINE, "--set", "stepss=3")
    assert "diffusers has no option 'stepss'" in one_line(refused)
    refused = run("open", CHECKPOINT)
    assert "holds weights of k_diffusion, but not the network" in one_line(refused)


@pytest.mark.filterwarnings("ignore:bytes.npy holds bytes")  # the command that is refused states no bins
def test_training_continues_from_an_opened_model_in_its_scaling(tmp_path):
    pytest.importorskip("diffusers")
    rng = np.random.default_rng(0)
    np.save(tmp_path / "bytes.npy", rng.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8))
    save_opened(open_model(PIPELINE), tmp_path / "run")
    quick = ("--steps", 1, "--batch-size", 8, "--device", "cpu", "-q")
    command = ("train", "--data", tmp_path / "bytes.npy", "--from", tmp_path / "run", "--out", tmp_path / "new", *quick)
    assert "integers 0 … 255, whose scaling its weights have learned, got continuous values" in one_line(run(*command))
    trained = run(*command, "--bins", 256)
    assert trained.exit_code == 0, trained.output
    assert "… 998 more …" in trained.output  # betas
    model, before = sd.load(tmp_path / "new"), sd.load(tmp_path / "run")
    assert model.data is not None
    assert (model.data.offset, model.data.scale) == (128.0, 127.5)
    assert model.net.clock == before.net.clock
    config = json.loads((tmp_path / "new" / "config.json").read_text())
    assert "dequantize=False" in config["training"]


@pytest.mark.parametrize("bins", [17, 2])
def test_other_integers_than_bytes_fill_the_same_range(bins):
    opened = open_model(CHECKPOINT, _network(), bins=bins)
    data = opened.model.data
    assert data is not None
    ends = data.to_model(data.center(torch.tensor([0, bins - 1]).reshape(2, 1, 1, 1).expand(2, 1, 8, 8)))
    torch.testing.assert_close(ends[:, 0, 0, 0], torch.tensor([-1.0, 1.0]))
    findings = {finding.name: finding for finding in opened.findings}
    assert findings["range of the data"].value == f"integers 0 … {bins - 1} in [-1, 1]"
    with pytest.raises(ValueError, match="bins must be"):
        open_model(CHECKPOINT, _network(), bins=1)


def test_integers_of_another_range_are_not_scored(tmp_path):
    pytest.importorskip("diffusers")
    save_opened(open_model(PIPELINE), tmp_path / "run")
    refused = run("likelihood", tmp_path / "run", "--data", "digits", "--limit", 2)
    assert "the model's data are integers 0 … 255, those of 'digits' are 0 … 16" in one_line(refused)
    assert "open the files of the other code base again with --bins 17" in one_line(refused)


class _Conditional(DigitNetwork):
    """Digits given a class, a vector and tokens, which shift the output by known numbers."""

    def __init__(self) -> None:
        super().__init__(scale=0.25)
        self.conditions = {"label": sd.nn.Classes(10), "pose": sd.nn.Vector(2), "text": sd.nn.Tokens(3)}

    def forward(self, x, t, *_, label: Tensor, pose: Tensor, text: Tensor):
        return super().forward(x, t) + label[:, None, None, None] + pose.sum() + text.sum()


def test_conditions_of_a_network_are_those_of_the_opened_data():
    opened = open_model(CHECKPOINT, _Conditional())
    expected = {"label": ClassCondition(10), "pose": VectorCondition(2), "text": TokenCondition(3)}
    for data in (opened.model.data, opened.steered.data, open_model(CHECKPOINT, _Conditional(), bins=17).model.data):
        assert data is not None
        assert data.conditions == expected
    plain = open_model(CHECKPOINT, _network()).model.data
    assert plain is not None
    assert plain.conditions == {}


def test_the_condition_of_a_data_description_stays(generator):
    described = sd.Description("digits", (1, 8, 8), conditions={"pose": VectorCondition(2, scale=3.0)})
    data = k_diffusion.open_file(CHECKPOINT, _Conditional(), data=described).model.data
    assert data is not None
    assert data.conditions["pose"] == VectorCondition(2, scale=3.0)
    assert data.conditions["label"] == ClassCondition(10)


def test_a_condition_without_a_kind_in_the_description_is_refused_by_name():
    bare = sd.Description("digits", (1, 8, 8))
    given = {"label": torch.arange(4), "pose": torch.zeros(4, 2), "text": torch.zeros(4, 1, 3)}
    with pytest.raises(ValueError, match="condition 'label' needs its kind in the description of the data, .* none"):
        checked_cond(_Conditional(), given, bare)
    described = open_model(CHECKPOINT, _Conditional()).model.data
    assert torch.equal(checked_cond(_Conditional(), given, described)["label"], torch.arange(4))
