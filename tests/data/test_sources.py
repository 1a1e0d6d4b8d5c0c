"""Data: scaling, quantization, sources, and what is refused."""

from __future__ import annotations

import gzip
import math
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scoresde.data import Data, Description, load_data, read_idx
from scoresde.data.sources import SOURCES
from scoresde.data.toys import TOYS

SHAPES = [(), (3,), (2, 5), (1, 4, 4), (2, 3, 4, 4)]


def write_idx(path: Path, array: np.ndarray, code: int = 0x08, pack: bool = False) -> None:
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    data = header + array.astype(array.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(data, mtime=0) if pack else data)


def describe(kind: str, shape: tuple[int, ...]) -> Description:
    if kind == "quantized":
        return Description("d", shape, bins=17)
    if kind == "per feature":
        size = shape[0]
        return Description("d", shape, offset=tuple(range(size)), scale=tuple(0.5 + i for i in range(size)))
    return Description("d", shape, offset=3.0, scale=0.25)


# --- scaling


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["quantized", "global", "per feature"])
def test_log_det_is_that_of_the_autograd_jacobian(kind, shape, generator):
    if kind == "per feature" and shape == ():
        pytest.skip("there is no feature axis")
    description = describe(kind, shape)
    y = torch.rand(1, *shape, generator=generator, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(description.to_model, y)
    assert isinstance(jacobian, torch.Tensor)
    expected = torch.linalg.slogdet(jacobian.reshape(description.dims, description.dims)).logabsdet.item()
    assert description.log_det == pytest.approx(expected, abs=1e-12)


def test_quantized_data_fill_minus_one_to_one_by_default():
    description = Description("d", (1,), bins=256)
    ends = description.to_model(torch.tensor([[0.0], [128.0], [256.0]]))
    assert ends.flatten().tolist() == [-1.0, 0.0, 1.0]


def test_the_per_feature_scale_acts_on_the_first_event_axis():
    description = Description("d", (2, 3), offset=(1.0, 2.0), scale=(10.0, 100.0))
    x = description.to_model(torch.zeros(1, 2, 3))
    torch.testing.assert_close(x, torch.tensor([-0.1, -0.02]).reshape(1, 2, 1).expand(1, 2, 3))


@pytest.mark.parametrize("shape", SHAPES[1:])
@pytest.mark.parametrize("kind", ["global", "per feature"])
def test_continuous_scaling_is_undone(kind, shape, generator):
    description = describe(kind, shape)
    y = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(description.to_data(description.to_model(y)), y, rtol=0, atol=1e-14)


@pytest.mark.parametrize("bins", [2, 17, 256, 4096])
def test_every_level_survives_its_bin_center_and_almost_all_survive_dequantization(bins, generator):
    description = Description("d", (bins,), bins=bins)
    levels = torch.arange(bins)[None]
    assert torch.equal(description.to_data(description.to_model(description.center(levels))).long(), levels)
    y = description.dequantize(levels.expand(50, -1), generator)
    inside = (y - levels - 0.5).abs() < 0.49
    back = description.to_data(description.to_model(y)).long()
    assert torch.equal(back[inside], levels.expand(50, -1)[inside])


def test_dequantized_values_stay_in_their_level_where_the_sum_would_round_up(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, 1 - 2.0**-24))
    y = Description("d", (256,), bins=256).dequantize(torch.arange(256)[None])
    assert torch.equal(y.floor(), torch.arange(256.0)[None])


def test_dequantization_is_uniform_and_leaves_the_global_state(generator):
    before = torch.get_rng_state()
    levels = torch.full((20_000, 1), 5)
    u = (Description("d", (1,), bins=17).dequantize(levels, generator) - 5).flatten().double().sort().values
    distance = (u - (torch.arange(20_000) + 0.5) / 20_000).abs().max().item()
    assert distance < 1.95 / math.sqrt(20_000)  # Kolmogorov-Smirnov, p = 0.001
    assert torch.equal(before, torch.get_rng_state())


def test_samples_outside_the_range_are_clipped_to_the_end_levels():
    description = Description("d", (4,), bins=17)
    assert description.to_data(torch.tensor([[-3.0, -1.0, 1.0, 9.0]])).tolist() == [[0, 0, 16, 16]]
    assert description.to_data(torch.zeros(1, 4)).dtype == torch.uint8


