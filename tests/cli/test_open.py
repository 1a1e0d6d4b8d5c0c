"""``scoresde open``: networks of the user's own modules, options as text, the checks of a model, and its run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import typer
from command_line import one_line, run
from diffusers_peer import FOLDERS
from torch import nn

import scoresde as sd
from scoresde.cli.errors import report_errors
from scoresde.cli.open import _network, _settings
from scoresde.cli.parsing import import_modules

PIPELINE = FOLDERS / "linear"


def test_a_status_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    @report_errors
    def command() -> None:
        raise typer.Exit(1)

    with pytest.raises(typer.Exit) as caught:
        command()
    assert caught.value.exit_code == 1
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("timestep_respacing=250", 250),
        ("timestep_respacing=10,10,20", (10, 10, 20)),
        ("timestep_respacing='ddim25'", "ddim25"),
        ("noise_schedule=cosine", "cosine"),
        ("steps=250", 250),
        ("ema=False", False),
        ("event_shape=(1, 8, 8)", (1, 8, 8)),
        ("variant=None", None),
    ],
)
def test_a_setting_is_a_literal_of_python_or_else_text(text: str, value: object) -> None:
    assert _settings([text]) == {text.partition("=")[0]: value}


MODULE = """
from torch import nn


class Helper:
    pass


class OldNet(nn.Module):
    def __init__(self, width, names=("a",)):
        super().__init__()
        self.layer, self.names = nn.Linear(width, 3), names
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "old_networks_of_a_test.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    return "old_networks_of_a_test"


def test_a_network_is_any_module_called_with_literals(module: str) -> None:
    modules = import_modules([module], networks=True)
    net = _network('OldNet(4, names=("b", "c"))', modules)
    assert isinstance(net, nn.Module)
    assert net.get_parameter("layer.weight").shape == (3, 4)
    assert net.names == ("b", "c")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("OldNte(4)", "did you mean OldNet?"),
        ("Helper()", "unknown network 'Helper'"),
        ("OldNet(open('x'))", "takes a call of a class with literals"),
        ("OldNet()", "OldNet() fails: TypeError"),
    ],
)
def test_another_network_is_refused_in_a_sentence(module: str, text: str, answer: str) -> None:
    with pytest.raises(ValueError, match=re.escape(answer)):
        _network(text, import_modules([module], networks=True))


def test_a_model_that_fails_its_checks_is_saved_and_ends_with_status_one_alone(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    folder = tmp_path / "wrong"
    shutil.copytree(PIPELINE, folder)
    file = folder / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "prediction_type": "v_prediction"}))
    result = run("open", folder, "--out", tmp_path / "run", "--data", "digits", "--bins", 17)
    assert result.exit_code == 1, result.output
    assert "error: 1" not in one_line(result)
    assert isinstance(sd.load(tmp_path / "run"), sd.ScoreModel)


def test_data_that_cannot_be_read_do_not_cost_the_run(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    result = run("open", PIPELINE, "--out", tmp_path / "run", "--data", tmp_path / "absent.npy")
    assert result.exit_code == 2, result.output
    assert isinstance(sd.load(tmp_path / "run"), sd.ScoreModel)


def test_the_chain_is_that_of_the_options(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    words = ("--set", "scheduler=DDIMScheduler", "--set", "steps=10", "--data", "digits", "--bins", 17)
    result = run("open", PIPELINE, *words)
    assert result.exit_code == 0, result.output
    assert "20 steps of DDIM and of DDIMScheduler" in one_line(result)
