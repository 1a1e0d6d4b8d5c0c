"""The command line trains, samples, scores, compares and explains; whatever it cannot do it says in one sentence."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import math
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner, Result

import scoresde
from scoresde.cli import app
from scoresde.cli.errors import shown
from scoresde.cli.overrides import chosen
from scoresde.cli.parsing import load_data, parse_network
from scoresde.cli.sample import classes, numbers
from scoresde.data import Description
from scoresde.sampling import DDIM, ExplicitGrid, Whitened
from scoresde.storage.checkpoint import load_calibration, save

NET = "MLP(width=16, depth=1)"


def run(*words: str | Path | int) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})


def words(result: Result) -> str:
    """What was printed, as one line."""
    return " ".join((result.output + result.stderr).split())


def lines(path: Path) -> list[dict[str, str]]:
    """A CSV's lines by their header."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "digits"
    result = run("train", "--data", "digits", "--out", out, "--network", NET, "--steps", 4, "--batch-size", 8, "-q")
    assert result.exit_code == 0, result.output
    return out


def test_help_names_every_command_and_shows_examples() -> None:
    shown = run("--help").output
    for command in ("train", "sample", "calibrate", "likelihood", "compare", "info"):
        assert command in shown
        assert f"    scoresde {command} " in run(command, "--help").output


def test_a_model_is_trained_sampled_and_scored(digits: Path, tmp_path: Path) -> None:
    drawn = tmp_path / "new" / "x.npz"
    result = run("sample", digits, "-n", 5, "--sampler", "DDIM(steps=3)", "--out", drawn, "-q")
    assert result.exit_code == 0, result.output
    with np.load(drawn) as file:
        assert file["x"].shape == (5, 1, 8, 8)
        assert file["x"].dtype == np.uint8
        assert file["x"].max() <= 16
        assert int(file["nfe"]) == 3


def test_a_likelihood_comes_with_its_budget_and_one_line_per_event(digits: Path, tmp_path: Path) -> None:
    values = tmp_path / "new" / "values.csv"
    common = ("likelihood", digits, "--limit", 3, "--trace", "Hutchinson(probes=2)", "-q")
    result = run(*common, "--out", values)
    assert result.exit_code == 0, result.output
    rows = lines(values)
    assert [row["index"] for row in rows] == ["0", "1", "2"]
    assert {row["status"] for row in rows} == {"ARRIVED"}
    mean = sum(float(row["bits/dim"]) for row in rows) / 3
    shown = words(result)
    assert abs(float(shown.partition("probability-flow ODE ")[2].split()[0]) - mean) < 1e-4
    nat = 64 * math.log(2)
    for row in rows:
        assert math.isclose(float(row["trace_nats"]) / nat, float(row["stderr"]), rel_tol=1e-7)
        half = 0.5 * (float(row["high"]) - float(row["low"]))
        rest = (float(row["solver_nats"]) + float(row["quadrature_nats"])) / nat
        assert 1.9 * float(row["stderr"]) + rest < half + 1e-7 < 3 * float(row["stderr"]) + rest + 1e-6
        assert abs(float(row["low"]) + half - float(row["bits/dim"])) < 1e-7
    for name in ("trace", "solver", "quadrature", "prior", "truncation"):
        told = re.search(rf" {name}: [^0-9]*([0-9.]+) ", shown)
        assert told is not None
        assert abs(float(told[1]) - sum(float(row[f"{name}_nats"]) for row in rows) / 3) < 2e-4
    assert "█" in result.output
    assert "Jacobian products 80 per event" in shown  # two probes at each of 40 nodes
    assert "gap to the K-draw bound" not in shown
    assert run(*common, "--out", values).exit_code == 0
    assert rows == lines(values)
    assert run(*common, "--out", values, "--seed", 1).exit_code == 0
    assert rows[0]["bits/dim"] != lines(values)[0]["bits/dim"]


def test_bounds_stand_beside_the_likelihood_and_the_histogram_is_a_png(digits: Path, tmp_path: Path) -> None:
    values, plot = tmp_path / "values.csv", tmp_path / "h.png"
    bounds = (
        "--bound",
        "--steps",
        5,
        "--evaluations",
        8,
        "--draws",
        2,
        "--dequantization",
        "TruncatedNormalDequantization(std=0.3)",
    )
    result = run("likelihood", digits, "--limit", 3, *bounds, "--out", values, "--plot", plot, "-q")
    assert result.exit_code == 0, result.output
    rows, shown = lines(values), words(result)
    for name in ("continuous, dequantized", "continuous, decoder", "discrete, 5 steps"):
        mean = sum(float(row[f"bound, {name}"]) for row in rows) / 3
        assert abs(float(shown.partition(f" {name} ")[2].split()[0]) - mean) < 1e-4
    assert "gap to the K-draw bound" in shown
    assert all(float(row["dequantization_nats"]) >= 0 for row in rows)
    with Image.open(plot) as picture:
        assert picture.format == "PNG"


