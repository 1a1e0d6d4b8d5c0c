"""``scoresde edit`` and ``scoresde inpaint``: images in, sheets and numbers out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import one_line, run
from PIL import Image

import scoresde
from scoresde.cli.image_inputs import read_events, read_white
from scoresde.data import ClassCondition, Description, ImageCondition
from scoresde.nn import Channels, Classes
from scoresde.storage.checkpoint import save

QUICK = ("--sampler", "DDIM(steps=3)")


def model_of(description: Description) -> scoresde.ScoreModel:
    net = scoresde.MLP(description.shape, width=8, depth=1)
    return scoresde.ScoreModel(net, scoresde.VPSDE(), scoresde.V(), data=description)


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    save(model_of(Description("digits", (1, 8, 8), bins=17)), tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image whose left half is black and whose right half is white."""
    values = np.zeros((8, 8), np.uint8)
    values[:, 4:] = 255
    Image.fromarray(values).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def test_the_bytes_of_an_image_become_values_of_the_data(image: Path) -> None:
    half = np.zeros((1, 1, 8, 8))
    half[..., 4:] = 1
    for description, expected in (
        (Description("digits", (1, 8, 8), bins=17), 16 * half),
        (Description("bytes", (1, 8, 8), bins=256), 255 * half),
        (Description("floats", (8, 8), low=-2.0, high=3.0), -2 + 5 * half[:, 0]),
    ):
        events = read_events(image, model_of(description))
        assert tuple(events.shape) == (1, *description.shape)
        assert np.array_equal(events.numpy(), expected)
        description.validate(events)
    assert read_events(image, model_of(Description("colors", (3, 8, 8), bins=256))).shape == (1, 3, 8, 8)


