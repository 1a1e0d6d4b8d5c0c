"""The commands on data of categories: text, codes of a file, bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import csv_rows, one_line, run
from PIL import Image

from scoresde.data import load_data
from scoresde.storage import checkpoint

TEXT = "".join(f"a cab and {i % 3} bad cabs{', or a dab' * (i % 4)}\n" for i in range(60))
NET = ("--network", "MLP(width=8, depth=1)", "--steps", 2, "--batch-size", 4, "--monitor-every", 0, "-q")


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a text; tests only read it."""
    folder = tmp_path_factory.mktemp("book")
    (folder / "book.txt").write_text(TEXT)
    result = run("train", "--data", folder / "book.txt", "--read", "length=12", "--out", folder / "run", *NET)
    assert result.exit_code == 0, result.output
    return folder / "run"


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on integers of a file with a process and a loss that the user names; tests only read it."""
    folder = tmp_path_factory.mktemp("codes")
    np.save(folder / "x.npy", np.random.default_rng(0).integers(0, 5, (200, 6)))
    options = ("--process", "Categorical(5, kernel='uniform')", "--loss", "CrossEntropy()", "--schedule", "Cosine()")
    result = run("train", "--data", folder / "x.npy", "--classes", 5, *options, "--out", folder / "run", *NET)
    assert result.exit_code == 0, result.output
    return folder / "run"


def test_a_text_is_trained_on_with_its_alphabet_and_the_absorbing_kernel(book: Path) -> None:
    meta = checkpoint.read_checkpoint(book).meta
    classes = len(set(TEXT))
    assert meta["model"]["sde"].startswith(f"Categorical(classes={classes}, kernel='absorbing'")
    assert f"CategoricalNet(net=MLP(event_shape=({classes + 1}, 12)" in meta["model"]["net"]
    data = checkpoint.load(book).data
    assert data is not None
    assert data.alphabet == load_data(book.parent / "book.txt").description.alphabet


def test_samples_of_a_text_are_texts(book: Path, tmp_path: Path) -> None:
    sampler = ("--sampler", "Ancestral(3)", "-q")
    assert run("sample", book, "-n", 3, "--out", tmp_path / "x.npy", *sampler).exit_code == 0
    assert run("sample", book, "-n", 3, "--out", tmp_path / "x.txt", *sampler).exit_code == 0
    array = np.load(tmp_path / "x.npy")
    assert (array.dtype, array.shape) == (np.uint8, (3, 12))
    data = checkpoint.load(book).data
    assert data is not None
    texts = data.texts(array)
    written = (tmp_path / "x.txt").read_text()
    assert written == "".join(f"{text}\n{'-' * 24}\n" for text in texts)
    shown = run("sample", book, "-n", 3, *sampler)
    assert all(line.strip() in shown.output for text in texts for line in text.split("\n"))


def test_short_sequences_are_drawn_as_strips(codes: Path, tmp_path: Path) -> None:
    result = run("sample", codes, "-n", 4, "--sampler", "Ancestral(2)", "--out", tmp_path / "x.png", "-q")
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (6 * 20, 4 * 23 - 3)


def test_a_named_process_and_loss_are_kept(codes: Path, tmp_path: Path) -> None:
    meta = checkpoint.read_checkpoint(codes).meta
    assert meta["model"]["sde"].startswith("Categorical(classes=5, kernel='uniform', schedule=Cosine(")
    assert "mask=False" in meta["model"]["net"]
    assert "loss=CrossEntropy(" in meta["training"]
    again = run("train", "--config", codes, "--out", tmp_path / "again", "-q", "--monitor-every", 0)
    assert again.exit_code == 0, again.output
    other = checkpoint.read_checkpoint(tmp_path / "again")
    for name, tensor in checkpoint.read_checkpoint(codes).tensors["model"].items():
        assert (tensor == other.tensors["model"][name]).all(), name


def test_a_run_is_resumed_from_its_directory(codes: Path, tmp_path: Path) -> None:
    first = run("train", "--config", codes, "--out", tmp_path / "run", "--monitor-every", 0, "-q", "--steps", 2)
    more = run("train", "--resume", "--out", tmp_path / "run", "-q", "--monitor-every", 0)
    assert first.exit_code == more.exit_code == 0, more.output
    assert "no step was left to do" in more.output or "2 steps" in more.output


def test_the_likelihood_of_categories_is_a_bound_in_bits(book: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.csv"
    options = ("--limit", 3, "--evaluations", 8, "--bound", "--steps", 4, "--out", out, "-q")
    result = run("likelihood", book, *options, "--batch-size", 2)
    assert result.exit_code == 0, result.output
    assert "bits per character (lower is better)" in result.output
    rows = csv_rows(out)
    assert list(rows[0])[:2] == ["index", "bound, continuous time, nats"]
    assert "bound, 4 steps, nats" in rows[0]
    assert run("likelihood", book, *options, "--batch-size", 3).exit_code == 0
    for row, other in zip(rows, csv_rows(out), strict=True):  # a row does not depend on its batch
        assert float(row["bound, continuous time, nats"]) == pytest.approx(float(other["bound, continuous time, nats"]))
        assert float(row["bound, continuous time, nats"]) > 0


def test_another_text_is_scored_in_the_alphabet_of_the_run(book: Path, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("a bad cab and a dab " * 4)
    (tmp_path / "odd.txt").write_text("a quiz and a fox and " * 4)
    options = ("--limit", 2, "--bound", "--steps", 2, "--evaluations", 8, "-q")
    result = run("likelihood", book, "--data", f"text:{tmp_path / 'new.txt'}", *options)
    assert result.exit_code == 0, result.output
    refused = run("likelihood", book, "--data", f"text:{tmp_path / 'odd.txt'}", *options)
    assert "must be written in the alphabet" in one_line(refused)
    assert "got 'q' in line 1" in one_line(refused)


def test_the_record_of_a_run_names_the_text_in_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "LICENSE").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    result = run("train", "--data", "text:LICENSE", "--read", "length=8", "--out", "run", *NET)
    assert result.exit_code == 0, result.output
    about = json.loads((tmp_path / "run" / "config.json").read_text())["about"]
    assert about["data"] == f"text:{tmp_path / 'LICENSE'}"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("compare", "--data", "heartbeat", "--sampler", "DDIM(steps=3)", "--out", "x"),
            "got a model of Binomial; take Ancestral() or ExactSimulation()",
        ),
        (("train", "--data", "heartbeat", "--process", "VPSDE()", "--out", "x"), "need Binomial() or Categorical(2)"),
        (("train", "--data", "digits", "--process", "Binomial()", "--out", "x"), "by classes= (--classes)"),
        (("train", "--data", "heartbeat", "--process", "Categoricall(2)", "--out", "x"), "did you mean Categorical?"),
        (("train", "--data", "heartbeat", "--loss", "PathKLL()", "--out", "x"), "did you mean PathKL?"),
        (("train", "--data", "heartbeat", "--hybrid", 0.1, "--out", "x"), "a loss of categories; leave it out"),
        (("train", "--data", "ring", "--classes", 4, "--out", "x"), "option of 'ring'"),
    ],
)
def test_what_categories_do_not_have_is_refused(
    words: tuple[str | int, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code != 0
    assert message in one_line(result)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("likelihood", "--trace", "ExactTrace()"), "has bounds and no probability-flow ODE, got --trace"),
        (("likelihood", "--draws", 2), "got --draws"),
        (("sample", "--sampler", "DDIM(steps=2)"), "take Ancestral()"),
        (("sample", "--out", "x.txt"), "a .txt holds sequences of an alphabet"),
        (("verify",), "verify needs a Gaussian process such as VPSDE(), got a model of categories; take Ancestral()"),
        (("calibrate",), "calibrate needs a Gaussian process such as VPSDE(), got a model of categories; take Ancestr"),
        (
            ("distill", "--out", "y"),
            "distill needs a Gaussian process such as VPSDE(), got a model of categories; take",
        ),
        (("sample", "--sampler", "Ancestral(2)", "--calibrated"), "a step sampler of a Gaussian process"),
        (("likelihood", "--data", "absent.npy"), "there is no file"),
    ],
)
def test_what_a_model_of_categories_cannot_do_is_refused(
    codes: Path, words: tuple[str | int, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command, *options = words
    result = run(command, codes, *options)
    assert result.exit_code != 0
    assert message in one_line(result)


def test_a_part_of_an_image_of_bits_is_drawn_again(tmp_path: Path) -> None:
    bits = np.random.default_rng(0).integers(0, 2, (40, 1, 8, 8)).astype(np.uint8)
    np.save(tmp_path / "x.npy", bits)
    result = run("train", "--data", tmp_path / "x.npy", "--classes", 2, "--out", tmp_path / "run", *NET)
    assert result.exit_code == 0, result.output
    mask = np.zeros((8, 8), np.uint8)
    mask[:, :4] = 255
    for name, values in {"image": 255 * bits[0, 0], "mask": mask}.items():
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    words = (tmp_path / "image.png", tmp_path / "mask.png", "-n", 3, "--out", tmp_path / "out.npz")
    result = run("inpaint", tmp_path / "run", *words)
    assert result.exit_code == 0, result.output
    with np.load(tmp_path / "out.npz") as file:
        drawn = next(file[key] for key in file.files if file[key].shape[-4:] == (3, 1, 8, 8))
    assert (drawn[..., 4:].reshape(3, 8, 4) == bits[0, 0, :, 4:]).all()
    assert set(np.unique(drawn)) == {0, 1}


def test_info_shows_the_classes_of_categories() -> None:
    assert "C unordered classes per entry" in run("info", "Categorical").output
    for name in ("Binomial", "Logits", "PathKL", "CategoricalNet", "LinearAlphaBar", "Characters"):
        assert run("info", name).exit_code == 0, name
    assert "length" in run("info", "text:x").output


def test_codes_are_edited_by_the_sampler_of_their_process_and_drawn_where_they_are_nan(
    codes: Path, tmp_path: Path
) -> None:
    x = np.array([[0.0, 1, 2, 3, 4, 0]])
    np.save(tmp_path / "x.npy", x.astype(np.int64))
    result = run("edit", codes, tmp_path / "x.npy", "-n", 2, "--strength", "0.3", "--out", tmp_path / "e.npz")
    assert result.exit_code == 0, one_line(result)
    with np.load(tmp_path / "e.npz") as file:
        assert file["after"].shape == (1, 2, 6)
        assert set(np.unique(file["after"])) <= set(range(5))
    x[0, 3:] = np.nan
    np.save(tmp_path / "x.npy", x)
    method = ("--method", "BridgeSMC(steps=4, particles=8)")
    result = run("inpaint", codes, tmp_path / "x.npy", "-n", 3, *method, "--out", tmp_path / "d.npz")
    assert result.exit_code == 0, one_line(result)
    with np.load(tmp_path / "d.npz") as file:
        assert (file["after"][..., :3] == [0, 1, 2]).all()
        assert set(np.unique(file["after"])) <= set(range(5))
