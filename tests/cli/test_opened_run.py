"""Runs of `scoresde open` in the other commands: sampled as their code base samples them, and shown by ``info``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import one_line, run

import scoresde as sd
from scoresde.bridges import Finding, Opened, save_opened
from scoresde.process import ou


@pytest.fixture
def opened(tmp_path: Path, generator: torch.Generator) -> Path:
    """A run with a sampler that starts inside the clock, and clipping."""
    net = sd.MLP((2,), 8, 1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    model = sd.ScoreModel(net, sd.VPSDE(), event_shape=(2,)).eval()
    findings = (Finding("clipping", "x0 to [-1, 1]", "stated"), Finding("prediction", "V()", "stated"))
    save_opened(Opened(model, "diffusers", findings, None, sd.DDIM(steps=7), 2.5), tmp_path / "run")  # pyright: ignore
    return tmp_path / "run"


def test_a_run_is_sampled_by_the_sampler_of_its_code_base_from_its_start(opened: Path, tmp_path: Path) -> None:
    result = run("sample", opened, "-n", 3, "--out", tmp_path / "x.npz", "--device", "cpu", "-q")
    assert result.exit_code == 0, result.output
    assert "DDIM(steps=7), as diffusers samples it" in one_line(result)
    assert "diffusers also clips (x0 to [-1, 1]), which is not applied" in one_line(result)
    generator = torch.Generator().manual_seed(0)
    expected = sd.sample(sd.load(opened), 3, sd.DDIM(steps=7), start=2.5, generator=generator)
    other = sd.sample(sd.load(opened), 3, sd.DDIM(steps=7), generator=torch.Generator().manual_seed(0))
    x = np.load(tmp_path / "x.npz")["x"]
    np.testing.assert_allclose(x, expected.x.numpy(), rtol=1e-5, atol=1e-6)
    assert float(np.abs(x - other.x.numpy()).max()) > 1e-3
    assert float(ou.alpha(2.5)) < 0.1


def test_a_named_sampler_takes_the_place_of_the_stored_one(opened: Path) -> None:
    result = run("sample", opened, "-n", 2, "--sampler", "Adams(steps=3)", "-q")
    assert "Adams(steps=3)" in one_line(result)
    assert "samples it" not in one_line(result)


def test_info_shows_origin_sampler_and_start(opened: Path) -> None:
    text = one_line(run("info", opened))
    parts = (
        "origin diffusers",
        "sampler DDIM(steps=7, grid=Chain(), eta=0.0)",
        "start tau = 2.5",
        "clipping x0 to [-1, 1]; not applied",
    )
    for part in parts:
        assert part in text


def test_a_run_of_this_package_has_no_such_lines(digits: Path) -> None:
    assert "origin" not in one_line(run("info", digits))
    assert "samples it" not in one_line(run("sample", digits, "-n", 1, "--sampler", "DDIM(steps=2)", "-q"))
