"""The package as a whole: help texts, public names, light imports, and ``make clean``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run

import scoresde


def test_help_names_every_command_and_shows_examples() -> None:
    shown = run("--help").output
    for command in ("train", "sample", "calibrate", "likelihood", "verify", "compare", "watch", "info"):
        assert command in shown
        assert f"    scoresde {command} " in run(command, "--help").output


def test_every_public_name_of_the_package_exists() -> None:
    for name in scoresde.__all__:
        assert getattr(scoresde, name) is not None
    assert set(scoresde.__all__) <= set(dir(scoresde))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        scoresde.nonsense  # noqa: B018 # pyright: ignore[reportAttributeAccessIssue]


def test_importing_the_package_and_asking_for_help_do_not_import_torch() -> None:
    program = "import sys, scoresde, scoresde.cli; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=Path(__file__).parents[2]).returncode == 0


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_clean_keeps_the_runs_of_the_user(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parents[2] / "Makefile", tmp_path)
    folders = ("scoresde", "tests", "examples", "docs", "runs/demo", "runs/examples", "runs/mine")
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mine"]
    (tmp_path / "runs" / "mine").rmdir()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert not (tmp_path / "runs").exists()
