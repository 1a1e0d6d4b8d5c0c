"""Tables: columns as features, classes and codes; errors name the column and row of a missing or invalid value."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scoresde.data import load_data

ROWS = {
    "age": [31.0, 4.5, 1e3, -2.0, 0.25],
    "city": ["Ulm", "Aachen", "Ulm", "Zug", "Aachen"],
    "sick": ["no", "yes", "no", "no", "yes"],
    "height": [180.0, 1.5, 99.0, 150.0, 171.0],
}


def write(path: Path, rows: dict[str, list] | None = None) -> Path:
    rows = ROWS if rows is None else rows
    if path.suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").table(rows), path)
    else:
        delimiter = "\t" if path.suffix == ".tsv" else ","
        lines = [
            delimiter.join(rows),
            *(delimiter.join("" if v is None else str(v) for v in row) for row in zip(*rows.values())),
        ]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(params=[".csv", ".tsv", ".parquet"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / f"people{request.param}")


def test_the_selected_columns_are_the_features_in_order(path):
    data = load_data(path, columns=("height", "age"), shuffle=False)
    assert data.columns == ("height", "age")
    assert (data.description.name, data.description.shape) == ("people", (2,))
    events = torch.cat([data.train, data.test])
    assert torch.equal(events, torch.tensor([ROWS["height"], ROWS["age"]], dtype=torch.float64).T)
    assert len(data.test) == 1


def test_one_text_is_one_name(path):
    assert load_data(path, columns="height").columns == ("height",)
    data = load_data(path, categories="city", label=("sick",))
    assert (data.columns, list(data.categories)) == (("age", "city", "height"), ["city"])
    assert load_data(path, columns=np.array(["age"])).columns == ("age",)
    with pytest.raises(TypeError, match=r"columns= takes a name or names, got \(0, 1\); pass texts, such as columns="):
        load_data(path, columns=(0, 1))
    with pytest.raises(TypeError, match=r"label= takes one name, got \('sick', 'city'\)"):
        load_data(path, label=("sick", "city"))


def test_values_come_back_exactly_from_model_units(path):
    data = load_data(path, columns=("height", "age"))
    x = data.description.to_model(data.train)
    assert torch.equal(data.description.to_data(x), data.train)
    assert data.description.columns is not None
    assert data.description.columns.kinds == {"height": "numeric", "age": "numeric"}


def test_labels_follow_their_rows_through_the_split(path):
    data = load_data(path, columns=("age",), label="sick", seed=3)
    assert data.description.labels == ("no", "yes")
    assert data.train_labels is not None
    rows = [ROWS["age"].index(age) for age in data.train[:, 0].tolist()]
    assert data.train_labels.tolist() == [int(ROWS["sick"][row] == "yes") for row in rows]
    assert data.train_labels.dtype == torch.int64


def test_by_default_all_columns_except_the_label_are_features(path):
    assert load_data(path, label="sick", categories=("city",)).columns == ("age", "city", "height")


def test_text_is_encoded_and_the_code_is_stored(path):
    assert load_data(path, label="sick").categories == {"city": ("Aachen", "Ulm", "Zug")}
    data = load_data(path, columns=("city", "age"), categories=("city",), shuffle=False, test_fraction=0)
    assert data.categories == {"city": ("Aachen", "Ulm", "Zug")}
    assert data.train[:, 0].tolist() == [1, 0, 1, 2, 0]


def test_numeric_classes_are_sorted_by_value(tmp_path):
    rows = {"x": [1.0, 2.0, 4.0], "class": [10, 9, 10]}
    data = load_data(write(tmp_path / "a.csv", rows), label="class", shuffle=False, test_fraction=0)
    assert data.description.labels == ("9", "10")
    assert data.train_labels is not None
    assert data.train_labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ("hight",)}, r"unknown column 'hight'; did you mean height\? Valid: age, city"),
        ({"columns": ("age",), "label": "sik"}, r"unknown column 'sik'; did you mean sick"),
        ({"columns": ("age", "age")}, r"each column may be used once, 'age' is named twice"),
        ({"columns": ("age", "sick"), "label": "sick"}, r"each column may be used once, 'sick'"),
        ({"columns": ("age",), "categories": ("city",)}, r"categories= must name features, 'city' is not one of them"),
        ({"columns": ()}, r"at least one feature, got columns=\(\); it has age, city"),
        ({"columns": "hight"}, r"unknown column 'hight'; did you mean height"),
        ({"columns": "age", "categories": "city"}, r"categories= must name features, 'city'"),
        ({"colums": ("age",)}, r"unknown option .* did you mean columns"),
        ({"columns": ("age",), "test_fraction": 1.0}, r"test_fraction must lie in"),
    ],
)
def test_invalid_options_are_refused(path, options, message):
    with pytest.raises(ValueError, match=message):
        load_data(path, **options)


def test_a_column_that_is_constant_in_the_train_part_only_is_refused(tmp_path):
    path = write(tmp_path / "a.csv", {"a": [1.0, 2.0, 3.0], "same": [7.0, 7.0, 8.0]})
    with pytest.raises(ValueError, match="must vary in the train part, 'same' is constant there; take another split"):
        load_data(path, shuffle=False)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", r"must have 2 fields, got 1 at row 1 \(rows count from 0 below the first line\)"),
        ("", "must name the columns, got nothing"),
        (",,\n3,4,5\n", "must name the columns, got nothing"),
        ("a,b,a\n3,4,5\n", r"each column must have its own name, 2 are called 'a'; .* header=False"),
        ("a, a\n3,4\n", "each column must have its own name"),
        ('a,b\n1,"2\n', "must be a table in UTF-8, got: unexpected end of data"),
        ("a,b\n", "the train part must not be empty"),
    ],
)
def test_a_malformed_text_file_is_refused(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_data(tmp_path / "a.csv")


def test_byte_order_mark_quotes_and_crlf_are_accepted(tmp_path):
    (tmp_path / "a.csv").write_bytes('\ufeffa;"b; c"\r\n1; 2\r\n\r\n3e2;-4\r\n'.encode())
    data = load_data(tmp_path / "a.csv", delimiter=";", shuffle=False, test_fraction=0)
    assert data.columns == ("a", "b; c")
    assert data.train.tolist() == [[1, 2], [300, -4]]


def test_invalid_utf_8_and_damaged_or_missing_files_are_refused(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    with pytest.raises(ValueError, match="must be a table in UTF-8"):
        load_data(tmp_path / "a.csv")
    with pytest.raises(FileNotFoundError, match="there is no file .*none.csv"):
        load_data(tmp_path / "none.csv")
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match="must be a complete Parquet file"):
        load_data(tmp_path / "a.parquet")


def test_a_missing_package_is_named_with_its_extra(monkeypatch, tmp_path):
    (tmp_path / "a.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"needs pyarrow, which is missing; .*'scoresde\[parquet\]'"):
        load_data(tmp_path / "a.parquet")


def test_parquet_types_are_read_as_numbers_or_refused(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    columns = {
        "small": pyarrow.array([1, 2, 3], pyarrow.int8()),
        "flag": pyarrow.array([True, False, True]),
        "half": pyarrow.array(np.array([0.5, 2, 3], np.float16)),
        "span": pyarrow.array([1, 2, 3], pyarrow.duration("s")),
    }
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    events = load_data(tmp_path / "a.parquet", columns=("small", "flag", "half"), shuffle=False, test_fraction=0).train
    assert events.tolist() == [[1, 1, 0.5], [2, 0, 2], [3, 1, 3]]
    with pytest.raises(ValueError, match=r"'span' holds duration\[s\]; leave it out of columns="):
        load_data(tmp_path / "a.parquet")


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "bool_"])
def test_integers_of_any_type_and_bools_are_labels(tmp_path, kind):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    top = 2**64 - 1 if kind == "uint64" else 100
    values = [False, True, False, True] if kind == "bool_" else [0, top, 0, top]
    columns = {"x": [0.5, 2, 3, 4], "kind": pyarrow.array(values, getattr(pyarrow, kind)())}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    data = load_data(tmp_path / "a.parquet", label="kind", test_fraction=0, shuffle=False)
    assert data.description.labels == (("False", "True") if kind == "bool_" else ("0", str(top)))
    assert data.train_labels is not None
    assert data.train_labels.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_an_integer_that_float64_does_not_hold_is_refused(tmp_path, suffix):
    exact = write(tmp_path / f"exact{suffix}", {"x": [2**53, 2**60, -(2**62)]})
    assert load_data(exact, test_fraction=0, shuffle=False).train[:, 0].tolist() == [2**53, 2**60, -(2**62)]
    inexact = write(tmp_path / f"inexact{suffix}", {"x": [1, 2**53 + 1, 3]})
    with pytest.raises(ValueError, match=r"exact in float64, got 9007199254740993 in column 'x' at row 1"):
        load_data(inexact)


def test_equal_names_in_parquet_are_refused(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table([[1.0, 2.0], [3.0, 5.0]], names=["a", "a"]), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"each column must have its own name, 2 are called 'a'"):
        load_data(tmp_path / "a.parquet")


def test_a_polars_frame_is_read_as_that_of_pandas() -> None:
    polars = pytest.importorskip("polars")
    rng = np.random.default_rng(0)
    days = [datetime.date(2024, 1, 1) + datetime.timedelta(days=int(day)) for day in rng.integers(0, 99, 50)]
    columns = {
        "age": rng.integers(18, 90, 50),
        "income": rng.lognormal(size=50),
        "city": rng.choice(["Rome", "Oslo"], 50).tolist(),
        "day": days,
        "kind": rng.choice(["a", "b", "c"], 50).tolist(),
        "known": [None if row % 7 == 0 else row % 2 == 0 for row in range(50)],
    }
    frame = polars.DataFrame(columns).with_columns(polars.col("kind").cast(polars.Categorical))
    options: dict[str, Any] = {"missing": "mask", "label": "kind"}
    columns_read = load_data(frame, **options).description.columns
    assert columns_read is not None
    assert columns_read.dates == {"day": "D"}  # pandas makes them times
    frame = frame.drop("day")
    one, other = load_data(frame, **options), load_data(frame.to_pandas(), **options)
    assert one.description == other.description
    for part in ("train", "test", "train_labels", "test_labels"):
        torch.testing.assert_close(getattr(one, part), getattr(other, part), equal_nan=True, rtol=0, atol=0)
    with pytest.raises(TypeError, match=r"got a LazyFrame; compute it first, frame\.collect\(\)"):
        load_data(frame.lazy())
