"""Folders of pictures: what becomes of them, what is refused, and the file that they are mapped from."""

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
from scoresde.data.decode import decoded


def picture(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, array: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Seven RGB pictures, 5 high and 4 wide: ``cat`` holds seeds 0-3 (3 in a folder of its own), ``dog`` 4-6."""
    for i in range(7):
        place = "dog" if i > 3 else "cat/old" if i == 3 else "cat"
        save(tmp_path / "pets" / place / f"{i}.png", picture(i, (5, 4, 3)))
    (tmp_path / "pets" / "notes.txt").write_text("not a picture")
    (tmp_path / "pets" / "cat" / "._0.png").write_bytes(b"what another system leaves behind")
    return tmp_path / "pets"


def seed_of(event: torch.Tensor) -> int:
    return next(i for i in range(7) if np.array_equal(event.numpy().transpose(1, 2, 0), picture(i, (5, 4, 3))))


# --- what becomes of them


def test_every_picture_is_there_once_with_the_label_of_its_folder(pets):
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


def test_the_split_is_drawn_from_the_seed(pets):
    orders = [[seed_of(event) for event in load_data(pets, seed=seed).train] for seed in (0, 0, 1)]
    assert orders[0] == orders[1]
    assert sorted(orders[0]) != sorted(orders[2])


def test_folders_named_train_and_test_are_the_parts(tmp_path):
    for i, name in enumerate(("train/a/0", "train/b/1", "test/b/2")):
        save(tmp_path / f"{name}.png", picture(i, (5, 4, 3)))
    data = load_data(tmp_path)
    assert [seed_of(event) for event in data.train] == [0, 1]
    assert [seed_of(event) for event in data.test] == [2]
    assert data.train_labels is not None
    assert data.test_labels is not None
    assert (data.train_labels.tolist(), data.test_labels.tolist()) == ([0, 1], [1])


def test_pictures_in_no_folder_have_no_labels(tmp_path):
    save(tmp_path / "a.PNG", picture(0, (2, 2)))
    data = load_data(tmp_path, test_fraction=0)
    assert data.train.shape == (1, 1, 2, 2)
    assert data.train_labels is None
    assert data.description.labels is None
    save(tmp_path / "b" / "b.png", picture(0, (2, 2)))
    with pytest.raises(ValueError, match=r"every picture or none is in a folder.*a.PNG is in none; pass labels=False"):
        load_data(tmp_path)
    assert len(load_data(tmp_path, labels=False, test_fraction=0).train) == 2


def test_a_jpeg_is_read_and_turned_upright(tmp_path):
    wide = np.zeros((8, 16), np.uint8)
    wide[:, 8:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise by 90 degrees: left becomes top
    save(tmp_path / "a.jpg", wide, exif=exif, quality=95)
    upright = load_data(tmp_path, test_fraction=0).train[0, 0].float()
    assert upright.shape == (16, 8)
    assert upright[:7].max() < 10
    assert upright[9:].min() > 245


def test_gray_and_color_become_each_other_when_asked(tmp_path):
    save(tmp_path / "a.png", picture(0, (3, 3)))
    save(tmp_path / "b.png", picture(1, (3, 3, 3)))
    with pytest.raises(ValueError, match=r"must be alike, got gray 3 high.*a.png.* and RGB 3 high.*b.png.*channels=3"):
        load_images(tmp_path, test_fraction=0, seed=1)
    color = {int(event.float().sum()): event for event in load_data(tmp_path, channels=3, test_fraction=0).train}
    gray = torch.from_numpy(picture(0, (3, 3)))
    assert torch.equal(color[3 * int(gray.sum())], gray.expand(3, 3, 3))
    luma = picture(1, (3, 3, 3)) @ np.array([0.299, 0.587, 0.114])  # ITU-R 601
    found = load_data(tmp_path, channels=1, test_fraction=0).train[:, 0].numpy()
    assert min(np.abs(event - luma).max() for event in found) < 1


def test_sizes_are_made_alike_when_asked(tmp_path):
    save(tmp_path / "a.png", np.full((4, 4), 9, np.uint8))
    wide = np.full((8, 24), 200, np.uint8)
    wide[:, :5] = wide[:, 19:] = 0  # cut off: the center is what stays
    save(tmp_path / "b.png", wide)
    with pytest.raises(ValueError, match=r"pictures must be alike, .* pass size=\d to scale and cut them"):
        load_data(tmp_path, test_fraction=0)
    data = load_data(tmp_path, size=4, test_fraction=0)
    center = data.train[:, 0, 1:3, 1:3].flatten(1).tolist()
    assert sorted(center) == [[9] * 4, [200] * 4]


def test_a_picture_of_the_wanted_size_keeps_every_level(pets):
    assert torch.equal(load_data(pets, size=(5, 4)).train, load_data(pets).train)


def test_opaque_pictures_lose_their_alpha_and_others_keep_it_or_are_refused(tmp_path):
    opaque = picture(0, (3, 3, 4))
    opaque[..., 3] = 255
    save(tmp_path / "a.png", opaque)
    assert torch.equal(
        load_data(tmp_path, test_fraction=0).train[0], torch.from_numpy(opaque[..., :3]).permute(2, 0, 1)
    )
    opaque[1, 1, 3] = 7
    save(tmp_path / "a.png", opaque)
    with pytest.raises(ValueError, match=r"a.png: transparency is not dropped unsaid, got alpha down to 7"):
        load_data(tmp_path, test_fraction=0)
    assert torch.equal(
        load_data(tmp_path, channels=4, test_fraction=0).train[0], torch.from_numpy(opaque).permute(2, 0, 1)
    )


# --- what is refused


def deep(path: Path, colors: int) -> None:
    """A PNG of 16 bits per channel: 2 is gray with alpha, 3 is RGB; Pillow reads such files and writes none."""
    rows = b"".join(b"\0" + bytes(9 * colors * 2) for _ in range(9))
    kind = {2: 4, 3: 2}[colors]
    parts = (b"IHDR", struct.pack(">IIBBBBB", 9, 9, 16, kind, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    chunks = (struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in parts)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks))


def broken(path: Path) -> None:
    path.write_bytes(save(path.parent / "whole.png", picture(0, (9, 9))).read_bytes()[:100])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (broken, r"b.png must be a whole picture, got: .*; replace it or take it away"),
        (lambda path: path.write_bytes(b""), r"b.png must be a whole picture"),
        (lambda path: path.write_text("<html>404</html>"), r"b.png must be a whole picture"),
        (lambda path: save(path, np.zeros((9, 9), np.uint16)), r"b.png: a picture has 8 bits .* got 16 bits"),
        (lambda path: deep(path, 2), r"b.png: a picture has 8 bits .* got 16 bits"),
        (lambda path: deep(path, 3), r"b.png: a picture has 8 bits .* got 16 bits"),
        (lambda path: path.write_bytes(b"P6 9 9 65535\n" + bytes(9 * 9 * 6)), r"b.png: .* got 16 bits"),
        (lambda path: path.write_bytes(b"P3 9 9 300\n" + b"0 " * 243), r"b.png: .* got 16 bits"),
        (
            lambda path: Image.new("L", (9, 9)).save(path, save_all=True, append_images=[Image.new("L", (9, 9), 5)]),
            r"b.png: a picture has one frame, got 2",
        ),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_is_no_whole_picture_is_named(tmp_path, make, message, workers):
    save(tmp_path / "a.png", picture(0, (9, 9)))
    make(tmp_path / "b.png")
    with pytest.raises(ValueError, match=message):
        load_data(tmp_path, workers=workers, cache=tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_folder_without_pictures_and_a_wrong_option_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must hold pictures, got none; their names end in .png, .jpg"):
        load_data(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder .*none"):
        load_images(tmp_path / "none")
    for options, message in (
        ({"size": 0}, "size must be a whole number >= 1"),
        ({"channels": 2}, "channels must be 1"),
        ({"workers": -1}, "workers must be a whole number >= 0, got -1"),
        ({"chanels": 2}, "did you mean channels"),
    ):
        save(tmp_path / "a.png", picture(0, (3, 3)))
        with pytest.raises(ValueError, match=message):
            load_data(tmp_path, test_fraction=0, **options)


# --- many of them


def test_workers_change_neither_order_nor_global_randomness(tmp_path):
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
def test_what_fails_is_raised_as_it_was_when_its_turn_comes(workers):
    got: list[int] = []
    with pytest.raises(KeyError, match="item 40"):
        got.extend(int(event[0]) for event in decoded(_fails_at_40, range(100), workers))
    assert got == list(range(40))


def test_pictures_are_converted_once_and_then_mapped(pets, tmp_path):
    plain = load_data(pets, seed=3)
    first = load_data(pets, seed=3, cache=tmp_path / "cache")
    (file,) = (tmp_path / "cache").iterdir()
    (tmp_path / "usual").touch()
    assert file.stat().st_mode == (tmp_path / "usual").stat().st_mode, "others may read it as the umask has it"
    made = file.stat().st_mtime_ns
    again = load_data(pets, seed=3, cache=tmp_path / "cache")
    assert file.stat().st_mtime_ns == made
    assert np.load(file, mmap_mode="r").dtype == np.uint8
    for data in (first, again):
        assert torch.equal(data.train, plain.train)
        assert torch.equal(data.test, plain.test)
        assert data.train.data_ptr() + data.train.nbytes == data.test.data_ptr()  # views of one file
    again.train.zero_()  # stays in memory
    assert torch.equal(load_data(pets, seed=3, cache=tmp_path / "cache").train, plain.train)


@pytest.mark.parametrize("change", ["option", "split", "file"])
def test_what_is_made_of_something_else_is_converted_anew(pets, tmp_path, change):
    load_data(pets, cache=tmp_path / "cache")
    if change == "file":
        save(pets / "dog" / "5.png", 255 - picture(5, (5, 4, 3)))
    options = {"option": {"size": 2}, "split": {"seed": 1}, "file": {}}[change]
    data = load_data(pets, cache=tmp_path / "cache", **options)
    assert torch.equal(data.train, load_data(pets, **options).train)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_a_conversion_that_stops_leaves_nothing(tmp_path):
    def events():
        yield np.zeros(3, np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store(events, 2, tmp_path / "a.npy")
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_an_error_not_a_crash():
    if not Path("/dev/full").exists():
        pytest.skip("no device that is always full")
    from scoresde.data.cache import _append

    with pytest.raises(OSError, match="No space left"), Path("/dev/full").open("wb", buffering=0) as out:
        _append(iter([np.zeros(3, np.uint8)]), 1, out)


def test_what_does_not_fit_into_memory_is_refused_before_it_is_tried():
    with pytest.raises(ValueError, match=r"events of 1000 bytes need 1e\+06 GB.* pass cache=<a folder>"):
        store(lambda: iter([np.zeros(1000, np.uint8)]), 10**12, None)


def test_training_from_the_mapped_file_is_training_from_memory(pets, tmp_path, monkeypatch):
    monkeypatch.setattr("scoresde.training.batches._RESIDENT", 0)  # as if the data were too large to be held
    weights = []
    for options in ({}, {"cache": tmp_path / "cache", "workers": 1}):
        torch.manual_seed(0)
        model = ScoreModel(MLP(event_shape=(3, 5, 4), width=8, num_classes=2), VPSDE())
        train(model, load_data(pets, **options), Training(steps=3, batch_size=4), device="cpu")
        weights.append(torch.nn.utils.parameters_to_vector(model.parameters()))
    assert torch.equal(*weights)
