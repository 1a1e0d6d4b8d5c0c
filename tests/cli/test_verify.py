"""``scoresde verify``: the table, the status, the JSON file, and errors in sentences."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import one_line, run

import scoresde as sd
from scoresde.storage.checkpoint import save


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of digits, long enough to denoise."""
    out = tmp_path_factory.mktemp("verify") / "run"
    network = "MLP((1, 8, 8), width=128, depth=2)"
    result = run("train", "--data", "digits", "--out", out, "--network", network, "--steps", 300, "-q")
    assert result.exit_code == 0, result.output
    return out


def test_a_trained_run_is_verified_with_its_other_weights(trained: Path, tmp_path: Path) -> None:
    result = run("verify", trained, "--limit", 64, "--out", tmp_path / "checks.json")
    assert result.exit_code == 0, result.output
    assert "0 failed" in one_line(result)
    content = json.loads((tmp_path / "checks.json").read_text())
    outcomes = {check["name"]: check["outcome"] for check in content["checks"]}
    assert outcomes["output"] == "passed"
    assert "weights" in outcomes
    assert content["ok"] is True


def test_a_run_whose_output_is_read_wrongly_ends_with_status_one(trained: Path, tmp_path: Path) -> None:
    model = sd.load(trained)
    wrong = sd.ScoreModel(model.net, model.sde, sd.X0(), data=model.data)
    save(wrong, tmp_path / "wrong")
    result = run("verify", tmp_path / "wrong", "--data", "digits", "--limit", 64)
    assert result.exit_code == 1, result.output
    assert "its output is v" in one_line(result)


def test_few_data_of_an_opened_model_are_all_used(trained: Path, tmp_path: Path) -> None:
    save(sd.load(trained), tmp_path / "opened")  # knows no training data
    np.save(tmp_path / "few.npy", sd.load_data("digits").test[:50].numpy())
    result = run("verify", tmp_path / "opened", "--data", tmp_path / "few.npy", "--bins", 17)
    assert "of train and test part, 50 of 50 events" in one_line(result)
    refused = run("verify", tmp_path / "opened", "--data", tmp_path / "few.npy", "--bins", 17, "--part", "test")
    assert refused.exit_code == 2
    assert "a comparison needs at least 32 events, got 10" in one_line(refused)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("--out", "checks.txt"), "--out must end in .json"),
        (("--part", "tset"), "did you mean test?"),
    ],
)
def test_a_wrong_option_is_answered_in_a_sentence(trained: Path, arguments: tuple[str, ...], answer: str) -> None:
    result = run("verify", trained, *arguments)
    assert result.exit_code == 2
    assert answer in one_line(result)
