"""Runs that earlier releases stored: every later version opens them and gives the same numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from keep_runs import HOME, conditions, outputs

import scoresde as sd
from scoresde.sampling import Adams
from scoresde.storage.checkpoint import load_calibration

RELEASES = sorted(path.name for path in HOME.iterdir())
RUNS = [(release, name) for release in RELEASES for name in ("points", "table")]
# Relative to the largest value. Rounding differs between processors, and the solver of log p chooses its own steps.
TOLERANCE = {"eps": 1e-5, "samples": 1e-4, "log_prob": 1e-3}


def expected(release: str, name: str) -> dict[str, Any]:
    return json.loads((HOME / release / "expected.json").read_text(encoding="utf-8"))[name]


def test_the_runs_of_the_first_release_are_kept() -> None:
    assert RELEASES[0] == "0.1"


@pytest.mark.parametrize(("release", "name"), RUNS, ids=lambda value: value)
def test_a_stored_run_gives_what_it_gave_when_it_was_written(release: str, name: str) -> None:
    model = sd.load(HOME / release / name)
    assert isinstance(model, sd.ScoreModel)
    now, then = outputs(model, conditions(name)), expected(release, name)
    for key, tolerance in TOLERANCE.items():
        value = torch.tensor(then[key])
        torch.testing.assert_close(torch.tensor(now[key]), value, rtol=0, atol=tolerance * float(value.abs().max()))


@pytest.mark.parametrize("release", RELEASES)
def test_samples_of_a_stored_table_come_back_by_name_and_in_its_units(release: str) -> None:
    model = sd.load(HOME / release / "table")
    frame = sd.sample(model, 3, Adams(steps=6), seeds=[0, 1, 2]).frame()
    assert list(frame.columns) == ["pay", "visits", "city", "since"]
    assert set(frame["city"]) <= {"A", "B", "C"}
    pay = [row[0] for row in expected(release, "table")["data"]]
    assert frame["pay"].tolist() == pytest.approx(pay, abs=0.1)  # a value on the edge of a bin may round to the next


@pytest.mark.parametrize("release", RELEASES)
def test_the_averages_the_raw_weights_and_the_calibration_of_a_stored_run_open(release: str) -> None:
    run = HOME / release / "points"
    x = torch.ones(1, 2)
    models = sd.load(run), sd.load(run, raw=True), sd.load(run, average=0.07)
    values = [model(x, 0.3).eps for model in models]
    assert not any(torch.equal(a, b) for i, a in enumerate(values) for b in values[:i])
    sampler = load_calibration(run, Adams(steps=4)).sampler
    assert sd.sample(sd.load(run), 2, sampler, seeds=[0, 1]).nfe == 4
