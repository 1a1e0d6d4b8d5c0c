"""A table with missing cells through the commands: kept by ``--read missing=mask``, trained on, sampled, scored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import csv_rows, one_line, run

import scoresde

SMALL = ("--steps", 30, "--batch-size", 64, "--monitor-every", 15)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Three columns, one of them texts, and labels; a seventh of the cells is missing."""
    generator = np.random.default_rng(0)
    age, kind = generator.normal(40, 10, 400), generator.integers(0, 2, 400)
    rows = [
        [f"{a:.3f}", f"{0.5 * a + e:.3f}", "big" if a > 42 else "small"]
        for a, e in zip(age, generator.normal(size=400))
    ]
    cells = [["" if generator.random() < 1 / 7 else cell for cell in row] for row in rows]
    lines = [",".join([*row, str(k)]) for row, k in zip(cells, kind)]
    path = tmp_path / "people.csv"
    path.write_text("\n".join(["age,income,size,kind", *lines]) + "\n")
    return path


def test_missing_cells_are_refused_with_the_two_commands_that_read_them(tmp_path: Path, table: Path) -> None:
    refused = run("train", "--data", table, "--read", "label=kind", "--out", tmp_path / "run", "-q")
    assert refused.exit_code == 2
    text = one_line(refused)
    assert 'leave those rows out with --read missing="drop", keep those cells as missing with --read missing=' in text
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:rows without any value are left out")
def test_a_table_with_missing_cells_is_trained_on_sampled_and_scored(tmp_path: Path, table: Path) -> None:
    out = tmp_path / "run"
    trained = run("train", "--data", table, "--read", "label=kind", "--read", "missing=mask", "--out", out, *SMALL)
    assert trained.exit_code == 0, trained.output
    text = one_line(trained)
    assert "observed=True" in text
    assert "% of the values for training are missing, only observed ones count" in text
    config = json.loads((out / "config.json").read_text())
    assert config["about"]["read"] == ["label=kind", "missing=mask"]
    assert scoresde.load(out).data.missing  # pyright: ignore[reportOptionalMemberAccess]
    drawn = run(
        "sample", out, "-n", 20, "--sampler", "MixedSampler(DDIM(steps=5))", "--out", tmp_path / "new.csv", "-q"
    )
    assert drawn.exit_code == 0, drawn.output
    rows = csv_rows(tmp_path / "new.csv")
    assert len(rows) == 20
    assert list(rows[0]) == ["age", "income", "size"]
    assert all(cell not in ("", "nan") for row in rows for cell in row.values())
    assert {row["size"] for row in rows} <= {"big", "small"}
    scored = run("likelihood", out, "--limit", 5, "--out", tmp_path / "a.csv", "-q")
    assert scored.exit_code == 0, scored.output
    assert "with missing values are left out)" in one_line(scored)
    resumed = run("train", "--resume", "--out", out, "--steps", 30, "-q")
    assert resumed.exit_code == 0, resumed.output


@pytest.mark.filterwarnings("ignore:rows without any value are left out")
def test_a_network_that_does_not_read_the_mask_is_refused_before_the_run(tmp_path: Path, table: Path) -> None:
    options = ("--read", "missing=mask", "--read", "label=kind", "--network", "MLP(width=8, depth=1)")
    refused = run("train", "--data", table, *options, "--out", tmp_path / "run", "-q")
    assert refused.exit_code == 2
    assert "MLP does not: build MLP(..., observed=True)" in one_line(refused)
    options = (*options[:-1], "MLP(width=8, depth=1, observed=True)")
    accepted = run("train", "--data", table, *options, "--out", tmp_path / "run", "--steps", 2, "-q")
    assert accepted.exit_code == 0, accepted.output