def test_a_requested_error_is_met_or_said_not_to_be(digits: Path) -> None:
    common = ("likelihood", digits, "--limit", 2, "--nodes", 8, "-q")
    met = words(run(*common, "--stderr", "0.001"))
    assert "the requested standard error of 0.001 nats was met for all events" in met
    missed = run(*common, "--stderr", "0.001", "--trace", "Hutchinson(probes=2, max_products=16)")
    assert missed.exit_code == 0
    assert "was not met for 2 of 2 events; allow more products" in words(missed)
    refused = run(*common, "--stderr", 1, "--trace", "ExactTrace()")
    assert refused.exit_code == 2
    assert "--stderr asks for random probes, got --trace 'ExactTrace()'" in words(refused)


def test_events_that_do_not_arrive_are_told_or_refused(digits: Path, tmp_path: Path) -> None:
    values = tmp_path / "values.csv"
    common = ("likelihood", digits, "--limit", 2, "--max-nfe", 7, "--tolerance", "1e-4", "-q")
    result = run(*common, "--out", values, "--plot", tmp_path / "h.png")
    assert result.exit_code == 0, result.output
    assert "did not arrive 2 MAX_NFE" in words(result)
    assert [(row["status"], row["bits/dim"]) for row in lines(values)] == [("MAX_NFE", "nan")] * 2
    strict = run(*common, "--strict")
    assert strict.exit_code == 1
    assert "raise --max-nfe, or leave --strict out" in words(strict)


def test_what_reading_needs_is_said_and_recorded(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("a,b,kind\n" + "".join(f"{i % 5}.5,{i % 7},{'xy'[i % 2]}\n" for i in range(40)))
    out, common = tmp_path / "run", ("--read", "label=kind", "--read", "columns=('b', 'a')")
    small = ("--network", "MLP(width=16, depth=1, num_classes=2, null_class=True)", "--steps", 1, "--batch-size", 4)
    first = run("train", "--data", table, *common, "--out", out, *small, "--label-dropout", "0.5", "-q")
    assert first.exit_code == 0, first.output
    config = json.loads((out / "config.json").read_text())
    assert config["about"]["read"] == ["label=kind", "columns=('b', 'a')"]
    assert "label_dropout=0.5" in config["training"]
    assert run("train", "--config", out, "--out", tmp_path / "again", "-q").exit_code == 0
    one, two = (scoresde.load(folder).net.state_dict() for folder in (out, tmp_path / "again"))
    assert all(bool((one[name] == two[name]).all()) for name in one)


def test_a_network_in_another_one_has_the_shape_of_the_data_too_and_counts_its_levels(tmp_path: Path) -> None:
    out, inner = tmp_path / "run", "UNet(channels=16, multipliers=(1,), blocks=1, attention=(), augment=9)"
    said = ("--network", f"QuantizedSkip({inner}, bins=17)", "--augment", "Augment(p=0.3)", "--lr-end", 0)
    result = run("train", "--data", "digits", "--out", out, *said, "--steps", 2, "--warmup", 1, "--batch-size", 4, "-q")
    assert result.exit_code == 0, result.output
    net = scoresde.load(out).net
    counts = np.bincount(scoresde.load_data("digits").train.flatten(), minlength=17) + 1
    np.testing.assert_allclose(net.state_dict()["log_histogram"].exp(), counts / counts.sum(), rtol=1e-5)
    training = json.loads((out / "config.json").read_text())["training"]
    for text in ("dequantize=False", "augment=Augment(p=0.3", "lr_end=0.0", "warmup=1"):
        assert text in training
    refused = run("train", "--data", "digits", "--out", tmp_path / "no", *said, "--dequantize", "-q")
    assert refused.exit_code == 2
    assert "must be trained on levels' centers" in words(refused)


def test_levels_are_spread_or_stand_at_centers_as_the_network_wants_it() -> None:
    about = Description("pictures", (1, 8, 8), bins=256)
    unsaid = dict.fromkeys(("network", "schedule", "process", "parameterization", "weighting", "timesteps"))
    assert chosen(about, **unsaid).training.dequantize is False
    assert chosen(about, **{**unsaid, "network": "QuantizedSkip(UNet(channels=16))"}).training.dequantize is False
    assert chosen(about, **{**unsaid, "network": "UNet(channels=16)"}).training.dequantize is True
    assert chosen(about, **{**unsaid, "network": "UNet(channels=16)"}, dequantize=False).training.dequantize is False


def test_what_has_an_option_of_its_own_may_be_read_too() -> None:
    data = load_data("digits", test_fraction=0.2, split_seed=0, read=["test_fraction=0.5", "seed=3"])
    assert len(data.test) == 899
    assert bool((data.test == load_data("digits", test_fraction=0.5, split_seed=3).test).all())


def test_what_a_run_held_out_is_what_is_scored_and_what_is_said_comes_before(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(12, 2)))
    out, split = tmp_path / "run", ("--split-seed", 3, "--test-fraction", "0.5")
    small = ("--network", NET, "--steps", 1, "--batch-size", 4, "--watch-every", 0, "-q")
    assert run("train", "--data", tmp_path / "x.npy", *split, *small, "--out", out).exit_code == 0

    def scored(*said: str | Path | int, at: Path = out) -> list[str]:
        values = tmp_path / "values.csv"
        result = run("likelihood", at, *said, "--out", values, "-q")
        assert result.exit_code == 0, result.output
        return [row["nats"] for row in lines(values)]

    held_out = scored()
    assert len(held_out) == 6
    assert held_out == scored(at=max(out.glob("checkpoint-*"))) == scored("--data", tmp_path / "x.npy", *split)
    assert held_out != scored("--split-seed", 4)
    assert run("train", "--config", out, "--split-seed", 4, "--out", tmp_path / "again", "-q").exit_code == 0
    about = json.loads((tmp_path / "again" / "config.json").read_text())["about"]
    assert about == {"data": str(tmp_path / "x.npy"), "bins": None, "test_fraction": 0.5, "split_seed": 4, "read": []}
    (out / "config.json").write_text("{")
    refused = run("likelihood", out, "-q")
    assert refused.exit_code == 2
    assert "says what was held out, and cannot be read; restore it, or take it away" in words(refused)


