"""Kinds of a table's columns: found from the file, stated, and brought back on the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from scoresde.data import Data, load_data
from scoresde.data.tables.arrow import ArrowTable
from scoresde.data.tables.column_maps import NumberColumn
from scoresde.data.tables.columns import arrow_table, table_arrays
from scoresde.data.tables.kinds import find_kind, read_column
from scoresde.storage import spec

N = 60
RNG = np.random.default_rng(0)
COLUMNS: dict[str, list[Any]] = {
    "pay": [float(v) for v in np.exp(RNG.standard_normal(N))],
    "price": [float(v) for v in np.round(RNG.random(N) * 90, 2)],
    "visits": RNG.poisson(3, N).tolist(),
    "member": [i % 3 > 0 for i in range(N)],
    "flag": [i % 2 for i in range(N)],
    "size": [(1, 4)[i % 3 > 1] for i in range(N)],
    "city": [("Ulm", "Zug", "Köln")[i % 3] for i in range(N)],
    "zip": [("01067", "89073", "01099")[i % 3] for i in range(N)],
    "day": [f"2024-02-{1 + i % 29:02d}" for i in range(N)],
    "time": [f"2024-02-{1 + i % 29:02d}T{i % 24:02d}:30:00" for i in range(N)],
    "unit": ["kg"] * N,
    "year": [2024] * N,
    "id": list(range(100, 100 + N)),
    "name": [f"person {i}" for i in range(N)],
}
KINDS = {"pay": "numeric", "price": "numeric", "visits": "integer", "member": "category", "flag": "category"}
KINDS |= {"size": "category", "city": "category", "zip": "category", "day": "date", "time": "date"}
KINDS |= {"unit": "constant", "year": "constant", "id": "identifier", "name": "identifier"}
SAID = pytest.mark.filterwarnings("ignore:columns (of one value|that identify rows):UserWarning")


def write(path: Path, columns: dict[str, list[Any]] | None = None) -> Path:
    columns = COLUMNS if columns is None else columns
    if path.suffix == ".csv":
        rows = [",".join(map(str, row)) for row in zip(*columns.values())]
        path.write_text("\n".join([",".join(columns), *rows]) + "\n")
        return path
    table = pyarrow.table(columns)
    if "day" in columns:
        days = pyarrow.array(np.array(columns["day"], "datetime64[D]"))
        times = pyarrow.array(np.array(columns["time"], "datetime64[us]"))
        table = table.set_column(table.column_names.index("day"), "day", days)
        table = table.set_column(table.column_names.index("time"), "time", times)
    pyarrow.parquet.write_table(table, path)
    return path


def kinds(data: Data) -> dict[str, str]:
    assert data.description.columns is not None
    return data.description.columns.kinds


def rows_out(data: Data) -> dict[str, np.ndarray]:
    """The train part, into model units as for training and back as samples are."""
    about = data.description
    x = about.to_model(about.dequantize(data.train, torch.Generator().manual_seed(0))).float()
    return table_arrays(about.to_data(x).numpy(), about)


@SAID
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_every_kind_is_found_in_a_file(tmp_path, suffix):
    data = load_data(write(tmp_path / f"t{suffix}"))
    assert kinds(data) == KINDS
    assert data.columns == tuple(name for name, kind in KINDS.items() if kind not in ("constant", "identifier"))


@SAID
@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_every_kind_comes_back_as_what_it_was(tmp_path, suffix):
    data = load_data(write(tmp_path / f"t{suffix}"), test_fraction=0, shuffle=False)
    out = rows_out(data)
    assert list(out) == [name for name, kind in KINDS.items() if kind != "identifier"]
    for name in ("price", "visits", "flag", "size", "city", "zip", "unit", "year"):
        assert out[name].tolist() == COLUMNS[name]
    assert out["day"].astype(str).tolist() == COLUMNS["day"]
    assert out["time"].astype(str).tolist() == COLUMNS["time"]
    assert out["pay"].tolist() == pytest.approx(COLUMNS["pay"], rel=1e-5)
    assert out["visits"].dtype == np.int64
    assert out["member"].tolist() == (
        COLUMNS["member"] if suffix == ".parquet" else [str(v) for v in COLUMNS["member"]]
    )
    types = dict(zip(*(lambda s: (s.names, map(str, s.types)))(arrow_table(out).schema)))
    assert types["day"] == "date32[day]"
    assert types["time"].startswith("timestamp")
    assert types["member"] == ("bool" if suffix == ".parquet" else "string")


@SAID
def test_columns_that_are_no_features_are_named_in_a_warning(tmp_path):
    path = write(tmp_path / "t.csv")
    with pytest.warns(UserWarning, match="columns of one value are not modeled .*: unit, year"):
        load_data(path)
    with pytest.warns(UserWarning, match=r"identify rows are left out: id, name; .* or category, with kinds=\."):
        load_data(path)


@SAID
def test_a_kind_that_is_stated_counts(tmp_path):
    path = write(tmp_path / "t.csv")
    stated = {"id": "integer", "visits": "category", "price": "identifier", "flag": "integer"}
    data = load_data(path, kinds=stated)
    assert {name: kinds(data)[name] for name in stated} == stated
    assert data.categories["visits"] == tuple(sorted({str(v) for v in COLUMNS["visits"]}, key=int))
    assert kinds(load_data(path, columns="visits", kinds={"visits": "numeric"})) == {"visits": "numeric"}
    assert kinds(load_data(path, columns=("pay", "visits"), categories="visits"))["visits"] == "category"


@pytest.mark.parametrize(
    ("kinds_stated", "error", "message"),
    [
        ({"citi": "category"}, ValueError, "unknown column in kinds= 'citi'; did you mean city"),
        ({"city": "categorie"}, ValueError, "unknown kind of column 'city' 'categorie'; did you mean category"),
        ({"pay": "integer"}, ValueError, "kinds= says that 'pay' holds integers, got"),
        ({"city": "date"}, ValueError, "a date must be written as 2024-02-29 .* got 'Ulm' in column 'city' at row 0"),
        ({"city": "numeric"}, ValueError, "a column must hold numbers, 'city' holds 'Ulm'"),
        ({"city": "constant"}, ValueError, "kinds= says that 'city' is constant, but it has 3 values"),
        (["city"], TypeError, r"kinds.*got \['city'\]"),
    ],
)
def test_a_kind_that_does_not_fit_is_refused(tmp_path, kinds_stated, error, message):
    with pytest.raises(error, match=message):
        load_data(write(tmp_path / "t.csv"), kinds=kinds_stated)


def test_texts_of_many_kinds_are_asked_about_or_refused(tmp_path):
    many = {"x": [i / 7 for i in range(600)], "city": [f"c{i % 300}" for i in range(600)]}
    with pytest.raises(ValueError, match="at most 100 different ones .* 'city' has 300 in 600 rows; leave it out"):
        load_data(write(tmp_path / "a.csv", many))
    assert len(load_data(tmp_path / "a.csv", kinds={"city": "category"}, test_fraction=0).categories["city"]) == 300
    typo = {"x": [*range(30)], "y": [*map(str, range(29)), "12x"]}
    with pytest.raises(
        ValueError, match="'y' holds '12x' at row 29 .*; leave it out of columns=, correct it, or state"
    ):
        load_data(write(tmp_path / "b.csv", typo), kinds={"x": "integer"})


@pytest.mark.parametrize(
    ("values", "kind", "step"),
    [
        ([0.1 * i for i in range(50)], "numeric", 0.1),
        ([1e-3 * i * i for i in range(50)], "numeric", 1e-3),
        ([float(np.float32(0.1 * i)) for i in range(50)], "numeric", 0.1),  # single precision
        ([np.pi * i for i in range(50)], "numeric", 0.0),
        ([0.0] * 25 + [np.pi * i * i for i in range(1, 26)], "numeric", 1e-4),  # mostly 0
        ([5 * i * i for i in range(50)], "integer", 1.0),
        ([i * 2.0**40 for i in (*range(25), *range(25))], "integer", 1.0),
    ],
)
def test_the_grid_of_numbers_is_found(tmp_path, values, kind, step):
    pyarrow.parquet.write_table(pyarrow.table({"x": np.array(values, float)}), tmp_path / "a.parquet")
    data = load_data(tmp_path / "a.parquet", test_fraction=0, shuffle=False)
    assert kinds(data) == {"x": kind}
    assert data.description.encoding is not None
    column = data.description.encoding.columns[0]
    assert isinstance(column, NumberColumn)
    assert column.step == pytest.approx(step)
    np.testing.assert_allclose(data.train[:, 0].numpy(), values, atol=step / 2 + 1e-12, rtol=1e-7)


@pytest.mark.parametrize(
    ("texts", "unit", "step"),
    [
        (["2024-02-29", "1969-12-31"], "D", 1.0),
        (["2024-02-29 12:00", "1969-12-31 11:00"], "s", 3600.0),
        (["2024-02-29T12:00:01", "1969-12-31T11:00:00"], "s", 1.0),
        (["2024-02-29T12:00:01.250", "1969-12-31T11:00:00"], "ms", 1e-3),
        (["2024-02-29T12:00:01.000125", "1969-12-31T11:00:00"], "us", 1e-6),
    ],
)
def test_dates_and_times_come_back_to_their_precision(tmp_path, texts, unit, step):
    rows = {"x": [i / 7 for i in range(20)], "t": [texts[i % 2] for i in range(20)]}
    data = load_data(write(tmp_path / "a.csv", rows), test_fraction=0, shuffle=False)
    about = data.description
    assert about.columns is not None
    assert about.encoding is not None
    assert about.columns.dates == {"t": unit}
    column = about.encoding.columns[1]
    assert isinstance(column, NumberColumn)
    assert column.step == step
    out = table_arrays(about.to_data(about.to_model(data.train)).numpy(), about)["t"]
    assert out.tolist() == np.array(rows["t"], f"datetime64[{unit}]").tolist()


def test_a_date_that_does_not_exist_is_refused_and_a_zone_is_said(tmp_path):
    rows = {"x": [1.5, 2.5, 3.75], "t": ["2024-02-29", "2023-02-29", "2024-01-01"]}
    with pytest.raises(ValueError, match="column 't' must hold dates that exist"):
        load_data(write(tmp_path / "a.csv", rows))
    rows["t"] = [f"2024-02-0{i}T10:00:00Z" for i in (1, 2, 3)]
    with pytest.warns(UserWarning, match="times of column 't' are read as UTC"):
        load_data(write(tmp_path / "a.csv", rows), shuffle=False)


def test_statistics_are_those_of_the_train_part(tmp_path):
    rows = {name: COLUMNS[name] for name in ("pay", "price", "visits", "city", "day")}
    first = load_data(write(tmp_path / "a.csv", rows), shuffle=False)
    changed = {name: [*column[:48], *[column[0]] * 12] for name, column in rows.items()}
    changed["pay"][48:] = [1e6 + v for v in COLUMNS["pay"][:12]]
    second = load_data(write(tmp_path / "a.csv", changed), shuffle=False)
    assert len(first.train) == 48
    assert first.description == second.description
    assert not torch.equal(first.test, second.test)


def test_a_category_of_the_test_part_only_is_said(tmp_path):
    rows = {"x": [i / 7 for i in range(20)], "c": ["a", "b"] * 9 + ["a", "new"]}
    with pytest.warns(UserWarning, match=r"1 of 3 categories of 'c' occur in the test part only \(new\)"):
        data = load_data(write(tmp_path / "a.csv", rows), shuffle=False)
    assert data.categories == {"c": ("a", "b", "new")}


def test_missing_cells_leave_kinds_as_they_are(tmp_path):
    rows = {"visits": [*COLUMNS["visits"]], "day": [*COLUMNS["day"]], "city": [*COLUMNS["city"]]}
    for i, column in enumerate(rows.values()):
        column[i] = ""
    data = load_data(write(tmp_path / "a.csv", rows), missing="mask", shuffle=False)
    assert kinds(data) == {"visits": "integer", "day": "date", "city": "category"}
    assert data.train[:3].isnan().tolist() == torch.eye(3, dtype=torch.bool).tolist()
    out = rows_out(data)
    assert np.isnat(out["day"][1])
    assert out["city"].tolist()[1:4] == [COLUMNS["city"][1], "", COLUMNS["city"][3]]


@SAID
def test_a_later_table_is_read_as_the_earlier_one(tmp_path):
    data = load_data(write(tmp_path / "a.csv"))
    few = {name: column[:4] for name, column in reversed(COLUMNS.items())}
    later = load_data(write(tmp_path / "b.csv", few), like=data.description, test_fraction=0, shuffle=False)
    assert later.description == data.description
    assert later.columns == data.columns
    assert data.description.columns is not None
    whole = load_data(tmp_path / "a.csv", test_fraction=0, shuffle=False)
    assert torch.equal(later.train, whole.train[:4])
    few["city"] = ["Ulm", "Bonn", "Bonn", "Jena"]
    with pytest.raises(
        ValueError, match=r"each category of 'city' .*, Köln, Ulm, Zug; got 'Bonn' \(2 rows\), 'Jena' \(1"
    ):
        load_data(write(tmp_path / "b.csv", few), like=data.description)
    del few["city"]
    with pytest.raises(ValueError, match="unknown column 'city'"):
        load_data(write(tmp_path / "b.csv", few), like=data.description)
    with pytest.raises(TypeError, match="like.*escription.*got"):
        load_data(tmp_path / "a.csv", like="a.csv")


def test_classes_of_a_later_table_are_those_of_the_earlier_one(tmp_path):
    rows = {"x": [i / 7 for i in range(20)], "y": [("a", "b", "c")[i % 3] for i in range(20)]}
    data = load_data(write(tmp_path / "a.csv", rows), label="y")
    few = {"x": [0.5, 1.5], "y": ["c", "b"]}
    later = load_data(write(tmp_path / "b.csv", few), label="y", like=data.description, test_fraction=0, shuffle=False)
    assert later.train_labels is not None
    assert later.train_labels.tolist() == [2, 1]
    with pytest.raises(
        ValueError, match="each class of 'y' must be one that the model was trained on, a, b, c; got 'd'"
    ):
        load_data(write(tmp_path / "b.csv", {"x": [0.5, 1.5], "y": ["d", "b"]}), label="y", like=data.description)


@SAID
def test_a_table_in_memory_is_read_as_its_file(tmp_path):
    path = write(tmp_path / "t.parquet")
    table = pyarrow.parquet.read_table(path)
    data, read = load_data(table, label="city", seed=3), load_data(path, label="city", seed=3)
    assert torch.equal(data.train, read.train)
    assert data.description.columns == read.description.columns
    with pytest.raises(ValueError, match="unknown option of 'Table' 'labl'; did you mean label"):
        load_data(table, labl="city")
    pandas = pytest.importorskip("pandas")
    assert torch.equal(load_data(pandas.DataFrame(table.to_pandas()), label="city", seed=3).train, read.train)


def test_numbers_with_a_sign_of_money_or_percent_are_refused_and_large_identifiers_are_left_out(tmp_path):
    for text in ("${}", "{} %", "€ {},50", "{},000.5"):
        rows = {"x": [i / 7 for i in range(30)], "pay": [text.format(100 + i) for i in range(30)]}
        pyarrow.parquet.write_table(pyarrow.table(rows), tmp_path / "a.parquet")
        with pytest.raises(
            ValueError, match=r"'pay' holds .* correct it, or state what the column is: kinds=|'pay' holds"
        ):
            load_data(tmp_path / "a.parquet")
    rows = {"x": [i / 7 for i in range(30)], "key": [2**60 + 3 * i for i in range(30)]}
    for suffix in (".csv", ".parquet"):
        with pytest.warns(UserWarning, match="identify rows are left out: key"):
            load_data(write(tmp_path / f"b{suffix}", rows))
    rows["key"][3] = rows["key"][4] = rows["key"][5] = rows["key"][6] = rows["key"][7]
    with pytest.raises(ValueError, match="an integer must be exact in float64"):
        load_data(write(tmp_path / "b.csv", rows))


def test_kinds_of_columns_that_are_no_features_are_refused(tmp_path):
    path = write(tmp_path / "t.csv")
    chosen: tuple[dict[str, Any], ...] = ({"columns": ("pay", "price")}, {"label": "city"})
    for options in chosen:
        with pytest.raises(
            ValueError, match="kinds= must name features, 'city' is not one of them; add it to columns="
        ):
            load_data(path, kinds={"city": "category"}, **options)


def test_encoded_classes_of_a_column_are_categories_by_name():
    codes = pyarrow.table({"kind": [0, 2, None, 1], "x": [0.5, 1.5, 2.5, 3.5]})
    table = ArrowTable(codes, {"kind": ["cat", "dog", "owl"]})
    assert table.texts("kind") == ["cat", "owl", "None", "dog"]
    assert find_kind(table, "kind") == "identifier"  # four rows, all different
    column = read_column(table, "kind", np.arange(4), "category")
    assert column.texts == ("cat", "dog", "owl")
    assert column.values.tolist()[:2] == [0, 2]
    assert np.isnan(column.values[2])


def test_wide_tables_fit_into_a_checkpoint_or_are_refused():
    values = np.exp(np.random.default_rng(0).standard_normal((60, 1500)))
    table = pyarrow.table({f"column {i}": values[:, i] for i in range(1500)})
    text = spec.to_text(load_data(table.select(range(1000))).description)
    assert 0.8 * spec.MAX_LENGTH < len(text) < spec.MAX_LENGTH
    with pytest.raises(
        ValueError, match="at most 380000 characters, that of its 1500 columns has about 4.*; choose fewer"
    ):
        load_data(table)


@SAID
def test_days_that_a_later_table_states_as_times_are_days(tmp_path):
    data = load_data(write(tmp_path / "a.csv"), test_fraction=0, shuffle=False)
    frame = pyarrow.table({name: column[:4] for name, column in COLUMNS.items()})
    moments = pyarrow.array(np.array(COLUMNS["day"][:4], "datetime64[us]"))
    days = frame.set_column(frame.column_names.index("day"), "day", moments)
    later = load_data(days, like=data.description, test_fraction=0, shuffle=False)
    assert torch.equal(later.train, data.train[:4])
    late = frame.set_column(frame.column_names.index("day"), "day", pyarrow.array(moments.to_numpy() + 3_600_000_000))
    with pytest.raises(ValueError, match=r"'day' holds days .*got the time 2024-02-01T01:00:00 at row 0"):
        load_data(late, like=data.description)


@SAID
def test_times_that_a_later_table_states_as_days_are_times(tmp_path):
    data = load_data(write(tmp_path / "a.csv"))
    days = {name: column[:2] for name, column in COLUMNS.items()} | {"time": COLUMNS["day"][:2]}
    later = load_data(write(tmp_path / "b.csv", days), like=data.description, test_fraction=0, shuffle=False)
    column = (later.columns or ()).index("time")
    assert later.train[:, column].tolist() == [1_706_745_600.0, 1_706_832_000.0]


@SAID
def test_another_value_of_a_constant_is_refused_and_the_same_one_may_be_written_in_other_ways(tmp_path):
    data = load_data(write(tmp_path / "a.csv"))
    few = {name: column[:4] for name, column in COLUMNS.items()}
    with pytest.raises(ValueError, match=r"'year' has the one value 2024 .* got '2025' at row 2 .*1 such"):
        load_data(write(tmp_path / "b.csv", few | {"year": [2024, 2024, 2025, 2024]}), like=data.description)
    same = load_data(write(tmp_path / "b.csv", few | {"year": ["2024.0", "", 2024, 2024]}), like=data.description)
    assert len(same.train) + len(same.test) == 4


@SAID
def test_a_wrong_cell_of_a_later_table_is_named_by_its_row_in_the_file(tmp_path):
    data = load_data(write(tmp_path / "a.csv"))
    few = {name: column[:9] for name, column in COLUMNS.items()}
    few["visits"] = [2.0] * 5 + [2.5] + [2.0] * 3
    with pytest.raises(ValueError, match=r"'visits' holds whole numbers .*got 2\.5 at row 5 "):
        load_data(write(tmp_path / "b.csv", few), like=data.description)
    few["visits"], few["price"] = [2] * 9, [1.25] * 7 + [1.255, 1.25]
    with pytest.raises(ValueError, match=r"^column 'price' must hold multiples of 0\.01, got 1\.255 at row 7"):
        load_data(write(tmp_path / "b.csv", few), like=data.description)


@SAID
def test_no_event_is_a_table_of_no_rows_with_every_column():
    data = load_data(pyarrow.table(COLUMNS))
    arrays = table_arrays(data.train[:0].numpy(), data.description)
    assert {name: len(column) for name, column in arrays.items()} == dict.fromkeys(list(COLUMNS)[:-2], 0)
