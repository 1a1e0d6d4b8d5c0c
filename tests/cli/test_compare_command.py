"""``scoresde compare`` writes a report and prints its tables."""

from __future__ import annotations

import json
from pathlib import Path

from command_line import NET, one_line, run


def test_compare_writes_a_report_and_prints_its_path(tmp_path: Path) -> None:
    samplers = ("--sampler", "DDPM(steps=3)", "--sampler", "DDIM(steps=2)")
    options = ("--network", NET, "--quick", "--steps", 3, "--batch-size", 8, "--limit", 6, "-n", 30, "-q")
    result = run("compare", "--data", "digits", "--out", tmp_path, "--weighting", "Simple()", *samplers, *options)
    assert result.exit_code == 0, result.output
    assert "index.html" in one_line(result)
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["weightings"] == ["Simple()"]
    assert content["samplers"] == ["DDPM(steps=3)", "DDIM(steps=2)"]
    assert content["n"] == 30
    names = ("forward", "samples", "likelihoods", "bounds", "noise", "cost")
    for name in ("index.html", "report.md", *(f"{name}.png" for name in names)):
        assert (tmp_path / name).is_file()
    shown, bounds = one_line(result), content["runs"][0]["bounds"]
    for bound in bounds:
        assert f"Simple() {bound['name']} {bound['value']:.3f}" in shown
    assert len(bounds) == 4
