"""Data sets of Hugging Face, small and built in the tests: nothing is downloaded."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from scoresde.data import load_data

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of dependencies of datasets


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "hf"))
    package = pytest.importorskip("datasets")
    package.disable_progress_bars()
    return package


def random_image(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (4, 3, 3), dtype=np.uint8)


def image_dataset(datasets, seeds: list[int], labels: list[int] | None = None):
    from PIL import Image

    kinds = {"photo": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog", "owl"])}
    rows = {"photo": [Image.fromarray(random_image(i)) for i in seeds], "kind": labels or [i % 2 for i in seeds]}
    return datasets.Dataset.from_dict(rows, features=datasets.Features(kinds))


def seed_of(event: torch.Tensor) -> int:
    return next(i for i in range(9) if np.array_equal(event.numpy().transpose(1, 2, 0), random_image(i)))


def test_a_column_of_images_becomes_events_with_their_classes(datasets):
    data = load_data(image_dataset(datasets, [*range(9)]), image="photo", label="kind", seed=4)
    assert (data.description.shape, data.description.bins) == ((3, 4, 3), 256)
    assert data.description.labels == ("cat", "dog", "owl")  # including the class without images
    assert data.train.dtype == torch.uint8
    assert data.train_labels is not None
    assert data.test_labels is not None
    seeds = [seed_of(event) for event in (*data.train, *data.test)]
    assert sorted(seeds) == list(range(9))
    assert [*data.train_labels.tolist(), *data.test_labels.tolist()] == [i % 2 for i in seeds]
    assert len(data.test) == 2


def test_other_columns_are_conditions_of_the_images_and_dates_are_days(datasets):
    images = image_dataset(datasets, [*range(9)]).add_column("age", [20.0 + i for i in range(9)])
    days = [f"2024-03-{i + 1:02d}" for i in range(9)]
    data = load_data(images.add_column("day", days), image="photo", label="kind", condition=["age", "day"])
    kinds = data.description.conditions
    dates = {name: getattr(kind, "dates", False) for name, kind in kinds.items()}
    assert dates == {"label": False, "age": False, "day": True}
    first = 19783.0  # days from 1970-01-01 to 2024-03-01
    for events, cond in ((data.train, data.train_cond), (data.test, data.test_cond)):
        seeds = [seed_of(event) for event in events]
        assert cond["age"].flatten().tolist() == [20.0 + i for i in seeds]
        assert cond["day"].flatten().tolist() == [first + i for i in seeds]


def test_the_parts_of_a_dataset_dict_are_train_and_test(datasets):
    both = datasets.DatasetDict(train=image_dataset(datasets, [0, 1, 2]), test=image_dataset(datasets, [3, 4]))
    data = load_data(both, image="photo", label="kind")
    assert [[seed_of(event) for event in part] for part in (data.train, data.test)] == [[0, 1, 2], [3, 4]]
    assert data.test_labels is not None
    assert data.test_labels.tolist() == [1, 0]
    renamed = datasets.DatasetDict(learn=both["train"], check=both["test"])
    with pytest.raises(ValueError, match=r"parts= must name the train and the test part, .*'learn', 'check'"):
        load_data(renamed, image="photo")
    assert len(load_data(renamed, image="photo", parts=("learn", "check")).test) == 2
    with pytest.raises(ValueError, match="unknown part 'chek'; did you mean check"):
        load_data(renamed, image="photo", parts=("learn", "chek"))


def test_images_are_decoded_by_workers_into_a_cache_file(datasets, tmp_path):
    dataset = image_dataset(datasets, [*range(9)])
    plain = load_data(dataset, image="photo")
    first = load_data(dataset, image="photo", workers=1, cache=tmp_path / "cache")
    assert torch.equal(first.train, plain.train)
    assert torch.equal(load_data(dataset, image="photo", cache=tmp_path / "cache").test, plain.test)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_numeric_columns_are_a_table(datasets):
    dataset = datasets.Dataset.from_dict({"a": [1.0, 2, 4, 8], "b": [1.5, 0, 1, 1], "c": ["x", "y", "y", "x"]})
    data = load_data(dataset, columns=("b", "a"), label="c", test_fraction=0)
    assert data.columns == ("b", "a")
    assert data.description.labels == ("x", "y")
    assert sorted(data.train.tolist()) == [[0, 2], [1, 4], [1, 8], [1.5, 1]]
    x = data.description.to_model(data.train)
    torch.testing.assert_close(data.description.to_data(x), data.train)
    assert x.abs().max() < 3
    both = datasets.DatasetDict(train=dataset, test=dataset.select([2]))
    assert load_data(both, columns=("a",)).test.tolist() == [[4]]


def test_a_folder_of_files_is_loaded_by_name(datasets, tmp_path):
    (tmp_path / "points").mkdir()
    datasets.Dataset.from_dict({"x": [1.0, 2.0, 4.0]}).to_parquet(tmp_path / "points" / "train.parquet")
    data = load_data(f"hf:{tmp_path / 'points'}", test_fraction=0)
    assert data.description.name == "points"
    assert sorted(data.train.flatten().tolist()) == [1, 2, 4]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image": "foto"}, "unknown column 'foto'; did you mean photo"),
        ({"image": "photo", "label": "kinds"}, "unknown column 'kinds'; did you mean kind"),
        ({"image": "kind"}, "row . of part 0: column 'kind' must hold images, got int"),
        ({"image": "photo", "columns": ("kind",)}, "an event is an image or a row of numbers"),
        ({}, "a column must hold numbers, 'photo' holds"),
        ({"image": "photo", "parts": ("train",)}, "got one part"),
        ({"imag": "photo"}, "did you mean image"),
    ],
)
def test_invalid_options_are_refused(datasets, options, message):
    with pytest.raises(ValueError, match=message):
        load_data(image_dataset(datasets, [0, 1, 2]), test_fraction=0, **options)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"reading 'hf:mnist' needs datasets, .*'scoresde\[datasets\]'"):
        load_data("hf:mnist")


def test_an_unknown_class_and_a_streamed_dataset_are_refused(datasets):
    with pytest.raises(ValueError, match=r"a class must be one of 0 \.\.\. 2, got -1 in column 'kind' at row 1"):
        load_data(image_dataset(datasets, [0, 1, 2], [0, -1, 2]), image="photo", label="kind", test_fraction=0)
    with pytest.raises(ValueError, match="got IterableDataset; load it without streaming"):
        load_data(image_dataset(datasets, [0, 1, 2]).to_iterable_dataset(), image="photo")
