"""``Training(minutes=…)``: the updates that fit a time, counted once and then a run like any other."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from digits_run import DIGITS, model, settings
from test_resume import assert_same_run, newest, started

from scoresde.training import Callback, Monitor, Training, run_length, train
from scoresde.training.pace import PaceMeter, PaceReport
from scoresde.training.run_directory import call_fields
from scoresde.training.run_length import estimate_seconds_per_update

__all__ = ["started"]  # a fixture


def fields(run: Path) -> dict[str, str]:
    return call_fields(json.loads((run / "config.json").read_text())["training"])


@pytest.fixture
def second_per_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every update is measured to take a second."""
    measure = run_length._time
    monkeypatch.setattr(run_length, "_time", lambda run, count: measure(run, 1) * 0 + 1.0)


def test_a_run_of_minutes_has_the_updates_that_fit_and_is_the_run_of_that_many_steps(tmp_path, second_per_update):
    said: list[str] = []
    timed = settings(10_000, 1, minutes=1.5)
    result = train(model(), DIGITS, timed, run_dir=tmp_path / "timed", snapshot_every=7, status=said.append)
    assert 70 <= result.step <= 87  # 90 s less 3 %, less the real time of the start, which a busy machine prolongs
    assert f"{result.step} steps fit 1.5 minutes at 1 steps/s" in said[0]
    fitted = replace(timed.fitted(result.step), minutes=None)
    train(model(), DIGITS, fitted, run_dir=tmp_path / "counted", snapshot_every=7)
    assert_same_run(tmp_path / "timed", tmp_path / "counted")
    assert fields(tmp_path / "timed")["steps"] == str(result.step)
    assert fields(tmp_path / "timed")["minutes"] == "1.5"


def test_the_time_of_callbacks_is_reserved(tmp_path, second_per_update):
    class Evaluate:
        evaluations = 3 * 48 * 10  # as long as 10 updates of 48 events

        def __call__(self, state):
            pass

    timed = settings(10_000, 1, minutes=1.5)
    steps = train(model(), DIGITS, timed, callbacks=[Callback(1000, Evaluate())]).step
    assert 66 <= steps <= 76  # 87 s less 10 s for the last call, 1 % for the others, and the start on a busy machine
    assert Monitor(tmp_path, DIGITS).evaluations == 16 * 256 + 36 * 25


def test_warmup_and_ema_fit_a_shorter_run_and_a_longer_one_keeps_them():
    recipe = Training(steps=10_000, warmup=100, ema=0.999, lr=1e-3, lr_end=0.0)
    short = recipe.fitted(500)
    assert (short.steps, short.warmup) == (500, 50)
    assert 1 / (1 - (short.ema or 0)) == pytest.approx(1000 * 500 / 10_000)  # the same share of the run
    assert short.lr_at(50) == 1e-3
    assert short.lr_at(500) == 0.0
    assert recipe.fitted(40_000) == replace(recipe, steps=40_000)
    assert recipe.fitted(3).ema == 0.0
    assert replace(recipe, ema=None).fitted(500).ema is None


def test_a_resumed_run_keeps_its_count_whatever_the_pace(tmp_path, second_per_update, monkeypatch):
    timed = settings(10_000, 1, minutes=1.0)

    def fail(state):
        if state.step == 30:
            raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        train(model(), DIGITS, timed, run_dir=tmp_path / "run", save_every=10, callbacks=[Callback(1, fail)])
    count = int(fields(tmp_path / "run")["steps"])
    monkeypatch.setattr(run_length, "_time", lambda run, count: pytest.fail("a resumed run measures nothing"))
    resumed = train(model(), DIGITS, timed, run_dir=tmp_path / "run", resume=True, snapshot_every=7)
    assert resumed.step == count
    whole = train(model(), DIGITS, replace(timed.fitted(count), minutes=None), snapshot_every=7)
    for one, two in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(ValueError, match=r"minutes = 1\.0, asked for is 2\.0"):
        train(model(), DIGITS, replace(timed, minutes=2.0), run_dir=tmp_path / "run", resume=True)
    with pytest.raises(FileExistsError, match="a new run needs a directory without checkpoints"):
        train(model(), DIGITS, timed, run_dir=tmp_path / "run")


