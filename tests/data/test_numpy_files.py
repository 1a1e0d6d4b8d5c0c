"""NumPy files: standardization, quantization, the split, labels, and malformed files."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch

from scoresde.data import load_data

SHAPES = [(), (3,), (2, 5), (1, 4, 4), (2, 3, 4, 4)]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_array_of_any_shape_is_standardized_by_its_train_part(tmp_path, shape):
    array = np.random.default_rng(0).normal(5, 3, (50, *shape))
    np.save(tmp_path / "mine.npy", array)
    data = load_data(tmp_path / "mine.npy")
    assert data.description.name == "mine"
    assert (data.train.shape, data.test.shape) == ((40, *shape), (10, *shape))
    x = data.description.to_model(data.train)
    assert x.dtype == torch.float64
    assert x.mean().item() == pytest.approx(0, abs=1e-12)
    assert x.std(correction=0).item() == pytest.approx(1, abs=1e-12)
    events = torch.cat([data.train, data.test]).flatten().sort().values
    np.testing.assert_array_equal(events.numpy(), np.sort(array.ravel()))


def test_a_table_may_be_standardized_per_feature(tmp_path):
    array = np.random.default_rng(0).normal([0, 100, -3], [1, 10, 0.1], (200, 3)).astype(np.float32)
    np.save(tmp_path / "table.npy", array)
    data = load_data(tmp_path / "table.npy", per_feature=True)
    x = data.description.to_model(data.train)
    torch.testing.assert_close(x.mean(0), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(3), rtol=0, atol=1e-5)


def test_an_explicit_scaling_replaces_standardization(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(20, 2)))
    description = load_data(tmp_path / "a.npy", offset=1.0, scale=(2.0, 3.0)).description
    assert (description.offset, description.scale) == (1.0, (2.0, 3.0))


def test_a_constant_feature_cannot_be_standardized(tmp_path):
    array = np.random.default_rng(0).normal(size=(20, 3))
    array[:, 1] = 7
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match="feature 1 is constant; drop it"):
        load_data(tmp_path / "a.npy", per_feature=True)


def test_integers_are_quantized_data_only_if_bins_are_given(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (20, 3, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "a.npy", values)
    quantized = load_data(tmp_path / "a.npy", bins=256)
    assert (quantized.description.bins, quantized.description.scale) == (256, 128.0)
    assert quantized.train.dtype == torch.uint8
    with pytest.warns(UserWarning, match=r"a.npy holds bytes, which are taken as real numbers.* \(--bins 256\)"):
        continuous = load_data(tmp_path / "a.npy")
    assert continuous.description.bins is None
    assert continuous.description.to_model(continuous.train).std() == pytest.approx(1, abs=1e-2)
    with pytest.raises(ValueError, match=r"data must lie in \[0, 16\)"):
        load_data(tmp_path / "a.npy", bins=16)
    np.save(tmp_path / "b.npy", values / 255)
    with pytest.raises(ValueError, match="bins=256 declares integer values, .* holds torch.float64"):
        load_data(tmp_path / "b.npy", bins=256)


def test_without_shuffling_a_file_stays_memory_mapped(tmp_path):
    array = np.arange(40, dtype=np.float32).reshape(20, 2)
    np.save(tmp_path / "a.npy", array)
    data = load_data(tmp_path / "a.npy", shuffle=False, test_fraction=0.25)
    assert data.train.data_ptr() + data.train.nbytes == data.test.data_ptr()
    np.testing.assert_array_equal(data.test.numpy(), array[15:])
    data.train[0] = -1
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)


@pytest.mark.parametrize("dtype", [">f4", ">i2", "?", "u2", "u4", "f2"])
@pytest.mark.filterwarnings("ignore:a.npy holds 0 and 1 alone")
def test_types_that_torch_lacks_are_converted(tmp_path, dtype):
    array = (np.arange(20).reshape(10, 2) % 7).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    data = load_data(tmp_path / "a.npy", shuffle=False, test_fraction=0)
    np.testing.assert_array_equal(data.train.double().numpy(), array.astype(float))


def test_an_archive_keeps_its_own_split_and_labels(tmp_path):
    rng = np.random.default_rng(0)
    train, test = rng.normal(size=(6, 2)), rng.normal(size=(2, 2))
    np.savez(tmp_path / "a.npz", train=train, test=test, train_labels=np.arange(6), test_labels=np.arange(2))
    data = load_data(tmp_path / "a.npz")
    np.testing.assert_array_equal(data.train.numpy(), train)
    np.testing.assert_array_equal(data.test.numpy(), test)
    assert data.train_labels is not None
    assert data.train_labels.tolist() == list(range(6))


def test_labels_follow_their_events_through_the_split(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.arange(10.0)[:, None], labels=np.arange(10))
    data = load_data(tmp_path / "a.npz")
    assert data.train_labels is not None
    assert torch.equal(data.train[:, 0].long(), data.train_labels)


class PickleTrap:
    """Raises when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("content", ["raw", "object array"])
