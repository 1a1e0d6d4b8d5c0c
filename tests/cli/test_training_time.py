"""``scoresde train`` says how long images, series and volumes will take, and offers commands that take less."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import one_line, run

from scoresde.cli.parsing import parse_network
from scoresde.cli.training_time import changed_command, network_text, round_down, smaller_network
from scoresde.data import Description
from scoresde.training import run_length
from scoresde.training.defaults import default_recipe


@pytest.fixture
def images(tmp_path: Path) -> Path:
    path = tmp_path / "images.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8)).astype(np.uint8))
    return path


def seconds_per_update(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(run_length, "estimate_seconds_per_update", lambda *arguments: seconds)


def stop(*arguments: object, **options: object) -> None:
    raise ValueError("the run starts here.")


def test_a_long_training_is_announced_with_shorter_commands_that_work(images, tmp_path, monkeypatch) -> None:
    seconds_per_update(monkeypatch, 2.0)
    arguments = ("train", "--data", images, "--bins", 256, "--out", tmp_path / "run", "--batch-size", 2, "-q")
    monkeypatch.setattr("sys.argv", ["scoresde", *map(str, arguments), "--steps", "900"])
    monkeypatch.setattr("scoresde.training.train", stop)
    started = run(*arguments, "--steps", 900)
    assert "900 steps take about 30 min here, 2 s each (measured)" in one_line(started)
    offers = re.findall(r"minutes, about (\d+) steps: (scoresde .*)", started.output)
    assert [count for count, _ in offers] == ["600", "300"]
    assert shlex.split(offers[0][1])[-4:] == ["--out", f"{tmp_path}/run-20min", "--minutes", "20"]
    words = shlex.split(offers[1][1])
    assert "--steps" not in words
    monkeypatch.undo()
    made = run(*words[1:-2], "--steps", 1)
    assert made.exit_code == 0, made.output
    assert (tmp_path / "run-small" / "config.json").is_file()
    assert "channels=16, multipliers=(1, 2, 2), blocks=1" in (tmp_path / "run-small" / "config.json").read_text()


def test_a_short_training_is_announced_without_offers(images, tmp_path) -> None:
    shown = run(
        "train", "--data", images, "--bins", 256, "--out", tmp_path / "run", "--steps", 1, "--batch-size", 2, "-q"
    )
    assert shown.exit_code == 0, shown.output
    assert re.search(r"1 steps take about \d+ s here", one_line(shown))
    assert "in 20 minutes" not in shown.output


def test_an_offer_names_no_network_if_the_user_chose_one(images, tmp_path, monkeypatch) -> None:
    seconds_per_update(monkeypatch, 2000.0)
    network = "UNet(channels=16, multipliers=(1,), blocks=1)"
    arguments = ("--data", images, "--bins", 256, "--out", tmp_path / "run", "--network", network)
    shown = run("train", *arguments, "--steps", 1, "--batch-size", 2, "-q")
    assert "in 20 minutes, about 1 steps" in one_line(shown)
    assert "a smaller network" not in shown.output


def test_tables_and_resumed_runs_are_not_measured(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(run_length, "estimate_seconds_per_update", lambda *a: pytest.fail("nothing is measured"))
    shown = run("train", "--data", "ring", "--out", tmp_path / "run", "--steps", 1, "--batch-size", 2, "-q")
    assert shown.exit_code == 0, shown.output
    assert run("train", "--resume", "--out", tmp_path / "run", "-q").exit_code == 0


@pytest.mark.parametrize(
    ("shape", "bins"), [((1, 28, 28), 256), ((3, 16, 16), None), ((2, 64), None), ((1, 16, 16, 16), 256)]
)
def test_the_smaller_network_has_fewer_weights_and_its_text_writes_it(shape, bins) -> None:
    recipe = default_recipe(Description("x", shape, bins=bins))
    small = smaller_network(recipe.network)
    assert small is not None
    text = network_text(small)
    assert "event_shape" not in text
    parsed = parse_network(text, shape)
    sizes = [sum(p.numel() for p in net.parameters()) for net in (recipe.network, small, parsed)]
    assert sizes[0] > 1.5 * sizes[1]
    assert sizes[1] == sizes[2]
    assert network_text(parsed) == text
    assert getattr(parsed, "trained_on_bin_centers", False) == getattr(recipe.network, "trained_on_bin_centers", False)
    assert parsed(torch.zeros(1, *shape), torch.zeros(1)).shape[: len(shape) + 1] == (1, *shape)


def test_other_options_are_kept_and_named_ones_replaced() -> None:
    words = ["train", "--data", "a b.npy", "--steps=50", "--out", "x", "-q", "--steps", "70", "--lr", "1e-3"]
    assert (
        changed_command(words, out="y", minutes=20)
        == "scoresde train --data 'a b.npy' -q --lr 1e-3 --out y --minutes 20"
    )
    assert changed_command(["train", "--data", "--steps"], out="y") == "scoresde train --data --steps --out y"
    assert [round_down(x) for x in (0.3, 7, 99.9, 1234, 10999)] == [1, 7, 99, 1200, 10000]


def test_two_lengths_of_a_run_are_refused_before_data_are_read(tmp_path) -> None:
    refused = run("train", "--data", "nowhere.npy", "--out", tmp_path, "--steps", 5, "--minutes", 10)
    assert refused.exit_code == 2
    assert "--steps or --minutes states how long to train, got 5 and 10" in one_line(refused)


def test_minutes_set_the_steps_which_a_repeated_run_keeps(tmp_path) -> None:
    out = tmp_path / "run"
    timed = run("train", "--data", "ring", "--out", out, "--network", "MLP(width=8, depth=1)", "--minutes", "0.1", "-q")
    assert timed.exit_code == 0, timed.output
    count = re.search(r"(\d+) steps fit 0\.1 minutes", one_line(timed))
    assert count is not None
    assert f"✓ {count[1]} steps" in timed.output
    again = run("train", "--config", out, "--out", tmp_path / "again", "-q")
    assert f"✓ {count[1]} steps" in again.output
    assert "minutes" not in (tmp_path / "again" / "config.json").read_text()
    absurd = run("train", "--data", "ring", "--out", tmp_path / "no", "--minutes", -5)
    assert absurd.exit_code == 2
    assert "minutes must lie between 0 and" in one_line(absurd)
