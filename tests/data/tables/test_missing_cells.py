"""Missing cells of a table, however they are written: counted over all columns, refused or dropped with their rows."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from scoresde.data import load_data
from scoresde.data.tables.missing_cells import MISSING_TEXTS

both_formats = pytest.mark.parametrize("suffix", [".csv", ".parquet"])


def write(path: Path, columns: dict[str, list[Any]]) -> Path:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".parquet":
        table = pytest.importorskip("pyarrow").table(columns)
        pytest.importorskip("pyarrow.parquet").write_table(table, path)
    else:
        lines = [",".join("" if cell is None else str(cell) for cell in row) for row in zip(*columns.values())]
        path.write_text("\n".join([",".join(columns), *lines]) + "\n")
    return path


@both_formats
@pytest.mark.parametrize("cell", [None, float("nan")])
def test_missing_cells_are_refused_with_their_number_in_each_column(tmp_path, suffix, cell):
    columns = {"good": [1.0, 2.0, 3.0, 4.5], "bad": [1.0, 2.0, cell, cell], "worse": [cell, 1.0, cell, 0.0]}
    path = write(tmp_path / f"a{suffix}", columns)
    message = r"no missing cells, got 4 in 3 of 4 rows \(bad: 2, worse: 2; the first in column 'worse' at row 0, .*\); "
    with pytest.raises(
        ValueError,
        match=message + r'leave those rows out with missing="drop", keep .* with missing="mask", fill them, or leave',
    ):
        load_data(path)
    assert load_data(path, columns=("good",), test_fraction=0).train.shape == (4, 1)


@pytest.mark.parametrize("text", [*MISSING_TEXTS, " ", "nan", "NULL", "none", "na"])
def test_every_writing_of_a_missing_cell_counts_in_numbers_categories_and_labels(tmp_path, text):
    path = tmp_path / "a.csv"
    path.write_text(f"x,city,y\n1,Ulm,a\n{text},{text},b\n3,Zug,{text}\n4,Ulm,a\n")
    counts = r"got 3 in 2 of 4 rows \(x: 1, city: 1, y: 1; the first in column 'x' at row 1"
    with pytest.raises(ValueError, match=counts):
        load_data(path, categories="city", label="y")


@pytest.mark.parametrize("text", ["nan", "NA", "null", "?"])
def test_a_missing_cell_among_numeric_classes_is_no_class(tmp_path, text):
    path = write(tmp_path / "x.csv", {"x": [1.0, 2.0, 4.0, 8.0], "kind": ["1", text, "10", "2"]})
    with pytest.raises(ValueError, match=r"got 1 in 1 of 4 rows \(kind: 1; the first in column 'kind' at row 1"):
        load_data(path, label="kind")
    with pytest.warns(UserWarning, match="left out: 1 of 4"):
        assert load_data(path, label="kind", missing="drop").description.labels == ("1", "2", "10")


@both_formats
def test_an_infinite_value_is_refused_with_column_and_row(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", {"good": [1.0, 2.0], "bad": [1.0, float("-inf")]})
    with pytest.raises(ValueError, match=r"finite numbers, got -inf in column 'bad' at row 1 \(rows count from 0; 1"):
        load_data(path)
    classes = write(tmp_path / "b.csv", {"x": [1.0, 2.0], "kind": ["1", "inf"]})
    with pytest.raises(ValueError, match=r"finite numbers, got inf in column 'kind'"):
        load_data(classes, label="kind")


@both_formats
def test_dropping_missing_cells_equals_reading_the_complete_rows(tmp_path, suffix):
    columns: dict[str, list[Any]] = {
        "x": [1.5, None, 3.0, 4.0, 0.5, 7.0, 8.0],
        "city": ["Ulm", "Zug", "?", "Bonn", "Kiel", "Ulm", "Kiel"],
        "y": ["a", "b", "a", "NA", "b", "c", "b"],
    }
    path = write(tmp_path / f"people{suffix}", columns)
    complete = {name: [column[i] for i in (0, 4, 5, 6)] for name, column in columns.items()}
    clean = write(tmp_path / "clean" / f"people{suffix}", complete)
    options: dict[str, Any] = {"label": "y", "categories": "city", "test_fraction": 0.25, "seed": 5}
    with pytest.warns(UserWarning, match=r"left out: 3 of 7 \(x: 1, city: 1, y: 1\)"):
        data = load_data(path, missing="drop", **options)
    expected = load_data(clean, **options)
    assert data.description == expected.description
    assert data.categories == expected.categories == {"city": ("Kiel", "Ulm")}
    for part in ("train", "test", "train_labels", "test_labels"):
        assert torch.equal(getattr(data, part), getattr(expected, part))


@both_formats
def test_the_choices_are_checked_and_some_row_must_remain(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", {"x": [1.0, None, 2.0], "y": ["NA", "a", "?"]})
    with pytest.raises(ValueError, match=r"got 3 in 3 of 3 rows .* no row would remain"):
        load_data(path, label="y", missing="drop")
    with pytest.raises(
        ValueError, match=r"unknown choice missing= 'drp'; did you mean drop\? Valid: drop, mask, refuse"
    ):
        load_data(path, label="y", missing="drp")


@both_formats
def test_a_text_that_is_a_value_is_kept_by_naming_the_missing_ones(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", {"x": [1.0, 4.0, 2.0], "alley": ["None", "paved", "-"]})
    assert load_data(path, label="alley", missing_texts="?").description.labels == ("-", "None", "paved")
    with pytest.raises(
        ValueError, match=re.escape("got 1 in 1 of 3 rows (alley: 1; the first in column 'alley' at row 2")
    ):
        load_data(path, label="alley", missing_texts="-")


def test_a_blank_line_of_a_single_column_is_a_missing_cell(tmp_path):
    (tmp_path / "a.csv").write_text("x\n1\n\n3\n\n\n")
    with pytest.raises(ValueError, match=r"got 1 in 1 of 3 rows \(x: 1; the first in column 'x' at row 1"):
        load_data(tmp_path / "a.csv")


@both_formats
def test_missing_cells_are_kept_as_nan_and_statistics_count_present_ones(tmp_path, suffix):
    columns: dict[str, list[Any]] = {
        "x": [1.5, None, 3.0, 4.0, 0.5, 7.0, 8.0],
        "city": ["Ulm", "Zug", "?", "Bonn", "Ulm", "Bonn", "Zug"],
        "y": ["a", "b", "a", "a", "b", "b", "b"],
    }
    path = write(tmp_path / f"people{suffix}", columns)
    data = load_data(path, label="y", categories="city", missing="mask", test_fraction=0)
    assert data.description.missing
    assert data.train.dtype == torch.float64
    assert data.categories == {"city": ("Bonn", "Ulm", "Zug")}  # a missing cell is no category
    rows = {  # the split changes their order
        (None if math.isnan(x) else x, None if math.isnan(c) else int(c)) for x, c in data.train.tolist()
    }
    code = {"Bonn": 0, "Ulm": 1, "Zug": 2, "?": None}
    assert rows == {(x, code[c]) for x, c in zip(columns["x"], columns["city"])}
    in_model_units, missing = data.description.to_model(data.train), data.train.isnan()
    assert torch.equal(in_model_units.isnan(), missing)
    x = in_model_units[:, 0]
    assert x.nanmean().item() == pytest.approx(0.0, abs=1e-12)
    assert x.square().nanmean().sqrt().item() == pytest.approx(1.0, rel=1e-3)


@both_formats
def test_a_missing_label_is_refused_with_the_count_also_where_cells_are_kept(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", {"x": [1.0, None, 2.0, 5.0], "y": ["NA", "a", "?", "b"]})
    with pytest.raises(
        ValueError, match=r'every row needs its label, .*"mask", got 2 of 4 rows without y; .*missing="drop"'
    ):
        load_data(path, label="y", missing="mask")
    with (
        pytest.warns(UserWarning, match=r"left out: 3 of 4 \(x: 1, y: 2\)"),
        pytest.raises(ValueError, match="one value|constant|vary"),  # one row is left
    ):
        load_data(path, label="y", missing="drop", test_fraction=0)
    with pytest.raises(ValueError, match=r"got 3 in 3 of 4 rows") as refused:
        load_data(path, label="y")
    assert "mask" not in str(refused.value)  # it would be refused too


@both_formats
def test_a_column_without_values_is_refused_and_a_row_without_values_is_left_out(tmp_path, suffix):
    columns = {"x": [1.0, None, 2.0, 5.0], "z": [None, None, 3.0, 4.0]}
    path = write(tmp_path / f"a{suffix}", columns)
    with pytest.warns(UserWarning, match=r"rows without any value are left out: 1 of 4"):
        data = load_data(path, missing="mask", test_fraction=0)
    assert sorted(data.train[:, 0].tolist()) == [1.0, 2.0, 5.0]
    lacking = write(tmp_path / f"b{suffix}", {**columns, "w": [None] * 4})
    with pytest.raises(ValueError, match=r"every column must have values, got none in w \(4 rows\); leave it out"):
        load_data(lacking, missing="mask")


def test_a_table_without_missing_cells_is_the_same_whatever_the_choice(tmp_path):
    path = write(tmp_path / "a.csv", {"x": [1.0, 4.0, 2.0, 8.0], "z": [3.0, 1.0, 2.0, 5.0]})
    one, two = (load_data(path, missing=choice) for choice in ("refuse", "mask"))
    assert one.description == two.description
    assert not two.description.missing
    assert torch.equal(one.train, two.train)


def test_a_column_whose_values_are_all_held_out_is_refused_by_name(tmp_path):
    path = write(tmp_path / "a.csv", {"x": [1.0, 4.0, 2.0, 3.0], "z": [None, None, 2.5, 1.0]})
    with pytest.raises(ValueError, match=r"z has none in the train part|z.*train part"):
        load_data(path, missing="mask", shuffle=False, test_fraction=0.5)