SMALL = ("--network", NET, "--steps", 1, "--batch-size", 4, "--watch-every", 0, "-q")


def test_what_was_held_out_is_not_looked_for_in_data_that_have_changed(tmp_path: Path) -> None:
    file, out = tmp_path / "x.npy", tmp_path / "run"
    x = np.random.default_rng(0).normal(size=(20, 2))
    np.save(file, x)
    assert run("train", "--data", file, *SMALL, "--out", out).exit_code == 0
    scored = ("likelihood", out, "--nodes", 8, "-q")
    none = run(*scored, "--test-fraction", 0)
    assert none.exit_code == 2
    assert "there must be events to score, the test part of x has none" in words(none)
    assert "x, test part, 3 of 4 events" in words(run(*scored, "--limit", 3))
    assert "x, test part, 4 of 4 events" in words(run(*scored, "--data", file))
    np.save(file, x[::-1])
    for part in ((), ("--part", "test"), ("--part", "train")):
        refused = run(*scored, *part)
        assert refused.exit_code == 2
        assert f"{file} holds other events than it was trained on, or in another order" in words(refused)
        assert "by --part all, or name others by --data" in words(refused)
    for said, told in (
        (("--part", "all"), "train and test part, 20 of 20 events"),
        (("--data", file), "train and test part, 20 of 20 events"),
        (("--data", file, "--part", "train"), "train part, 16 of 16 events"),
        (("--data", file, "--test-fraction", "0.5"), "test part, 10 of 10 events"),
        (("--split-seed", 1), "test part, 4 of 4 events"),
    ):
        assert told in words(run(*scored, *said))


def test_data_of_ones_own_are_scored_whole_and_each_as_it_would_be_in_its_part(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    np.savez(tmp_path / "x.npz", train=x[:15], test=x[15:])
    out, values = tmp_path / "run", tmp_path / "values.csv"
    assert run("train", "--data", "ring", *SMALL, "--out", out).exit_code == 0
    found = {}
    for name, said in (
        ("own", ()),
        ("all", ("--part", "all")),
        ("train", ("--part", "train")),
        ("test", ("--part", "test")),
    ):
        result = run("likelihood", out, "--data", tmp_path / "x.npz", *said, "--nodes", 8, "--out", values, "-q")
        assert result.exit_code == 0, result.output
        found[name] = [float(row["nats"]) for row in lines(values)]
    assert found["own"] == found["all"]
    np.testing.assert_allclose(found["all"], found["train"] + found["test"], atol=1e-6)
    assert len(found["test"]) == 5


def test_a_run_finds_its_data_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        assert result.exit_code == 0, words(result)
    assert json.loads(Path("again/config.json").read_text())["about"]["data"] == str(tmp_path / "x.npy")


def test_what_a_run_held_out_is_not_guessed_where_it_is_not_recorded(tmp_path: Path) -> None:
    data = scoresde.load_data("ring", n=50)
    model = scoresde.ScoreModel(scoresde.MLP((2,), width=8, depth=1), scoresde.VPSDE(), data=data.description)
    scoresde.train(model, data, scoresde.Training(steps=1, batch_size=4), run_dir=tmp_path)
    common = ("likelihood", tmp_path, "--nodes", 8, "-q")
    refused = run(*common)
    assert refused.exit_code == 2
    assert "does not say where its data came from; name data by --data" in words(refused)
    own = ("--data", "ring", "--read", "n=50")
    assert "ring, test part, 10 of 10 events" in words(run(*common, *own))
    assert "train and test part, 50 of 50 events" in words(run(*common, *own, "--split-seed", 1))


@pytest.mark.parametrize("text", ["MLP", "MLP()", "MLP ( )", "MLP( width=8)", "MLP(event_shape=(2,))"])
def test_a_shape_that_is_left_out_is_that_of_the_data(text: str) -> None:
    assert parse_network(text, (2,)).event_shape == (2,)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--trace", "Hutchinson(probes=0)"], "probes must be a positive integer, got 0"),
        (["--trace", "Hutchinson(probs=2)"], "did you mean probes?"),
        (["--trace", "ExactTrace(limit=16)"], "an exact trace costs one Jacobian product per dimension at every node"),
        (["--dequantization", "Unifrm()"], "did you mean UniformDequantization?"),
        (["--dequantization", "ExactTrace()"], "a Dequantization, got Exact"),
        (["--draws", "0"], "draws must be a positive integer, got 0"),
        (["--nodes", "3"], "nodes must be an integer >= 8, got 3"),
        (["--tolerance", "0"], "tol must be positive"),
        (["--stderr", "-1"], "stderr must be positive and finite"),
        (["--bound", "--evaluations", "12"], "must be a positive multiple of 8"),
        (["--limit", "0"], "--limit"),
        (["--part", "tset"], "did you mean test?"),
        (["--part", "all", "--test-fraction", "0.5"], "--part all leaves nothing out, got --test-fraction 0.5"),
        (["--steps", "7", "--evaluations", "16"], "--steps and --evaluations say how bounds are made"),
        (["--out", "s.npz"], "--out must end in .csv, got s.npz"),
        (["--plot", "h.pdf"], "--plot must end in .png, got h.pdf"),
        (["--data", "{above}"], "data must lie in [0, 17)"),
        (["--data", "{floats}"], "say --bins 17"),
    ],
)
def test_a_mistake_in_what_is_to_be_scored_is_answered_in_a_sentence(
    arguments: list[str], answer: str, digits: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "above.npy", np.full((9, 1, 8, 8), 17, np.uint8))
    np.save(tmp_path / "floats.npy", np.random.default_rng(0).normal(size=(9, 1, 8, 8)))
    given = [text.format(above=tmp_path / "above.npy", floats=tmp_path / "floats.npy") for text in arguments]
    bins = ["--bins", 17] if "{above}" in arguments else []
    result = run("likelihood", digits, "--limit", 1, *given, *bins, "-q")
    assert result.exit_code == 2
    assert answer in words(result)


