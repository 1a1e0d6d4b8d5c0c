"""``scoresde impute``: observed cells stay as they are written, missing ones are filled in their own kind."""

from __future__ import annotations

import csv
import datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from command_line import SMALL, csv_rows, one_line, run

import scoresde
from scoresde.storage.checkpoint import save

QUICK = ("--method", "MMPS(1)", "--sampler", "DDIM(steps=3)")
HEADER = "id,height,count,color,day\n"
NEW = 'a1,170.50,,red,2024-01-05\na2,,07,,\na3,1.812e2,3,blue,NA\n"b, 4",165.0,4,green,2024-01-09\n'


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    colors = ("red", "green", "blue")
    lines = [
        f"{rng.normal(170, 9):.1f},{rng.integers(0, 30)},{colors[rng.integers(3)]},2024-01-{1 + i % 28:02d}"
        for i in range(60)
    ]
    (tmp_path / "train.csv").write_text("height,count,color,day\n" + "\n".join(lines) + "\n", encoding="utf-8")
    data = scoresde.load_data(tmp_path / "train.csv")
    torch.manual_seed(0)
    net = scoresde.MLP(data.description.model_shape, width=8, depth=1)
    save(scoresde.ScoreModel(net, scoresde.VPSDE(), scoresde.V(), data=data.description), tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "new.csv").write_text(HEADER + NEW, encoding="utf-8")
    return tmp_path / "new.csv"


def check_row_kinds(row: dict[str, str]) -> None:
    assert row["color"] in ("red", "green", "blue")
    assert row["count"].isdecimal()
    assert row["day"].startswith("2024-01-")
    assert float(row["height"]) == pytest.approx(round(float(row["height"]), 1))


