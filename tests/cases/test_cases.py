"""Every script in this folder exits with 0; it checks one input that was once handled wrongly.

They run in this process: importing torch anew takes longer than most of them."""

from __future__ import annotations

import os
import runpy
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SLOW = {"average_of_bf16_weights", "zero_inflated_table"}  # more than ten seconds on one core
SCRIPTS = sorted(path for path in HERE.glob("*.py") if path.name not in (Path(__file__).name, "conftest.py"))


def _parameter(path: Path):
    return pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in SLOW else [])


def test_slow_scripts_exist():
    assert {path.stem for path in SCRIPTS} >= SLOW


@pytest.mark.filterwarnings("default")  # as in a process of a user
@pytest.mark.parametrize("script", [_parameter(path) for path in SCRIPTS])
def test_a_script_exits_with_0(
    script: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # some set their own
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    folders = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))  # of the commands that a script starts
    code = None
    try:
        runpy.run_path(str(script), run_name="__main__")
    except SystemExit as end:
        code = end.code
    out, err = capfd.readouterr()
    assert code in (None, 0, False), f"{script.name} exits with {code}\n{out}\n{err}"
