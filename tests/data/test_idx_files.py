"""IDX files, and the MNIST and Fashion-MNIST sources that read them."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from scoresde.data import load_data, read_idx
from scoresde.data.sources import SOURCES


def write_idx(path: Path, array: np.ndarray, code: int = 0x08, compress: bool = False) -> None:
    header = bytes([0, 0, code, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    data = header + array.astype(array.dtype.newbyteorder(">")).tobytes()
    path.write_bytes(gzip.compress(data, mtime=0) if compress else data)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(("code", "dtype"), [(0x08, "u1"), (0x09, "i1"), (0x0B, "i2"), (0x0C, "i4"), (0x0D, "f4")])
def test_an_idx_file_is_read_as_written(tmp_path, compress, code, dtype):
    array = (np.arange(24) * 5 - (0 if dtype == "u1" else 50)).astype(dtype).reshape(2, 3, 4)
    write_idx(tmp_path / "file", array, code, compress)
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
        (gzip.compress(bytes(1000), mtime=0)[:-9], "must be a complete gzip file"),
        (b"\x1f\x8bnonsense and more of it", "must be a complete gzip file"),
    ],
)
def test_a_file_that_is_not_idx_is_refused(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_idx(tmp_path / "file")


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
@pytest.mark.parametrize("location", ["root", "root above", "environment"])
def test_mnist_files_keep_their_standard_split(tmp_path, monkeypatch, compress, name, location):
    folder = tmp_path / name
    folder.mkdir()
    for part, n in (("train", 5), ("t10k", 3)):
        suffix = ".gz" if compress else ""
        images = np.random.default_rng(n).integers(0, 256, (n, 28, 28), dtype=np.uint8)
        write_idx(folder / f"{part}-images-idx3-ubyte{suffix}", images, compress=compress)
        write_idx(folder / f"{part}-labels-idx1-ubyte{suffix}", np.arange(n, dtype=np.uint8), compress=compress)
    monkeypatch.setenv("SCORESDE_DATA", str(tmp_path))
    root = {"root": folder, "root above": tmp_path, "environment": None}[location]
    data = load_data(name, **({} if root is None else {"root": root}))
    assert data.train.shape == (5, 1, 28, 28)
    assert data.description.shape == (1, 28, 28)
    assert data.description.bins == 256
    assert data.test_labels is not None
    assert data.test_labels.tolist() == [0, 1, 2]
    expected = np.random.default_rng(3).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    np.testing.assert_array_equal(data.test[:, 0].numpy(), expected)


def test_the_error_on_missing_files_says_where_to_get_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="not found in .*apt-get install dataset-fashion-mnist"):
        load_data("fashion-mnist", root=tmp_path)
    assert {"mnist", "fashion-mnist", "digits", "heartbeat"} == set(SOURCES)