def test_observed_cells_are_written_as_they_were_read(run_folder: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "filled.csv"
    result = run("impute", run_folder, table, "--draws", 1, *QUICK, "--out", out)
    assert result.exit_code == 0, result.output
    assert "4, 3 of them incomplete" in one_line(result)
    rows, old = csv_rows(out), csv_rows(table)
    assert list(rows[0]) == ["id", "height", "count", "color", "day"]
    for new, before in zip(rows, old, strict=True):
        check_row_kinds(new)
        assert all(new[name] == cell for name, cell in before.items() if cell not in ("", "NA"))


def test_several_draws_have_a_column_or_a_file_each(run_folder: Path, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "filled.csv"
    assert run("impute", run_folder, table, "--draws", 3, *QUICK, "--out", out).exit_code == 0
    rows = csv_rows(out)
    assert [row["draw"] for row in rows] == ["1"] * 4 + ["2"] * 4 + ["3"] * 4
    assert rows[0]["count"] != ""
    assert len({row["height"] for row in rows[1::4]}) > 1
    result = run("impute", run_folder, table, "--draws", 3, *QUICK, "--out", tmp_path / "filled-{draw}.csv")
    assert result.exit_code == 0, result.output
    for draw in range(3):
        alone = csv_rows(tmp_path / f"filled-{draw + 1}.csv")
        assert alone == [{k: v for k, v in row.items() if k != "draw"} for row in rows[4 * draw : 4 * draw + 4]]


def test_intervals_have_one_line_for_each_missing_cell(run_folder: Path, table: Path, tmp_path: Path) -> None:
    out, cells = tmp_path / "filled.csv", tmp_path / "cells.csv"
    options = ("--draws", 9, *QUICK, "--out", out, "--intervals", cells, "--level", "0.8")
    result = run("impute", run_folder, table, *options)
    assert result.exit_code == 0, result.output
    lines = csv_rows(cells)
    assert [(line["row"], line["column"]) for line in lines] == [
        ("0", "count"),
        ("1", "height"),
        ("1", "color"),
        ("1", "day"),
        ("2", "day"),
    ]
    draws = [float(row["height"]) for row in csv_rows(out)[1::4]]
    height, color, day = lines[1], lines[2], lines[3]
    assert float(height["mean"]) == pytest.approx(np.mean(draws))
    assert [float(height["low"]), float(height["high"])] == pytest.approx([min(draws), max(draws)])  # of 9 draws 80 %
    colors = [row["color"] for row in csv_rows(out)[1::4]]
    assert float(color["share"]) == pytest.approx(colors.count(color["mean"]) / 9, abs=1e-3)
    assert color["low"] == ""
    assert day["low"] <= day["mean"] <= day["high"]
    assert day["mean"].startswith("2024-01-")


def test_separator_decimal_comma_and_missing_texts_are_those_of_the_file(run_folder: Path, tmp_path: Path) -> None:
    path, out = tmp_path / "new.csv", tmp_path / "filled.csv"
    path.write_text("height;count;color;day\n170,5;gone;red;2024-01-05\ngone;7;red;2024-01-06\n", encoding="utf-8")
    read = ("--read", "decimal=,", "--read", "missing_texts=gone")
    result = run("impute", run_folder, path, "--draws", 1, *QUICK, *read, "--out", out)
    assert result.exit_code == 0, result.output
    with out.open(encoding="utf-8") as file:
        rows = list(csv.reader(file, delimiter=";"))
    assert rows[0] == ["height", "count", "color", "day"]
    assert rows[1][0] == "170,5"
    assert rows[1][1].isdecimal()
    assert "," in rows[2][0] or rows[2][0].isdecimal()


def test_a_table_has_the_layout_of_the_training_table_unless_it_states_another_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [f"{rng.normal(170, 9):.1f};{rng.integers(0, 30)}".replace(".", ",") for _ in range(60)]
    (tmp_path / "train.csv").write_text("height;count\n" + "\n".join(lines) + "\n", encoding="utf-8")
    words = ("--read", "decimal=,", "--read", "missing_texts=-", "--network", "MLP(width=8, depth=1)")
    trained = run("train", "--data", tmp_path / "train.csv", *words, "--steps", 1, "--out", tmp_path / "commas")
    assert trained.exit_code == 0, one_line(trained)
    (tmp_path / "new.csv").write_text("height;count\n170,5;-\n-;7\n", encoding="utf-8")
    fill = ("impute", tmp_path / "commas", tmp_path / "new.csv", "--draws", 1, *QUICK, "--out", tmp_path / "f.csv")
    result = run(*fill)
    assert result.exit_code == 0, one_line(result)
    assert (tmp_path / "f.csv").read_text(encoding="utf-8").splitlines()[1].startswith("170,5;")
    (tmp_path / "new.csv").write_text("height;count\n170.5;-\n-;7\n", encoding="utf-8")
    assert "decimal mark ','; if the point is it, pass --read decimal='.'." in one_line(run(*fill))
    assert run(*fill, "--read", "decimal=.").exit_code == 0


def test_parquet_goes_in_and_comes_out_with_its_types(run_folder: Path, tmp_path: Path) -> None:
    pandas, parquet = pytest.importorskip("pandas"), pytest.importorskip("pyarrow.parquet")
    frame = pandas.DataFrame(
        {
            "height": [170.5, None],
            "count": pandas.array([None, 7], dtype="Int64"),
            "color": ["red", None],
            "day": pandas.to_datetime(["2024-01-05", "2024-01-06"]).date,
        }
    )
    frame.to_parquet(tmp_path / "new.parquet")
    out = tmp_path / "filled.parquet"
    result = run("impute", run_folder, tmp_path / "new.parquet", "--draws", 2, *QUICK, "--out", out)
    assert result.exit_code == 0, result.output
    filled = parquet.read_table(out)
    assert filled.column_names == ["draw", "height", "count", "color", "day"]
    assert filled.num_rows == 4
    assert filled["height"].to_pylist()[::2] == [170.5, 170.5]
    assert filled["count"].to_pylist()[1::2] == [7, 7]
    assert all(isinstance(value, int) for value in filled["count"].to_pylist())
    assert all(column.null_count == 0 for column in filled.columns)


@pytest.mark.parametrize("draws", [1, 2])
def test_parquet_of_a_text_file_has_numbers_bools_and_dates(draws: int, run_folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "new.csv").write_text(
        "id,height,count,color,day,ok,visits,since\n007,170.50,,red,2024-01-05,True,3,2024-02-29T12:30:00\n"
        "008,,07,,,False,4,2024-03-01T00:00:00\n",
        encoding="utf-8",
    )
    out = tmp_path / "filled.parquet"
    result = run("impute", run_folder, tmp_path / "new.csv", "--draws", draws, *QUICK, "--out", out)
    assert result.exit_code == 0, one_line(result)
    filled = parquet.read_table(out)
    types = {name: str(kind) for name, kind in zip(filled.schema.names, filled.schema.types, strict=True)}
    number = {"draw": "int64"} if draws > 1 else {}
    assert types == number | {
        "id": "string",
        "height": "double",
        "count": "int64",
        "color": "string",
        "day": "date32[day]",
        "ok": "bool",
        "visits": "int64",
        "since": types["since"],
    }
    assert types["since"].startswith("timestamp")
    assert filled["id"].to_pylist() == ["007", "008"] * draws
    assert filled["height"].to_pylist()[::2] == [170.5] * draws
    assert filled["count"].to_pylist()[1::2] == [7] * draws
    assert filled["ok"].to_pylist() == [True, False] * draws
    assert filled["day"].to_pylist()[::2] == [datetime.date(2024, 1, 5)] * draws
    assert all(column.null_count == 0 for column in filled.columns)


@pytest.mark.parametrize(
    ("content", "words", "text"),
    [
        (HEADER + NEW, ("--out", "x.json"), "--out must end in .csv"),
        (HEADER + NEW, ("--out", "x.csv", "--intervals", "y.txt"), "--intervals must end in .csv"),
        (HEADER + NEW, ("--out", "x.csv", "--read", "columns=a"), "unknown layout option"),
        ("height,color\n1.0,red\n", ("--out", "x.csv"), "count"),
        (HEADER + "a,1.0,,pink,2024-01-01\n", ("--out", "x.csv"), "'pink' (1 rows)"),
        (
            HEADER.replace("id", "draw") + NEW,
            ("--out", "x.csv", "--draws", 2, *QUICK),
            'a column "draw" itself; write one file per draw: --out "x-{draw}.csv"',
        ),
    ],
)
def test_a_wrong_option_or_table_is_answered(
    content: str, words: tuple, text: str, run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "new.csv").write_text(content, encoding="utf-8")
    result = run("impute", run_folder, tmp_path / "new.csv", *words)
    assert result.exit_code == 2
    assert text in one_line(result)


def test_columns_that_are_conditions_are_passed_to_the_network(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    lines = [
        f"{rng.normal():.3f},{rng.normal():.3f},{('a', 'b')[i % 2]},{i % 9},{('u', 'v')[i % 3 > 1]}" for i in range(60)
    ]
    (tmp_path / "t.csv").write_text("\n".join(["x,y,kind,age,group", *lines]))
    options = ("--condition", "label,age,group", "--read", "label=kind", "--network", "MLP(width=8, depth=1)")
    trained = run("train", "--data", tmp_path / "t.csv", *options, "--out", tmp_path / "run", *SMALL[2:])
    assert trained.exit_code == 0, one_line(trained)
    model = scoresde.load(tmp_path / "run")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(0))
    frame = pd.DataFrame(
        {"x": [np.nan, 0.5], "y": [0.25, np.nan], "kind": ["b", "a"], "age": [7, 2], "group": ["v", "u"]}
    )
    table = torch.tensor([[torch.nan, 0.25], [0.5, torch.nan]]).double()
    assert model.data is not None
    cond = model.data.to_model_cond({"label": ["b", "a"], "age": [7.0, 2.0], "group": ["v", "u"]})
    cond["age"] = cond["age"].float()
    drawn = scoresde.impute(model, frame, 2, scoresde.MMPS(), seeds=[0, 1])
    assert torch.equal(drawn.data, scoresde.impute(model, table, 2, scoresde.MMPS(), seeds=[0, 1], **cond).data)
    assert not torch.equal(drawn.data, scoresde.impute(model, table, 2, scoresde.MMPS(), seeds=[0, 1]).data)
    without = scoresde.impute(model, frame.drop(columns="age"), 2, scoresde.MMPS(), seeds=[0, 1])
    del cond["age"]
    assert torch.equal(without.data, scoresde.impute(model, table, 2, scoresde.MMPS(), seeds=[0, 1], **cond).data)
    with pytest.raises(
        ValueError, match="each class of 'group' must be one that the model was trained on, u, v; got 'w'"
    ):
        scoresde.impute(model, frame.assign(group=["w", "u"]), 2, scoresde.MMPS())
