"""``scoresde edit`` and ``scoresde inpaint``: images or arrays in, sheets and numbers out."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import one_line, run
from PIL import Image

import scoresde
from scoresde.cli.edited_output import seeds_from
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


@pytest.fixture
def conditional(tmp_path: Path) -> scoresde.ScoreModel:
    """A random network that reads a coarse image and a class; saved in the folder ``classes``."""
    kinds = {"low": ImageCondition((1, 4, 4), bins=17), "label": ClassCondition(2, ("left", "right"))}
    network = {"low": Channels(1), "label": Classes(2)}
    torch.manual_seed(0)
    net = scoresde.UNet((1, 8, 8), channels=4, multipliers=(1,), blocks=1, attention=(), conditions=network)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.3)  # also those that are 0 before training
    description = Description("digits", (1, 8, 8), bins=17, conditions=kinds)
    model = scoresde.ScoreModel(net, scoresde.VPSDE(), scoresde.V(), data=description)
    save(model, tmp_path / "classes")
    return model


def words_of(
    command: str, folder: Path, events: Path, mask: Path, *options: str | Path | int
) -> tuple[str | Path | int, ...]:
    """A command with few steps; the mask is used where it inpaints."""
    other = (mask, "--method", "DDNM()") if command == "inpaint" else ()
    return (command, folder, events, *other, *QUICK, *options)


@pytest.mark.filterwarnings("default:the condition")
@pytest.mark.parametrize("command", ["edit", "inpaint"])
def test_conditions_that_are_null_are_named(
    command: str, conditional: scoresde.ScoreModel, image: Path, tmp_path: Path
) -> None:
    words = words_of(command, tmp_path / "classes", image, image, "-n", 1, "--out", tmp_path / "x.npz")
    for options, sentence in (
        ((), "the conditions low, label are null, as if unknown; pass them by --label and --condition."),
        (("--label", "left"), "the condition low is null, as if unknown; pass it by --condition."),
    ):
        result = run(*words, *options)
        assert result.exit_code == 0, one_line(result)
        assert f"warning: {sentence}" in " ".join(result.stderr.split())


@pytest.mark.parametrize("command", ["edit", "inpaint"])
@pytest.mark.parametrize("rows", [1, 2])
def test_results_have_the_conditions_that_options_name_as_in_python(
    command: str, rows: int, conditional: scoresde.ScoreModel, image: Path, tmp_path: Path
) -> None:
    events = torch.arange(128, dtype=torch.uint8).reshape(2, 1, 8, 8) % 17
    np.save(tmp_path / "two.npy", events.numpy())
    low = torch.arange(16.0 * rows).reshape(rows, 1, 4, 4) % 17
    np.savez(tmp_path / "low.npz", low=low.to(torch.uint8).numpy())
    given = ("--condition", tmp_path / "low.npz", "--label", "right,left", "--guidance", "1.5")
    out = tmp_path / "x.npz"
    words = words_of(command, tmp_path / "classes", tmp_path / "two.npy", image, "-n", 2)
    result = run(*words, *given, "--out", out)
    assert result.exit_code == 0, one_line(result)
    assert "guidance" in one_line(result)
    assert conditional.data is not None
    conditions = conditional.data.to_model_cond({"low": low.to(torch.uint8)})["low"].expand(2, -1, -1, -1)
    model, sampler = scoresde.CFG(conditional, 1.5), scoresde.DDIM(steps=3)
    if command == "edit":
        labels = torch.tensor([1, 0, 1, 0])  # in turn for the edits; a coarse image each, or one for all
        expected = scoresde.edit(
            model,
            events.repeat_interleave(2, 0),
            strength=0.5,
            sampler=sampler,
            seeds=seeds_from(0, 4),
            low=conditions.repeat_interleave(2, 0),
            label=labels,
        ).data.unflatten(0, (2, 2))
    else:
        left = torch.zeros(8, 8, dtype=torch.bool)
        left[:, :4] = True
        inputs = {"low": conditions, "label": torch.tensor([1, 0])}
        method, seeds = scoresde.guidance.DDNM(), seeds_from(0, 2)
        expected = scoresde.inpaint(model, events, left, method, sampler, draws=2, seeds=seeds, **inputs).data
    with np.load(out) as file:
        assert np.array_equal(file["after"], expected.numpy())
    assert "--guidance-interval needs a scale" in one_line(run(*words, "--guidance-interval", "0,1"))


def test_a_condition_has_a_row_for_all_results_or_one_for_each_image(
    conditional: scoresde.ScoreModel, image: Path, tmp_path: Path
) -> None:
    np.savez(tmp_path / "low.npz", low=np.zeros((3, 1, 4, 4), np.uint8))
    for command in ("edit", "inpaint"):
        given = ("-n", 2, "--label", "left", "--condition", tmp_path / "low.npz")
        result = run(*words_of(command, tmp_path / "classes", image, image, *given))
        assert result.exit_code == 2
        assert "one row for all or one for each, 'low' has 3 rows for 1" in one_line(result)


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
    assert "an image needs a model of images, got one of events of shape (2,)" in one_line(result)
    assert result.exit_code == 2


def test_events_of_a_numpy_file_are_edited_too(run_folder: Path, tmp_path: Path) -> None:
    values = torch.randint(0, 17, (3, 1, 8, 8), dtype=torch.uint8).numpy()
    np.save(tmp_path / "x.npy", values)
    out = tmp_path / "edits.npz"
    assert run("edit", run_folder, tmp_path / "x.npy", "-n", 2, *QUICK, "--out", out).exit_code == 0
    with np.load(out) as file:
        assert np.array_equal(file["before"], values)
        assert file["after"].shape == (3, 2, 1, 8, 8)


@pytest.fixture
def series(tmp_path: Path) -> scoresde.ScoreModel:
    """A random network of series of two channels, the second far from 0; saved in the folder ``series``."""
    torch.manual_seed(0)
    description = Description("series", (2, 6), offset=(0.0, 50.0), scale=(1.0, 7.0))
    model = scoresde.ScoreModel(scoresde.MLP((2, 6), 8, 1), scoresde.VPSDE(), scoresde.V(), data=description)
    save(model, tmp_path / "series")
    return model


def test_the_future_of_series_is_drawn_given_their_past(series: scoresde.ScoreModel, tmp_path: Path) -> None:
    """By NaN for the future, by a mask of the time axis, and in Python: the same numbers."""
    x = np.random.default_rng(0).normal([[0], [50]], [[1], [7]], (3, 2, 6))
    past, future = x.copy(), np.arange(6) >= 4
    past[..., future] = np.nan
    arrays = {"x": x, "past": past, "future": future, "known": (~future).astype(np.uint8), "last": np.arange(6) == 5}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    results, masked = [], (("x.npy", "future.npy"), ("past.npy", "future.npy"), ("x.npy", "known.npy"))
    for words in (("past.npy",), *masked, ("past.npy", "last.npy")):  # NaN outside the last mask is drawn too
        out, options = tmp_path / "out.npz", ("--keep-white",) if "known.npy" in words else ()
        files = [tmp_path / word for word in words]
        result = run("inpaint", tmp_path / "series", *files, "-n", 2, *options, *QUICK, "--out", out)
        assert result.exit_code == 0, one_line(result)
        assert "redrawn 33.3 % of the entries" in one_line(result)
        with np.load(out) as file:
            results.append(file["after"])
            assert np.array_equal(file["before"], past if words[0] == "past.npy" else x, equal_nan=True)
            assert np.array_equal(file["hidden"], np.broadcast_to(future, x.shape))
    expected = scoresde.inpaint(
        series, x, torch.tensor(~future), sampler=scoresde.DDIM(steps=3), draws=2, seeds=seeds_from(0, 3)
    )
    for after in results:
        assert np.array_equal(after, expected.data.numpy())
        assert np.array_equal(after[..., ~future], np.broadcast_to(x[:, None, :, ~future], after[..., ~future].shape))


def test_series_are_edited_and_a_kept_part_stays(series: scoresde.ScoreModel, tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal([[0], [50]], [[1], [7]], (2, 6))
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "kept.npy", [[True] * 6, [False] * 6])
    words = ("edit", tmp_path / "series", tmp_path / "x.npy", "-n", 3, *QUICK, "--keep", tmp_path / "kept.npy")
    assert run(*words, "--out", tmp_path / "e.npz").exit_code == 0
    with np.load(tmp_path / "e.npz") as file:
        assert file["after"].shape == (1, 3, 2, 6)
        assert (file["after"][0, :, 0] == x[0]).all()
        assert (file["after"][0, :, 1] != x[1]).all()
    assert "add --out edits.npz" in one_line(run(*words))


def test_arrays_that_state_nothing_to_draw_are_answered(series: scoresde.ScoreModel, tmp_path: Path) -> None:
    folder, x = tmp_path / "series", np.zeros((2, 6))
    for name, array in (("x", x), ("nan", x * np.nan), ("two", x + 2), ("true", x == 0), ("text", np.array(["a"]))):
        np.save(tmp_path / f"{name}.npy", array)
    for words, answer in (
        (("inpaint", folder, tmp_path / "x.npy"), "what is drawn must be stated: .*x.npy has no NaN; pass a mask"),
        (("inpaint", folder, tmp_path / "nan.npy"), "nothing but NaN"),
        (("inpaint", folder, tmp_path / "x.npy", tmp_path / "two.npy"), "a mask holds bools, or 0 and 1"),
        (("inpaint", folder, tmp_path / "x.npy", tmp_path / "true.npy"), "true and false entries, .* is all true"),
        (("edit", folder, tmp_path / "text.npy"), "must hold real numbers, got <U1"),
        (("edit", folder, tmp_path / "x.npy", "--out", tmp_path / "e.png"), "a .png shows images, got .*write them as"),
    ):
        result = run(*words)
        assert result.exit_code == 2
        assert re.search(answer, one_line(result)), one_line(result)
    assert not (tmp_path / "e.png").exists()