def test_double_precision_is_kept():
    description = Description("d", (1,), offset=1.0, scale=3.0)
    assert description.to_model(torch.ones(1, 1, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize("bins", [2, 17, 256])
@pytest.mark.parametrize("scaling", [(None, None), (0.0, 1.0), (3.0, 11.0)])
def test_the_uniform_law_costs_log2_bins_bits_whatever_the_scaling(bins, scaling):
    description = Description("d", (1, 4, 4), bins=bins, offset=scaling[0], scale=scaling[1])
    assert isinstance(description.scale, float)
    log_prob = torch.full((3,), -16 * math.log(bins / description.scale), dtype=torch.float64)
    torch.testing.assert_close(description.bits_per_dim(log_prob), torch.full_like(log_prob, math.log2(bins)))


def test_bits_per_dim_of_continuous_data_ask_for_bins_and_scale():
    with pytest.raises(ValueError, match=r"bits per dimension need quantized data.*state bins= and scale="):
        Description("table", (3,)).bits_per_dim(torch.zeros(1))


# --- what is refused


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_refused_by_index(value):
    y = torch.zeros(4, 2, 3)
    y[2, 1, 0] = value
    with pytest.raises(ValueError, match=rf"data must be finite, got {value} at index \(2, 1, 0\)"):
        Description("d", (2, 3)).validate(y)


def test_the_index_is_right_beyond_the_first_chunk(monkeypatch):
    monkeypatch.setattr("scoresde.data.description._CHUNK", 6)
    y = torch.zeros(10, 2)
    y[7, 1] = math.nan
    with pytest.raises(ValueError, match=r"at index \(7, 1\)"):
        Description("d", (2,)).validate(y)


@pytest.mark.parametrize("bad", [-1, 17])
def test_levels_outside_the_declared_range_are_refused(bad):
    with pytest.raises(ValueError, match=rf"data must lie in \[0, 17\), got {bad} at index \(1, 0\)"):
        Description("d", (1,), bins=17).validate(torch.tensor([[3], [bad]]))


def test_all_levels_of_a_byte_are_valid():
    Description("d", (256,), bins=256).validate(torch.arange(256, dtype=torch.uint8)[None])


def test_a_dequantized_value_at_the_upper_end_is_refused():
    with pytest.raises(ValueError, match="data must lie in"):
        Description("d", (1,), bins=17).validate(torch.tensor([[17.0]]))


def test_continuous_data_may_touch_their_declared_range_but_not_leave_it():
    description = Description("d", (1,), low=-1, high=2)
    description.validate(torch.tensor([[-1.0], [2.0]]))
    with pytest.raises(ValueError, match=r"data must be <= high = 2.0, got 2.5"):
        description.validate(torch.tensor([[2.5]]))
    with pytest.raises(ValueError, match=r"data must be >= low = -1.0, got -1.5"):
        description.validate(torch.tensor([[-1.5]]))


@pytest.mark.parametrize("method", ["to_model", "to_data", "dequantize", "center", "validate"])
@pytest.mark.parametrize("shape", [(4, 8, 8), (8, 1, 8), (1, 8, 8), (2, 5, 1, 8, 8), ()])
def test_a_wrong_event_shape_never_broadcasts(method, shape):
    with pytest.raises(ValueError, match=r"has shape \(B, 1, 8, 8\), got"):
        getattr(Description("digits", (1, 8, 8), bins=17), method)(torch.zeros(shape, dtype=torch.int64))


@pytest.mark.parametrize("shape", SHAPES)
def test_an_empty_batch_gives_an_empty_result(shape):
    description = Description("d", shape, bins=4)
    empty = torch.zeros(0, *shape, dtype=torch.uint8)
    description.validate(empty)
    assert description.to_data(description.to_model(description.dequantize(empty))).shape == (0, *shape)


def test_levels_that_were_not_dequantized_are_refused():
    with pytest.raises(ValueError, match=r"to_model takes dequantized values.*pass dequantize\(levels, generator\)"):
        Description("d", (1,), bins=4).to_model(torch.zeros(1, 1, dtype=torch.uint8))


def test_continuous_data_have_no_levels():
    with pytest.raises(ValueError, match="dequantize takes integer levels of quantized data"):
        Description("d", (1,)).dequantize(torch.zeros(1, 1))


def test_nan_samples_have_no_level():
    with pytest.raises(ValueError, match=r"must not be NaN to be quantized, got nan at index \(0, 0\)"):
        Description("d", (1,), bins=4).to_data(torch.tensor([[math.nan]]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bins": 1}, "bins must be an integer >= 2, got 1"),
        ({"bins": 2.5}, "bins must be an integer >= 2, got 2.5"),
        ({"bins": 17, "high": 16.0}, r"levels 0 ... 16 fill \[0, 17\), got low=None, high=16.0"),
        ({"low": 1.0, "high": 1.0}, "low must lie below high"),
        ({"scale": 0.0}, "scale must be finite and > 0, got 0.0"),
        ({"scale": (1.0, -1.0)}, "scale must be finite and > 0"),
        ({"offset": math.nan}, "offset must be finite"),
        ({"offset": (1.0, 2.0, 3.0)}, "offset needs one number, or one per entry of the first axis"),
        ({"shape": (2, 0)}, "shape must hold sizes >= 1"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Description(**{"name": "d", "shape": (2,), **fields})


def test_a_description_is_rebuilt_from_its_plain_fields():
    description = Description("d", (2,), offset=(1, 2), scale=(3, 4), labels=("a", "b"))
    assert Description(**vars(description)) == description
    from_lists: dict[str, Any] = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(description).items()}
    assert Description(**from_lists) == description


def test_data_refuse_labels_of_another_number():
    with pytest.raises(ValueError, match=r"train_labels must have shape \(3,\), got \(2,\)"):
        Data(torch.zeros(3, 1), torch.zeros(0, 1), Description("d", (1,)), torch.zeros(2))


# --- sources


def test_digits_are_split_once_and_for_all():
    data = load_data("digits")
    assert data.train.shape == (1437, 1, 8, 8)
    assert data.test.shape == (360, 1, 8, 8)
    assert data.description.bins == 17
    assert set(torch.cat([data.train, data.test]).unique().tolist()) == set(range(17))
    assert data.train_labels is not None
    assert data.test_labels is not None
    assert data.test_labels[:8].tolist() == [7, 9, 4, 7, 0, 2, 6, 1]
    assert torch.equal(load_data("digits").train, data.train)
    assert not torch.equal(load_data("digits", seed=1).train, data.train)


def test_digits_carry_their_own_labels():
    from sklearn.datasets import load_digits

    images, target = load_digits(return_X_y=True)
    truth = {images[i].astype(np.uint8).tobytes(): int(target[i]) for i in range(len(images))}
    data = load_data("digits")
    assert data.train_labels is not None
    assert [truth[image.numpy().tobytes()] for image in data.train] == data.train_labels.tolist()


@pytest.mark.parametrize("name", sorted(TOYS))
def test_toys_are_reproducible_points_about_the_origin(name):
    data, again = load_data(name, n=2000, seed=3), load_data(name, n=2000, seed=3)
    assert (data.train.shape, data.test.shape) == ((1600, 2), (400, 2))
    assert torch.equal(data.train, again.train)
    assert data.train.mean(0).norm() < 0.25
    assert 0.4 < data.train.std() < 1.3
    assert data.train_labels is not None
    assert data.train_labels.shape == (1600,)


def test_the_ring_is_its_mixture_of_gaussians():
    data = load_data("ring", n=40_000, modes=3, std=0.05, test_fraction=0)
    assert data.train_labels is not None
    for k in range(3):
        mode = data.train[data.train_labels == k].double()
        center = torch.tensor([math.cos(2 * math.pi * k / 3), math.sin(2 * math.pi * k / 3)])
        assert len(mode) == pytest.approx(40_000 / 3, abs=4 * math.sqrt(40_000 * 2 / 9))
        assert (mode.mean(0) - center).norm() < 4 * 0.05 * math.sqrt(2 / len(mode))
        torch.testing.assert_close(
            torch.cov(mode.T), 0.0025 * torch.eye(2, dtype=torch.float64), rtol=0, atol=0.0025 * 0.07
        )


def test_the_checkerboard_fills_its_squares_and_no_other():
    points = load_data("checkerboard", n=8000, test_fraction=0).train
    corner = points.floor()
    assert bool((corner.sum(1) % 2 == 0).all())
    assert bool((points.abs() <= 2).all())
    _, counts = corner.unique(dim=0, return_counts=True)
    assert len(counts) == 8
    assert (counts - 1000).abs().max() < 4 * math.sqrt(1000 * 7 / 8)


def test_noiseless_curves_lie_on_their_equations():
    spiral = load_data("two_spirals", n=500, std=0.0, test_fraction=0)
    assert spiral.train_labels is not None
    radius = spiral.train.norm(dim=1)
    sign = (1 - 2 * spiral.train_labels)[:, None]
    angle = 3 * math.pi * radius
    curve = sign * radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    torch.testing.assert_close(spiral.train, curve, rtol=0, atol=1e-4)
    moons = load_data("moons", n=500, std=0.0, test_fraction=0)
    assert moons.train_labels is not None
    turned = (1 - 2 * moons.train_labels)[:, None] * moons.train + torch.tensor([0.5, 0.25])
    torch.testing.assert_close(turned.norm(dim=1), torch.ones(500))
    circles = load_data("circles", n=500, std=0.0, test_fraction=0)
    assert circles.train_labels is not None
    torch.testing.assert_close(circles.train.norm(dim=1), 1 - circles.train_labels / 2)
    roll = load_data("swiss_roll", n=500, std=0.0, test_fraction=0).train
    t = 10 * roll.norm(dim=1)
    torch.testing.assert_close(roll, (t / 10)[:, None] * torch.stack([t.cos(), t.sin()], dim=1), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("digit", {}, r"unknown data source 'digit'; did you mean digits\? Valid: checkerboard, circles, digits"),
        ("data.txt", {}, "A path must be a folder of pictures, or end in .npy, .npz"),
        ("ring", {"mode": 3}, r"unknown option of 'ring' 'mode'; did you mean modes\?"),
        ("digits", {"test_fractoin": 0.5}, r"did you mean test_fraction\?"),
        ("here.npy", {"bin": 3}, r"did you mean bins\?"),
        ("digits", {"test_fraction": 1.0}, r"test_fraction must lie in \[0, 1\), got 1.0"),
    ],
)
def test_a_typo_is_answered_with_the_nearest_name(source, options, message):
    with pytest.raises(ValueError, match=message):
        load_data(source, **options)


# --- IDX files


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize(("code", "dtype"), [(0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4")])
def test_an_idx_file_is_read_as_written(tmp_path, pack, code, dtype):
    array = (np.arange(24) * 5 - (0 if dtype == "u1" else 50)).astype(dtype).reshape(2, 3, 4)
    write_idx(tmp_path / "file", array, code, pack)
    values = read_idx(tmp_path / "file")
    assert values.dtype == array.dtype
    np.testing.assert_array_equal(values, array)
    torch.from_numpy(values)[0, 0, 0] = 1  # writable, native: torch takes it without a warning


@pytest.mark.parametrize("cut", [-1, 1])
def test_an_idx_file_of_a_wrong_length_is_refused(tmp_path, cut):
    path = tmp_path / "file"
    write_idx(path, np.zeros((2, 3), np.uint8))
    path.write_bytes(path.read_bytes()[:cut] if cut < 0 else path.read_bytes() + b"0")
    with pytest.raises(ValueError, match=rf"of shape \(2, 3\) must have 18 bytes, got {18 + cut}"):
        read_idx(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an IDX file starts with 0, 0, type, axes"),
        (b"\x89PNG....", "starts with 89 50 4e 47: not IDX"),
        (b"\0\0\x08\x03\0\0", "the header of .* must have 16 bytes, got 6"),
        (gzip.compress(bytes(1000), mtime=0)[:-9], "must be a whole gzip file"),
        (b"\x1f\x8bnonsense and more of it", "must be a whole gzip file"),
    ],
)
def test_what_is_not_an_idx_file_is_refused(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_idx(tmp_path / "file")


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("found_by", ["root", "root above", "environment"])
def test_image_sets_come_in_their_own_split(tmp_path, monkeypatch, pack, name, found_by):
    folder = tmp_path / name
    folder.mkdir()
    for part, n in (("train", 5), ("t10k", 3)):
        suffix = ".gz" if pack else ""
        images = np.random.default_rng(n).integers(0, 256, (n, 28, 28), dtype=np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images, pack=pack)
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", np.arange(n, dtype=np.uint8), pack=pack)
    monkeypatch.setenv("SCORESDE_DATA", str(tmp_path))
    options = {"root": folder, "root above": tmp_path, "environment": None}[found_by]
    data = load_data(name, **({} if options is None else {"root": options}))
    assert data.train.shape == (5, 1, 28, 28)
    assert data.description.shape == (1, 28, 28)
    assert data.description.bins == 256
    assert data.test_labels is not None
    assert data.test_labels.tolist() == [0, 1, 2]
    expected = np.random.default_rng(3).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    np.testing.assert_array_equal(data.test[:, 0].numpy(), expected)


def test_a_missing_image_set_says_where_to_get_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="found in none of .*apt-get install dataset-fashion-mnist"):
        load_data("fashion-mnist", root=tmp_path)
    assert {"mnist", "fashion-mnist", "digits"} == set(SOURCES)


# --- the user's own files


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
    everything = torch.cat([data.train, data.test]).flatten().sort().values
    np.testing.assert_array_equal(everything.numpy(), np.sort(array.ravel()))


def test_a_table_may_be_standardized_per_feature(tmp_path):
    array = np.random.default_rng(0).normal([0, 100, -3], [1, 10, 0.1], (200, 3)).astype(np.float32)
    np.save(tmp_path / "table.npy", array)
    data = load_data(tmp_path / "table.npy", per_feature=True)
    x = data.description.to_model(data.train)
    torch.testing.assert_close(x.mean(0), torch.zeros(3), rtol=0, atol=1e-4)
    torch.testing.assert_close(x.std(0, correction=0), torch.ones(3), rtol=0, atol=1e-5)


def test_a_stated_scaling_is_taken(tmp_path):
    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(20, 2)))
    description = load_data(tmp_path / "a.npy", offset=1.0, scale=(2.0, 3.0)).description
    assert (description.offset, description.scale) == (1.0, (2.0, 3.0))


def test_a_constant_feature_cannot_be_standardized(tmp_path):
    array = np.random.default_rng(0).normal(size=(20, 3))
    array[:, 1] = 7
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match="feature 1 is constant; drop it"):
        load_data(tmp_path / "a.npy", per_feature=True)


def test_levels_are_levels_only_when_bins_are_stated(tmp_path):
    levels = np.random.default_rng(0).integers(0, 256, (20, 3, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "a.npy", levels)
    quantized = load_data(tmp_path / "a.npy", bins=256)
    assert (quantized.description.bins, quantized.description.scale) == (256, 128.0)
    assert quantized.train.dtype == torch.uint8
    continuous = load_data(tmp_path / "a.npy")
    assert continuous.description.bins is None
    assert continuous.description.to_model(continuous.train).std() == pytest.approx(1, abs=1e-2)
    with pytest.raises(ValueError, match=r"data must lie in \[0, 16\)"):
        load_data(tmp_path / "a.npy", bins=16)
    np.save(tmp_path / "b.npy", levels / 255)
    with pytest.raises(ValueError, match="bins=256 states integer levels, .* holds torch.float64"):
        load_data(tmp_path / "b.npy", bins=256)


def test_without_shuffling_a_file_stays_on_the_disk(tmp_path):
    array = np.arange(40, dtype=np.float32).reshape(20, 2)
    np.save(tmp_path / "a.npy", array)
    data = load_data(tmp_path / "a.npy", shuffle=False, test_fraction=0.25)
    assert data.train.data_ptr() + data.train.nbytes == data.test.data_ptr()
    np.testing.assert_array_equal(data.test.numpy(), array[15:])
    data.train[0] = -1
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), array)


@pytest.mark.parametrize("dtype", [">f4", ">i2", "?", "u2", "u4", "f2"])
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


class Trap:
    """Raises when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
@pytest.mark.parametrize("how", ["raw", "object array"])
def test_pickles_are_never_executed(tmp_path, name, how):
    path, trap = tmp_path / name, np.array([Trap()], dtype=object)
    if how == "raw":
        path.write_bytes(pickle.dumps(Trap()))
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
    with pytest.raises(ValueError, match="must be a whole .np. file"):
        load_data(tmp_path / name)


def test_an_archive_with_other_keys_lists_them(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros(2), train=np.zeros(3))
    with pytest.raises(ValueError, match=r"must hold 'train' and 'test', or 'x'; it holds \['images', 'train'\]"):
        load_data(tmp_path / "a.npz")


@pytest.mark.parametrize("array", [np.array(["text"]), np.zeros(3, complex), np.array(1.0)])
def test_what_is_not_a_table_of_real_numbers_is_refused(tmp_path, array):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match="must hold real numbers with a sample axis"):
        load_data(tmp_path / "a.npy")


def test_nan_in_a_file_is_named_before_it_is_averaged(tmp_path):
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


def test_whole_numbers_keep_their_differences_however_large(tmp_path):
    np.save(tmp_path / "x.npy", 1_700_000_000 + np.arange(1000).reshape(500, 2))
    data = load_data(tmp_path / "x.npy", test_fraction=0.0, shuffle=False)
    x = data.description.to_model(data.train)
    assert x.dtype == torch.float32
    assert len(x.unique()) == 1000
    assert abs(x.mean()) < 1e-6
    assert abs(x.std(correction=0) - 1) < 1e-6
