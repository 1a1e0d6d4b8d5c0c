"""Cells far outside the train part are named before a model scores or completes their rows."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import one_line, run

import scoresde as sd
from scoresde.data.tables.far_values import refuse_far_values, warn_of_far_values
from scoresde.storage.checkpoint import save
from scoresde.training.defaults import default_recipe


@pytest.fixture
def data(tmp_path: Path) -> sd.Data:
    """Ages of 18 to 90, days of 2020 and incomes of 1000 to 4000, with cities."""
    rng = np.random.default_rng(0)
    ages, incomes = [18, 90, *rng.integers(18, 91, 98)], [1000.0, 4000.0, *rng.uniform(1000, 4000, 98)]
    days = np.datetime64("2020-01-01") + np.arange(100)
    rows = [f"{a},{d},{i:.2f},{'Rome' if a % 2 else 'Oslo'}" for a, d, i in zip(ages, days, incomes, strict=True)]
    (tmp_path / "people.csv").write_text("\n".join(["age,day,income,city", *rows]))
    return sd.load_data(tmp_path / "people.csv", test_fraction=0.0)


def test_numbers_and_dates_far_outside_are_named_with_column_row_and_range(data: sd.Data) -> None:
    rows = data.train[:4].clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows[:, 0] = torch.tensor([-53.0, 18.0, 90.0, 161.0])  # up to one width away
        rows[2, 2] = torch.nan
        warn_of_far_values(data.description, rows)
    rows[3, 0] = 163.0
    with pytest.warns(UserWarning, match=r"'age' holds 163 in row 3 \(1 such\), the train part 18 to 90\. Rows"):
        warn_of_far_values(data.description, rows)
    rows[1, 0] = rows[3, 0] = 1e9
    rows[2, 1] = 0.0
    both = r"'age' holds 1e\+09 in row 1 \(2 such\), the train part 18 to 90; column 'day' holds 1970-01-01 in row 2"
    with pytest.warns(UserWarning, match=both):
        warn_of_far_values(data.description, rows)
    with pytest.warns(UserWarning, match="holds 1970-01-01 in row 30"):
        warn_of_far_values(data.description, rows[:3], torch.tensor([10, 20, 30]))
    with pytest.raises(ValueError, match=r"known cells .* column 'age' holds 1e\+09 in row 1 \(2 such\).*; correct"):
        refuse_far_values(data.description, rows)
    refuse_far_values(data.description, rows[[0, 2]])
    warn_of_far_values(sd.Description("points", (2,)), torch.full((3, 2), 1e9))  # of which no range is known


@pytest.mark.filterwarnings("default:values lie far")
def test_likelihood_warns_of_such_rows_and_impute_refuses_those_that_nothing_can_complete(
    data: sd.Data, tmp_path: Path
) -> None:
    recipe = default_recipe(data.description, 100)
    save(recipe.build(data), tmp_path / "run")
    far = tmp_path / "far.csv"
    far.write_text("age,day,income,city\n30,2020-02-01,2000.00,Rome\n300,2020-02-01,2000.00,Oslo\n")
    result = run("likelihood", tmp_path / "run", "--data", far, "--part", "all")
    assert result.exit_code == 0, one_line(result)
    assert "warning: values lie far outside the train part" in " ".join(result.stderr.split())
    assert "column 'age' holds 300 in row 1 (1 such), the train part 18 to 90" in " ".join(result.stderr.split())
    far.write_text("age,day,income,city\n30,,2000.00,Rome\n,2020-02-01,3e12,Oslo\n")
    refused = run("impute", tmp_path / "run", far, "--draws", 2, "--out", tmp_path / "filled.csv")
    assert refused.exit_code == 2
    assert "column 'income' holds 3e+12 in row 1 (1 such)" in one_line(refused)
    assert not (tmp_path / "filled.csv").exists()
