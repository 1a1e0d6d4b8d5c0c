"""Readers of conditions: entries of .npz files, columns of tables, images paired by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image

from scoresde import load_data
from scoresde.data import ClassCondition, ImageCondition, VectorCondition

RNG = np.random.default_rng(0)


def test_entries_of_a_npz_file_are_conditions_and_follow_their_events(tmp_path):
    x = np.arange(40.0).reshape(20, 2)
    np.savez(tmp_path / "a.npz", x=x, text=x * 10, labels=np.arange(20) % 3, low=np.ones((20, 1)) * x[:, :1])
    data = load_data(tmp_path / "a.npz", condition=("text", "low", "label"))
    for events, cond in ((data.train, data.train_cond), (data.test, data.test_cond)):
        assert torch.equal(cond["text"], events * 10)
        assert torch.equal(cond["low"], events[:, :1])
        assert torch.equal(cond["label"], (events[:, 0].long() // 2) % 3)
    kind = data.description.conditions["text"]
    assert isinstance(kind, VectorCondition)
    assert kind.offset == tuple((data.train * 10).mean(0).tolist())


def test_parts_of_a_npz_file_have_entries_of_their_own(tmp_path):
    part = RNG.normal(size=(4, 3, 8, 8))
    low = RNG.integers(0, 256, (4, 3, 4, 4)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", train=part, test=part[:2], train_low=low, test_low=low[:2])
    data = load_data(tmp_path / "a.npz", condition="low")
    assert data.description.conditions["low"] == ImageCondition((3, 4, 4), 256)
    assert data.test_cond["low"].tolist() == low[:2].tolist()
    with pytest.raises(ValueError, match="condition='text' needs the entry 'train_text'.*holds test, test_low, train"):
        load_data(tmp_path / "a.npz", condition="text")
    with pytest.warns(UserWarning, match="also holds test_low, train_low, not read.*condition= names other conditions"):
        load_data(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", train=part, test=part[:2], train_low=low, test_low=low)
    with pytest.raises(ValueError, match=r"one entry per event.*test_low of shape \(4, 3, 4, 4\) for 2 events"):
        load_data(tmp_path / "b.npz", condition="low")
    np.save(tmp_path / "c.npy", part)
    with pytest.raises(ValueError, match="condition='low' needs the entry 'low'"):
        load_data(tmp_path / "c.npy", condition="low")


def test_images_with_channels_last_beside_such_events_are_moved_along(tmp_path):
    x = RNG.integers(0, 256, (6, 8, 8, 3)).astype(np.uint8)
    np.savez(tmp_path / "a.npz", x=x, low=x[:, ::2, ::2])
    data = load_data(tmp_path / "a.npz", bins=256, channels="last", condition="low", shuffle=False)
    assert torch.equal(data.train_cond["low"], data.train[:, :, ::2, ::2])


def test_rows_that_are_left_out_take_their_conditions_along(tmp_path):
    x = np.arange(20.0).reshape(10, 2)
    x[3, 1] = np.nan
    np.savez(tmp_path / "a.npz", x=x, text=x[:, 0])
    with pytest.warns(UserWarning, match="left out: 1 of 10"):
        data = load_data(tmp_path / "a.npz", condition="text", missing="drop", shuffle=False)
    assert torch.equal(data.train_cond["text"][:, 0], data.train[:, 0])


TABLE = """age,city,income,visits
30,Rome,1.5,2
41,Oslo,2.5,1
52,Rome,0.5,7
63,Lima,3.25,4
29,Oslo,1.25,3
35,Rome,4.5,9
48,Lima,2.75,5
57,Oslo,0.25,8
"""


def table(tmp_path: Path, text: str = TABLE) -> Path:
    path = tmp_path / "people.csv"
    path.write_text(text)
    return path


def test_columns_of_a_table_are_conditions_and_no_features(tmp_path):
    data = load_data(table(tmp_path), condition=("age", "city"), shuffle=False)
    assert data.columns == ("income", "visits")
    assert data.train_cond["age"].flatten().tolist() == [30, 41, 52, 63, 29, 35]
    assert data.train_cond["city"].tolist() == [2, 1, 2, 0, 1, 2]
    assert data.test_cond["city"].tolist() == [0, 1]
    kinds = data.description.conditions
    assert kinds["city"] == ClassCondition(3, ("Lima", "Oslo", "Rome"))
    age = kinds["age"]
    assert isinstance(age, VectorCondition)
    assert age.offset == pytest.approx(np.mean([30, 41, 52, 63, 29, 35]))
    assert data.description.columns is not None
    assert "city" not in data.description.columns.order


def test_another_table_is_read_with_the_classes_and_scaling_of_the_first(tmp_path):
    first = load_data(table(tmp_path), condition=("age", "city"), shuffle=False).description
    later = "age,city,income,visits\n99,Oslo,1.5,2\n98,Lima,0.5,7\n"
    data = load_data(table(tmp_path, later), condition=("age", "city"), like=first, test_fraction=0)
    assert data.description == first
    assert set(zip(data.train_cond["age"].flatten().tolist(), data.train_cond["city"].tolist(), strict=True)) == {
        (99.0, 1),
        (98.0, 0),
    }
    with pytest.raises(ValueError, match="each class of 'city' must be one that the model was trained on.*'Bern'"):
        load_data(table(tmp_path, later.replace("Lima", "Bern")), condition=("age", "city"), like=first)


def test_the_column_label_is_the_condition_of_classes(tmp_path):
    text = TABLE.replace("city", "label")
    data = load_data(table(tmp_path, text), condition=("label", "age"), shuffle=False)
    assert data.train_labels is not None
    assert data.train_labels.tolist() == [2, 1, 2, 0, 1, 2]
    assert data.description.columns is not None
    assert data.description.columns.label == "label"
    again = load_data(table(tmp_path), condition="label", label="city", shuffle=False)
    assert again.train_labels is not None
    assert again.train_labels.tolist() == [2, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        (TABLE, {"condition": "agee"}, "unknown column in condition= 'agee'; did you mean age"),
        (TABLE, {"condition": "age", "columns": ("age", "income")}, "'age' is named twice"),
        (TABLE.replace("visits", "steps"), {"condition": "steps"}, "another name than 'steps'"),
        (
            TABLE.replace("Rome", "Oslo").replace("Lima", "Oslo"),
            {"condition": "city"},
            "'city' is of the kind constant",
        ),
        (TABLE.replace("41,", ","), {"condition": "age"}, "must have no missing cells, got 1 in 1 of 8 rows.*age: 1"),
        (
            TABLE.replace("63,Lima", "63,"),
            {"condition": "city", "missing": "mask"},
            "known for every row, 'city' is missing in 1 of 8",
        ),
    ],
)
def test_columns_that_cannot_be_conditions_are_refused(tmp_path, text, options, message):
    with pytest.raises(ValueError, match=message):
        load_data(table(tmp_path, text), **options)


def test_a_number_that_is_missing_is_a_null_entry_with_missing_mask_and_its_row_is_dropped_with_drop(tmp_path):
    path = table(tmp_path, TABLE.replace("41,", ","))
    data = load_data(path, condition="age", missing="mask", shuffle=False)
    assert data.train_cond["age"].isnan().flatten().tolist() == [False, True, False, False, False, False]
    assert not data.description.missing
    with pytest.warns(UserWarning, match="left out: 1 of 8"):
        assert len(load_data(path, condition="age", missing="drop", test_fraction=0).train) == 7


def test_numbers_that_are_all_different_are_numbers_and_such_texts_are_refused(tmp_path):
    text = "\n".join(["age,name,income", *(f"{20 + i},n{i}x,{i % 7}.5" for i in range(60))])
    data = load_data(table(tmp_path, text), condition="age", columns="income", test_fraction=0)
    assert sorted(data.train_cond["age"].flatten().tolist()) == list(range(20, 80))
    with pytest.raises(ValueError, match="'name' is of the kind identifier"):
        load_data(table(tmp_path, text), condition="name", columns="income")


def test_other_signs_in_the_name_of_a_column_become_underscores(tmp_path):
    data = load_data(table(tmp_path, TABLE.replace("age", "age (years)")), condition="age (years)")
    assert list(data.train_cond) == ["age__years_"]


def folders(tmp_path: Path, lacking: str = "") -> tuple[Path, Path]:
    root, low = tmp_path / "images", tmp_path / "low_res"
    for i, name in enumerate(("cats/1", "cats/2", "dogs/1", "dogs/2")):
        for folder, size, suffix in ((root, 8, ".png"), (low, 4, ".bmp")):
            if folder is low and name == lacking:
                continue
            path = (folder / name).with_suffix(suffix)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((size, size, 3), 10 * i, np.uint8)).save(path)
    return root, low


@pytest.mark.parametrize("cached", [False, True])
def test_images_of_a_second_folder_are_paired_by_name(tmp_path, cached):
    root, low = folders(tmp_path)
    data = load_data(root, condition=str(low), cache=tmp_path / "cache" if cached else None)
    assert data.description.conditions["low_res"] == ImageCondition((3, 4, 4), 256)
    for events, cond in ((data.train, data.train_cond), (data.test, data.test_cond)):
        assert torch.equal(cond["low_res"][:, 0, 0, 0], events[:, 0, 0, 0])
        assert torch.equal(cond["label"], events[:, 0, 0, 0].long() // 20)


def test_images_without_a_partner_are_named(tmp_path):
    root, low = folders(tmp_path, lacking="dogs/1")
    with pytest.raises(ValueError, match=r"its partner in .*low_res, there is none for dogs/1 \(1 of 4\)"):
        load_data(root, condition=str(low))
    with pytest.raises(FileNotFoundError, match="no folder .*nothing of conditions"):
        load_data(root, condition=str(tmp_path / "nothing"))
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(low / "dogs" / "1.png")
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(low / "dogs" / "1.bmp")
    with pytest.raises(ValueError, match=r"one partner in .*low_res, dogs/1 has 1.bmp, 1.png"):
        load_data(root, condition=str(low))


def test_dates_as_conditions_are_days_however_the_file_states_them(tmp_path):
    days = np.datetime64("2024-01-01") + np.arange(20) % 7
    frame = {"x": np.arange(20) / 7, "day": days.astype(str).tolist()}
    data = load_data(pyarrow.table(frame), condition="day", shuffle=False)
    assert data.train_cond["day"][:3, 0].tolist() == [19723, 19724, 19725]
    noon = pyarrow.table(frame | {"day": days.astype("datetime64[us]") + np.timedelta64(12, "h")})
    later = load_data(noon, condition="day", like=data.description, shuffle=False)
    assert later.train_cond["day"][:3, 0].tolist() == [19723.5, 19724.5, 19725.5]


def test_rows_of_one_value_of_a_condition_are_read_like_an_earlier_table():
    frame = {"x": np.arange(40) / 7, "age": np.arange(40) % 9, "day": [f"2024-01-{1 + i % 30:02d}" for i in range(40)]}
    data = load_data(pyarrow.table(frame), condition=("age", "day"))
    one = pyarrow.table({"x": [0.5, 0.75], "age": [3, 3], "day": ["2024-01-02"] * 2})
    later = load_data(one, condition=("age", "day"), like=data.description, test_fraction=0)
    assert later.train_cond["age"].tolist() == [[3], [3]]
    assert later.train_cond["day"].tolist() == [[19724], [19724]]
