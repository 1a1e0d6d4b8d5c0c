"""``scoresde train``: options, defaults, recorded settings, resuming and repeating a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import NET, SMALL, one_line, run

import scoresde
from scoresde.cli.loading import load_data
from scoresde.cli.overrides import parse_overrides
from scoresde.cli.parsing import parse_network
from scoresde.data import Description


def test_reader_options_are_recorded_and_used_again(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("a,b,kind\n" + "".join(f"{i % 5}.5,{i % 7},{'xy'[i % 2]}\n" for i in range(40)))
    out, common = tmp_path / "run", ("--read", "label=kind", "--read", "columns=('b', 'a')")
    small = ("--network", "MLP(width=16, depth=1, conditions={'label': Classes(2)})", "--steps", 1, "--batch-size", 4)
    first = run("train", "--data", table, *common, "--out", out, *small, "--condition-dropout", "0.5", "-q")
    assert first.exit_code == 0, first.output
    config = json.loads((out / "config.json").read_text())
    assert config["about"]["read"] == ["label=kind", "columns=('b', 'a')"]
    assert "condition_dropout=0.5" in config["training"]
    assert run("train", "--config", out, "--out", tmp_path / "again", "-q").exit_code == 0
    one, two = (scoresde.load(folder).net.state_dict() for folder in (out, tmp_path / "again"))
    assert all(bool((one[name] == two[name]).all()) for name in one)


def test_an_inner_network_gets_the_shape_of_the_data_and_the_histogram_is_fitted(tmp_path: Path) -> None:
    out, inner = tmp_path / "run", "UNet(channels=16, multipliers=(1,), blocks=1, attention=(), augment=9)"
    arguments = ("--network", f"QuantizedSkip({inner}, bins=17)", "--augment", "Augment(p=0.3)", "--lr-end", 0)
    result = run(
        "train", "--data", "digits", "--out", out, *arguments, "--steps", 2, "--warmup", 1, "--batch-size", 4, "-q"
    )
    assert result.exit_code == 0, result.output
    net = scoresde.load(out).net
    counts = np.bincount(scoresde.load_data("digits").train.flatten(), minlength=17) + 1
    np.testing.assert_allclose(net.state_dict()["log_histogram"].exp(), counts / counts.sum(), rtol=1e-5)
    training = json.loads((out / "config.json").read_text())["training"]
    for text in ("dequantize=False", "augment=Augment(p=0.3", "lr_end=0.0", "warmup=1"):
        assert text in training
    refused = run("train", "--data", "digits", "--out", tmp_path / "no", *arguments, "--dequantize", "-q")
    assert refused.exit_code == 2
    assert "must be trained on bin centers" in one_line(refused)


def test_training_dequantizes_unless_the_network_needs_bin_centers() -> None:
    description = Description("images", (1, 8, 8), bins=256)

    def dequantizes(network: str | None, **training: Any) -> bool:
        return parse_overrides(network=network).recipe(description, **training).training.dequantize

    assert dequantizes(None) is False
    assert dequantizes("QuantizedSkip(UNet(channels=16))") is False
    assert dequantizes("UNet(channels=16)") is True
    assert dequantizes("UNet(channels=16)", dequantize=False) is False


def test_read_accepts_settings_that_have_an_option() -> None:
    data = load_data("digits", test_fraction=0.2, split_seed=0, read=["test_fraction=0.5", "seed=3"])
    assert len(data.test) == 899
    assert bool((data.test == load_data("digits", test_fraction=0.5, split_seed=3).test).all())


def test_a_run_finds_its_data_from_every_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", np.random.default_rng(0).normal(size=(20, 2)))
    assert run("train", "--data", "x.npy", *SMALL, "--out", "run").exit_code == 0
    assert run("train", "--data", "ring", *SMALL, "--out", "ring").exit_code == 0
    assert json.loads(Path("ring/config.json").read_text())["about"]["data"] == "ring"
    monkeypatch.chdir(tmp_path / "other")
    for words_of in (
        ("likelihood", "../run", "--nodes", 8, "-q"),
        ("train", "--config", "../run", "--out", "again", "-q"),
    ):
        result = run(*words_of)
        assert result.exit_code == 0, one_line(result)
    assert json.loads(Path("again/config.json").read_text())["about"]["data"] == str(tmp_path / "x.npy")


@pytest.mark.parametrize("text", ["MLP", "MLP()", "MLP ( )", "MLP( width=8)", "MLP(event_shape=(2,))"])
def test_a_missing_event_shape_is_that_of_the_data(text: str) -> None:
    assert parse_network(text, (2,)).event_shape == (2,)


def test_an_existing_run_is_resumed_on_request_and_otherwise_refused(tmp_path: Path) -> None:
    out = tmp_path / "ring"
    common = ("--data", "ring", "--out", out, "--network", NET, "--batch-size", 8, "-q")
    assert run("train", *common, "--steps", 2).exit_code == 0
    again = run("train", *common, "--steps", 2)
    assert again.exit_code == 2
    assert "pass --resume to continue that run" in one_line(again)
    assert run("train", *common, "--steps", 2, "--resume").exit_code == 0
    nothing = run("train", *common[:3], tmp_path / "none", "--network", NET, "--resume", "-q")
    assert nothing.exit_code == 2
    assert "there must be a checkpoint" in one_line(nothing)


def test_every_part_of_a_model_has_an_option(tmp_path: Path) -> None:
    out = tmp_path / "model"
    parts = {
        "--schedule": "LogLinear(log_snr_max=9.0)",
        "--process": "VPSDE(tau_min=1e-3)",
        "--parameterization": "Eps()",
        "--weighting": "MinSNR(gamma=3)",
        "--timesteps": "StratifiedTimesteps()",
        "--network": NET,
    }
    arguments = [word for pair in parts.items() for word in pair]
    assert (
        run("train", "--data", "moons", "--out", out, "--steps", 1, "--batch-size", 4, "-q", *arguments).exit_code == 0
    )
    model = scoresde.load(out)
    assert model.sde == scoresde.VPSDE(scoresde.LogLinear(log_snr_max=9.0), tau_min=1e-3)
    assert model.parameterization == scoresde.Eps()
    shown = one_line(run("info", out))
    for text in ("MinSNR(gamma=3.0)", "StratifiedTimesteps()", "event_shape=(2,), width=16, depth=1", "step 1"):
        assert text in shown.replace("gamma=3)", "gamma=3.0)")


def test_the_suggested_command_is_quoted_for_the_shell(tmp_path: Path) -> None:
    out = tmp_path / "a b"
    trained = run("train", "--data", "ring", *SMALL, "--out", out)
    assert f"next: scoresde sample '{out}' --out samples.npz" in one_line(trained)
    drawn = run("sample", out, "-n", 2, "--sampler", "DDIM(steps=2)", "-q")
    assert "2 samples drawn, none saved; to save them add --out samples.npz" in one_line(drawn)
    assert "scoresde sample" not in one_line(drawn)


def test_a_run_with_lengths_samples_from_an_average_of_any_length(tmp_path: Path) -> None:
    out = tmp_path / "run"
    made = ("--network", NET, "--steps", 6, "--batch-size", 8, "--lengths", "0.05,0.1", "-q")
    assert run("train", "--data", "digits", "--out", out, *made).exit_code == 0
    drawn = {}
    for length in ("0.05", "0.1"):
        file = tmp_path / f"{length}.npz"
        result = run("sample", out, "-n", 2, "--sampler", "DDIM(steps=3)", "--average", length, "--out", file, "-q")
        assert result.exit_code == 0, result.output
        drawn[length] = next(iter(np.load(file).values()))
    assert drawn["0.05"].shape == drawn["0.1"].shape
    result = run("sample", out, "-n", 2, "--raw", "--average", "0.1")
    assert result.exit_code == 2
    assert "raw or averaged" in one_line(result)
