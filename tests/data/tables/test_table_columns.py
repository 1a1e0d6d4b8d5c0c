"""Columns of a table: names, texts and integers come back from events, and are stored as text."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow
import pytest
import torch

import scoresde.data
from scoresde import load_data
from scoresde.data import ClassCondition, Description
from scoresde.data.tables.columns import Columns, table_arrays
from scoresde.sampling import Samples
from scoresde.storage import spec

COLUMNS = Columns(("age", "job", "pay"), {"job": ("clerk", "nurse", "cook")}, ("age",), "y", ("age", "y", "job", "pay"))


def described(columns: Columns = COLUMNS, labels: tuple[str, ...] | None = ("no", "yes")) -> Description:
    conditions = {} if labels is None else {"label": ClassCondition(len(labels), labels)}
    return Description("people", (len(columns.names),), columns=columns, conditions=conditions)


def test_a_category_is_its_nearest_text_and_a_whole_number_its_nearest_integer():
    y = np.array([[20.4, 0.49, 1.5], [20.6, 0.51, -2.25], [-0.6, 1.6, 0.0], [3.0, -7.0, 1e300], [0.0, 99.0, 0.125]])
    arrays = table_arrays(y, described())
    assert list(arrays) == ["age", "job", "pay"]
    assert arrays["age"].tolist() == [20, 21, -1, 3, 0]
    assert arrays["age"].dtype == np.int64
    assert arrays["job"].tolist() == ["clerk", "nurse", "cook", "clerk", "cook"]
    assert arrays["pay"].tolist() == y[:, 2].tolist()


@pytest.mark.parametrize(
    ("class_names", "codes", "shown"),
    [
        (("no", "yes"), [1, 0], ["yes", "no"]),
        (("no", "yes"), [1, 2], ["yes", ""]),  # the null label has no name
        (("3", "11"), [1, 0], [11, 3]),
        (("03", "11"), [1, 0], ["11", "03"]),
        (None, [1, 0], [1, 0]),
    ],
)
def test_labels_return_to_their_place_under_their_names(class_names, codes, shown):
    arrays = table_arrays(np.zeros((2, 3)), described(labels=class_names), np.array(codes))
    assert list(arrays) == ["age", "y", "job", "pay"]
    assert arrays["y"].tolist() == shown


def test_integers_that_do_not_fit_or_are_missing_stay_floats():
    y = np.array([[1e19], [2.4]])
    columns = Columns(("n",), integers=("n",))
    assert table_arrays(y, described(columns))["n"].tolist() == [1e19, 2.0]
    with_missing = table_arrays(np.array([[np.nan], [2.4]]), described(columns))["n"]
    assert np.isnan(with_missing[0])
    assert with_missing[1] == 2.0


def test_events_without_names_are_columns_x0_x1_and_images_are_no_table():
    y = np.arange(4.0).reshape(2, 2)
    arrays = table_arrays(y, None, np.array([1, 0]))
    assert {name: column.tolist() for name, column in arrays.items()} == {"x0": [0, 2], "x1": [1, 3], "label": [1, 0]}
    assert list(table_arrays(np.zeros(3), None)) == ["x0"]
    with pytest.raises(ValueError, match=r"a table needs events of one axis, .* got shape \(2, 1, 4, 4\); write"):
        table_arrays(np.zeros((2, 1, 4, 4)), None)


def test_a_table_that_is_read_knows_its_kinds(tmp_path: Path):
    text = "age,kind,job,pay\n30,a,cook,1.5\n40,b,clerk,2.0\n50,a,cook,3.25\n60,b,clerk,4.0\n"
    (tmp_path / "t.csv").write_text(text)
    data = load_data(tmp_path / "t.csv", label="kind", categories=("job",), shuffle=False)
    order = ("age", "kind", "job", "pay")
    expected = Columns(("age", "job", "pay"), {"job": ("clerk", "cook")}, ("age",), "kind", order)
    assert data.description.columns == expected
    assert data.train_labels is not None
    arrays = table_arrays(data.train.numpy(), data.description, data.train_labels.numpy())
    lines = [",".join(map(str, row)) for row in zip(*arrays.values())]
    assert [",".join(arrays), *lines] == text.splitlines()[: 1 + len(data.train)]
    last = load_data(tmp_path / "t.csv", label="kind", columns=("pay", "age"))
    assert last.description.columns == Columns(("pay", "age"), {}, ("age",), "kind")


def test_a_description_is_stored_with_its_columns_and_one_without_keeps_its_text():
    known = spec.known_classes(scoresde.data)
    text = spec.to_text(described())
    assert spec.parse(text, known, kind=Description) == described()
    assert "columns" not in spec.to_text(Description("waves", (3,)))
    assert hash(described()) == hash(described())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Columns(("a", "b", "a")), "columns must have different names, got 'a' twice"),
        (lambda: Columns(("a",), label="a"), "columns must have different names, got 'a' twice"),
        (lambda: Columns(("a",), integers=("b",)), r"must name columns of \['a'\], got 'b'"),
        (lambda: Columns(("a",), dates={"b": "D"}), r"must name columns of \['a'\], got 'b'"),
        (lambda: Columns(("a",), constants={"a": 1}), "columns must have different names, got 'a' twice"),
        (lambda: Columns(("a", "b"), order=("b",)), r"order must name each of \['a', 'b'\] once, got \['b'\]"),
        (lambda: Columns(("a",), {"a": ("x" * 9,) * 30_000}), "got 270000 in 30000 categories of 'a'; leave"),
        (lambda: Description("t", (2,), columns=Columns(("a",))), r"columns must name each entry of \(2,\), got 1"),
    ],
)
def test_columns_that_contradict_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class _Without:
    """A finder of modules that does not find one of them."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, name: str, *_: object) -> None:
        if name == self.name:
            raise ModuleNotFoundError(name)


def test_a_frame_is_of_pandas_or_of_pyarrow_or_says_what_to_install(monkeypatch):
    about = described()
    samples = Samples(torch.tensor([[30.2, 1.0, 0.5]]), 0.0, 1, description=about, labels=torch.tensor([1]))
    row = {"age": [30], "y": ["yes"], "job": ["nurse"], "pay": [0.5]}
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=lambda columns: ("pandas", columns)))
    library, columns = samples.frame()
    assert library == "pandas"
    assert {name: column.tolist() for name, column in columns.items()} == row
    monkeypatch.delitem(sys.modules, "pandas")
    monkeypatch.setattr(sys, "meta_path", [_Without("pandas"), *sys.meta_path])
    table = samples.frame()
    assert isinstance(table, pyarrow.Table)
    assert table.to_pydict() == row
    assert [str(kind) for kind in table.schema.types] == ["int64", "string", "string", "float"]
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match="needs pandas or pyarrow, both are missing; pip install pandas"):
        samples.frame()