def test_a_png_holds_one_tile_per_sample(digits: Path, tmp_path: Path) -> None:
    result = run("sample", digits, "-n", 4, "--sampler", "DDIM(steps=2)", "--out", tmp_path / "grid.png", "-q")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "grid.png") as sheet:
        assert sheet.size == (2 * 40 + 3, 2 * 40 + 3)


def test_with_seeds_a_sample_does_not_depend_on_the_others(digits: Path, tmp_path: Path) -> None:
    found = {}
    for name, seeds in (("all", "0-3"), ("one", "2")):
        out = tmp_path / f"{name}.npz"
        arguments = ("--sampler", "EulerMaruyama(steps=4)", "--seeds", seeds, "--trajectory", "--out", out, "-q")
        assert run("sample", digits, *arguments).exit_code == 0
        with np.load(out) as file:
            found[name] = file["trajectory"]
    assert found["all"].shape == (5, 4, 1, 8, 8)
    assert np.allclose(found["all"][:, 2], found["one"][:, 0], atol=1e-6)


def test_labels_are_dealt_in_turn_and_change_what_is_drawn(tmp_path: Path) -> None:
    net = scoresde.MLP((1, 8, 8), width=8, depth=1, num_classes=10)
    for index, parameter in enumerate(net.parameters()):
        torch.nn.init.normal_(parameter, std=0.3, generator=torch.Generator().manual_seed(index))
    about = dataclasses.replace(scoresde.load_data("digits").description, labels=("T-shirt", "bag", *"cdefghij"))
    model = scoresde.ScoreModel(net, scoresde.VPSDE(), scoresde.V(), data=about)
    save(model, tmp_path / "classes")
    arguments = ("sample", tmp_path / "classes", "--seeds", "5,5,5,5,5", "--sampler", "DDIM(steps=3)", "-q")
    result = run(*arguments, "--labels", "3,T-shirt,0-1", "--out", tmp_path / "x.npz")
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "x.npz") as file:
        drawn = file["x"]
    cond = torch.tensor([3, 0, 0, 1, 3])
    expected = scoresde.sample(model.eval(), 5, scoresde.DDIM(steps=3), seeds=[5] * 5, cond=cond).data
    assert np.allclose(drawn, expected.numpy())
    assert not np.allclose(drawn[0], drawn[1])
    assert np.allclose(drawn[0], drawn[4])
    for labels, wrong in (
        ("T-shrt", "no class is named 'T-shrt'; did you mean T-shirt?"),
        ("8-10", "labels must be one of 0 ... 9, got 10"),
        ("4-x", "no class is named '4-x'"),
    ):
        refused = run(*arguments, "--labels", labels)
        assert refused.exit_code == 2
        assert wrong in words(refused)


def test_classes_that_are_called_numbers_are_meant_by_name() -> None:
    net = scoresde.MLP((3,), width=8, depth=1, num_classes=4)

    def asked(text: str, names: tuple[str, ...] | None) -> list[int]:
        about = Description("few", (3,), labels=names)
        return classes(text, scoresde.ScoreModel(net, scoresde.VPSDE(), scoresde.V(), data=about))

    assert asked("1,2-4", ("1", "2", "3", "4")) == [0, 1, 2, 3]
    assert asked("2", ("1.0", "2", "3", "4")) == [1]
    assert asked("a-b-c,0", ("a-b", "c", "d", "e")) == [0, 1, 0]
    assert asked("1-2", None) == [1, 2]
    for text in ("0", "5", "4-1", "1-5"):
        with pytest.raises(ValueError, match=f"no class is named '{text}'"):
            asked(text, ("1", "2", "3", "4"))
    with pytest.raises(ValueError, match="rising ranges"):
        asked("3-1", None)


