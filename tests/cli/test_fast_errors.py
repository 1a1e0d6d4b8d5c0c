"""A typo is answered before anything is imported that takes longer than torch alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SLOW = ("accelerate", "matplotlib", "pandas", "scipy", "sklearn", "torchdiffeq", "torchsde")

PROGRAM = f"""
import sys
from scoresde.cli import app

try:
    app()
except SystemExit as end:
    code = end.code
print([name for name in {SLOW} if name in sys.modules])
sys.exit(code)
"""


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (("train", "--data", "digit", "--out", "x"), "did you mean digits?"),
        (("train", "--data", "digits", "--weighting", "Elbo2()", "--out", "x"), "did you mean ELBO?"),
        (("train", "--data", "digits", "--network", "MPL()", "--out", "x"), "did you mean MLP?"),
        (("sample", "run", "--sampler", "Adam()"), "did you mean Adams?"),
        (("likelihood", "run", "--trace", "Exat()"), "did you mean ExactTrace?"),
        (("compare", "--data", "digits", "--sampler", "Adam()", "--out", "x"), "did you mean Adams?"),
        (("info", "DDPN"), "did you mean DDPM?"),
    ],
)
def test_a_typo_is_answered_before_slow_imports(arguments: tuple[str, ...], answer: str, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    ended = subprocess.run(command, capture_output=True, check=False, text=True, cwd=tmp_path)
    assert ended.returncode == 2, ended.stderr
    assert answer in ended.stderr
    assert ended.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == []


def test_help_and_unknown_options_are_answered_without_torch() -> None:
    program = PROGRAM.replace("print(", "assert 'torch' not in sys.modules\nprint(")
    for arguments in (["--help"], ["train", "--help"], ["train", "--stepz", "5"]):
        command = [sys.executable, "-c", program, *arguments]
        ended = subprocess.run(command, capture_output=True, check=False, text=True)
        assert "AssertionError" not in ended.stderr
        assert ended.returncode == (2 if "--stepz" in arguments else 0)
