"""Texts as windows of characters: their split, their alphabet, and files that are none."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
import torch

from scoresde.data import Bytes, load_data, load_text

TEXT = "".join(f"line {i} of a text{', in words' * (i % 3)}.\n" for i in range(40))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "book.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_held_out_windows_share_no_character_with_those_for_training(file: Path) -> None:
    data = load_data(file, length=16, stride=3, test_fraction=0.25)
    train, test = data.description.texts(data.train), data.description.texts(data.test)
    held_out = len(TEXT) - -(-len(TEXT) // 4)
    assert train == [TEXT[i : i + 16] for i in range(0, held_out - 15, 3)]
    assert "".join(test) == TEXT[held_out:][: len(test) * 16]
    assert len(TEXT) - held_out - len(test) * 16 < 16


def test_the_alphabet_is_found_in_the_whole_text_and_sorted(file: Path) -> None:
    about = load_data(file).description
    assert about.alphabet is not None
    assert "".join(about.alphabet.symbols) == "".join(sorted(set(TEXT)))
    assert (about.classes, about.shape, about.name) == (len(set(TEXT)), (64,), "book")


def test_windows_for_training_overlap_by_seven_eighths(file: Path) -> None:
    data = load_data(file, length=32)
    assert torch.equal(data.train[1, :-4], data.train[0, 4:])


def test_other_characters_get_the_one_that_stands_for_them(file: Path) -> None:
    data = load_data(file, length=10, stride=10, alphabet="abcdefghijklmnopqrstuvwxyz ", unknown=" ", test_fraction=0)
    expected = "".join(c if c.islower() else " " for c in TEXT)
    assert "".join(data.description.texts(data.train)) == expected[: len(expected) // 10 * 10]
    assert data.test.shape == (0, 10)


def test_bytes_take_any_text(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("naïve ☃ " * 30, encoding="utf-8")
    data = load_data(tmp_path / "x.txt", tokens="bytes", length=11, stride=11)
    assert data.description.alphabet == Bytes()
    assert data.train.dtype == torch.uint8
    assert bytes(data.train.flatten().tolist())[:33] == ("naïve ☃ " * 3).encode()[:33]


def test_another_text_is_read_in_the_alphabet_of_the_first(file: Path, tmp_path: Path) -> None:
    like = load_data(file, length=16).description
    (tmp_path / "other.txt").write_text("a line\nof a quiz " * 30)
    with pytest.raises(ValueError, match=r"must be written in the alphabet .*, got 'q' in line 2"):
        load_text(tmp_path / "other.txt", like=like)
    text = "".join(c for c in "of words in lines " if c in TEXT) * 5
    (tmp_path / "new.txt").write_text(text)
    new = load_text(tmp_path / "new.txt", like=like, test_fraction=0.0)
    assert new.description.alphabet == like.alphabet
    assert new.description.texts(new.train[:1]) == [text[:16]]


def test_a_txt_of_numbers_or_columns_is_still_a_table(tmp_path: Path) -> None:
    rows = "\n".join(f"{i / 7},{i % 5 + 0.5},{(i * i) % 11 / 3}" for i in range(40))
    (tmp_path / "numbers.txt").write_text("a,b,c\n" + rows)
    assert load_data(tmp_path / "numbers.txt").columns == ("a", "b", "c")
    names = "\n".join(f"{i / 3},{'red' if i % 2 else 'green'}" for i in range(40))
    (tmp_path / "names.txt").write_text("size,color\n" + names)
    assert load_data(tmp_path / "names.txt").columns == ("size", "color")
    table = load_data(f"text:{tmp_path / 'names.txt'}", length=8)
    assert table.description.texts(table.train[:1]) == ["size,col"]


def test_a_text_may_be_packed_have_any_suffix_and_a_mark_at_its_begin(tmp_path: Path) -> None:
    (tmp_path / "x.txt.gz").write_bytes(gzip.compress(TEXT.encode("utf-8-sig").replace(b"\n", b"\r\n")))
    (tmp_path / "LICENSE").write_text(TEXT)
    packed, plain = load_data(tmp_path / "x.txt.gz"), load_data(f"text:{tmp_path / 'LICENSE'}")
    assert torch.equal(packed.train, plain.train)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (b"short text", {}, r"must hold a window of length=64 for training and one held out, .* has 10 characters"),
        (b"words " * 50, {"length": 1}, "length must be an integer of at least 2"),
        (b"words " * 50, {"tokens": "words"}, "tokens"),
        (b"words " * 50, {"alphabet": "word "}, r"got 's' in line 1 \(50 characters outside it\).*unknown="),
        (b"words " * 50, {"unknown": "?"}, "unknown must be a character of alphabet="),
        (b"words " * 50, {"tokens": "bytes", "unknown": "?"}, "has an alphabet of its own"),
        (b"words \xff\xfe" * 50, {}, "in the encoding utf-8, got the byte 0xff at position 6; state its own"),
        (b"words " * 50, {"encoding": "utf-9"}, "encoding must be one that Python knows"),
        (b"aaaaaaaaaa" * 50, {}, "at least two different characters"),
        (b"words " * 50, {"test_fraction": 1.0}, r"test_fraction must lie in \[0, 1\)"),
        (b"words " * 50, {"lenght": 9}, "did you mean length"),
    ],
)
def test_wrong_texts_and_options_are_refused(
    tmp_path: Path, content: bytes, options: dict[str, Any], message: str
) -> None:
    (tmp_path / "x.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_data(f"text:{tmp_path / 'x.txt'}", **options)


def test_a_missing_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_data(f"text:{tmp_path / 'x.txt'}")