def test_labels_for_a_network_without_classes_are_refused(digits: Path) -> None:
    refused = run("sample", digits, "-n", 2, "--labels", "3", "-q")
    assert refused.exit_code == 2
    assert "needs a network that was trained on classes, got '3'" in words(refused)


def test_the_same_seed_draws_the_same_and_another_does_not(digits: Path, tmp_path: Path) -> None:
    drawn = []
    for seed in (1, 1, 2):
        arguments = ("-n", 3, "--sampler", "DDPM(steps=3)", "--seed", seed, "--out", tmp_path / "x.npz", "-q")
        assert run("sample", digits, *arguments).exit_code == 0
        with np.load(tmp_path / "x.npz") as file:
            drawn.append(file["x"])
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[0], drawn[2])


def test_a_sampler_is_calibrated_once_and_used_with_the_weights_it_was_fitted_to(tmp_path: Path) -> None:
    out, drawn = tmp_path / "ring", tmp_path / "x.npz"
    common = ("--data", "ring", "--out", out, "--network", NET, "--batch-size", 64, "-q")
    assert run("train", *common, "--steps", 60).exit_code == 0
    use = ("sample", out, "-n", 4, "--sampler", "DDIM(steps=4)", "--calibrated", "--out", drawn, "-q")
    assert "there must be calibrations in" in words(run(*use))
    fitted = run(
        "calibrate", out, "--sampler", "DDIM()", "--steps", 4, "--noises", 16, "--iterations", 3, "--batch-size", 5
    )
    assert fitted.exit_code == 0, fitted.output
    [entry] = json.loads((out / "calibrated.json").read_text())["calibrations"]
    assert f"16 noises held out {entry['original_error']:.3g} {entry['error']:.3g}" in words(fitted)
    assert f"scoresde sample {out} --sampler 'DDIM(steps=4)' --calibrated" in words(fitted)
    assert run(*use, "--trajectory").exit_code == 0
    assert entry["moments"] is not None
    found = load_calibration(out, DDIM(steps=4)).sampler
    assert isinstance(found, Whitened)
    assert isinstance(found.sampler.grid, ExplicitGrid)
    taus = found.sampler.grid.taus
    with np.load(drawn) as file:
        assert file["taus"].tolist() == [taus[0], *taus[2:]]  # what comes before a call is part of its step
    assert "DDIM(steps=4), calibrated" in words(run(*use))
    assert run(*use, "--raw").exit_code == 2
    model = scoresde.load(out)
    next(model.net.parameters()).data.add_(1.0)
    scoresde.save(model, out)
    stale = run(*use)
    assert stale.exit_code == 2
    assert "a calibration is used with the weights that it was fitted to" in words(stale)
    assert "--calibrated needs a sampler with a grid, got ODE" in words(run(*use[:5], "ODE()", *use[6:]))


def test_a_run_is_resumed_when_asked_and_never_begun_anew_unsaid(tmp_path: Path) -> None:
    out = tmp_path / "ring"
    common = ("--data", "ring", "--out", out, "--network", NET, "--batch-size", 8, "-q")
    assert run("train", *common, "--steps", 2).exit_code == 0
    again = run("train", *common, "--steps", 2)
    assert again.exit_code == 2
    assert "pass --resume to go on with that run" in words(again)
    assert run("train", *common, "--steps", 2, "--resume").exit_code == 0
    nothing = run("train", *common[:3], tmp_path / "none", "--network", NET, "--resume", "-q")
    assert nothing.exit_code == 2
    assert "there must be a checkpoint" in words(nothing)


def test_every_part_of_a_model_can_be_said(tmp_path: Path) -> None:
    out = tmp_path / "model"
    parts = {
        "--schedule": "LogLinear(log_snr_max=9.0)",
        "--process": "VPSDE(tau_min=1e-3)",
        "--parameterization": "Eps()",
        "--weighting": "MinSNR(gamma=3)",
        "--timesteps": "StratifiedTimesteps()",
        "--network": NET,
    }
    said = [word for pair in parts.items() for word in pair]
    assert run("train", "--data", "moons", "--out", out, "--steps", 1, "--batch-size", 4, "-q", *said).exit_code == 0
    model = scoresde.load(out)
    assert model.sde == scoresde.VPSDE(scoresde.LogLinear(log_snr_max=9.0), tau_min=1e-3)
    assert model.parameterization == scoresde.Eps()
    shown = words(run("info", out))
    for text in ("MinSNR(gamma=3.0)", "StratifiedTimesteps()", "event_shape=(2,), width=16, depth=1", "step 1"):
        assert text in shown.replace("gamma=3)", "gamma=3.0)")


