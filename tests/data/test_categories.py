"""Data of categories: their description, integer files, bits of images, the heartbeat."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scoresde.data
from scoresde.data import Bytes, Characters, ClassNames, Data, Description, load_data
from scoresde.storage import spec

DNA = Description("dna", (4,), alphabet=Characters("ACGT"))


@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.int64])
def test_categories_go_to_codes_and_back(kind: torch.dtype) -> None:
    y = torch.tensor([[0, 3, 2, 1], [1, 1, 0, 3]], dtype=kind)
    x = DNA.to_model(y)
    assert x.dtype == torch.float32
    assert torch.equal(x, y.float())
    assert torch.equal(DNA.to_data(x), y.to(torch.uint8))
    assert torch.equal(DNA.log_det(x), torch.zeros(2, dtype=torch.float64))
    assert DNA.texts(DNA.to_data(x)) == ["ATGC", "CCAT"]


def test_categories_are_neither_quantized_nor_scaled() -> None:
    y = torch.zeros(2, 4, dtype=torch.uint8)
    assert not DNA.quantized
    assert not DNA.is_quantized(y)
    assert (DNA.classes, DNA.bins, DNA.model_shape) == (4, None, (4,))
    with pytest.raises(ValueError, match="dequantize takes integer values of quantized data, got categories"):
        DNA.dequantize(y)


def test_uniform_classes_have_as_many_bits_as_they_need() -> None:
    log_prob = torch.full((3,), -4 * math.log(4), dtype=torch.float64)
    assert torch.allclose(DNA.bits_per_dim(log_prob), torch.full((3,), 2.0, dtype=torch.float64))


def test_more_than_256_classes_are_long_integers() -> None:
    words = Description("words", (2,), classes=300)
    assert words.to_data(torch.tensor([[299.0, 0.0]])).dtype == torch.int64


@pytest.mark.parametrize(
    "description",
    [
        DNA,
        Description("bits", (2, 2), classes=2),
        Description("bytes", (8,), alphabet=Bytes()),
        Description("names", (3,), alphabet=ClassNames(("helix", "coil"))),
        Description("text", (3,), alphabet=Characters("\n\\'\"é☃𝄞 ")),
    ],
)
def test_a_description_of_categories_is_stored_and_read(description: Description) -> None:
    assert spec.parse(spec.to_text(description), spec.known_classes(scoresde.data)) == description


def test_the_text_of_other_descriptions_stays_as_it_was() -> None:
    assert "classes" not in spec.to_text(Description("a", (2,)))
    assert "alphabet" not in spec.to_text(Description("a", (2,)))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (torch.tensor([[0, 1, 2, 4]]), r"must be integers 0 … 3, got 4 at index \(0, 3\)"),
        (torch.tensor([[0, -1, 2, 3]]), r"must be integers 0 … 3, got -1 at index \(0, 1\)"),
        (torch.tensor([[0.0, 1.0, 2.0, 3.0]]), r"must be integers 0 … 3, got torch.float32; convert .* by .long\(\)"),
        (torch.zeros(1, 5, dtype=torch.uint8), r"must have the event shape \(4,\)|shape"),
    ],
)
def test_what_is_no_class_is_refused(y: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DNA.validate(y)
    with pytest.raises(ValueError, match=message):
        Data(y, y[:0], DNA)


@pytest.mark.parametrize("x", [4.0, -1.0, 0.5, math.nan])
def test_states_that_are_no_codes_are_not_rounded(x: float) -> None:
    with pytest.raises(ValueError, match="categories must be codes 0 … 3"):
        DNA.to_data(torch.tensor([[0.0, 1.0, 2.0, x]]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": 1}, "classes must be an integer from 2 to"),
        ({"classes": 4, "bins": 4}, "got bins=4 too; bins are of integers with an order"),
        ({"classes": 4, "missing": True}, "may not be missing yet"),
        ({"classes": 4, "scale": 2.0}, "got scale=2.0 too; categories are codes"),
        ({"classes": 3, "alphabet": Characters("ACGT")}, "number of symbols of the alphabet, 4, got 3"),
    ],
)
def test_settings_that_contradict_categories_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Description("x", (4,), **settings)


@pytest.mark.parametrize("alphabet", [Characters("ba\n☃𝄞"), Bytes()])
def test_an_alphabet_reads_what_it_writes(alphabet: Characters | Bytes) -> None:
    text = "ab\n☃a𝄞b"
    assert alphabet.decode(alphabet.encode(text)) == text


def test_names_are_separated_by_spaces() -> None:
    names = ClassNames(("helix", "coil"))
    assert names.encode("coil helix\ncoil").tolist() == [1, 0, 1]
    assert names.decode(np.array([1, 0])) == "coil helix"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Characters("A"), "at least two classes"),
        (lambda: Characters("ABA"), "must be different, got 'A' twice"),
        (lambda: ClassNames(("a", "b c")), "must not be empty or hold white space, got 'b c'"),
        (lambda: Characters("ab\n").encode("ab\naxx"), r"got 'x' in line 2 \(2 characters outside it\)"),
        (lambda: ClassNames(("a", "b")).encode("a c"), "got 'c'"),
        (lambda: Characters("ab").decode(np.array([0, 2])), r"codes must lie in 0 … 1, got 0 … 2"),
        (lambda: Description("x", (2,), classes=2).texts(torch.zeros(1, 2).long()), "sequences .* with an alphabet"),
    ],
)
def test_wrong_alphabets_and_texts_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_integers_of_a_file_become_categories(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 4, (50, 7))
    np.save(tmp_path / "x.npy", codes)
    data = load_data(tmp_path / "x.npy", alphabet="ACGT")
    assert (data.description.classes, data.description.scale, len(data.train), len(data.test)) == (4, 1.0, 40, 10)
    rows = {tuple(row) for row in codes.tolist()}
    assert {tuple(row) for row in torch.cat([data.train, data.test]).tolist()} == rows
    assert load_data(tmp_path / "x.npy", classes=5).description.alphabet is None


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64])
def test_bits_that_are_taken_as_numbers_are_warned_of(tmp_path: Path, kind: type) -> None:
    x = np.random.default_rng(0).integers(0, 2, (40, 5)).astype(kind)
    np.save(tmp_path / "x.npy", x)
    with pytest.warns(UserWarning, match=r"x\.npy holds 0 and 1 alone.*classes=2 \(--classes 2\)"):
        assert load_data(tmp_path / "x.npy").description.classes is None
    assert load_data(tmp_path / "x.npy", classes=2).description.classes == 2  # without a warning, which is an error
    assert load_data(tmp_path / "x.npy", bins=2).description.bins == 2
    np.save(tmp_path / "x.npy", x.astype(int) + 1)
    assert load_data(tmp_path / "x.npy").description.classes is None


def test_grids_of_categories_get_a_channel(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", train=np.zeros((5, 8, 8), bool), test=np.ones((2, 8, 8), bool))
    data = load_data(tmp_path / "x.npz", classes=2, channels="none")
    assert data.train.shape == (5, 1, 8, 8)
    assert int(data.test.sum()) == 2 * 64


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.zeros((9, 3)), {"classes": 2}, "classes=2 declares integers, .* holds torch.float64"),
        (np.full((9, 3), 2), {"classes": 2}, "must be integers 0 … 1, got 2"),
        (np.full((9, 3), -1), {"classes": 2}, "must be integers 0 … 1, got -1"),
        (np.zeros((9, 3), int), {"classes": 2, "bins": 2}, "got bins=2 too"),
    ],
)
def test_files_that_hold_no_such_categories_are_refused(
    tmp_path: Path, array: np.ndarray, options: dict[str, Any], message: str
) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(ValueError, match=message):
        load_data(tmp_path / "x.npy", **options)


def test_a_threshold_makes_bits_of_digits() -> None:
    gray, bits = load_data("digits"), load_data("digits", binarize=0.5)
    assert bits.description == Description("digits", (1, 8, 8), classes=2, conditions=gray.description.conditions)
    assert torch.equal(bits.train, (gray.train > 8).to(torch.uint8))
    assert bits.train_labels is not None
    assert torch.equal(bits.test, (gray.test > 8).to(torch.uint8))


def test_drawn_bits_have_the_values_as_their_probabilities() -> None:
    gray, bits = load_data("digits"), load_data("digits", binarize="random")
    assert torch.equal(bits.train, load_data("digits", binarize="random").train)
    for value in (0, 4, 12, 16):
        drawn = bits.train[gray.train == value].double()
        error = math.sqrt(value / 16 * (1 - value / 16) / len(drawn))
        assert abs(float(drawn.mean()) - value / 16) <= 4 * error


@pytest.mark.parametrize("binarize", [1.0, -0.1, "yes", True])
def test_a_threshold_that_is_none_is_refused(binarize: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="binarize must be"):
        load_data("digits", binarize=binarize)


def test_a_heartbeat_has_a_pulse_at_every_fifth_place() -> None:
    data = load_data("heartbeat", n=500)
    assert data.description == Description("heartbeat", (20,), classes=2, conditions=data.description.conditions)
    assert data.train_labels is not None
    places = torch.arange(20)
    for bits, phase in zip(data.train, data.train_labels, strict=True):
        assert torch.equal(bits.bool(), places % 5 == phase)
    counts = data.train_labels.bincount(minlength=5)
    assert float((counts - 80).abs().max()) <= 4 * math.sqrt(400 * 0.2 * 0.8)
    assert load_data("heartbeat", n=10, length=12, period=4).train.shape == (8, 12)