def test_where_a_mask_is_white_is_read_in_the_size_of_the_events(image: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.png"
    with Image.open(image) as small:
        small.resize((64, 48)).save(large)
    white = read_white(large, model_of(Description("colors", (3, 8, 8), bins=256)))
    assert white.shape == (3, 8, 8)
    assert bool(white[:, :, 4:].all())
    assert not white[:, :, :4].any()


def test_edits_differ_by_seed_and_a_kept_part_stays(run_folder: Path, image: Path, tmp_path: Path) -> None:
    out = tmp_path / "edits.npz"
    arguments = ("edit", run_folder, image, "--strength", "0.9", "-n", 3, "--keep", image, *QUICK, "--out", out)
    result = run(*arguments, "--seed", 5)
    assert result.exit_code == 0, result.output
    with np.load(out) as file:
        before, after, hidden = file["before"], file["after"], file["hidden"]
    assert before.shape == (1, 1, 8, 8)
    assert after.shape == (1, 3, 1, 8, 8)
    assert after.dtype == np.uint8
    assert (after[..., 4:] == 16).all()
    assert hidden[..., :4].all()
    assert not hidden[..., 4:].any()
    assert not np.array_equal(after[0, 0], after[0, 1])
    assert run(*arguments, "--seed", 6).exit_code == 0
    with np.load(out) as file:
        assert not np.array_equal(after, file["after"])
    fewer = (*arguments[:5], "-n", 1, *arguments[7:])
    assert run(*fewer, "--seed", 5).exit_code == 0
    with np.load(out) as file:
        assert np.array_equal(after[:, :1], file["after"])  # the first edit does not depend on the number


@pytest.mark.filterwarnings("default:this command passes no conditions")
@pytest.mark.parametrize("command", ["edit", "inpaint"])
def test_conditions_that_are_null_are_named(command: str, image: Path, tmp_path: Path) -> None:
    kinds = {"low": ImageCondition((1, 4, 4), bins=17), "label": ClassCondition(2)}
    network = {"low": Channels(1), "label": Classes(2)}
    net = scoresde.UNet((1, 8, 8), channels=4, multipliers=(1,), blocks=1, attention=(), conditions=network)
    description = Description("digits", (1, 8, 8), bins=17, conditions=kinds)
    save(scoresde.ScoreModel(net, scoresde.VPSDE(), scoresde.V(), data=description), tmp_path / "run")
    words = (command, tmp_path / "run", image, *(("-n", 1, image) if command == "inpaint" else ("-n", 1)))
    options = ("--method", "MMPS(1)") if command == "inpaint" else ()
    result = run(*words, *options, *QUICK, "--out", tmp_path / "x.npz")
    assert result.exit_code == 0, one_line(result)
    assert "warning: this command passes no conditions: low, label are null" in " ".join(result.stderr.split())


def test_a_sheet_shows_the_original_beside_the_edits(run_folder: Path, image: Path, tmp_path: Path) -> None:
    result = run("edit", run_folder, image, "-n", 4, *QUICK, "--out", tmp_path / "edits.png")
    assert result.exit_code == 0, result.output
    assert "tau = " in one_line(result)
    with Image.open(tmp_path / "edits.png") as sheet:
        side = 8 * 15  # 600 pixels / (5 images of 8 pixels)
        assert sheet.size == (5 * side + 3 * 3 + 4 * 3, side)
        assert sheet.getpixel((side // 4, side // 2)) == (0, 0, 0, 255)
        assert sheet.getpixel((3 * side // 4, side // 2)) == (255, 255, 255, 255)


@pytest.mark.parametrize("flag", [(), ("--keep-white",)])
def test_inpaint_draws_where_the_mask_is_white(
    flag: tuple[str, ...], run_folder: Path, image: Path, tmp_path: Path
) -> None:
    out = tmp_path / "draws.npz"
    result = run("inpaint", run_folder, image, image, "-n", 2, "--method", "MMPS(1)", *QUICK, *flag, "--out", out)
    assert result.exit_code == 0, result.output
    assert f"50 % of the pixels, where the mask is {'black' if flag else 'white'}" in one_line(result)
    with np.load(out) as file:
        kept = (file["after"] == file["before"][:, None]).all((0, 1, 2, 3))
        hidden = file["hidden"][0, 0, 0]
    assert kept[hidden].sum() < 4
    assert kept[~hidden].all()
    assert hidden[4:].all() != bool(flag)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("--out", "x.csv"), "--out must end in .png"),
        (("--strength", "1.5"), "strength must lie in (0, 1], got 1.5"),
        (("--sampler", "DIM()"), "did you mean DDIM?"),
    ],
)
def test_a_wrong_option_of_edit_is_answered(words: tuple[str, ...], text: str, run_folder: Path, image: Path) -> None:
    result = run("edit", run_folder, image, *words)
    assert result.exit_code == 2
    assert text in one_line(result)


def test_a_wrong_mask_method_or_model_is_answered(run_folder: Path, image: Path, tmp_path: Path) -> None:
    black = tmp_path / "black.png"
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(black)
    result = run("inpaint", run_folder, image, black)
    assert "a mask has white and black pixels" in one_line(result)
    result = run("inpaint", run_folder, image, image, "--method", "MPS()")
    assert "did you mean MMPS?" in one_line(result)
    result = run("inpaint", run_folder, tmp_path / "absent.png", image)
    assert "there is no file" in one_line(result)
    save(scoresde.ScoreModel(scoresde.MLP((2,), 8, 1), scoresde.VPSDE(), scoresde.V(), (2,)), tmp_path / "points")
    result = run("edit", tmp_path / "points", image)
    assert "this command takes a model of images" in one_line(result)
    assert result.exit_code == 2


def test_events_of_a_numpy_file_are_edited_too(run_folder: Path, tmp_path: Path) -> None:
    values = torch.randint(0, 17, (3, 1, 8, 8), dtype=torch.uint8).numpy()
    np.save(tmp_path / "x.npy", values)
    out = tmp_path / "edits.npz"
    assert run("edit", run_folder, tmp_path / "x.npy", "-n", 2, *QUICK, "--out", out).exit_code == 0
    with np.load(out) as file:
        assert np.array_equal(file["before"], values)
        assert file["after"].shape == (3, 2, 1, 8, 8)
