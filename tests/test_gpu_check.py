"""`make gpu-check`: its checks run, on the CPU and tiny, and they fail where devices disagree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gpu_check
import pytest
import torch
from gpu_check import Check

CHECKS = [
    gpu_check.network_agrees,
    gpu_check.sampler_agrees,
    gpu_check.loops_do_not_wait,
    gpu_check.bf16_agrees,
    gpu_check.throughput,
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_check_runs_on_the_cpu_and_gives_numbers(check: Any) -> None:
    numbers = check(Check("cpu", full=False))
    assert numbers
    assert all(isinstance(value, (int, float)) and value >= 0 for value in numbers.values())


def test_a_difference_between_devices_fails_a_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def shifted(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(((a + 0.01 * b.abs().max() - b).abs().max() / b.abs().max()).detach())

    monkeypatch.setattr(gpu_check, "largest", shifted)
    check = Check("cpu", full=False)
    check.run("network", gpu_check.network_agrees)
    assert not check.results["network"]["passed"]
    assert "must be below 0.0001, got 0.01" in check.results["network"]["error"]


def test_a_failed_check_is_recorded_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(check: Check) -> dict[str, Any]:
        raise RuntimeError("the device is on fire")

    for name in ("network_agrees", "sampler_agrees", "loops_do_not_wait", "bf16_agrees", "processes_agree"):
        monkeypatch.setattr(gpu_check, name, lambda check, *_: {"fine": 1.0})
    monkeypatch.setattr(gpu_check, "throughput", failing)
    assert gpu_check.main(["--rehearse", "--out", str(tmp_path / "out.json")]) == 1
    report = json.loads((tmp_path / "out.json").read_text())
    assert report["rehearsal"]
    assert report["machine"]["torch"] == torch.__version__
    assert report["failed"] == ["throughput, images per second"]
    assert "on fire" in report["checks"]["throughput, images per second"]["error"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="would run the whole check")
def test_without_a_gpu_it_says_what_it_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main([]) == 1
    assert "needs a CUDA device" in capsys.readouterr().out
