"""Imputed frames: index, order, types and unmodeled columns are those that came in; missing cells alone are filled."""

from __future__ import annotations

import datetime
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scoresde import MLP, VPSDE, Gaussian, ScoreModel, V, impute, load_data
from scoresde.guidance import MMPS
from scoresde.sampling import SDEDPMSolverPP

pd = pytest.importorskip("pandas")
pa = pytest.importorskip("pyarrow")
QUICK = {"method": MMPS(1), "sampler": SDEDPMSolverPP(steps=2), "seeds": range(3)}


@pytest.fixture(scope="module")
def table_model() -> ScoreModel:
    rng = np.random.default_rng(0)
    train = pd.DataFrame(
        {
            "height": rng.normal(170, 9, 60).round(1),
            "count": rng.integers(0, 30, 60),
            "color": rng.choice(["red", "green", "blue"], 60),
            "flag": rng.random(60) < 0.5,
            "day": np.datetime64("2024-01-01") + np.arange(60) % 28,
        }
    )
    data = load_data(train)
    torch.manual_seed(0)
    return ScoreModel(
        MLP(data.description.model_shape, width=8, depth=1), VPSDE(), V(), data=data.description
    ).requires_grad_(False)


def incomplete() -> Any:
    """A frame in another order, with an identifier in front and a remark between, whose index is no range."""
    return pd.DataFrame(
        {
            "id": ["007", "b", "c"],
            "color": pd.Categorical(["red", None, "red"]),
            "count": pd.array([None, 7, 3], dtype="Int64"),
            "remark": [None, 1.5, math.nan],
            "flag": np.array([True, None, False], dtype=object),
            "day": pd.to_datetime(["2024-01-05", "2024-01-06", None]),
            "height": [170.5, math.nan, 165.0],
        },
        index=pd.Index([30, 10, 20], name="patient"),
    )


def test_a_frame_comes_back_with_its_index_and_columns_and_only_missing_cells_filled(table_model: ScoreModel) -> None:
    frame = incomplete()
    filled = impute(table_model, frame, 2, **QUICK)
    for draw in range(2):
        back, columns = filled.frame(draw), filled.columns(draw)
        pd.testing.assert_index_equal(back.index, frame.index)
        assert list(back.columns) == list(frame.columns)
        pd.testing.assert_frame_equal(back[["id", "remark"]], frame[["id", "remark"]])
        for name in ("color", "count", "flag", "day", "height"):
            present = frame[name].notna()
            assert back[name][present].tolist() == frame[name][present].tolist()
            assert back[name].notna().all()
            assert [str(cell) for cell in back[name]] == [str(cell) for cell in pd.Series(columns[name])]
        assert back.dtypes.drop("color").to_dict() == frame.dtypes.drop("color").to_dict()
        assert back["color"].dtype == "category"
    pd.testing.assert_frame_equal(frame, incomplete())


def test_a_column_takes_another_type_only_for_values_that_its_own_does_not_hold(table_model: ScoreModel) -> None:
    frame = incomplete().assign(height=pd.array([170, None, 165], dtype="Int64"), color=math.nan, day=None)
    filled = impute(table_model, frame, 1, **QUICK)
    back, columns = filled.frame(), filled.columns()
    assert not float(columns["height"][1]).is_integer()
    assert back["height"].tolist() == [170.0, columns["height"][1], 165.0]
    assert back["color"].tolist() == columns["color"].tolist()
    assert pd.to_datetime(back["day"]).tolist() == pd.to_datetime(columns["day"]).tolist()
    pd.testing.assert_index_equal(back.index, frame.index)


