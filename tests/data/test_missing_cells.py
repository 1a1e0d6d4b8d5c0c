"""Missing cells of a table, however they are written: counted over all columns, refused or dropped with their rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from scoresde.data import load_data
from scoresde.data.missing_cells import MISSING_TEXTS

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
    with pytest.raises(ValueError, match=message + r'leave those rows out with missing="drop", fill them, or leave'):
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
        "city": ["Ulm", "Zug", "?", "Bonn", "Kiel", "Jena", "Aue"],
        "y": ["a", "b", "a", "NA", "b", "c", "b"],
    }
    path = write(tmp_path / f"people{suffix}", columns)
    complete = {name: [column[i] for i in (0, 4, 5, 6)] for name, column in columns.items()}
    clean = write(tmp_path / "clean" / f"people{suffix}", complete)
    options: dict[str, Any] = {"label": "y", "categories": "city", "test_fraction": 0.3, "seed": 5}
    with pytest.warns(UserWarning, match=r"left out: 3 of 7 \(x: 1, city: 1, y: 1\)"):
        data = load_data(path, missing="drop", **options)
    expected = load_data(clean, **options)
    assert data.description == expected.description
    assert data.categories == expected.categories == {"city": ("Aue", "Jena", "Kiel", "Ulm")}
    for part in ("train", "test", "train_labels", "test_labels"):
        assert torch.equal(getattr(data, part), getattr(expected, part))


@both_formats
def test_the_choices_are_checked_and_some_row_must_remain(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", {"x": [1.0, None, 2.0], "y": ["NA", "a", "?"]})
    with pytest.raises(ValueError, match=r"got 3 in 3 of 3 rows .* no row would remain"):
        load_data(path, label="y", missing="drop")
    with pytest.raises(ValueError, match=r"unknown choice missing= 'drp'; did you mean drop\? Valid: drop, refuse"):
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