def test_the_users_own_files_are_data_too(tmp_path: Path) -> None:
    np.save(tmp_path / "table.npy", np.random.default_rng(0).normal(5.0, 3.0, (40, 4)))
    out = tmp_path / "run"
    common = ("--data", tmp_path / "table.npy", "-q")
    assert run("train", *common, "--out", out, "--network", NET, "--steps", 1, "--batch-size", 4).exit_code == 0
    scored = run("likelihood", out, *common, "--limit", 2)
    assert scored.exit_code == 0, scored.output
    assert "held out nats" in words(scored)
    assert "bits/dim" not in scored.output
    assert "Jacobian products 160 per event" in words(scored)  # 40 nodes, four values, an exact trace
    for option in (("--draws", 2), ("--dequantization", "Uniform()")):
        asked = run("likelihood", out, *common, *option)
        assert asked.exit_code == 2
        assert "bits per dimension need quantized data with their bins and scale" in words(asked)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["train", "--data", "digts", "--out", "x"], "did you mean digits"),
        (["train", "--data", "ring", "--out", "x", "--weighting", "MinSNT()"], "did you mean MinSNR?"),
        (["train", "--data", "ring", "--out", "x", "--weighting", "MinSNR(gama=5)"], "did you mean gamma?"),
        (["train", "--data", "ring", "--out", "x", "--network", "MPL()"], "did you mean MLP?"),
        (["train", "--data", "ring", "--out", "x", "--schedule", "Cosin()"], "did you mean Cosine?"),
        (["train", "--data", "ring", "--out", "x", "--precision", "bf61"], "did you mean bf16?"),
        (["train", "--data", "ring", "--out", "x", "--weighting", "DDPM()"], "a Weighting, got DDPM"),
        (["train", "--data", "ring", "--out", "x", "--stepz", "5"], "--steps"),
        (["trian", "--data", "ring"], "train"),
        (["train", "--data", "ring", "--out", "x", "--device", "gpu0"], "a device must be one that torch can use"),
        (["train", "--data", "ring", "--out", "x", "--steps", "-1"], "steps must be a whole number >= 0, got -1"),
        (["train", "--data", "ring", "--out", "x", "--read", "n"], "--read takes name=value, such as size=32, got 'n'"),
        (
            ["train", "--data", "ring", "--out", "x", "--read", "m=40"],
            "unknown option of 'ring' 'm'; did you mean modes? Valid: modes, n,",
        ),
        (["train", "--data", "digits", "--out", "x", "--augment", "Augment()"], "augment=9"),
        (["sample", "nowhere"], "there must be a checkpoint at nowhere"),
        (["sample", "nowhere", "--out", "x.jpg"], "must end in .png or .npz, got x.jpg"),
        (["sample", "nowhere", "--trajectory", "--out", "x.png"], "--trajectory is written as .npz"),
        (["sample", "nowhere", "-n", "9", "--seeds", "0-3"], "--seeds says how many samples there are"),
        (["sample", "nowhere", "--seeds", "0-3", "--seed", "5"], "got --seed too; leave it out"),
        (["sample", "nowhere", "--number=-3"], "--number"),
        (["sample", "nowhere", "--batch-size", "0"], "--batch-size"),
        (["train", "--data", "ring", "--out", "x", "--watch-every=-1"], "--watch-every"),
        (["train", "--data", "ring", "--out", "x", "--save-every", "0"], "--save-every"),
        (["info", "nowhere", "--weightings"], "--weightings is a table of the package's own, got nowhere too"),
        (["calibrate", "nowhere", "--noises", "0"], "--noises"),
        (["calibrate", "nowhere"], "there must be a checkpoint at nowhere"),
        (["calibrate", "nowhere", "--sampler", "Adam()"], "did you mean Adams?"),
        (["compare", "--data", "ring", "--out", "x", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["compare", "--data", "ring", "--out", "x", "--sampler", "DDPN()"], "did you mean DDPM?"),
    ],
)
def test_a_mistake_is_answered_in_a_sentence_and_leaves_nothing_behind(
    arguments: list[str], answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert answer in words(result)
    assert "Traceback" not in words(result)
    assert list(tmp_path.iterdir()) == []


def test_settings_are_parsed_and_never_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("__import__('os').mkdir('owned')", "[].__class__", "MLP(width=2**9)", "(lambda: 1)()"):
        for option in ("--weighting", "--network", "--timesteps"):
            result = run("train", "--data", "ring", "--out", "x", option, text)
            assert result.exit_code == 2
            assert isinstance(result.exception, SystemExit)
    assert list(tmp_path.iterdir()) == []


class Bomb:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("owned",)


@pytest.mark.parametrize("command", ["sample", "likelihood", "info"])
def test_a_pickle_in_place_of_a_checkpoint_is_never_opened(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.pt").write_bytes(pickle.dumps(Bomb()))
    result = run(command, "model.pt")
    assert result.exit_code == 2
    assert "was not opened, since pickles can run code" in words(result)
    assert not Path("owned").exists()


def test_a_damaged_checkpoint_is_told_with_exit_code_one(digits: Path, tmp_path: Path) -> None:
    newest = sorted(digits.glob("checkpoint-*"))[-1]
    copy = tmp_path / newest.name
    copy.mkdir()
    for file in newest.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    weights = bytearray((copy / "ema.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "ema.safetensors").write_bytes(weights)
    result = run("sample", tmp_path)
    assert result.exit_code == 1
    assert "does not match its checksum" in words(result)


def test_an_extra_that_is_missing_is_told_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise ModuleNotFoundError("x is read by y, which is missing; pip install 'scoresde[y]'.")

    with pytest.raises(typer.Exit) as ended:
        shown(command)()
    assert ended.value.exit_code == 2
    assert "error: x is read by y" in capsys.readouterr().err


def test_a_table_is_scored_with_the_columns_and_codes_it_was_trained_on(tmp_path: Path) -> None:
    def table(name: str, head: str, colors: str) -> Path:
        rows = [f"{i},{i * i},{colors[i % len(colors)]}" for i in range(12)]
        (tmp_path / name).write_text("\n".join([head, *rows]) + "\n")
        return tmp_path / name

    first, out = table("a.csv", "x,y,c", "rgb"), tmp_path / "run"
    read = ("--read", "categories=('c',)")
    said = ("--network", NET, "--steps", 1, "--batch-size", 4, "--test-fraction", "0.5", "-q")
    result = run("train", "--data", first, *read, "--out", out, *said)
    assert result.exit_code == 0, result.output
    about = json.loads((out / "config.json").read_text())["about"]
    assert about["columns"] == ["x", "y", "c"]
    assert about["categories"] == {"c": ["b", "g", "r"]}
    assert run("likelihood", out, "--limit", 2, "-q").exit_code == 0
    for other, wrong in (
        (
            table("b.csv", "y,x,c", "rgb"),
            "columns that the model was trained on, ['x', 'y', 'c'], got ['y', 'x', 'c']",
        ),
        (table("c.csv", "x,y,c", "rb"), "the categories that the model was trained on"),
    ):
        refused = run("likelihood", out, "--data", other, "--limit", 2, "-q")
        assert refused.exit_code == 2
        assert wrong in words(refused)
    again = run("train", "--config", out, "--data", table("d.csv", "y,x,c", "rgb"), "--out", tmp_path / "d", "-q")
    assert again.exit_code == 0, again.output


def test_what_another_reader_was_told_is_not_told_to_this_one(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for kind in "ab":
        (folder / kind).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (9, 9), 20 * i).save(folder / kind / f"{i}.png")
    out = tmp_path / "run"
    said = ("--network", "MLP(width=8, depth=1)", "--steps", 1, "--batch-size", 4, "-q")
    assert run("train", "--data", folder, "--read", "size=4", "--out", out, *said).exit_code == 0
    np.save(tmp_path / "x.npy", np.full((6, 1, 4, 4), 7, np.uint8))
    result = run("likelihood", out, "--data", tmp_path / "x.npy", "--bins", 256, "--limit", 1, "--nodes", 8, "-q")
    assert result.exit_code == 0, result.output


def test_bins_are_those_of_training(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(60).reshape(20, 3) % 4)
    out = tmp_path / "run"
    said = ("--network", NET, "--steps", 1, "--batch-size", 4, "--out", out, "-q")
    assert run("train", "--data", tmp_path / "x.npy", *said).exit_code == 0
    refused = run("likelihood", out, "--bins", 4, "-q")
    assert refused.exit_code == 2
    assert "--bins must be those that the model was trained with, None, got 4" in words(refused)


def test_points_cannot_be_written_as_a_picture_and_nothing_is_left(tmp_path: Path) -> None:
    out = tmp_path / "run"
    common = ("--data", "ring", "--network", NET, "--steps", 1, "--batch-size", 4, "-q")
    assert run("train", *common, "--out", out).exit_code == 0
    result = run("sample", out, "-n", 2, "--sampler", "DDIM(steps=2)", "--out", tmp_path / "x.png", "-q")
    assert result.exit_code == 2
    assert "write them as .npz" in words(result)
    assert not (tmp_path / "x.png").exists()


def test_info_lists_what_can_be_written_and_which_weightings_are_one() -> None:
    shown = words(run("info"))
    for name in ("DDPM", "EulerMaruyama", "ODE", "MinSNR", "Cosine", "VPSDE", "UNet", "Hutchinson", "digits", "torch"):
        assert name in shown
    assert scoresde.objective.weighting.equivalence_table() in run("info", "--weightings").output


def test_compare_writes_a_report_and_says_where(tmp_path: Path) -> None:
    samplers = ("--sampler", "DDPM(steps=3)", "--sampler", "DDIM(steps=2)")
    options = ("--network", NET, "--quick", "--steps", 3, "--batch-size", 8, "--limit", 6, "-n", 30, "-q")
    result = run("compare", "--data", "digits", "--out", tmp_path, "--weighting", "Simple()", *samplers, *options)
    assert result.exit_code == 0, result.output
    assert "index.html" in words(result)
    said = json.loads((tmp_path / "results.json").read_text())
    assert said["weightings"] == ["Simple()"]
    assert said["samplers"] == ["DDPM(steps=3)", "DDIM(steps=2)"]
    assert said["n"] == 30
    names = ("film", "samples", "likelihoods", "bounds", "noise", "cost")
    for name in ("index.html", "report.md", *(f"{name}.png" for name in names)):
        assert (tmp_path / name).is_file()
    shown, bounds = words(result), said["runs"][0]["bounds"]
    for bound in bounds:
        assert f"Simple() {bound['name']} {bound['value']:.3f}" in shown
    assert len(bounds) == 4


@pytest.mark.parametrize(("text", "found"), [("3", [3]), ("0-2", [0, 1, 2]), ("5, 1-2", [5, 1, 2])])
def test_seeds_are_numbers_and_ranges(text: str, found: list[int]) -> None:
    assert numbers(text) == found


def test_seeds_of_other_forms_are_refused() -> None:
    with pytest.raises(ValueError, match="seeds are whole numbers and rising ranges"):
        numbers("1..4")


def test_every_name_of_the_package_is_there() -> None:
    for name in scoresde.__all__:
        assert getattr(scoresde, name) is not None
    assert set(scoresde.__all__) <= set(dir(scoresde))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        scoresde.nonsense  # noqa: B018


def test_importing_the_package_and_asking_for_help_do_not_import_torch() -> None:
    program = "import sys, scoresde, scoresde.cli; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=Path(__file__).parents[2]).returncode == 0


def test_an_output_that_cannot_be_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for command in ("sample", "likelihood"):
        ending = "npz" if command == "sample" else "csv"
        shown = run(command, str(tmp_path / "no checkpoint"), "--out", str(tmp_path / "file" / f"values.{ending}"))
        assert shown.exit_code == 1
        assert "needs a folder to write to" in " ".join(shown.output.split())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody may write")
def test_a_folder_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    for command, option, name in (("sample", "--out", "x.npz"), ("likelihood", "--plot", "x.png")):
        shown = run(command, tmp_path / "no checkpoint", option, f"/proc/self/{name}")
        assert shown.exit_code == 1
        assert f"{option} needs a folder to write to, /proc/self is none" in words(shown)


@pytest.mark.parametrize(
    ("command", "name", "writer"),
    [
        (("sample", "-n", 2, "--sampler", "DDIM(steps=2)"), "x.npz", "numpy.savez_compressed"),
        (("sample", "-n", 2, "--sampler", "DDIM(steps=2)"), "x.png", "scoresde.plots.image_grid.save_image_grid"),
        (("likelihood", "--limit", 2, "--nodes", 8), "x.csv", "csv.writer"),
        (("likelihood", "--limit", 2, "--nodes", 8), "x.png", "scoresde.plots.histogram.save_histogram"),
    ],
)
def test_an_output_that_cannot_be_finished_leaves_the_earlier_one(
    command: tuple, name: str, writer: str, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(place: object, *_: object, **__: object) -> None:
        if isinstance(place, Path):
            place.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / name
    out.write_text("earlier")
    monkeypatch.setattr(writer, full)
    option = "--plot" if command[0] == "likelihood" and name == "x.png" else "--out"
    failed = run(command[0], digits, *command[1:], option, out, "-q")
    assert failed.exit_code == 1
    assert f"{out} must be writable, got: {os.strerror(errno.ENOSPC)}; free or choose another place" in words(failed)
    assert out.read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EACCES, os.strerror(errno.EACCES), "x.npy"), "got: Permission denied: 'x.npy'; check its path"),
        (OSError(errno.ENOSPC, "a place must be writable, got: [Errno 28] full; free it."), "error: a place must be"),
    ],
)
def test_the_systems_errors_are_sentences_too(error: OSError, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit):
        shown(command)()
    text = " ".join(capsys.readouterr().err.split())
    assert said in text
    assert "Errno" not in text


def test_a_comparison_is_told_its_own_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    def compare() -> None:
        raise ValueError("it has lr = 1. Use those, or begin anew in another run_dir.")

    with pytest.raises(typer.Exit):
        shown(compare)()
    assert "Use those, or train anew by --fresh, or in another --out." in " ".join(capsys.readouterr().err.split())


def test_what_may_be_done_next_is_quoted_for_the_shell(tmp_path: Path) -> None:
    out = tmp_path / "a b"
    trained = run("train", "--data", "ring", *SMALL, "--out", out)
    assert f"next: scoresde sample '{out}' --out samples.npz" in words(trained)
    drawn = run("sample", out, "-n", 2, "--sampler", "DDIM(steps=2)", "-q")
    assert "2 samples drawn and not kept; to keep them add --out samples.npz" in words(drawn)
    assert "scoresde sample" not in words(drawn)


@pytest.mark.skipif(os.name == "nt", reason="pipes break otherwise there")
def test_a_reader_that_leaves_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-m", "scoresde", "info", "--weightings"],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
        text=True,
    )
    os.close(write)
    assert ended.stderr == ""


def test_letters_that_a_terminal_does_not_know_are_no_error() -> None:
    program = [sys.executable, "-m", "scoresde"]
    for words_of in (("train", "--help"), ("info", "--weightings")):
        ended = subprocess.run(
            [*program, *words_of], capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "latin-1"}
        )
        assert ended.returncode == 0, ended.stderr
        assert b"?" in ended.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_clean_leaves_the_users_runs(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).parents[2] / "Makefile", tmp_path)
    folders = ("scoresde", "tests", "examples", "docs", "runs/demo", "runs/examples", "runs/mine")
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mine"]
    (tmp_path / "runs" / "mine").rmdir()
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert not (tmp_path / "runs").exists()


def test_a_run_with_lengths_draws_from_an_average_of_any_length(tmp_path: Path) -> None:
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
    assert "raw or averaged" in words(result)
