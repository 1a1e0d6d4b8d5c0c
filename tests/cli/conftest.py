"""A trained run that the tests of the commands share."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import NET, run


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a tiny model of handwritten digits; tests only read it."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    result = run("train", "--data", "digits", "--out", out, "--network", NET, "--steps", 4, "--batch-size", 8, "-q")
    assert result.exit_code == 0, result.output
    return out