def test_pickles_are_never_executed(tmp_path, name, content):
    path, trap = tmp_path / name, np.array([PickleTrap()], dtype=object)
    if content == "raw":
        path.write_bytes(pickle.dumps(PickleTrap()))
    elif name == "a.npy":
        np.save(path, trap, allow_pickle=True)
    else:
        np.savez(path, x=trap)
    with pytest.raises(ValueError, match="pickles are never loaded"):
        load_data(path)


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_a_truncated_file_is_refused(tmp_path, name):
    (np.save if name == "a.npy" else np.savez)(tmp_path / name, np.zeros((20, 2)))
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:200])
    with pytest.raises(ValueError, match="must be a complete .np. file"):
        load_data(tmp_path / name)


def test_the_error_on_other_keys_lists_them(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros(2), train=np.zeros(3))
    with pytest.raises(ValueError, match=r"must hold 'train' and 'test', or 'x'; it holds \['images', 'train'\]"):
        load_data(tmp_path / "a.npz")


@pytest.mark.parametrize("array", [np.array(["text"]), np.zeros(3, complex), np.array(1.0)])
def test_an_array_that_is_not_of_real_numbers_with_a_sample_axis_is_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match="must hold real numbers with a sample axis"):
        load_data(tmp_path / "a.npy")


def test_the_error_names_the_index_of_nan_in_a_file(tmp_path):
    array = np.zeros((10, 2))
    array[3, 1] = math.nan
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=r"data must be finite, got nan at index \(3, 1\)"):
        load_data(tmp_path / "a.npy", shuffle=False)


def test_a_missing_file_and_an_empty_train_part_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_data(tmp_path / "none.npy")
    np.save(tmp_path / "one.npy", np.zeros((1, 2)))
    with pytest.raises(ValueError, match="the train part must not be empty, got 1 events"):
        load_data(tmp_path / "one.npy")


def test_differences_of_large_integers_are_kept(tmp_path):
    np.save(tmp_path / "x.npy", 1_700_000_000 + np.arange(1000).reshape(500, 2))
    data = load_data(tmp_path / "x.npy", test_fraction=0.0, shuffle=False)
    x = data.description.to_model(data.train)
    assert x.dtype == torch.float32
    assert len(x.unique()) == 1000
    assert abs(x.mean()) < 1e-6
    assert abs(x.std(correction=0) - 1) < 1e-6


def test_columns_of_unlike_scale_are_standardized_by_column_and_a_warning_says_so(tmp_path):
    array = np.random.default_rng(0).normal([0, 100, -3], [1, 1000, 0.1], (200, 3))
    np.save(tmp_path / "a.npy", array)
    with pytest.warns(UserWarning, match=r"a.npy: columns have standard deviations from 0\.\d+ to \d+.*by its own"):
        data = load_data(tmp_path / "a.npy")
    torch.testing.assert_close(
        data.description.to_model(data.train).std(0, correction=0), torch.ones(3, dtype=torch.float64)
    )
    assert load_data(tmp_path / "a.npy", per_feature=True).description == data.description
    with pytest.warns(UserWarning, match=r"2 of 3 features are narrower than the noise .* feature 0 has"):
        assert isinstance(load_data(tmp_path / "a.npy", per_feature=False).description.scale, float)


def test_channels_of_series_of_unlike_scale_are_standardized_by_channel(tmp_path):
    """A channel far from 0 widens the deviation of all values, beside which the other one would vanish."""
    array = np.random.default_rng(0).normal([[0], [50]], [[1], [7]], (200, 2, 12))
    np.save(tmp_path / "a.npy", array)
    with pytest.warns(UserWarning, match=r"a.npy: channels have standard deviations from 0\.9\d+ to 7.*by its own"):
        data = load_data(tmp_path / "a.npy")
    x = data.description.to_model(data.train)
    torch.testing.assert_close(x.std((0, 2), correction=0), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(x.mean((0, 2)), torch.zeros(2, dtype=torch.float64))
    assert isinstance(load_data(tmp_path / "a.npy", per_feature=False).description.scale, float)
    np.save(tmp_path / "a.npy", array - [[0], [50]])
    assert isinstance(load_data(tmp_path / "a.npy").description.scale, float)  # 1 of 5


def test_columns_of_like_scale_keep_one_scale_and_constants_are_named(tmp_path):
    array = np.random.default_rng(0).normal([0, 1, 2], [1, 2, 3], (200, 3))
    np.save(tmp_path / "a.npy", array)
    assert isinstance(load_data(tmp_path / "a.npy").description.scale, float)
    array[:, 1] = 7
    np.save(tmp_path / "a.npy", array)
    with pytest.warns(UserWarning, match=r"1 of 3 features .* feature 1 has standard deviation 0 in model units"):
        load_data(tmp_path / "a.npy")
