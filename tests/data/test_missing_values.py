"""Missing values (NaN) of arrays, frames and data of one's own: refused, dropped with their events, or kept."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scoresde.data import Data, Description, load_data
from scoresde.data.standardize import feature_deviations, standardization
from scoresde.storage import spec

NAN = math.nan


def array_with_gaps(n: int = 200) -> np.ndarray:
    generator = np.random.default_rng(0)
    x = generator.normal([1.0, -2.0, 0.5], [1.0, 2.0, 0.7], size=(n, 3))
    x[generator.random((n, 3)) < 0.3] = NAN
    return x


def without_empty_rows() -> np.ndarray:
    x = array_with_gaps()
    return x[~np.isnan(x).all(1)]


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_an_array_is_refused_with_the_choices_dropped_or_kept(tmp_path, suffix):
    x, path = array_with_gaps(), tmp_path / f"a{suffix}"
    np.save(path, x) if suffix == ".npy" else np.savez(path, x=x)
    with pytest.raises(ValueError, match=r"data must be finite, got nan at index \(0, 1\) .*missing=True.*\"mask\""):
        load_data(path, shuffle=False)
    complete = ~np.isnan(x).any(1)
    with pytest.warns(UserWarning, match=rf"missing cells are left out: {(~complete).sum()} of 200 \(x\[0\]: "):
        dropped = load_data(path, missing="drop", shuffle=False, test_fraction=0.25)
    kept = np.concatenate([dropped.train.numpy(), dropped.test.numpy()])
    np.testing.assert_array_equal(kept, x[complete])
    assert not dropped.description.missing
    values = ~np.isnan(x).all(1)
    with pytest.warns(UserWarning, match=rf"rows without any value are left out: {(~values).sum()} of 200"):
        masked = load_data(path, missing="mask", shuffle=False, test_fraction=0.25, per_feature=True)
    np.testing.assert_array_equal(np.concatenate([masked.train.numpy(), masked.test.numpy()]), x[values])
    assert masked.description.missing
    scaling: tuple[Any, Any] = masked.description.offset, masked.description.scale
    np.testing.assert_allclose(scaling[0], np.nanmean(masked.train.numpy(), 0))
    np.testing.assert_allclose(scaling[1], np.nanstd(masked.train.numpy(), 0))


def test_labels_that_are_missing_are_refused_with_their_number_or_dropped(tmp_path):
    x, labels = np.random.default_rng(0).normal(size=(6, 2)), np.array([0.0, 1.0, NAN, 1.0, NAN, 0.0])
    np.savez(tmp_path / "a.npz", x=x, labels=labels)
    with pytest.raises(ValueError, match=r'got 2 in 2 of 6 rows \(labels: 2; the first at index 2\).*missing="drop"'):
        load_data(tmp_path / "a.npz")
    with pytest.raises(ValueError, match=r"every row needs its label, also with .*, got 2 of 6 rows without labels"):
        load_data(tmp_path / "a.npz", missing="mask")
    with pytest.warns(UserWarning, match=r"left out: 2 of 6 \(labels: 2\)"):
        data = load_data(tmp_path / "a.npz", missing="drop", shuffle=False, test_fraction=0)
    assert data.train_labels is not None
    assert data.train_labels.tolist() == [0, 1, 1, 0]
    assert data.train_labels.dtype == torch.int64
    np.testing.assert_array_equal(data.train.numpy(), x[[0, 1, 3, 5]])


def test_a_column_of_an_array_without_values_is_refused_by_name(tmp_path):
    x = array_with_gaps()
    x[:, 1] = np.nan_to_num(x[:, 1])
    x[:, 2] = NAN
    np.save(tmp_path / "a.npy", x)
    for per_feature in (True, False):
        with pytest.raises(ValueError, match=r"every column must have values, got none in x\[2\] \("):
            load_data(tmp_path / "a.npy", missing="mask", per_feature=per_feature)
    images = np.random.default_rng(0).normal(size=(9, 1, 3, 2))
    images[:, 0, 1, 1] = NAN
    np.save(tmp_path / "b.npy", images)
    with pytest.raises(ValueError, match=r"got none in x\[0, 1, 1\] \("):
        load_data(tmp_path / "b.npy", missing="mask", channels="first")


def test_the_parts_of_an_archive_are_treated_alike_and_the_choice_is_checked(tmp_path):
    x = without_empty_rows()
    np.savez(tmp_path / "a.npz", train=np.nan_to_num(x[:150]), test=x[150:])
    masked = load_data(tmp_path / "a.npz", missing="mask")
    assert masked.description.missing
    assert len(masked.complete().test) == (~np.isnan(x[150:]).any(1)).sum()
    with pytest.raises(ValueError, match=r"unknown choice missing= 'msk'; did you mean mask\?"):
        load_data(tmp_path / "a.npz", missing="msk")


def test_data_of_ones_own_hold_nan_where_their_description_says_so():
    x = torch.tensor([[1.0, NAN], [2.0, 3.0], [NAN, NAN]])
    with pytest.raises(ValueError, match=r"train part: data must be finite, got nan at index \(0, 1\) \(3 such\)"):
        Data(x, x[:0], Description("a", (2,)))
    data = Data(x, x[1:2], Description("a", (2,), missing=True))
    assert torch.equal(data.train.isnan(), x.isnan())
    with pytest.raises(ValueError, match=r"data must be finite, got inf at index \(1, 1\) \(1 such\); drop or impute"):
        Data(torch.tensor([[1.0, NAN], [2.0, math.inf]]), x[:0], Description("a", (2,), missing=True))
    with pytest.raises(ValueError, match=r"data must be >= low = 0.0, got -1.0 at index \(1, 0\)"):
        Data(torch.tensor([[NAN, 1.0], [-1.0, NAN]]), x[:0], Description("a", (2,), low=0, missing=True))
    with pytest.raises(ValueError, match=r"missing values are NaN, which is no integer, got bins=4 too"):
        Description("a", (2,), bins=4, missing=True)


def test_complete_keeps_events_and_labels_without_missing_values():
    x = torch.tensor([[1.0, NAN], [2.0, 3.0], [NAN, NAN], [4.0, 5.0]])
    labels = torch.tensor([0, 1, 2, 3])
    data = Data(x, x[2:], Description("a", (2,), missing=True), {"label": labels}, {"label": labels[2:]})
    complete = data.complete()
    assert complete.train.tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert complete.test.tolist() == [[4.0, 5.0]]
    assert complete.train_labels is not None
    assert complete.test_labels is not None
    assert (complete.train_labels.tolist(), complete.test_labels.tolist()) == ([1, 3], [3])
    plain = Data(x[1:2], x[1:2], Description("a", (2,)))
    assert plain.complete() is plain


def test_the_description_is_written_only_where_it_says_something():
    plain, missing = Description("a", (2,)), Description("a", (2,), missing=True)
    assert "missing" not in spec.to_text(plain)
    assert spec.parse(spec.to_text(missing), {"Description": Description}) == missing


def test_a_frame_with_missing_cells_is_data():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, None, 3.0], "b": [4, 5, 6]})
    data = Data(frame, frame[:1], Description("a", (2,), missing=True))
    assert data.train[0].tolist() == [1.0, 4.0]
    assert bool(data.train[1, 0].isnan())
    nullable = pandas.DataFrame({"a": pandas.array([1, None, 3], dtype="Int64"), "b": [4.0, 5.0, 6.0]})
    assert bool(Data(nullable, nullable[:1], data.description).train[1, 0].isnan())


def test_a_hugging_face_table_keeps_missing_cells(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"a": [1.0, None, 3.0, 7.0], "b": [2, 5, None, 1], "c": ["x", None, "y", "x"]})
    data = load_data(table, missing="mask", categories="c", test_fraction=0)
    assert data.description.missing
    assert data.train.isnan().sum(0).tolist() == [1, 1, 1]
    assert data.categories == {"c": ("x", "y")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_mean_and_deviation_are_those_of_the_present_values(dtype, monkeypatch):
    monkeypatch.setattr("scoresde.data.standardize._CHUNK", 100)  # several chunks, some without a value of a column
    x = torch.from_numpy(array_with_gaps(1000)).to(dtype)
    x[:500, 1] = NAN
    mean, std = standardization(x, per_feature=True)
    np.testing.assert_allclose(mean, np.nanmean(x.double().numpy(), 0), rtol=1e-12)
    np.testing.assert_allclose(std, np.nanstd(x.double().numpy(), 0), rtol=1e-12)
    np.testing.assert_allclose(feature_deviations(x), std, rtol=1e-12)
    whole: tuple[Any, Any] = standardization(x)
    np.testing.assert_allclose(whole, (np.nanmean(x.double().numpy()), np.nanstd(x.double().numpy())), rtol=1e-12)
    x[:, 0] = NAN
    with pytest.raises(ValueError, match=r"data must hold values to be standardized, feature b has none in the train"):
        standardization(x[:, [1, 0]], per_feature=True, names=("a", "b"))
    with pytest.raises(ValueError, match=r"no event has none|every value|must hold values"):
        standardization(torch.full((4, 2), NAN))


def test_a_memory_mapped_file_stays_mapped_where_no_event_is_left_out(tmp_path: Path):
    x = array_with_gaps()
    x[:, 0] = 1.0 + np.arange(200)
    np.save(tmp_path / "a.npy", x)
    data = load_data(tmp_path / "a.npy", missing="mask", shuffle=False, per_feature=True)
    np.testing.assert_array_equal(data.train.numpy(), x[:160])
