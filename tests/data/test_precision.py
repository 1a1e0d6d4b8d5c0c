"""Precision of scaling: large offsets, small spreads, wide and unsigned integers, labels of any integer type."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from scoresde.data import Data, Description, load_data
from scoresde.data.standardize import standardization

UNIX_TIME, JULIAN_DATE = (1.7e9, 86_400.0), (2_451_545.5, 0.3)
LABELS = ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i4"]


@pytest.mark.parametrize(("offset", "width"), [UNIX_TIME, JULIAN_DATE, (-1e12, 1e-3), (300.0, 5.0), (0.0, 1.0)])
@pytest.mark.parametrize("per_feature", [False, True])
def test_float64_columns_come_back_at_their_own_resolution(offset, width, per_feature, generator):
    y = offset + width * torch.rand(500, 2, generator=generator, dtype=torch.float64)
    mean, std = standardization(y, per_feature)
    description = Description("d", (2,), offset=mean, scale=std)
    x = description.to_model(y)
    assert x.dtype == torch.float64
    rounding = 2 * torch.finfo(torch.float64).eps * max(abs(offset), width)
    torch.testing.assert_close(description.to_data(x), y, rtol=0, atol=rounding)
    single = description.to_data(x.float()).double()  # what a float32 network can resolve
    assert (single - y).abs().max() < 16 * 2.0**-24 * width + rounding


@pytest.mark.parametrize(("offset", "width"), [UNIX_TIME, JULIAN_DATE])
def test_float32_samples_of_a_column_of_large_offset_are_float64_and_all_different(offset, width):
    description = Description("d", (2,), offset=(offset, 0.0), scale=(width, 1.0))
    x = torch.linspace(-1, 1, 501).unsqueeze(1).expand(501, 2)
    y = description.to_data(x)
    assert y.dtype == torch.float64
    assert len(y[:, 0].unique()) == 501
    expected = offset + width * x.double()
    torch.testing.assert_close(y[:, :1], expected[:, :1], rtol=1e-15, atol=0)


def test_float32_data_of_large_offset_are_subtracted_in_float64():
    y = torch.tensor([[1.7e9], [1.7e9 + 128.0]])
    x = Description("d", (1,), offset=1.7e9 + 50.0, scale=100.0).to_model(y)
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, torch.tensor([[-0.5], [0.78]]))


def test_the_type_of_samples_is_kept_where_it_resolves_them():
    description = Description("d", (1,), offset=3.0, scale=0.25)
    for given, expected in ((torch.float32,) * 2, (torch.float64,) * 2, (torch.bfloat16, torch.float32)):
        assert description.to_data(torch.ones(1, 1, dtype=given)).dtype == expected
        assert description.to_model(torch.ones(1, 1, dtype=given)).dtype == given


def test_scaling_may_be_given_as_arrays_and_tensors_of_float64():
    offset, scale = torch.tensor([1.7e9 + 0.25, 0.0], dtype=torch.float64), np.array([1.0, 2.0])
    description = Description("d", (2,), offset=offset, scale=scale)  # pyright: ignore[reportArgumentType]
    assert (description.offset, description.scale) == ((1.7e9 + 0.25, 0.0), (1.0, 2.0))


@pytest.mark.parametrize("bins", [1 << 13, 1 << 20, 1 << 30])
def test_many_bins_are_recovered_from_dequantized_values(bins, generator):
    description = Description("d", (1,), bins=bins)
    k = torch.tensor([[0], [1], [bins // 3], [bins - 1]])
    assert torch.equal(description.to_data(description.to_model(description.center(k))), k)
    y = description.dequantize(k.expand(4, 1), generator)
    assert torch.equal(y.floor().long(), k)


# --- constant or not


@pytest.mark.parametrize(("offset", "width"), [UNIX_TIME, JULIAN_DATE, (0.0, 1e-300), (1e300, 1e299), (1.0, 1e-12)])
def test_mean_and_deviation_are_those_of_exact_arithmetic(offset, width, generator):
    from fractions import Fraction

    y = offset + width * torch.rand(50, 1, generator=generator, dtype=torch.float64)
    exact = [Fraction(v) for v in y.flatten().tolist()]
    mean = sum(exact) / len(exact)
    variance = sum((v - mean) ** 2 for v in exact) / len(exact)
    std = float(Fraction(math.isqrt(int(variance * 10**700)), 1) / Fraction(10) ** 350)
    got_mean, got_std = standardization(y)
    assert got_mean == pytest.approx(float(mean), rel=1e-14)
    assert got_std == pytest.approx(std, rel=1e-9)


def test_chunks_have_the_mean_and_deviation_of_the_whole(monkeypatch, generator):
    y = 7 + torch.tensor([1.0, 10.0, 0.1])[:, None] * torch.randn(101, 3, 5, generator=generator)
    whole = standardization(y, per_feature=True), standardization(y)
    monkeypatch.setattr("scoresde.data.standardize._CHUNK", 100)
    for chunked, expected in zip((standardization(y, per_feature=True), standardization(y)), whole, strict=True):
        np.testing.assert_allclose(np.asarray(chunked), np.asarray(expected), rtol=1e-12)
    np.testing.assert_allclose(whole[0][1], y.double().std((0, 2), correction=0), rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool])
def test_a_constant_is_refused_in_every_type(dtype):
    with pytest.raises(ValueError, match="every value is constant"):
        standardization(torch.full((20,), 1).to(dtype))


def test_values_that_differ_by_their_own_rounding_are_constant_and_others_vary():
    value = torch.tensor([2_451_545.5], dtype=torch.float64)
    rounded = torch.cat([value, torch.nextafter(value, value + 1)])
    with pytest.raises(ValueError, match="is constant"):
        standardization(rounded)
    _, std = standardization(torch.cat([value, value + 1e-6]))
    assert std == pytest.approx(5e-7, rel=1e-3)
    with pytest.raises(ValueError, match="is constant"):
        standardization(torch.cat([value, value + 1e-6]).float())


# --- integers


def test_unsigned_64_bit_integers_keep_their_values_or_are_refused(tmp_path):
    values = (np.arange(40).reshape(20, 2) + 2**40).astype(np.uint64)
    np.save(tmp_path / "a.npy", values)
    data = load_data(tmp_path / "a.npy", test_fraction=0, shuffle=False)
    np.testing.assert_array_equal(data.train.numpy(), values.astype(np.int64))
    back = data.description.to_data(data.description.to_model(data.train.double()))
    np.testing.assert_allclose(back.numpy(), values.astype(float), rtol=1e-15)
    values[3, 1] = 2**63 + 5
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(ValueError, match=r"integers must be below 2\^63, got 9223372036854775813 in .*a.npy"):
        load_data(tmp_path / "a.npy")


@pytest.mark.parametrize("value", [2**53 + 1, -(2**53) - 1, 1_700_000_000_123_456_789])
def test_integers_that_float64_cannot_hold_are_refused(tmp_path, value):
    np.save(tmp_path / "a.npy", np.array([[1], [2], [value]]))
    with pytest.raises(ValueError, match=rf"within ±2\^53 to be exact, got {value} at index \(2, 0\).*larger unit"):
        load_data(tmp_path / "a.npy", test_fraction=0, shuffle=False)
    Description("d", (1,)).validate(torch.tensor([[2**53], [-(2**53)]]))


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64])
def test_unsigned_tensors_are_checked_and_scaled(dtype):
    y = torch.tensor(np.array([[1], [40_000]])).to(dtype)
    description = Description("d", (1,), low=0, high=50_000, offset=20_000.0, scale=10_000.0)
    description.validate(y)
    assert description.to_model(y).flatten().tolist() == pytest.approx([-1.9999, 2.0])
    with pytest.raises(ValueError, match=r"data must be <= high = 100.0, got 40000 at index \(1, 0\)"):
        Description("d", (1,), high=100).validate(y)
    with pytest.raises(ValueError, match=r"data must lie in \[0, 256\), got 40000"):
        Description("d", (1,), bins=256).validate(y)


def test_complex_values_are_refused():
    with pytest.raises(ValueError, match="data must be real, got torch.complex64"):
        Description("d", (1,)).validate(torch.zeros(2, 1, dtype=torch.complex64))


# --- labels


@pytest.mark.parametrize("dtype", LABELS)
def test_labels_of_any_integer_type_and_bool_are_labels(tmp_path, dtype):
    labels = (np.arange(20) % 2).astype(dtype)
    np.savez(tmp_path / "a.npz", x=np.arange(20.0)[:, None], labels=labels)
    data = load_data(tmp_path / "a.npz", test_fraction=0.25)
    assert data.train_labels is not None
    assert data.test_labels is not None
    assert data.train_labels.dtype == torch.int64
    assert data.test_labels.tolist() == (data.test[:, 0].long() % 2).tolist()
    if dtype != ">i4":
        tensor = Data(
            torch.zeros(20, 1), torch.zeros(0, 1), Description("d", (1,)), {"label": torch.from_numpy(labels)}
        )
        assert tensor.train_labels is not None
        assert tensor.train_labels.tolist() == labels.astype(int).tolist()


@pytest.mark.parametrize("count", [40, 21, 19, 0])
def test_labels_unlike_the_events_in_number_are_refused_with_both_numbers(tmp_path, count):
    np.savez(tmp_path / "x.npz", x=np.zeros((20, 1)) + np.arange(20.0)[:, None], labels=np.zeros(count, int))
    with pytest.raises(ValueError, match=rf"one label per event, .*x.npz holds labels .*{count} labels, for 20 events"):
        load_data(tmp_path / "x.npz")
    part = np.random.default_rng(0).normal(size=(20, 1))
    np.savez(tmp_path / "t.npz", train=part, test=part, test_labels=np.zeros(count, int))
    with pytest.raises(ValueError, match=rf"holds test_labels of shape .*{count} labels, for 20 events"):
        load_data(tmp_path / "t.npz")
    with pytest.raises(
        ValueError, match=rf"train_cond\['label'\] must have one entry per event, shape \(20, ...\), got \({count},\)"
    ):
        Data(
            torch.zeros(20, 1),
            torch.zeros(0, 1),
            Description("d", (1,)),
            {"label": torch.zeros(count, dtype=torch.int64)},
        )


def test_arrays_of_an_archive_that_are_not_read_are_named(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.arange(20.0)[:, None], y=np.zeros(20, int))
    with pytest.warns(UserWarning, match=r"also holds y, not read beside x; labels are named labels"):
        assert load_data(tmp_path / "x.npz").train_labels is None


def test_parts_of_unlike_shape_or_type_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", train=np.zeros((5, 2)), test=np.zeros((5, 3)))
    with pytest.raises(ValueError, match=r"events of one shape, .* train \(5, 2\) and test \(5, 3\)"):
        load_data(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", train=np.zeros((5, 2), int), test=np.zeros((5, 2)))
    with pytest.raises(ValueError, match=r"bins=4 declares integer values, .* holds torch.float64"):
        load_data(tmp_path / "x.npz", bins=4)
