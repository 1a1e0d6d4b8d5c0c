"""``scoresde likelihood``: values, error budget and bounds of the right events, as a table, a CSV and a histogram."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import NET, SMALL, csv_rows, one_line, run
from PIL import Image

import scoresde
from scoresde.cli.scored_events import decimals, interval
from scoresde.evaluation.likelihood_labels import BITS, LOG_DENSITY


def test_likelihood_prints_its_error_budget_and_writes_one_line_per_event(digits: Path, tmp_path: Path) -> None:
    values = tmp_path / "new" / "values.csv"
    common = ("likelihood", digits, "--limit", 3, "--trace", "Hutchinson(probes=2)", "-q")
    result = run(*common, "--out", values)
    assert result.exit_code == 0, result.output
    rows = csv_rows(values)
    assert [row["index"] for row in rows] == ["0", "1", "2"]
    assert {row["status"] for row in rows} == {"ARRIVED"}
    mean = sum(float(row[BITS.label]) for row in rows) / 3
    shown = one_line(result)
    assert abs(float(shown.partition("probability-flow ODE ")[2].split()[0]) - mean) < 1e-4
    nat = 64 * math.log(2)
    for row in rows:
        assert math.isclose(float(row["trace_nats"]) / nat, float(row["stderr"]), rel_tol=1e-7)
        half = 0.5 * (float(row["high"]) - float(row["low"]))
        rest = (float(row["solver_nats"]) + float(row["quadrature_nats"])) / nat
        assert 1.9 * float(row["stderr"]) + rest < half + 1e-7 < 3 * float(row["stderr"]) + rest + 1e-6
        assert abs(float(row["low"]) + half - float(row[BITS.label])) < 1e-7
    for name in ("trace", "solver", "quadrature", "prior", "truncation"):
        printed = re.search(rf" {name}: [^0-9]*([0-9.]+) ", shown)
        assert printed is not None
        assert abs(float(printed[1]) - sum(float(row[f"{name}_nats"]) for row in rows) / 3) < 2e-4
    assert "█" in result.output
    assert "Jacobian products 80 per event" in shown  # two probes at each of 40 nodes
    assert "gap to the K-draw bound" not in shown
    assert run(*common, "--out", values).exit_code == 0
    assert rows == csv_rows(values)
    assert run(*common, "--out", values, "--seed", 1).exit_code == 0
    assert rows[0][BITS.label] != csv_rows(values)[0][BITS.label]


def test_likelihood_adds_bounds_and_draws_a_histogram(digits: Path, tmp_path: Path) -> None:
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
    rows, shown = csv_rows(values), one_line(result)
    for name in ("continuous, dequantized", "continuous, decoder", "discrete, 5 steps"):
        mean = sum(float(row[f"bound, {name}"]) for row in rows) / 3
        assert abs(float(shown.partition(f" {name} ")[2].split()[0]) - mean) < 1e-4
    assert "gap to the K-draw bound" in shown
    assert all(float(row["dequantization_nats"]) >= 0 for row in rows)
    with Image.open(plot) as picture:
        assert picture.format == "PNG"


def test_likelihood_reports_whether_the_requested_error_was_met(digits: Path) -> None:
    common = ("likelihood", digits, "--limit", 2, "--nodes", 8, "-q")
    met = one_line(run(*common, "--stderr", "0.001"))
    assert "the requested standard error of 0.001 nats was met for all events" in met
    missed = run(*common, "--stderr", "0.001", "--trace", "Hutchinson(probes=2, max_products=16)")
    assert missed.exit_code == 0
    assert "was not met for 2 of 2 events; allow more products" in one_line(missed)
    refused = run(*common, "--stderr", 1, "--trace", "ExactTrace()")
    assert refused.exit_code == 2
    assert "--stderr needs random probes, got --trace 'ExactTrace()'" in one_line(refused)


def test_events_on_which_the_solver_fails_are_counted_or_refused(digits: Path, tmp_path: Path) -> None:
    values = tmp_path / "values.csv"
    common = ("likelihood", digits, "--limit", 2, "--max-nfe", 7, "--tolerance", "1e-4", "-q")
    result = run(*common, "--out", values, "--plot", tmp_path / "h.png")
    assert result.exit_code == 0, result.output
    assert "solver failed 2 MAX_NFE" in one_line(result)
    assert [(row["status"], row[BITS.label]) for row in csv_rows(values)] == [("MAX_NFE", "nan")] * 2
    strict = run(*common, "--strict")
    assert strict.exit_code == 1
    assert "raise --max-nfe, or leave --strict out" in one_line(strict)


def test_likelihood_scores_the_held_out_events_of_the_run_unless_options_replace_the_split(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(12, 2)))
    out, split = tmp_path / "run", ("--split-seed", 3, "--test-fraction", "0.5")
    small = ("--network", NET, "--steps", 1, "--batch-size", 4, "--monitor-every", 0, "-q")
    assert run("train", "--data", tmp_path / "x.npy", *split, *small, "--out", out).exit_code == 0

    def scored(*arguments: str | Path | int, at: Path = out) -> list[str]:
        values = tmp_path / "values.csv"
        result = run("likelihood", at, *arguments, "--out", values, "-q")
        assert result.exit_code == 0, result.output
        return [row[LOG_DENSITY.label] for row in csv_rows(values)]

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
    assert "records which events were held out, and cannot be read; restore it, or remove it" in one_line(refused)


def test_held_out_events_are_refused_if_the_data_have_changed(tmp_path: Path) -> None:
    file, out = tmp_path / "x.npy", tmp_path / "run"
    x = np.random.default_rng(0).normal(size=(20, 2))
    np.save(file, x)
    assert run("train", "--data", file, *SMALL, "--out", out).exit_code == 0
    scored = ("likelihood", out, "--nodes", 8, "-q")
    none = run(*scored, "--test-fraction", 0)
    assert none.exit_code == 2
    assert "there must be events to score, the test part of x has none" in one_line(none)
    assert "x, test part, 3 of 4 events" in one_line(run(*scored, "--limit", 3))
    assert "x, test part, 4 of 4 events" in one_line(run(*scored, "--data", file))
    np.save(file, x[::-1])
    for part in ((), ("--part", "test"), ("--part", "train")):
        refused = run(*scored, *part)
        assert refused.exit_code == 2
        assert f"{file} holds other events than the model was trained on, or another order of them" in one_line(refused)
        assert "score all events by --part all, or name other data by --data" in one_line(refused)
    for arguments, expected in (
        (("--part", "all"), "train and test part, 20 of 20 events"),
        (("--data", file), "train and test part, 20 of 20 events"),
        (("--data", file, "--part", "train"), "train part, 16 of 16 events"),
        (("--data", file, "--test-fraction", "0.5"), "test part, 10 of 10 events"),
        (("--split-seed", 1), "test part, 4 of 4 events"),
    ):
        assert expected in one_line(run(*scored, *arguments))


def test_new_data_are_scored_completely_and_parts_give_the_same_values(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    np.savez(tmp_path / "x.npz", train=x[:15], test=x[15:])
    out, values = tmp_path / "run", tmp_path / "values.csv"
    assert run("train", "--data", "ring", *SMALL, "--out", out).exit_code == 0
    scores = {}
    for name, arguments in (
        ("own", ()),
        ("all", ("--part", "all")),
        ("train", ("--part", "train")),
        ("test", ("--part", "test")),
    ):
        result = run("likelihood", out, "--data", tmp_path / "x.npz", *arguments, "--nodes", 8, "--out", values, "-q")
        assert result.exit_code == 0, result.output
        scores[name] = [float(row[LOG_DENSITY.label]) for row in csv_rows(values)]
    assert scores["own"] == scores["all"]
    np.testing.assert_allclose(scores["all"], scores["train"] + scores["test"], atol=1e-6)
    assert len(scores["test"]) == 5


def test_held_out_events_that_are_not_recorded_are_not_guessed(tmp_path: Path) -> None:
    data = scoresde.load_data("ring", n=50)
    model = scoresde.ScoreModel(scoresde.MLP((2,), width=8, depth=1), scoresde.VPSDE(), data=data.description)
    scoresde.train(model, data, scoresde.Training(steps=1, batch_size=4), run_dir=tmp_path)
    common = ("likelihood", tmp_path, "--nodes", 8, "-q")
    refused = run(*common)
    assert refused.exit_code == 2
    assert "does not record where its data came from; name data by --data" in one_line(refused)
    own = ("--data", "ring", "--read", "n=50")
    assert "ring, test part, 10 of 10 events" in one_line(run(*common, *own))
    assert "train and test part, 50 of 50 events" in one_line(run(*common, *own, "--split-seed", 1))


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--trace", "Hutchinson(probes=0)"], "probes must be a positive integer, got 0"),
        (["--trace", "Hutchinson(probs=2)"], "did you mean probes?"),
        (["--trace", "ExactTrace(limit=16)"], "an exact trace costs one Jacobian product per dimension at every node"),
        (["--dequantization", "Unifrm()"], "did you mean UniformDequantization?"),
        (["--dequantization", "ExactTrace()"], "a Dequantization, got Exact"),
        (["--draws", "0"], "draws must be a positive integer, got 0"),
        (["--nodes", "3"], "nodes must be an integer of at least 8, got 3"),
        (["--tolerance", "0"], "tol must be a positive finite number, got 0.0"),
        (["--stderr", "-1"], "stderr must be a positive finite number, got -1.0"),
        (["--bound", "--evaluations", "12"], "must be a positive multiple of 8"),
        (["--limit", "0"], "--limit"),
        (["--part", "tset"], "did you mean test?"),
        (["--part", "all", "--test-fraction", "0.5"], "--part all holds nothing out, got --test-fraction 0.5"),
        (["--steps", "7", "--evaluations", "16"], "--steps and --evaluations are settings of the bounds"),
        (["--out", "s.npz"], "--out must end in .csv, got s.npz"),
        (["--plot", "h.pdf"], "--plot must end in .png, got h.pdf"),
        (["--data", "{above}"], "data must lie in [0, 17)"),
        (["--data", "{floats}"], "add --bins 17"),
    ],
)
def test_a_wrong_option_of_likelihood_is_answered_in_a_sentence(
    arguments: list[str], answer: str, digits: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "above.npy", np.full((9, 1, 8, 8), 17, np.uint8))
    np.save(tmp_path / "floats.npy", np.random.default_rng(0).normal(size=(9, 1, 8, 8)))
    given = [text.format(above=tmp_path / "above.npy", floats=tmp_path / "floats.npy") for text in arguments]
    bins = ["--bins", 17] if "{above}" in arguments else []
    result = run("likelihood", digits, "--limit", 1, *given, *bins, "-q")
    assert result.exit_code == 2
    assert answer in one_line(result)


def test_a_file_of_the_user_is_data(tmp_path: Path) -> None:
    np.save(tmp_path / "table.npy", np.random.default_rng(0).normal(5.0, 3.0, (40, 4)))
    out = tmp_path / "run"
    common = ("--data", tmp_path / "table.npy", "-q")
    assert run("train", *common, "--out", out, "--network", NET, "--steps", 1, "--batch-size", 4).exit_code == 0
    scored = run("likelihood", out, *common, "--limit", 2)
    assert scored.exit_code == 0, scored.output
    assert "held out log p, nats" in one_line(scored)
    assert "number log p (nats in data units; higher is better)" in one_line(scored)
    assert "bits/dim" not in scored.output
    assert "Jacobian products 160 per event" in one_line(scored)  # 40 nodes, four values, an exact trace
    for option in (("--draws", 2), ("--dequantization", "UniformDequantization()")):
        asked = run("likelihood", out, *common, *option)
        assert asked.exit_code == 2
        assert "bits per dimension need quantized data with their bins and scale" in one_line(asked)


def test_a_table_is_scored_with_the_columns_and_categories_of_training(tmp_path: Path) -> None:
    def table(name: str, head: str, colors: str) -> Path:
        rows = [f"{i},{i * i},{colors[i % len(colors)]}" for i in range(12)]
        (tmp_path / name).write_text("\n".join([head, *rows]) + "\n")
        return tmp_path / name

    first, out = table("a.csv", "x,y,c", "rgb"), tmp_path / "run"
    read = ("--read", "categories=('c',)")
    arguments = ("--network", NET, "--steps", 1, "--batch-size", 4, "--test-fraction", "0.5", "-q")
    result = run("train", "--data", first, *read, "--out", out, *arguments)
    assert result.exit_code == 0, result.output
    about = json.loads((out / "config.json").read_text())["about"]
    assert about["columns"] == ["x", "y", "c"]
    assert about["categories"] == {"c": ["b", "g", "r"]}
    assert run("likelihood", out, "--limit", 2, "-q").exit_code == 0
    for other in (table("b.csv", "y,x,c", "rgb"), table("c.csv", "x,y,c", "rb")):  # columns are found by name
        scored = run("likelihood", out, "--data", other, "--limit", 2, "-q")
        assert scored.exit_code == 0, scored.output
    for other, wrong in (
        (
            table("f.csv", "x,y,c", "rxx"),
            "each category of 'c' must be one that the model was trained on, b, g, r; got",
        ),
        (table("g.csv", "x,z,c", "rgb"), "unknown column 'y'"),
    ):
        refused = run("likelihood", out, "--data", other, "--limit", 2, "-q")
        assert refused.exit_code == 2
        assert wrong in one_line(refused)
    again = run("train", "--config", out, "--data", table("d.csv", "y,x,c", "rgb"), "--out", tmp_path / "d", "-q")
    assert again.exit_code == 0, again.output


def test_options_of_another_reader_are_not_used_again(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for kind in "ab":
        (folder / kind).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (9, 9), 20 * i).save(folder / kind / f"{i}.png")
    out = tmp_path / "run"
    arguments = ("--network", "MLP(width=8, depth=1)", "--steps", 1, "--batch-size", 4, "-q")
    assert run("train", "--data", folder, "--read", "size=4", "--out", out, *arguments).exit_code == 0
    np.save(tmp_path / "x.npy", np.full((6, 1, 4, 4), 7, np.uint8))
    result = run("likelihood", out, "--data", tmp_path / "x.npy", "--bins", 256, "--limit", 1, "--nodes", 8, "-q")
    assert result.exit_code == 0, result.output


def test_bins_are_those_of_training(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(60).reshape(20, 3) % 4)
    out = tmp_path / "run"
    arguments = ("--network", NET, "--steps", 1, "--batch-size", 4, "--out", out, "-q")
    assert run("train", "--data", tmp_path / "x.npy", *arguments).exit_code == 0
    refused = run("likelihood", out, "--bins", 4, "-q")
    assert refused.exit_code == 2
    assert "--bins must be those that the model was trained with, None, got 4" in one_line(refused)


def test_numbers_of_tables_have_decimals_or_six_digits_from_a_million_on() -> None:
    assert [decimals(value) for value in (-26.02984, 1e6 - 0.1, -3.41507e18)] == [
        "-26.0298",
        "999999.9000",
        "-3.41507e+18",
    ]
    assert decimals(-0.00001) == "0.0000"  # no sign
    assert decimals(0.123456, 5) == "0.12346"
    assert decimals(float("nan")) == interval(float("nan"), 1.0) == "unknown"
    assert interval(-2e6, 0.25) == "-2e+06 … 0.2500"
