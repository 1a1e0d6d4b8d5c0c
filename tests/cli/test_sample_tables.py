"""``scoresde sample``: tables come back as tables; formats and the grid of images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from command_line import csv_rows, one_line, run
from PIL import Image

import scoresde as sd
from scoresde.cli.sample_output import parse_grid
from scoresde.data import load_data
from scoresde.sampling import MixedSampler
from scoresde.storage.checkpoint import save

DRAW = ("-n", 12, "--sampler", "DDIM(steps=3)", "--seed", 4, "-q")
ROWS = ("-n", 12, "--sampler", "MixedSampler(DDIM(steps=3))", "--seed", 4, "-q")


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a table with an integer, a category, a number and, between them, labels."""
    folder = tmp_path_factory.mktemp("table")
    jobs = ("nurse", '"cook, head"')
    rows = [f"{20 + i % 50},{'ab'[i % 2]},{jobs[i % 3 > 0]},{i / 7}\n" for i in range(60)]
    (folder / "people.csv").write_text("age,y,job,pay\n" + "".join(rows))
    read = ("--read", "label=y", "--read", "categories=('job',)")
    network = ("--network", "MLP(width=16, depth=1, conditions={'label': Classes(2)})")
    few = ("--steps", 2, "--batch-size", 8, "--monitor-every", 0, "-q")
    result = run("train", "--data", folder / "people.csv", *read, *network, *few, "--out", folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run"


def test_a_table_is_written_as_the_table_that_it_was(table: Path, tmp_path: Path) -> None:
    for name in ("x.csv", "x.TSV", "x.parquet", "x.npz"):
        result = run("sample", table, *ROWS, "--label", "a,b", "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
    rows = csv_rows(tmp_path / "x.csv")
    assert list(rows[0]) == ["age", "y", "job", "pay"]
    assert [row["y"] for row in rows] == ["a", "b"] * 6
    assert {row["job"] for row in rows} <= {"nurse", "cook, head"}
    assert all(str(int(row["age"])) == row["age"] for row in rows)
    model = sd.load(table)
    labels = torch.tensor([0, 1] * 6)
    drawn = sd.sample(model, 12, MixedSampler(sd.DDIM(3)), generator=torch.Generator().manual_seed(4), label=labels)
    assert [float(row["pay"]) for row in rows] == pytest.approx(drawn.data[:, 2].tolist(), rel=1e-6)
    assert [int(row["age"]) for row in rows] == drawn.data[:, 0].round().long().tolist()
    columns = pyarrow.parquet.read_table(tmp_path / "x.parquet").to_pydict()
    assert [[str(value) for value in columns[name]] for name in ("age", "y", "job")] == [
        [row[name] for row in rows] for name in ("age", "y", "job")
    ]
    assert (tmp_path / "x.TSV").read_text().startswith("age\ty\tjob\tpay\n")
    with np.load(tmp_path / "x.npz") as file:
        assert file["columns"].tolist() == ["age", "job", "pay"]
        assert file["labels"].tolist() == labels.tolist()
        assert file["table"].dtype.names == ("age", "y", "job", "pay")
        assert file["table"]["job"].tolist() == [row["job"] for row in rows]
        assert file["table"]["age"].tolist() == [int(row["age"]) for row in rows]
        assert file["x"].shape == (12, 3)


@pytest.mark.filterwarnings("ignore:columns (of one value|that identify rows):UserWarning")
def test_dates_bools_constants_and_bounds_come_back_and_identifiers_are_left_out(tmp_path: Path) -> None:
    rows = [
        f"{100 + i},2024-02-{1 + i % 29:02d},kg,{i % 2},{i % 3 > 0},{max(0, i % 11 - 5)},0{i % 3}1" for i in range(80)
    ]
    (tmp_path / "t.csv").write_text("id,day,unit,flag,member,visits,zip\n" + "\n".join(rows) + "\n")
    few = ("--steps", 2, "--batch-size", 8, "--monitor-every", 0, "-q", "--network", "MLP(width=16, depth=1)")
    trained = run(
        "train", "--data", tmp_path / "t.csv", *few, "--read", "kinds=flag=integer", "--out", tmp_path / "run"
    )
    assert trained.exit_code == 0, trained.output
    shown = one_line(trained)
    for line in (
        "id identifier left out",
        "day date 2024-02-01 … 2024-02-29",
        "unit constant kg not modeled, comes back",
        "flag integer 0 … 1",
        "visits integer 0 … 5 normal scores",
        "zip category 3: 001, 011, 021 code",
        'to change a kind: --read kinds="day=category"; kinds are numeric, integer',
    ):
        assert line in shown
    for name in ("x.csv", "x.parquet", "x.npz"):
        drawn = run("sample", tmp_path / "run", *ROWS, "--out", tmp_path / name)
        assert drawn.exit_code == 0, drawn.output
    samples = csv_rows(tmp_path / "x.csv")
    assert list(samples[0]) == ["day", "unit", "flag", "member", "visits", "zip"]
    for row in samples:
        assert "2024-02-01" <= row["day"] <= "2024-02-29"
        assert row["unit"] == "kg"
        assert row["flag"] in ("0", "1")
        assert row["member"] in ("True", "False")
        assert row["visits"] in "012345"
        assert row["zip"] in ("001", "011", "021")
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    assert list(map(str, table.schema.types)) == ["date32[day]", "string", "int64", "string", "int64", "string"]
    assert [{name: str(v) for name, v in row.items()} for row in table.to_pylist()] == samples
    with np.load(tmp_path / "x.npz") as file:
        assert file["table"].dtype.names == tuple(samples[0])
        assert file["table"]["day"].astype(str).tolist() == [row["day"] for row in samples]
        assert file["columns"].tolist() == ["day", "flag", "member", "visits", "zip"]


def test_what_was_written_can_be_read_as_data_again(table: Path, tmp_path: Path) -> None:
    for name in ("x.csv", "x.parquet"):
        assert run("sample", table, *ROWS, "--label", "a,b", "--out", tmp_path / name).exit_code == 0
        rows = load_data(tmp_path / name, label="y", columns=("age", "pay"))
        assert rows.description.labels == ("a", "b")
        assert rows.description.columns is not None
        assert "age" in rows.description.columns.integers
    many = ("-n", 60, *ROWS[2:])  # so that every column varies
    assert run("sample", table, *many, "--label", "a,b", "--out", tmp_path / "x.npz").exit_code == 0
    assert load_data(tmp_path / "x.npz", per_feature=True).train.shape[1:] == (3,)


def test_without_labels_there_is_no_column_of_them(table: Path, tmp_path: Path) -> None:
    assert run("sample", table, *ROWS, "--out", tmp_path / "x.csv").exit_code == 0
    assert list(csv_rows(tmp_path / "x.csv")[0]) == ["age", "job", "pay"]
    shown = one_line(run("sample", table, "-n", 2, "--sampler", "MixedSampler(DDIM(steps=2))", "-q"))
    assert "to save them add --out samples.csv" in shown


def test_an_array_gives_columns_x0_x1(tmp_path: Path) -> None:
    net = sd.MLP((3,), width=8, depth=1)
    save(sd.ScoreModel(net, sd.VPSDE(), sd.V(), (3,)), tmp_path / "run")
    for name in ("x.csv", "x.npz"):
        assert run("sample", tmp_path / "run", *DRAW, "--out", tmp_path / name).exit_code == 0
    rows = csv_rows(tmp_path / "x.csv")
    assert list(rows[0]) == ["x0", "x1", "x2"]
    with np.load(tmp_path / "x.npz") as file:
        written = np.array([[row[f"x{i}"] for i in range(3)] for row in rows], dtype=file["x"].dtype)
        assert np.array_equal(written, file["x"])


def test_a_format_replaces_that_of_the_suffix(digits: Path, tmp_path: Path) -> None:
    arguments = ("-n", 2, "--sampler", "DDIM(steps=2)", "-q", "--out", tmp_path / "x.dat")
    assert run("sample", digits, *arguments, "--format", "npz").exit_code == 0
    with np.load(tmp_path / "x.dat") as file:
        assert file["x"].shape == (2, 1, 8, 8)
    assert [path.name for path in tmp_path.iterdir()] == ["x.dat"]
    assert run("sample", digits, *arguments, "--format", "PNG").exit_code == 0
    with Image.open(tmp_path / "x.dat") as sheet:
        assert sheet.format == "PNG"


def test_a_grid_sets_rows_columns_and_the_number_of_samples(digits: Path, tmp_path: Path) -> None:
    arguments = ("--sampler", "DDIM(steps=2)", "-q", "--out", tmp_path / "x.png")
    assert run("sample", digits, *arguments, "--grid", "2x5").exit_code == 0
    with Image.open(tmp_path / "x.png") as sheet:
        pixel = 15  # 5 images of 8 pixels, enlarged to at least 600
        assert sheet.size == (5 * 8 * pixel + 4 * 3, 2 * 8 * pixel + 3)
        assert np.all(np.asarray(sheet)[-1, ::123, 3] == 255)
    assert run("sample", digits, *arguments, "--grid", "2x5", "-n", 9).exit_code == 0
    with Image.open(tmp_path / "x.png") as sheet:
        assert sheet.size == (5 * 8 * pixel + 4 * 3, 2 * 8 * pixel + 3)
        assert np.asarray(sheet)[-1, -1, 3] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "x.csv"), "a .csv holds a table, got events of shape (1, 8, 8); write them as .npz"),
        (("--out", "x.parquet"), "a .parquet holds a table, got events of shape (1, 8, 8); write them as .npz"),
        (("--out", "x.jpg"), "--out must end in .png, .csv, .tsv, .npz, .npy, .txt, .parquet, got x.jpg"),
        (("--out", "x.png", "--format", "pgn"), "'pgn'; did you mean png?"),
        (("--format", "png"), "--format is that of the file of --out, got png without --out"),
        (("--grid", "2x2"), "--grid arranges the images of a .png, got no --out"),
        (("--grid", "2x2", "--out", "x.npz"), "--grid arranges the images of a .png, got npz"),
        (("--grid", "2x2", "-n", "5", "--out", "x.png"), "--grid 2x2 holds 4 images, got 5 samples"),
        (("--grid", "2", "--out", "x.png"), "--grid takes rows x columns, such as 8x8, got '2'"),
        (("--grid", "0x3", "--out", "x.png"), "--grid takes rows x columns, such as 8x8, got '0x3'"),
    ],
)
def test_outputs_that_do_not_fit_are_refused(words: tuple[str, ...], message: str, digits: Path) -> None:
    refused = run("sample", digits, *words)
    assert refused.exit_code == 2
    assert message in one_line(refused)


def test_a_grid_is_rows_times_columns() -> None:
    assert parse_grid("3 X 4") == parse_grid("3×4") == (3, 4)
    assert parse_grid(None) is None
