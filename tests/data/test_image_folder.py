"""Folders of images: decoding, the split, refused files, parallel decoding, and the cache file."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from scoresde import MLP, VPSDE, ScoreModel, Training, train
from scoresde.data import load_data, load_images
from scoresde.data.cache import store
from scoresde.data.parallel_decoding import decode_in_parallel
from scoresde.nn import Classes


def random_values(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Seven RGB images of height 5 and width 4: ``cat`` has seeds 0-3 (3 in a subfolder), ``dog`` 4-6."""
    for i in range(7):
        folder = "dog" if i > 3 else "cat/old" if i == 3 else "cat"
        save(tmp_path / "pets" / folder / f"{i}.png", random_values(i, (5, 4, 3)))
    (tmp_path / "pets" / "cat" / "._0.png").write_bytes(b"metadata of another operating system")
    return tmp_path / "pets"


def seed_of(event: torch.Tensor) -> int:
    return next(i for i in range(7) if np.array_equal(event.numpy().transpose(1, 2, 0), random_values(i, (5, 4, 3))))


# --- decoding and the split


def test_every_image_occurs_once_with_the_label_of_its_folder(pets):
    data = load_data(pets, test_fraction=0.25)
    assert data.description.shape == (3, 5, 4)
    assert (data.description.bins, data.description.name) == (256, "pets")
    assert data.description.labels == ("cat", "dog")
    assert (data.train.shape, data.test.shape) == ((5, 3, 5, 4), (2, 3, 5, 4))
    assert data.train.dtype == torch.uint8
    assert data.train_labels is not None
    assert data.test_labels is not None
    seeds = [seed_of(event) for event in (*data.train, *data.test)]
    assert sorted(seeds) == list(range(7))
    assert [*data.train_labels.tolist(), *data.test_labels.tolist()] == [int(seed > 3) for seed in seeds]


def test_the_split_is_determined_by_the_seed(pets):
    orders = [[seed_of(event) for event in load_data(pets, seed=seed).train] for seed in (0, 0, 1)]
    assert orders[0] == orders[1]
    assert sorted(orders[0]) != sorted(orders[2])


def test_folders_named_train_and_test_are_the_parts(tmp_path):
    for i, name in enumerate(("train/a/0", "train/b/1", "test/b/2")):
        save(tmp_path / f"{name}.png", random_values(i, (5, 4, 3)))
    data = load_data(tmp_path)
    assert [seed_of(event) for event in data.train] == [0, 1]
    assert [seed_of(event) for event in data.test] == [2]
    assert data.train_labels is not None
    assert data.test_labels is not None
    assert (data.train_labels.tolist(), data.test_labels.tolist()) == ([0, 1], [1])


def test_images_outside_class_folders_have_no_labels(tmp_path):
    save(tmp_path / "a.PNG", random_values(0, (2, 2)))
    data = load_data(tmp_path, test_fraction=0)
    assert data.train.shape == (1, 1, 2, 2)
    assert data.train_labels is None
    assert data.description.labels is None
    save(tmp_path / "b" / "b.png", random_values(0, (2, 2)))
    with pytest.raises(ValueError, match=r"all images must be in class folders.*a.PNG is in none; pass labels=False"):
        load_data(tmp_path)
    assert len(load_data(tmp_path, labels=False, test_fraction=0).train) == 2


