"""``scoresde distill``: a student's run directory, and the commands that read it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import one_line, run

from scoresde.distillation import load_student

FEW = ("--trajectories", 32, "--solver", "Adams(steps=6)", "--steps", 2, "--batch-size", 4, "--no-calibrated", "-q")


@pytest.fixture(scope="module")
def student(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("students") / "two"
    result = run("distill", digits, "--calls", 2, "--out", folder, *FEW)
    assert result.exit_code == 0, result.output
    assert "2 calls: student" in one_line(result)
    assert f"next: scoresde sample {folder} --out grid.png" in one_line(result)
    return folder


def test_a_student_is_sampled_by_its_own_jumps(student: Path, tmp_path: Path) -> None:
    result = run("sample", student, "-n", 3, "--out", tmp_path / "x.npz", "-q")
    assert result.exit_code == 0, result.output
    assert "Jumps()" in one_line(result)
    with np.load(tmp_path / "x.npz") as file:
        assert file["x"].shape == (3, 1, 8, 8)
        assert file["x"].dtype == np.uint8
        assert int(file["nfe"]) == 2
    assert len(load_student(student).jump_times or ()) == 3


def test_a_run_records_its_teacher(student: Path, digits: Path) -> None:
    about = json.loads((student / "config.json").read_text())["about"]
    assert Path(about["teacher"]).parent == digits
    assert about["distillation"]["calls"] == 2


def test_what_a_student_cannot_do_is_refused_with_the_reason(student: Path, tmp_path: Path) -> None:
    reason = "trained for 2 fixed jumps and has no velocity of its own"
    assert reason in one_line(run("sample", student, "-n", 2, "--sampler", "DDIM(steps=3)", "-q"))
    assert reason in one_line(run("likelihood", student, "--data", "digits", "--limit", 2, "-q"))
    assert "holds a student; distill its teacher" in one_line(run("distill", student, "--out", tmp_path / "x", *FEW))
    assert "keeps one average" in one_line(run("sample", student, "--average", "0.1", "-q"))


def test_a_student_of_any_jumps_is_sampled_at_any_number_of_calls(digits: Path, tmp_path: Path) -> None:
    assert run("distill", digits, "--calls", "any", "--out", tmp_path / "any", *FEW).exit_code == 0
    result = run("sample", tmp_path / "any", "-n", 2, "--sampler", "Jumps(3)", "--out", tmp_path / "x.npz", "-q")
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "x.npz") as file:
        assert int(file["nfe"]) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--calls", "none"), "--calls must be a positive integer, or any"),
        (("--calls", 0), "--calls must be a positive integer, or any"),
        (("--minutes", 1, "--steps", 3), "--steps or --minutes states how long"),
        (("--target", "Euler()"), "no Target is named 'Euler'.*Eulerian"),
        (("--solver", "DDPM()"), "deterministic"),
    ],
)
def test_wrong_options_are_refused(
    digits: Path, tmp_path: Path, options: tuple[str | float, ...], message: str
) -> None:
    import re

    result = run("distill", digits, "--out", tmp_path / "x", *options)  # pyright: ignore[reportArgumentType]
    assert result.exit_code == 2
    assert re.search(message, one_line(result)), one_line(result)