def test_an_arrow_table_comes_back_as_one_of_the_same_types(table_model: ScoreModel) -> None:
    table = pa.Table.from_pandas(incomplete()).set_column(6, "height", pa.array([170, None, 165], pa.int64()))
    filled = impute(table_model, table, 1, **QUICK)
    back = filled.frame()
    assert isinstance(back, pa.Table)
    assert back.column_names == table.column_names
    same = [name for name in table.column_names if name not in ("height", "color")]
    assert [back.schema.field(name).type for name in same] == [table.schema.field(name).type for name in same]
    assert pa.types.is_dictionary(back["color"].type)
    assert back["height"].to_pylist() == [170.0, filled.columns()["height"][1], 165.0]
    for name in ("id", "remark", "patient"):
        assert back[name] == table[name]
    assert back["day"].to_pylist()[:2] == [datetime.datetime(2024, 1, 5), datetime.datetime(2024, 1, 6)]


def test_an_arrow_table_of_string_views_is_filled(table_model: ScoreModel) -> None:
    columns = {"color": pa.array(["red", None, "blue"], pa.string_view()), "height": pa.array([170.0, 180.0, 165.0])}
    table = pa.table(columns | {"count": [1, 2, 3], "flag": [True, False, True]})
    table = table.append_column("day", pa.array([datetime.date(2024, 1, 5)] * 3))
    filled = impute(table_model, table, 1, **QUICK)
    assert filled.frame()["color"].to_pylist() == ["red", filled.columns()["color"][1], "blue"]


def test_a_polars_frame_comes_back_as_one_of_the_same_types(table_model: ScoreModel) -> None:
    polars = pytest.importorskip("polars")
    columns = {
        "id": ["007", "b", "c"],
        "color": ["red", None, "blue"],
        "count": [None, 7, 3],
        "flag": [True, None, False],
        "day": [datetime.date(2024, 1, 5), None, datetime.date(2024, 1, 7)],
        "height": [170.5, None, 165.0],
    }
    for kind in (polars.String, polars.Categorical):
        frame = polars.DataFrame(columns).with_columns(polars.col("color").cast(kind))
        filled = impute(table_model, frame, 1, **QUICK)
        back = filled.frame()
        assert isinstance(back, polars.DataFrame)
        assert back.schema == frame.schema
        assert back.null_count().row(0) == (0,) * 6
        for name, values in filled.columns().items():
            present = frame[name].is_not_null()
            assert back[name].filter(present).to_list() == frame[name].drop_nulls().to_list()
            cells, drawn = back[name].filter(~present).to_list(), values[(~present).to_numpy()].tolist()
            assert [str(cell)[:10] for cell in cells] == [str(value)[:10] for value in drawn]  # a day without its hour


def test_a_text_file_comes_back_with_all_its_columns_in_their_types(table_model: ScoreModel, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text(
        "id,height,key,flag,count,ok,color,day,weight\n007,170.5,3,True,,True,red,2024-01-05,1.5\n"
        "008,,4,,7,False,,2024-01-06,\n009,165.0,5,False,3,True,blue,,2\n"
    )
    back = impute(table_model, tmp_path / "new.csv", 1, **QUICK).frame()
    assert list(back.columns) == ["id", "height", "key", "flag", "count", "ok", "color", "day", "weight"]
    assert back["id"].tolist() == ["007", "008", "009"]
    assert {name: back[name].dtype.kind for name in ("height", "key", "count", "ok", "day", "weight")} == {
        "height": "f",
        "key": "i",
        "count": "i",
        "ok": "b",
        "day": "M",
        "weight": "f",
    }
    assert back["weight"].isna().tolist() == [False, True, False]
    assert back["color"].tolist()[::2] == ["red", "blue"]


def test_a_frame_of_numbers_keeps_its_index_and_names_with_a_model_that_knows_no_columns() -> None:
    model = Gaussian(torch.zeros(2).double(), torch.eye(2).double())
    frame = pd.DataFrame({"a": [1.0, math.nan], "b": [math.nan, 2.0]}, index=["x", "y"])
    filled = impute(model, frame, 1, MMPS(), seeds=[0, 1])
    back = filled.frame()
    assert back.loc["x", "a"] == 1.0
    assert back.loc["y", "b"] == 2.0
    assert back.loc["x", "b"] == float(filled.data[0, 0, 1])
    assert back.loc["y", "a"] == float(filled.data[1, 0, 0])
    assert list(back.columns) == ["a", "b"]
