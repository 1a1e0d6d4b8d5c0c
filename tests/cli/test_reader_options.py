"""Options of data readers on the command line: names, texts and literals in ``--read``, and their description."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from command_line import SMALL, one_line, run

from scoresde.cli.loading import load_data
from scoresde.cli.reader_options import parse_option
from scoresde.data import load_table
from scoresde.data.sources import FILES, SOURCES, functions_of
from scoresde.data.toys import TOYS


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("columns", "age", "age"),
        ("columns", "age,income", ("age", "income")),
        ("columns", " age , net income,", ("age", "net income")),
        ("columns", "2019,2020", ("2019", "2020")),
        ("columns", "1e3", "1e3"),
        ("columns", "('age', 'a,b')", ("age", "a,b")),
        ("columns", "'a,b'", "a,b"),
        ("columns", "None", None),
        ("categories", "city,sick", ("city", "sick")),
        ("kinds", "zip=category, year = numeric", {"zip": "category", "year": "numeric"}),
        ("kinds", "{'a,b': 'date'}", {"a,b": "date"}),
        ("missing_texts", "-,none", ("-", "none")),
        ("label", "2019", "2019"),
        ("label", "True", "True"),
        ("label", "a,b", "a,b"),
        ("delimiter", ";", ";"),
        ("delimiter", "','", ","),
        ("decimal", ",", ","),
        ("encoding", "latin-1", "latin-1"),
        ("missing", "drop", "drop"),
        ("header", "False", False),
        ("shuffle", "False", False),
        ("shuffle", "false", False),
        ("header", "true", True),
    ],
)
def test_a_value_is_read_as_the_option_takes_it(name: str, text: str, value: object) -> None:
    assert parse_option("people.csv", name, text) == value


def test_options_of_other_readers_stay_literals() -> None:
    assert parse_option("x.npy", "offset", "(1, 2)") == (1, 2)
    assert parse_option("x.npy", "per_feature", "true") is True
    assert parse_option("ring", "modes", "5") == 5
    assert parse_option("hf:x", "parts", "train,test") == ("train", "test")
    assert parse_option("unknown", "columns", "age") == "age"


def test_names_on_the_command_line_are_the_columns(tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("age,income,kind\n" + "".join(f"{i % 5}.5,{i % 7},{i % 2}\n" for i in range(20)))
    assert load_data(str(table), read=["columns=income"]).columns == ("income",)
    data = load_data(str(table), read=["columns=income,age", "label=kind"])
    assert (data.columns, data.description.labels) == (("income", "age"), ("0", "1"))
    out = tmp_path / "run"
    trained = run("train", "--data", table, "--read", "columns=income,age", "--out", out, *SMALL)
    assert trained.exit_code == 0, trained.output


def test_a_remedy_names_the_option_of_the_command(tmp_path: Path) -> None:
    table = tmp_path / "people.csv"
    table.write_text("age,income\n1,2\nNA,3\n")
    refused = run("train", "--data", table, "--out", tmp_path / "run", *SMALL)
    assert refused.exit_code == 2
    assert '--read missing="drop"' in one_line(refused)
    table.write_text("age,town\n" + "".join(f"{i % 9},t{i % 120}\n" for i in range(300)))
    refused = run("train", "--data", table, "--out", tmp_path / "run", *SMALL)
    assert 'leave it out with --read "kinds=town=identifier", merge' in one_line(refused)
    table.write_text("age,town\n" + "".join(f"{i % 9},{'a' if i < 18 else 'b'}\n" for i in range(20)))
    refused = run("train", "--data", table, "--read", "shuffle=False", "--out", tmp_path / "run", *SMALL)
    assert "take another split (--split-seed, --test-fraction), or leave it out with --read" in one_line(refused)


@pytest.mark.parametrize("source", ["x.npy", "people.CSV", "people.csv.gz", "hf:x", *SOURCES, *TOYS])
def test_info_lists_every_option_of_a_source(source: str) -> None:
    result = run("info", source)
    assert result.exit_code == 0, result.output
    words = result.output.split()
    for function in functions_of(source):
        for parameter in inspect.signature(function).parameters.values():
            assert parameter.kind is not parameter.KEYWORD_ONLY or parameter.name in words
    assert result.output.splitlines()[1].strip(), f"the reader of {source} has no docstring"


def test_info_data_lists_every_reader_and_every_option_of_a_table_has_a_text() -> None:
    printed = run("info", "--data").output
    for name in (*FILES, *SOURCES, *TOYS, "hf:NAME", "a folder of images"):
        assert name in printed
    section = printed[printed.index(".csv, ") :].split("\n\n")[0].splitlines()
    options = [p.name for p in inspect.signature(load_table).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for option in options:
        (line,) = (i for i, text in enumerate(section) if text.startswith(option + " "))
        assert section[line + 1].startswith(" "), f"{option} has no text"
    assert run("info", "--data", "ring").exit_code == 2


def test_info_shows_the_options_of_a_file_or_folder_that_exists(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("a,b\n1,2\n")
    assert "missing_texts" in run("info", tmp_path / "a.csv").output
    (tmp_path / "pets").mkdir()
    (tmp_path / "pets" / "1.png").touch()
    assert "channels" in run("info", tmp_path / "pets").output
