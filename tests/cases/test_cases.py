"""Every script in this folder exits with 0; it checks one input that was once handled wrongly, in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
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


@pytest.mark.parametrize("script", [_parameter(path) for path in SCRIPTS])
def test_a_script_exits_with_0(script: Path, tmp_path: Path):
    folders = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(folders),
        "TMPDIR": str(tmp_path),
    }
    result = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert result.returncode == 0, f"{script.name} exits with {result.returncode}\n{result.stdout}\n{result.stderr}"
