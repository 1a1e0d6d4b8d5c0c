"""Layout of text tables: header, index, delimiter, encoding, compression and suffix are read rightly, or refused."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoresde.data import load_data

VALUES = [[1.5, 10.0], [2.5, -20.0], [3.0, 31.0]]
AMBIGUOUS = "must be clearly names or clearly data"


def rows_of(path: Path, **options: Any) -> list[list[float]]:
    return load_data(path, test_fraction=0, shuffle=False, **options).train.tolist()


def save(path: Path, text: str, encoding: str = "utf-8") -> Path:
    content = text.encode(encoding)
    path.write_bytes(gzip.compress(content) if path.suffix.lower() == ".gz" else content)
    return path


def table(delimiter: str, header: str | None = "a{}b") -> str:
    lines = [] if header is None else [header.format(delimiter)]
    return "\n".join(lines + [delimiter.join(map(str, row)) for row in VALUES]) + "\n"


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " "])
@pytest.mark.parametrize("suffix", [".csv", ".CSV", ".tsv", ".Tsv", ".txt", ".csv.gz", ".TSV.GZ", ".txt.gz"])
def test_every_delimiter_is_found_under_every_suffix(tmp_path, delimiter, suffix):
    path = save(tmp_path / f"my.table{suffix}", table(delimiter))
    data = load_data(path, test_fraction=0, shuffle=False)
    assert (data.columns, data.train.tolist(), data.description.name) == (("a", "b"), VALUES, "my.table")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|", " "])
def test_a_first_row_of_numbers_is_data(tmp_path, delimiter):
    path = save(tmp_path / "a.csv", table(delimiter, header=None))
    with pytest.warns(UserWarning, match=r"holds numbers, so it is data and the columns are called x0 \.\.\. x1"):
        data = load_data(path, test_fraction=0, shuffle=False)
    assert (data.columns, data.train.tolist()) == (("x0", "x1"), VALUES)
    assert rows_of(path, header=False) == VALUES  # without a warning
    assert rows_of(path, header=True) == VALUES[1:]


@pytest.mark.parametrize("fmt", ["%.18e", "%.3f", "%10.4f", "%g", "%d"])
@pytest.mark.parametrize("delimiter", [",", " ", "\t"])
def test_arrays_that_numpy_writes_lose_no_row(tmp_path, fmt, delimiter):
    x = np.random.default_rng(0).normal(scale=50, size=(20, 3))
    np.savetxt(tmp_path / "x.csv", x, fmt=fmt, delimiter=delimiter)
    with pytest.warns(UserWarning, match="so it is data"):
        rows = rows_of(tmp_path / "x.csv")
    assert rows == [[float(fmt % value) for value in row] for row in x.tolist()]


@pytest.mark.parametrize("cell", ["1e-3", "-.5", "+2", "1E5"])
def test_any_number_in_the_first_row_is_data(tmp_path, cell):
    path = save(tmp_path / "a.csv", f"{cell},1.5\n1.0,2.0\n3,4\n")
    with pytest.warns(UserWarning, match="so it is data"):
        assert rows_of(path) == [[float(cell), 1.5], [1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("cell", "problem"), [("nan", "missing"), ("NaN", "missing"), ("?", "missing"), ("", "missing"), ("inf", "finite")]
)
@pytest.mark.filterwarnings("ignore:.*so it is data")
def test_a_first_row_with_a_missing_or_infinite_value_is_data(tmp_path, cell, problem):
    path = save(tmp_path / "a.csv", f"{cell},1.5\n1.0,2.0\n3,4\n")
    with pytest.raises(ValueError, match=rf"{problem} .*column 'x0' at row 0"):
        load_data(path)
    assert rows_of(path, columns="x1") == [[1.5], [2], [4]]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("5.1,setosa\n4.9,setosa\n7.0,virginica\n", "holds numbers beside texts"),
        ("name,2019,2020\n1,2,3\n", "holds numbers beside texts"),
        ("p,x\nq,x\np,y\n", "holds values that occur below it"),
        ("NA,?\n1,2\n", "holds markers of missing cells only"),
        ("0,1,2\n.5,.6,.7\n", "counts up"),
        ("2019,2020\n.5,.6\n.7,.8\n", "counts up"),
        ("0\n.5\n.6\n", "counts up"),
    ],
)
def test_an_ambiguous_first_row_is_refused_with_both_ways_to_state_it(tmp_path, text, reason):
    with pytest.raises(ValueError, match=rf"{AMBIGUOUS}, but .* {reason}.*; pass header=True .* header=False"):
        load_data(save(tmp_path / "a.csv", text))


def test_a_stated_header_decides(tmp_path):
    path = save(tmp_path / "a.csv", "2019,2020\n.5,.6\n.7,.8\n")
    assert rows_of(path, header=True) == [[0.5, 0.6], [0.7, 0.8]]
    assert rows_of(path, header=True, columns="2020") == [[0.6], [0.8]]
    assert rows_of(path, header=False) == [[2019, 2020], [0.5, 0.6], [0.7, 0.8]]
    flowers = save(tmp_path / "b.csv", "5.1,setosa\n4.9,setosa\n7.0,virginica\n")
    data = load_data(flowers, header=False, label="x1", test_fraction=0, shuffle=False)
    assert (data.train.tolist(), data.description.labels) == ([[5.1], [4.9], [7.0]], ("setosa", "virginica"))


def test_header_is_true_false_or_none(tmp_path):
    with pytest.raises(TypeError, match="header must be True, False or None, got 0"):
        load_data(save(tmp_path / "a.csv", table(",")), header=0)


@pytest.mark.parametrize("name", ["", "Unnamed: 0", '""'])
@pytest.mark.parametrize("start", [0, 1])
def test_a_nameless_column_that_counts_the_rows_is_left_out_aloud(tmp_path, name, start):
    lines = [f"{i},{a},{b}" for i, (a, b) in enumerate(VALUES, start)]
    path = save(tmp_path / "a.csv", "\n".join([f"{name},a,b", *lines]) + "\n")
    with pytest.warns(UserWarning, match=rf"at position 0 counts the rows from {start} and is left out; to keep it"):
        data = load_data(path, test_fraction=0, shuffle=False)
    assert (data.columns, data.train.tolist()) == (("a", "b"), VALUES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rows_of(path, columns=("a", "b")) == VALUES
        assert rows_of(path, columns=("Unnamed: 0", "a"))[2] == [2 + start, 3.0]


def test_the_index_of_a_frame_with_counted_columns_is_left_out(tmp_path):
    lines = [f"{i},{a},{b}" for i, (a, b) in enumerate(VALUES)]
    path = save(tmp_path / "a.csv", "\n".join([",0,1", *lines]) + "\n")
    with pytest.warns(UserWarning, match="is left out"):
        data = load_data(path, test_fraction=0, shuffle=False)
    assert (data.columns, data.train.tolist()) == (("0", "1"), VALUES)


def test_any_other_nameless_column_is_refused_with_the_columns_that_have_names(tmp_path):
    path = save(tmp_path / "a.csv", ",a,b\n3,1,2\n7,2,9\n9,3,5\n")
    with pytest.raises(ValueError, match=r"must have a name, the one at position 0 .*; .* columns=\('a', 'b'\)"):
        load_data(path)
    pytest.importorskip("pyarrow.parquet").write_table(
        pytest.importorskip("pyarrow").table({"a": [1.0, 2.0], "__index_level_0__": [4, 2]}), tmp_path / "a.parquet"
    )
    with pytest.raises(ValueError, match="must have a name, the one at position 1"):
        load_data(tmp_path / "a.parquet")


def test_an_empty_nameless_column_is_left_out_aloud(tmp_path):
    path = save(tmp_path / "a.csv", "a,b,\n" + "".join(f"{a},{b},\n" for a, b in VALUES))
    with pytest.warns(UserWarning, match="at position 2 is empty and is left out"):
        assert rows_of(path) == VALUES


@pytest.mark.parametrize("text", ["1,5;2,5\n3,5;4,5\n", "a,b;c\n1,2;3\n"])
def test_an_ambiguous_delimiter_is_refused(tmp_path, text):
    with pytest.raises(ValueError, match=r"could be split at any of \[',', ';'\]; state it with delimiter="):
        load_data(save(tmp_path / "a.csv", text))


def test_a_wrong_delimiter_is_answered_with_the_option(tmp_path):
    path = save(tmp_path / "a.csv", table(";"))
    with pytest.raises(ValueError, match=r"'a;b' holds '1.5;10.0' .* check delimiter="):
        load_data(path, delimiter=",")
    with pytest.raises(ValueError, match=r"unknown column 'a'.* was split at ','; .* delimiter="):
        load_data(path, columns="a", delimiter=",")
    for wrong in ("ab", "", "x", '"'):
        with pytest.raises(ValueError, match="delimiter must be one character"):
            load_data(path, delimiter=wrong)
    with pytest.raises(TypeError, match="delimiter must be one character, got 5"):
        load_data(path, delimiter=5)
    assert rows_of(save(tmp_path / "b.csv", table("\t")), delimiter="\\t") == VALUES


def test_a_stated_decimal_comma_is_read_and_a_found_one_asked_about(tmp_path):
    path = save(tmp_path / "a.csv", table(";").replace(".", ","))
    with pytest.raises(ValueError, match=r"holds '1,5' .* pass decimal=','"):
        load_data(path)
    assert rows_of(path, decimal=",") == VALUES
    bare = save(tmp_path / "b.csv", table(";", header=None).replace(".", ","))
    with pytest.warns(UserWarning, match="so it is data"):
        assert rows_of(bare, decimal=",", delimiter=";") == VALUES
    mixed = save(tmp_path / "c.csv", "a;b\n1.000,5;2\n3;4\n")
    with pytest.raises(ValueError, match=r"holds '1\.000,5' at row 0"):
        load_data(mixed, decimal=",")


def test_the_separator_line_of_excel_is_not_a_row(tmp_path):
    assert rows_of(save(tmp_path / "a.csv", "sep=;\r\n" + table(";"))) == VALUES


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_byte_order_marks_are_read(tmp_path, encoding, suffix):
    path = save(tmp_path / f"a{suffix}", table(";", header="größe{}b"), encoding)
    assert rows_of(path, columns=("größe", "b")) == VALUES


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16-le"])
def test_another_encoding_is_refused_with_the_option_that_reads_it(tmp_path, encoding):
    path = save(tmp_path / "a.csv", table(",", header="größe{}b"), encoding)
    with pytest.raises(ValueError, match="encoding="):
        load_data(path)
    assert rows_of(path, columns=("größe", "b"), encoding=encoding) == VALUES


def test_a_wrong_encoding_is_refused(tmp_path):
    path = save(tmp_path / "a.csv", table(","), "utf-8-sig")
    with pytest.raises(ValueError, match=r"begins with the mark of UTF-8-SIG, got 'latin-1'; leave encoding= out"):
        load_data(path, encoding="latin-1")
    assert rows_of(path, encoding="utf-8") == VALUES
    with pytest.raises(ValueError, match=r"encoding must be one that Python knows, got 'latin-9000'"):
        load_data(save(tmp_path / "b.csv", table(",")), encoding="latin-9000")
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(table(",").encode())[:-9])
    with pytest.raises(ValueError, match="must be a complete gzip file"):
        load_data(tmp_path / "c.csv.gz")


def test_options_of_text_files_are_refused_for_parquet(tmp_path):
    path = tmp_path / "a.PARQUET"
    pytest.importorskip("pyarrow.parquet").write_table(pytest.importorskip("pyarrow").table({"a": [1.0, 2.0]}), path)
    assert rows_of(path) == [[1.0], [2.0]]
    with pytest.raises(ValueError, match=r"delimiter= is an option of text files, got a Parquet file"):
        load_data(path, delimiter=";")