def test_a_jpeg_is_rotated_upright_by_its_exif_orientation(tmp_path):
    wide = np.zeros((8, 16), np.uint8)
    wide[:, 8:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate clockwise by 90 degrees: left becomes top
    save(tmp_path / "a.jpg", wide, exif=exif, quality=95)
    upright = load_data(tmp_path, test_fraction=0).train[0, 0].float()
    assert upright.shape == (16, 8)
    assert upright[:7].max() < 10
    assert upright[9:].min() > 245


def test_channels_converts_gray_to_color_and_color_to_gray(tmp_path):
    save(tmp_path / "a.png", random_values(0, (3, 3)))
    save(tmp_path / "b.png", random_values(1, (3, 3, 3)))
    with pytest.raises(
        ValueError,
        match=r"must have equal shapes, got gray of height 3.*a.png.* and RGB of height 3.*b.png.*channels=3",
    ):
        load_images(tmp_path, test_fraction=0, seed=1)
    color = {int(event.float().sum()): event for event in load_data(tmp_path, channels=3, test_fraction=0).train}
    gray = torch.from_numpy(random_values(0, (3, 3)))
    assert torch.equal(color[3 * int(gray.sum())], gray.expand(3, 3, 3))
    luma = random_values(1, (3, 3, 3)) @ np.array([0.299, 0.587, 0.114])  # ITU-R 601
    converted = load_data(tmp_path, channels=1, test_fraction=0).train[:, 0].numpy()
    assert min(np.abs(event - luma).max() for event in converted) < 1


def test_size_scales_and_center_crops_images(tmp_path):
    save(tmp_path / "a.png", np.full((4, 4), 9, np.uint8))
    wide = np.full((8, 24), 200, np.uint8)
    wide[:, :5] = wide[:, 19:] = 0  # cropped: the center remains
    save(tmp_path / "b.png", wide)
    with pytest.raises(ValueError, match=r"images must have equal shapes, .* pass size=\d to scale and crop them"):
        load_data(tmp_path, test_fraction=0)
    data = load_data(tmp_path, size=4, test_fraction=0)
    center = data.train[:, 0, 1:3, 1:3].flatten(1).tolist()
    assert sorted(center) == [[9] * 4, [200] * 4]


def test_an_image_of_the_requested_size_keeps_every_value(pets):
    assert torch.equal(load_data(pets, size=(5, 4)).train, load_data(pets).train)


def test_opaque_images_lose_their_alpha_channel_and_transparent_ones_are_refused_without_channels_4(tmp_path):
    opaque = random_values(0, (3, 3, 4))
    opaque[..., 3] = 255
    save(tmp_path / "a.png", opaque)
    assert torch.equal(
        load_data(tmp_path, test_fraction=0).train[0], torch.from_numpy(opaque[..., :3]).permute(2, 0, 1)
    )
    opaque[1, 1, 3] = 7
    save(tmp_path / "a.png", opaque)
    with pytest.raises(ValueError, match=r"a.png: an image must be opaque unless channels=4, got alpha down to 7"):
        load_data(tmp_path, test_fraction=0)
    assert torch.equal(
        load_data(tmp_path, channels=4, test_fraction=0).train[0], torch.from_numpy(opaque).permute(2, 0, 1)
    )


# --- refused files and options


def write_16_bit_png(path: Path, channels: int) -> None:
    """A PNG of 16 bits per channel, gray with alpha (2) or RGB (3); Pillow reads such files but cannot write them."""
    rows = b"".join(b"\0" + bytes(9 * channels * 2) for _ in range(9))
    color_type = {2: 4, 3: 2}[channels]
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", 9, 9, 16, color_type, 0, 0, 0)),
        (b"IDAT", zlib.compress(rows)),
        (b"IEND", b""),
    )
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def write_truncated_png(path: Path) -> None:
    path.write_bytes(save(path.parent / "complete.png", random_values(0, (9, 9))).read_bytes()[:100])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (write_truncated_png, r"b.png must be a complete image, got: .*; replace it or remove it"),
        (lambda path: path.write_bytes(b""), r"b.png must be a complete image"),
        (lambda path: path.write_text("<html>404</html>"), r"b.png must be a complete image"),
        (lambda path: save(path, np.zeros((9, 9), np.uint16)), r"b.png: an image must have 8 bits .* got 16 bits"),
        (lambda path: write_16_bit_png(path, 2), r"b.png: an image must have 8 bits .* got 16 bits"),
        (lambda path: write_16_bit_png(path, 3), r"b.png: an image must have 8 bits .* got 16 bits"),
        (lambda path: path.write_bytes(b"P6 9 9 65535\n" + bytes(9 * 9 * 6)), r"b.png: .* got 16 bits"),
        (lambda path: path.write_bytes(b"P3 9 9 300\n" + b"0 " * 243), r"b.png: .* got 16 bits"),
        (
            lambda path: Image.new("L", (9, 9)).save(path, save_all=True, append_images=[Image.new("L", (9, 9), 5)]),
            r"b.png: an image must have one frame, got 2",
        ),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_the_error_names_a_damaged_or_unsupported_image(tmp_path, make, message, workers):
    save(tmp_path / "a.png", random_values(0, (9, 9)))
    make(tmp_path / "b.png")
    with pytest.raises(ValueError, match=message):
        load_data(tmp_path, workers=workers, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_folder_without_images_and_invalid_options_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must contain images, got none; their names end in .png, .jpg"):
        load_data(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder .*none"):
        load_images(tmp_path / "none")
    for options, message in (
        ({"size": 0}, "size must be a positive integer"),
        ({"channels": 2}, "channels must be 1"),
        ({"workers": -1}, "workers must be an integer of at least 0, got -1"),
        ({"chanels": 2}, "did you mean channels"),
    ):
        save(tmp_path / "a.png", random_values(0, (3, 3)))
        with pytest.raises(ValueError, match=message):
            load_data(tmp_path, test_fraction=0, **options)


# --- parallel decoding and the cache file


def test_workers_change_neither_the_order_nor_the_global_random_state(tmp_path):
    for i in range(70):
        save(tmp_path / f"{i:02}.png", np.full((2, 2), i, np.uint8))
    before = torch.get_rng_state()
    assert torch.equal(load_data(tmp_path, workers=2).train, load_data(tmp_path).train)
    assert torch.equal(before, torch.get_rng_state())


def _fails_at_40(item: int) -> np.ndarray:
    if item == 40:
        raise KeyError(f"item {item}")
    return np.array([item])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_exception_is_raised_unchanged_in_the_order_of_the_items(workers):
    decoded: list[int] = []
    with pytest.raises(KeyError, match="item 40"):
        decoded.extend(int(event[0]) for event in decode_in_parallel(_fails_at_40, range(100), workers))
    assert decoded == list(range(40))


def test_images_are_converted_once_and_then_memory_mapped(pets, tmp_path):
    plain = load_data(pets, seed=3)
    first = load_data(pets, seed=3, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    (tmp_path / "ordinary").touch()
    assert file.stat().st_mode == (tmp_path / "ordinary").stat().st_mode, "permissions follow the umask"
    modified = file.stat().st_mtime_ns
    second = load_data(pets, seed=3, cache=tmp_path / "cache")
    assert file.stat().st_mtime_ns == modified
    assert np.load(file, mmap_mode="r").dtype == np.uint8
    for data in (first, second):
        assert torch.equal(data.train, plain.train)
        assert torch.equal(data.test, plain.test)
        assert data.train.data_ptr() + data.train.nbytes == data.test.data_ptr()  # views of one file
    second.train.zero_()  # stays in memory
    assert torch.equal(load_data(pets, seed=3, cache=tmp_path / "cache").train, plain.train)


@pytest.mark.parametrize("change", ["option", "split", "file"])
def test_other_options_splits_and_files_are_converted_again(pets, tmp_path, change):
    load_data(pets, cache=tmp_path / "cache")
    if change == "file":
        save(pets / "dog" / "5.png", 255 - random_values(5, (5, 4, 3)))
    options = {"option": {"size": 2}, "split": {"seed": 1}, "file": {}}[change]
    data = load_data(pets, cache=tmp_path / "cache", **options)
    assert torch.equal(data.train, load_data(pets, **options).train)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_an_interrupted_conversion_leaves_no_file(tmp_path):
    def events():
        yield np.zeros(3, np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store(events, 2, tmp_path / "a.npy")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_raises_an_error():
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    from scoresde.data.cache import _write_array

    with pytest.raises(OSError, match="No space left"), Path("/dev/full").open("wb", buffering=0) as out:
        _write_array(iter([np.zeros(3, np.uint8)]), 1, out)


def test_data_larger_than_memory_are_refused_before_allocation():
    with pytest.raises(ValueError, match=r"events of 1000 bytes need 1e\+06 GB.* pass cache=<a folder>"):
        store(lambda: iter([np.zeros(1000, np.uint8)]), 10**12, None)


def test_training_from_the_cache_file_equals_training_from_memory(pets, tmp_path, monkeypatch):
    monkeypatch.setattr("scoresde.training.batches._RESIDENT", 0)  # as if the data were too large for memory
    weights = []
    for options in ({}, {"cache": tmp_path / "cache", "workers": 1}):
        torch.manual_seed(0)
        model = ScoreModel(MLP(event_shape=(3, 5, 4), width=8, conditions={"label": Classes(2, null=False)}), VPSDE())
        train(model, load_data(pets, **options), Training(steps=3, batch_size=4), device="cpu")
        weights.append(torch.nn.utils.parameters_to_vector(model.parameters()))
    assert torch.equal(*weights)
