"""Numbers and dates in notations that are not read: refused with the number to write, never taken as categories."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scoresde.data import load_data
from scoresde.data.tables.notation import is_other_date, plain_number


@pytest.mark.parametrize(
    ("text", "decimal", "number"),
    [
        ("$65,587.84", ".", "65587.84"),
        ("71.758,73 €", ",", "71758,73"),
        ("EUR 10", ".", "10"),
        ("-$5", ".", "-5"),
        ("58.8%", ".", "58.8"),
        ("54,2 %", ",", "54,2"),
        ("(3.91)", ".", "-3.91"),
        ("($1,200)", ".", "-1200"),
        ("\u22120.27", ".", "-0.27"),
        ("5,111,853", ".", "5111853"),
        ("1.234.567,5", ",", "1234567,5"),
        ("1'234'567.5", ".", "1234567.5"),
        ("$0.123", ".", "0.123"),
        ("1.234 €", ",", "1234"),
        ("1,234 €", ",", "1,234"),
        ("1,234", ".", None),  # thousands, or a decimal comma: `decimal` is asked about
        ("-1.5", ".", None),
        ("1e-3", ".", None),
        ("5 kg", ".", None),
        ("(3.91", ".", None),
        ("12:30", ".", None),
        ("1,23,4", ".", None),
        ("%", ".", None),
        ("Ulm", ".", None),
    ],
)
def test_the_number_behind_a_notation(text: str, decimal: str, number: str | None) -> None:
    assert plain_number(text, decimal) == number


def test_dates_of_numbers_in_another_order_are_told_from_other_texts() -> None:
    assert all(map(is_other_date, ("26.11.2018", "2/29/2024", "2024/02/29", "1-2-2024 5:07 PM", "29.02.2024 12:30:00")))
    assert not any(map(is_other_date, ("2024-02-29", "1.2", "1/2", "10.0.0.1", "12:30", "1.2/2024", "Ulm")))


def table_of(path: Path, texts: list[str]) -> Path:
    path.write_text("a;b\n" + "".join(f"{i % 7}.5;{text}\n" for i, text in enumerate(texts)), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["(0.25)", "0.5", "(1.75)"], r"'b' holds '\(0\.25\)' at row 0 .*; write it as -0\.25, .*'b': 'identifier'"),
        (["\u22120.5", "\u22121.5"], r"write it as -0\.5"),
        (["EUR 10", "EUR 20"], r"plain numbers, 'b' holds 'EUR 10' at row 0 .* write it as 10"),
        (["2,005,246", "3,046,921"], r"write it as 2005246"),
        (["1/2/2024", "2/28/2024"], r"'b' holds '1/2/2024' .*pandas\.to_datetime\(table\['b'\]\)\.dt\.date"),
        (["26.11.2018", "3.5.2019"], r"date must be written as 2024-02-29 .*to_datetime\(table\['b'\], dayfirst=True"),
        (["1/2/2024", "2/1/2024"], r"dayfirst=…"),
        ([*map(str, range(20)), "n.a."], r"'b' holds 'n\.a\.' .*a missing cell, pass missing_texts='n\.a\.'"),
    ],
    ids=["accountants", "minus", "currency", "thousands", "american", "european", "undecided", "missing"],
)  # fmt: skip
def test_texts_that_mean_numbers_or_dates_are_no_categories(tmp_path: Path, texts: list[str], message: str) -> None:
    path = table_of(tmp_path / "t.csv", texts * 6)
    with pytest.raises(ValueError, match=message):
        load_data(path)
    if len(texts) < 5:
        assert load_data(path, kinds={"b": "category"}).categories["b"] == tuple(sorted(texts))


def test_one_such_text_in_all_rows_is_a_constant(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="columns of one value are not modeled"):
        data = load_data(table_of(tmp_path / "t.csv", ["100 %"] * 20))
    assert data.description.columns is not None
    assert data.description.columns.constants == {"b": "100 %"}


def test_a_code_with_an_underscore_is_no_number(tmp_path: Path) -> None:
    """Python reads 1_05 as 105."""
    data = load_data(table_of(tmp_path / "t.csv", ["1_05", "10_5", "7"] * 6))
    assert data.categories["b"] == ("10_5", "1_05", "7")
    with pytest.raises(ValueError, match="a column must hold numbers, 'b' holds '1_05' at row 0"):
        load_data(tmp_path / "t.csv", kinds={"b": "numeric"})


def test_all_columns_that_need_a_decision_are_named_at_once(tmp_path: Path) -> None:
    rows = [f"{i % 7}.5,${i % 3},{i % 5} %,{i % 9 + 1}/2/2024" for i in range(40)]
    (tmp_path / "t.csv").write_text("\n".join(["a,pay,rate,day", *rows]))
    with pytest.raises(ValueError, match=r"'pay' holds '\$0' .* Further columns need such a decision: 'rate', 'day'\."):
        load_data(tmp_path / "t.csv")


def test_an_empty_column_is_left_out_by_its_kind(tmp_path: Path) -> None:
    rows = [f"{v:.3f},,{i % 3}" for i, v in enumerate(np.random.default_rng(0).normal(size=40))]
    (tmp_path / "t.csv").write_text("\n".join(["a,gap,b", *rows]))
    for missing in ("refuse", "mask"):
        with pytest.raises(ValueError, match=r"kinds=\{'gap': 'identifier'\}"):
            load_data(tmp_path / "t.csv", missing=missing)
    with pytest.warns(UserWarning, match="left out: gap"):
        assert load_data(tmp_path / "t.csv", kinds={"gap": "identifier"}).columns == ("a", "b")
