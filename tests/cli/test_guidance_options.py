"""``scoresde sample --guidance``: the guided samples, averages, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import NET, one_line, run

import scoresde
from scoresde.cli.guidance_options import parse_interval
from scoresde.guidance import CFG, Autoguidance
from scoresde.sampling import DDIM
from scoresde.storage.checkpoint import save


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of digits with classes and a null, random weights."""
    net = scoresde.MLP((1, 8, 8), width=8, depth=1, conditions={"label": scoresde.Classes(10)})
    for index, parameter in enumerate(net.parameters()):
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(index))
    model = scoresde.ScoreModel(net, scoresde.VPSDE(), scoresde.V(), data=scoresde.load_data("digits").description)
    path = tmp_path_factory.mktemp("runs") / "classes"
    save(model, path)
    return path


def test_guided_samples_are_those_of_the_guided_model_and_their_calls_are_counted(
    classes: Path, tmp_path: Path
) -> None:
    arguments = ("sample", classes, "--seeds", "5,6,7", "--sampler", "DDIM(steps=6)", "--label", "3,1,4", "-q")
    options = ("--guidance", "3", "--guidance-interval", "0.2,1.5", "--guidance-rescale", "0.5")
    result = run(*arguments, *options, "--out", tmp_path / "x.npz")
    assert result.exit_code == 0, result.output
    assert "guidance 3, for tau from 0.2 to 1.5, rescaled by 0.5" in one_line(result)
    model = CFG(scoresde.load(classes).eval(), 3.0, interval=(0.2, 1.5), rescale=0.5)
    expected = scoresde.sample(model, 3, DDIM(steps=6), seeds=[5, 6, 7], label=torch.tensor([3, 1, 4]))
    with np.load(tmp_path / "x.npz") as file:
        assert np.allclose(file["x"], expected.data.numpy())
        assert int(file["nfe"]) == expected.nfe
        assert 6 < expected.nfe < 12


def test_a_shorter_average_guides_the_model(tmp_path: Path) -> None:
    out, drawn = tmp_path / "ring", tmp_path / "x.npz"
    common = ("--data", "ring", "--out", out, "--network", NET, "--batch-size", 64, "-q")
    assert run("train", *common, "--steps", 60, "--lengths", "0.05,0.1").exit_code == 0
    options = ("--guidance", "2", "--weaker-average", "0.05")
    result = run("sample", out, "--seeds", "1-3", "--sampler", "DDIM(steps=3)", *options, "--out", drawn, "-q")
    assert result.exit_code == 0, result.output
    guided = Autoguidance(scoresde.load(out).eval(), scoresde.load(out, average=0.05).eval(), 2.0)
    expected = scoresde.sample(guided, 3, DDIM(steps=3), seeds=[1, 2, 3])
    with np.load(drawn) as file:
        assert np.allclose(file["x"], expected.data.numpy(), atol=1e-5)
        assert int(file["nfe"]) == 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--guidance", 3), "--guidance strengthens a condition, got 3 without one; add one, such as --label 3"),
        (("--guidance-interval", "0.2,1.5"), "--guidance-interval needs a scale, got '0.2,1.5' without one"),
        (("--guidance-rescale", 0.5), "--guidance-rescale needs a scale, got 0.5 without one; add --guidance 3"),
        (("--weaker-average", 0.05), "--weaker-average needs a scale"),
        (("--guidance", 3, "--guidance-interval", "0.2"), "takes two OU times, such as \"0.2,1.5\", got '0.2'"),
        (("--guidance", 3, "--guidance-interval", "2,1"), "--guidance-interval must increase and not be negative"),
        (("--guidance", 3, "--label", "3", "--guidance-rescale", 2), "rescale must lie in [0, 1], got 2.0"),
        (("--guidance", "nan", "--label", "3"), "scale must be finite, got nan"),
        (("--guidance", 3, "--weaker-average", 0.05, "--guidance-rescale", 0.5), "leave one of them out"),
        (("--guidance", 3, "--label", "3", "--calibrated"), "was fitted to the model without guidance"),
    ],
)
def test_options_that_do_not_fit_are_refused(classes: Path, options: tuple[str | float, ...], message: str) -> None:
    refused = run("sample", classes, "-n", 2, "--sampler", "DDIM(steps=2)", *map(str, options), "-q")
    assert refused.exit_code == 2
    assert message in one_line(refused)


def test_an_interval_is_two_times() -> None:
    assert parse_interval("0.2,1.5") == (0.2, 1.5)
    assert parse_interval("0, inf") == (0.0, float("inf"))
    assert parse_interval(None) is None