def test_a_run_of_minutes_can_be_continued_with_more_steps_at_a_constant_learning_rate(tmp_path, second_per_update):
    timed = Training(batch_size=8, minutes=0.5)
    first = train(model(), DIGITS, timed, run_dir=tmp_path)
    longer = replace(timed.fitted(first.step), minutes=None, steps=first.step + 5)
    assert train(model(), DIGITS, longer, run_dir=tmp_path, resume=True).step == first.step + 5


@pytest.mark.parametrize("accumulate", [1, 4])
def test_the_measurement_leaves_weights_and_random_state_as_they_were(accumulate):
    net, run = model(), settings(100, accumulate)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    seconds = estimate_seconds_per_update(net, DIGITS, run, "cpu")
    assert 0 < seconds < 5
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None or not p.grad.any() for p in net.parameters())


def test_a_slow_update_is_estimated_from_a_part_of_the_batch(monkeypatch):
    sizes: list[int] = []

    def slow(run, count):
        sizes.append(run.settings.batch_size)
        return 0.5 * run.settings.batch_size

    monkeypatch.setattr(run_length, "_time", slow)
    assert estimate_seconds_per_update(model(), DIGITS, Training(batch_size=64), "cpu") == 32.0
    assert set(sizes) == {4, 10}


@pytest.mark.parametrize("minutes", [0, -1, math.nan, math.inf, 1e9])
def test_an_absurd_time_is_refused(minutes):
    with pytest.raises(ValueError, match="minutes must (lie between 0 and|be a number, got nan)"):
        Training(minutes=minutes)


@pytest.mark.parametrize("minutes", [True, "10"])
def test_a_time_that_is_no_number_is_refused(minutes):
    with pytest.raises(TypeError, match="minutes must be a number, got"):
        Training(minutes=minutes)


def test_a_time_for_few_updates_is_refused_with_one_that_is_enough(second_per_update, tmp_path):
    with pytest.raises(
        ValueError, match=r"at least 20 updates, got 0\.1, time for [0-5] of 1 s here; give at least 0\.\d"
    ):
        train(model(), DIGITS, Training(minutes=0.1), run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_metrics_have_the_pace_and_the_remaining_time(tmp_path):
    train(model(), DIGITS, settings(60, 1), run_dir=tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        per_step = row["seconds"] / row["step"]  # of another reading of the clock
        rate = row["steps_per_second"]
        assert rate == pytest.approx(1 / per_step, rel=0.5)
        assert rate * row["seconds_left"] == pytest.approx(60 - row["step"], rel=1e-2, abs=0.06 * rate)  # 0.1 s steps


def test_the_pace_is_reported_after_each_tenth_of_a_long_run(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    said: list[str] = []
    report = PaceReport(0, 200, said.append)
    for step in range(1, 201):
        now[0] += 0.2
        report.update(step, lambda: 0.25)
    assert len(said) == 4  # each tenth takes 4 s, and 5 s must pass between two reports
    assert said[0] == "step 40 of 200, loss 0.2500, 5 steps/s, 32 s to go"
    assert PaceMeter(7, 10).read(7) == (0.0, math.inf)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a forkserver")
def test_a_killed_run_of_minutes_ends_as_the_run_of_its_steps(tmp_path, started):
    arguments = (str(tmp_path / "run"), "--minutes", "0.3", "--pace", "0.1", "--save-every", "5")
    process = started(*arguments)
    for _ in range(3000):
        if newest(tmp_path / "run") >= 3 or not process.is_alive():
            break
        time.sleep(0.01)
    assert process.is_alive()
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join(60)
    count = int(fields(tmp_path / "run")["steps"])
    train(model(), DIGITS, settings(60, 1, minutes=0.3), run_dir=tmp_path / "run", resume=True, snapshot_every=7)
    whole = settings(60, 1).fitted(count)
    train(model(), DIGITS, whole, run_dir=tmp_path / "whole", snapshot_every=7)
    assert_same_run(tmp_path / "whole", tmp_path / "run")
