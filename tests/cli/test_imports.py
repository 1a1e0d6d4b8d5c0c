"""``--import``: classes of a user's own module are written like those of the package, and runs record the module."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import one_line, run

import scoresde
from scoresde.storage import spec

MODULE = '''
"""A sampler, a weighting and a network of a user."""

from dataclasses import dataclass

import torch
from torch import nn

from scoresde.objective.weighting import SNR
from scoresde.sampling import DDIM


@dataclass(frozen=True)
class TwoStep(DDIM):
    """DDIM with two steps."""

    steps: int = 2


@dataclass(frozen=True)
class HalfPower(SNR):
    """SNR to the power one half."""

    power: float = 0.5


@dataclass(eq=False)
class Affine(nn.Module):
    """A network that is linear in the state.

    Args:
        event_shape: Of one event.
        scale: Initial factor.
    """

    event_shape: tuple[int, ...]
    scale: float = 1.0

    def __post_init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.full(self.event_shape, self.scale))

    def forward(self, x, log_snr):
        return x * self.factor
'''


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of the user's own on the import path, under a name that no other test has imported."""
    name = f"user_package_{tmp_path.name}"
    folder = tmp_path / "path" / name
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "parts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    return f"{name}.parts"


def train_affine(package: str, out: Path, *options: str | int) -> None:
    network = ("--network", "Affine(scale=0.5)", "--weighting", "HalfPower()", "--batch-size", 4, "--monitor-every", 0)
    result = run("train", "--data", "ring", "--import", package, *network, *options, "--out", out, "-q")
    assert result.exit_code == 0, result.output


def test_a_run_records_the_module_and_every_command_finds_its_classes_again(package: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_affine(package, out, "--steps", 2)
    config = json.loads((out / "config.json").read_text())
    assert config["about"]["imports"] == [package]
    assert "Affine(event_shape=(2,), scale=0.5)" in config["model"]["net"]
    for words in (
        ("sample", out, "-n", 3, "--sampler", "TwoStep()", "-q"),
        ("likelihood", out, "--limit", 2, "--nodes", 8, "-q"),
        ("calibrate", out, "--sampler", "TwoStep()", "--noises", 2, "--iterations", 1),
        ("sample", out, "-n", 2, "--sampler", "TwoStep()", "--calibrated", "-q"),
        ("train", "--resume", "--out", out, "-q"),
        ("train", "--config", out, "--out", tmp_path / "again", "-q"),
    ):
        result = run(*words)
        assert result.exit_code == 0, one_line(result)
    assert json.loads((tmp_path / "again" / "config.json").read_text())["about"]["imports"] == [package]


def test_a_new_process_finds_the_module_of_a_run(package: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_affine(package, out, "--steps", 1)
    command = [sys.executable, "-m", "scoresde", "sample", str(out), "-n", "2", "--sampler", "DDIM(steps=2)", "-q"]
    path = os.pathsep.join(filter(None, (str(tmp_path / "path"), os.environ.get("PYTHONPATH"))))
    ended = subprocess.run(command, capture_output=True, check=False, text=True, env={**os.environ, "PYTHONPATH": path})
    assert ended.returncode == 0, ended.stderr
    ended = subprocess.run(command, capture_output=True, check=False, text=True)
    assert ended.returncode == 2
    assert "add its folder to PYTHONPATH" in " ".join(ended.stderr.split())


def test_a_checkpoint_without_its_config_needs_the_option(package: str, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_affine(package, out, "--steps", 1)
    (out / "config.json").unlink()
    words = ("sample", out, "-n", 2, "--sampler", "DDIM(steps=2)", "-q")
    refused = run(*words)
    assert refused.exit_code == 2
    assert "Affine" in one_line(refused)
    assert "--import" in one_line(refused)
    assert run(*words, "--import", package).exit_code == 0


def test_compare_takes_samplers_and_weightings_of_the_module(package: str, tmp_path: Path) -> None:
    choice = ("--sampler", "TwoStep()", "--weighting", "HalfPower()", "--network", "Affine()", "--no-bounds")
    small = ("--steps", 1, "--batch-size", 4, "-n", 20, "--limit", 2, "--workers", 1, "-q")
    result = run("compare", "--data", "ring", "--import", package, *choice, *small, "--out", tmp_path / "out")
    assert result.exit_code == 0, one_line(result)
    content = json.loads((tmp_path / "out" / "results.json").read_text())
    assert content["samplers"] == ["TwoStep(steps=2)"]
    assert content["data"]["source"]["imports"] == [package]


def test_info_shows_classes_of_the_module(package: str) -> None:
    assert "TwoStep" in one_line(run("info", "--import", package))
    printed = run("info", "TwoStep", "--import", package).output.splitlines()
    assert printed[:2] == [f"{package}.TwoStep", "DDIM with two steps."]


def test_classes_of_the_module_are_not_known_without_the_option(package: str) -> None:
    run("info", "--import", package)
    refused = run("info", "TwoStep")
    assert refused.exit_code == 2
    with pytest.raises(ValueError, match="no Sampler is named 'TwoStep'"):
        spec.parse("TwoStep()", {}, kind=scoresde.sampling.Sampler)


@pytest.mark.parametrize(
    ("module", "answer"),
    [
        ("no_such_package.parts", "Python finds no module 'no_such_package'; install its package, or add its folder"),
        ("scoresde.no_such_module", "Python finds no module 'scoresde.no_such_module'"),
        ("my-package", "takes a dotted module name, such as mypackage.samplers, got 'my-package'"),
        ("json", "the module has no class that an option takes"),
    ],
)
@pytest.mark.parametrize("command", [("train", "--data", "ring", "--out", "x"), ("sample", "x"), ("info",)])
def test_a_module_that_cannot_be_used_is_reported(
    module: str, answer: str, command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*command, "--import", module)
    assert result.exit_code == 2
    assert answer in one_line(result)
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_fails_is_reported_with_its_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_user_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    result = run("info", "--import", "broken_user_module")
    assert result.exit_code == 2
    assert "--import broken_user_module failed with ZeroDivisionError: division by zero" in one_line(result)
