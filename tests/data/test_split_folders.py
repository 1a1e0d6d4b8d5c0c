"""Folders of parts: train beside val, test and other spellings, which are never classes; files that are not read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from scoresde.data import Data, load_data

HELD_OUT = ["test", "testing", "val", "valid", "validation", "dev", "eval", "Test", "VAL", "Validation"]


def save(root: Path, value: int, count: int = 3) -> None:
    for kind in ("cats", "dogs"):
        (root / kind).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(root / kind / f"{i}.png")


def values(data: Data) -> tuple[list[int], list[int]]:
    train, test = (part[:, 0, 0, 0].unique().tolist() for part in (data.train, data.test))
    return train, test


@pytest.mark.parametrize("train", ["train", "Train", "TRAINING"])
@pytest.mark.parametrize("held_out", HELD_OUT)
def test_folders_of_parts_are_never_classes_in_any_spelling(tmp_path, train, held_out):
    save(tmp_path / train, 10)
    save(tmp_path / held_out, 200)
    data = load_data(tmp_path)
    assert data.description.labels == ("cats", "dogs")
    assert values(data) == ([10], [200])
    assert (len(data.train), len(data.test)) == (6, 6)


def test_the_test_part_is_held_out_and_other_held_out_parts_are_never_trained_on(tmp_path):
    for name, value in (("train", 10), ("val", 100), ("Test", 200)):
        save(tmp_path / name, value)
    with pytest.warns(UserWarning, match=r"not read: 6 images in val/ \(another part\)"):
        data = load_data(tmp_path)
    assert values(data) == ([10], [200])


def test_an_empty_test_folder_gives_way_to_the_validation_part(tmp_path):
    save(tmp_path / "train", 10)
    save(tmp_path / "val", 100)
    (tmp_path / "test").mkdir()
    assert values(load_data(tmp_path)) == ([10], [100])


def test_a_train_folder_alone_is_a_part_that_is_split(tmp_path):
    save(tmp_path / "train", 10)
    data = load_data(tmp_path, test_fraction=0.5)
    assert data.description.labels == ("cats", "dogs")
    assert (len(data.train), len(data.test)) == (3, 3)


def test_a_class_may_be_called_train_beside_other_classes(tmp_path):
    save(tmp_path / "train", 10)
    save(tmp_path / "plane", 20)
    assert load_data(tmp_path).description.labels == ("plane", "train")


def test_held_out_images_beside_classes_without_a_train_folder_are_refused(tmp_path):
    save(tmp_path / "cats", 10)
    save(tmp_path / "test", 200)
    with pytest.raises(ValueError, match=r"need a folder train beside them, .* has test and no train; .*rename"):
        load_data(tmp_path)


def test_two_train_parts_are_refused_and_folders_beside_the_parts_are_counted(tmp_path):
    save(tmp_path / "train", 10)
    save(tmp_path / "val", 100)
    save(tmp_path / "extra", 50, count=2)
    with pytest.warns(UserWarning, match=r"4 images in extra/"):
        assert values(load_data(tmp_path)) == ([10], [100])
    save(tmp_path / "training", 10)
    with pytest.raises(ValueError, match="there must be one train part"):
        load_data(tmp_path)


def test_files_that_are_not_read_are_counted_in_one_warning(tmp_path):
    save(tmp_path, 10)
    for name in ("a.gif", "cats/b.GIF", "notes.txt", "LICENSE", ".hidden", "cats/._0.png"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "cats", target_is_directory=True)
    message = r"not read: 4 files of other kinds \(2 .gif, 1 .txt, 1 without suffix\); 1 link to a folder"
    with pytest.warns(UserWarning, match=message) as caught:
        data = load_data(tmp_path, test_fraction=0)
    assert len(caught) == 1
    assert len(data.train) == 6
    assert torch.equal(data.train, torch.full((6, 3, 8, 8), 10, dtype=torch.uint8))
