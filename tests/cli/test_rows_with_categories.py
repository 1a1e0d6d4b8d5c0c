"""A table of numbers and categories through the commands, by the default: one process of both, and one bound."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import csv_rows, one_line, run

import scoresde
from scoresde.nn import MixedNet
from scoresde.process import VPSDE, Mixed

FEW = ("--steps", 2, "--batch-size", 8, "--monitor-every", 0, "-q")
NET = ("--network", "MLP(width=8, depth=1)")


@pytest.fixture(name="table", scope="module")
def _table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(0)
    color = generator.choice(["blue", "green", "red"], 80)
    lines = [f"{c},{h:.8f}" for c, h in zip(color, generator.normal(size=80))]
    path = tmp_path_factory.mktemp("rows") / "rows.csv"
    path.write_text("\n".join(["color,height", *lines]) + "\n")
    return path


@pytest.fixture(name="rows", scope="module")
def _rows(table: Path) -> Path:
    """A run; tests only read it."""
    result = run("train", "--data", table, *NET, *FEW, "--out", table.parent / "run")
    assert result.exit_code == 0, result.output
    return table.parent / "run"


def test_the_default_is_a_mixed_process_and_a_named_network_goes_into_a_mixed_net(rows: Path) -> None:
    model = scoresde.load(rows)
    assert isinstance(model.sde, Mixed)
    assert isinstance(model.net, MixedNet)
    assert (model.net.numbers, model.net.classes) == (1, (3,))
    assert json.loads((rows / "config.json").read_text())["about"]["read"] == []


def test_one_hot_asks_for_a_gaussian_process_and_a_table_of_numbers_has_one(table: Path, tmp_path: Path) -> None:
    hot = run("train", "--data", table, "--read", "one_hot=true", *NET, *FEW, "--out", tmp_path / "hot")
    assert hot.exit_code == 0, hot.output
    model = scoresde.load(tmp_path / "hot")
    assert isinstance(model.sde, VPSDE)
    assert model.event_shape == (4,)
    (tmp_path / "n.csv").write_text("a,b,c\n" + "".join(f"{i / 7},{i % 9},{i * i / 3}\n" for i in range(60)))
    numbers = run("train", "--data", tmp_path / "n.csv", *NET, *FEW, "--out", tmp_path / "numbers")
    assert numbers.exit_code == 0, numbers.output
    assert isinstance(scoresde.load(tmp_path / "numbers").sde, VPSDE)


def test_the_likelihood_is_a_bound_whose_parts_are_said_apart(rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.csv"
    options = ("--limit", 5, "--bound", "--evaluations", 8, "--out", out, "-q")
    result = run("likelihood", rows, *options, "--batch-size", 2, "--plot", tmp_path / "x.png")
    assert result.exit_code == 0, result.output
    shown = one_line(result)
    for words in ("lower bound on log p (nats in data units; higher is better)", "numbers", "categories"):
        assert words in shown
    lines = csv_rows(out)
    total, numbers, categories = (
        [float(line[name]) for line in lines]
        for name in (
            "lower bound on log p (nats in data units; higher is better)",
            "part of numbers",
            "part of categories",
        )
    )
    np.testing.assert_allclose(total, np.add(numbers, categories), rtol=1e-6)
    assert all(part < 0 for part in categories)
    model = scoresde.load(rows)
    assert model.data is not None
    assert run("likelihood", rows, *options, "--batch-size", 3).exit_code == 0
    again = [float(line["part of numbers"]) for line in csv_rows(out)]
    np.testing.assert_allclose(again, numbers, rtol=1e-5)  # a row does not depend on its batch
    assert (tmp_path / "x.png").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("likelihood", "--bound", "--steps", 10),
            "no probability-flow ODE, got --steps; leave it out, or train",
        ),
        (("likelihood", "--draws", 2, "--trace", "ExactTrace()"), "got --trace, --draws; leave them out"),
        (
            ("calibrate",),
            "calibrate needs a Gaussian process such as VPSDE(), got a model of numbers and categories; take",
        ),
        (
            ("verify",),
            "verify needs a Gaussian process such as VPSDE(), got a model of numbers and categories; take Mix",
        ),
        (
            ("distill", "--calls", 2),
            "distill needs a Gaussian process such as VPSDE(), got a model of numbers and categ",
        ),
        (("sample", "--sampler", "DDIM(steps=3)"), "got a model of Mixed; take MixedSampler(DDIM(3))."),
        (("sample", "--sampler", "Ancestral(3)"), "take MixedSampler()."),
    ],
    ids=["chain", "ode", "calibrate", "verify", "distill", "sampler of numbers", "sampler of codes"],
)
def test_what_needs_a_gaussian_process_is_refused_with_what_works(
    rows: Path, words: tuple[str | int, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command, *rest = words
    out = ("--out", tmp_path / "student") if command == "distill" else ()
    result = run(command, rows, *rest, *out)
    assert result.exit_code == 2, result.output
    assert message in one_line(result)
    assert not any(tmp_path.iterdir())


def test_a_table_of_categories_alone_has_no_part_of_numbers(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    lines = [f"{a},{b}" for a, b in zip(generator.choice(["x", "y", "z"], 60), generator.choice(["no", "yes"], 60))]
    (tmp_path / "c.csv").write_text("\n".join(["a,b", *lines]) + "\n")
    assert run("train", "--data", tmp_path / "c.csv", *NET, *FEW, "--out", tmp_path / "run").exit_code == 0
    result = run("likelihood", tmp_path / "run", "--limit", 4, "-q")
    assert result.exit_code == 0, result.output
    shown = one_line(result).split("parts of the bound")[1]
    assert "categories -" in shown
    assert "numbers" not in shown
    assert "-0.0000" not in shown


def test_incomplete_rows_are_filled_and_a_gaussian_method_is_refused(rows: Path, tmp_path: Path) -> None:
    (tmp_path / "gaps.csv").write_text("color,height\n,0.5\nred,\n")
    filled = run("impute", rows, tmp_path / "gaps.csv", "--draws", 2, "--out", tmp_path / "filled.csv")
    assert filled.exit_code == 0, filled.output
    lines = csv_rows(tmp_path / "filled.csv")
    assert next(line["height"] for line in lines if line["draw"] == "1") == "0.5"
    assert {line["color"] for line in lines} <= {"blue", "green", "red"}
    refused = run("impute", rows, tmp_path / "gaps.csv", "--method", "MMPS()", "--out", tmp_path / "no.csv")
    assert refused.exit_code == 2
    assert "BridgeSMC() to impute" in one_line(refused)


def test_a_run_is_repeated_resumed_and_started_from(rows: Path, table: Path, tmp_path: Path) -> None:
    again = run("train", "--config", rows, "--out", tmp_path / "again", "-q", "--monitor-every", 0)
    assert again.exit_code == 0, again.output
    assert run("train", "--resume", "--out", tmp_path / "again", "-q").exit_code == 0
    begun = run("train", "--from", rows, "--data", table, *FEW, "--out", tmp_path / "begun")
    assert begun.exit_code == 0, begun.output
    assert scoresde.load(tmp_path / "begun").sde == scoresde.load(rows).sde


@pytest.mark.filterwarnings("default:values lie far outside the train part")
def test_rows_of_another_file_are_scored_in_its_order(rows: Path, tmp_path: Path) -> None:
    heights = [0.0] * 2 + [40.0] + [0.0] * 9
    (tmp_path / "new.csv").write_text("\n".join(["color,height", *(f"blue,{height:.8f}" for height in heights)]) + "\n")
    result = run("likelihood", rows, "--data", tmp_path / "new.csv", "--out", tmp_path / "scores.csv", "-q")
    assert result.exit_code == 0, result.output
    assert "column 'height' holds 40 in row 2 (1 such)" in " ".join(result.stderr.split())
    scores = [
        float(next(value for key, value in row.items() if "lower bound" in key))
        for row in csv_rows(tmp_path / "scores.csv")
    ]
    assert scores.index(min(scores)) == 2


@pytest.mark.filterwarnings("ignore:rows with missing cells are left out")
def test_the_index_of_a_score_is_the_row_of_the_file_also_where_rows_were_dropped(rows: Path, tmp_path: Path) -> None:
    lines = ["blue,1.25000000", "blue,", "red,0.50000000", ",0.25000000", "blue,0.75000000"]
    (tmp_path / "new.csv").write_text("\n".join(["color,height", *lines]) + "\n")
    options = ("--data", tmp_path / "new.csv", "--read", "missing=drop", "--out", tmp_path / "scores.csv", "-q")
    result = run("likelihood", rows, *options)
    assert result.exit_code == 0, result.output
    assert [row["index"] for row in csv_rows(tmp_path / "scores.csv")] == ["0", "2", "4"]
