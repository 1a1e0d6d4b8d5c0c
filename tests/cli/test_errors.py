"""Errors of the commands: one sentence, the right exit code, and no file left behind."""

from __future__ import annotations

import errno
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer
from command_line import one_line, run
from PIL import Image

import scoresde as sd
from scoresde.cli.errors import report_errors
from scoresde.nn.conditions import Classes
from scoresde.storage.checkpoint import save


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["train", "--data", "digts", "--out", "x"], "did you mean digits"),
        (["train", "--data", "ring", "--out", "x", "--weighting", "MinSNT()"], "did you mean MinSNR?"),
        (["train", "--data", "ring", "--out", "x", "--weighting", "MinSNR(gama=5)"], "did you mean gamma?"),
        (["train", "--data", "ring", "--out", "x", "--network", "MPL()"], "did you mean MLP?"),
        (["train", "--data", "ring", "--out", "x", "--schedule", "Cosin()"], "did you mean Cosine?"),
        (["train", "--data", "ring", "--out", "x", "--precision", "bf61"], "did you mean bf16?"),
        (["train", "--data", "ring", "--out", "x", "--weighting", "DDPM()"], "a Weighting, got DDPM"),
        (["train", "--data", "ring", "--out", "x", "--stepz", "5"], "--steps"),
        (["trian", "--data", "ring"], "train"),
        (["train", "--data", "ring", "--out", "x", "--device", "gpu0"], "a device must be one that torch can use"),
        (["train", "--data", "ring", "--out", "x", "--steps", "-1"], "steps must be an integer of at least 0, got -1"),
        (["train", "--data", "ring", "--out", "x", "--read", "n"], "--read takes name=value, such as size=32, got 'n'"),
        (
            ["train", "--data", "ring", "--out", "x", "--read", "m=40"],
            "unknown option of 'ring' 'm'; did you mean modes? Valid: modes, n,",
        ),
        (["train", "--data", "digits", "--out", "x", "--augment", "Augment()"], "augment=9"),
        (["sample", "nowhere"], "there must be a checkpoint at nowhere"),
        (
            ["sample", "nowhere", "--out", "x.jpg"],
            ".npz, .npy, .txt, .parquet, got x.jpg",
        ),
        (["sample", "nowhere", "--trajectory", "--out", "x.png"], "--trajectory is written as .npz"),
        (["sample", "nowhere", "-n", "9", "--seeds", "0-3"], "--seeds sets the number of samples"),
        (["sample", "nowhere", "--seeds", "0-3", "--seed", "5"], "got --seed too; leave it out"),
        (["sample", "nowhere", "--number=-3"], "--number"),
        (["sample", "nowhere", "--batch-size", "0"], "--batch-size"),
        (["train", "--data", "ring", "--out", "x", "--monitor-every=-1"], "--monitor-every"),
        (["train", "--data", "ring", "--out", "x", "--save-every", "0"], "--save-every"),
        (["info", "nowhere", "--weightings"], "--weightings shows a table of its own, got nowhere too"),
        (["calibrate", "nowhere", "--noises", "0"], "--noises"),
        (["calibrate", "nowhere"], "there must be a checkpoint at nowhere"),
        (["calibrate", "nowhere", "--sampler", "Adam()"], "did you mean Adams?"),
        (["compare", "--data", "ring", "--out", "x", "--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["compare", "--data", "ring", "--out", "x", "--sampler", "DDPN()"], "did you mean DDPM?"),
    ],
)
def test_a_wrong_option_is_answered_in_a_sentence_and_leaves_no_file(
    arguments: list[str], answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.exit_code == 2
    assert answer in one_line(result)
    assert "Traceback" not in one_line(result)
    assert list(tmp_path.iterdir()) == []


def test_settings_are_parsed_and_never_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text in ("__import__('os').mkdir('owned')", "[].__class__", "MLP(width=2**9)", "(lambda: 1)()"):
        for option in ("--weighting", "--network", "--timesteps"):
            result = run("train", "--data", "ring", "--out", "x", option, text)
            assert result.exit_code == 2
            assert isinstance(result.exception, SystemExit)
    assert list(tmp_path.iterdir()) == []


class Bomb:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("owned",)


@pytest.mark.parametrize("command", ["sample", "likelihood", "info"])
def test_a_pickle_in_place_of_a_checkpoint_is_never_opened(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.pt").write_bytes(pickle.dumps(Bomb()))
    result = run(command, "model.pt")
    assert result.exit_code == 2
    assert "was not opened, since pickles can run code" in one_line(result)
    assert not Path("owned").exists()


def test_a_damaged_checkpoint_gives_exit_code_one(digits: Path, tmp_path: Path) -> None:
    newest = sorted(digits.glob("checkpoint-*"))[-1]
    copy = tmp_path / newest.name
    copy.mkdir()
    for file in newest.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    weights = bytearray((copy / "ema.safetensors").read_bytes())
    weights[-1] ^= 1
    (copy / "ema.safetensors").write_bytes(weights)
    result = run("sample", tmp_path)
    assert result.exit_code == 1
    assert "does not match its checksum" in one_line(result)


def test_a_missing_optional_package_is_reported_in_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise ModuleNotFoundError("x is read by y, which is missing; pip install 'scoresde[y]'.")

    with pytest.raises(typer.Exit) as ended:
        report_errors(command)()
    assert ended.value.exit_code == 2
    assert "error: x is read by y" in capsys.readouterr().err


def test_an_impossible_output_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for command in ("sample", "likelihood"):
        ending = "npz" if command == "sample" else "csv"
        shown = run(command, str(tmp_path / "no checkpoint"), "--out", str(tmp_path / "file" / f"values.{ending}"))
        assert shown.exit_code == 1
        assert "needs a folder to write to" in " ".join(shown.output.split())


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody may write")
def test_a_folder_without_write_permission_is_refused_before_any_work(tmp_path: Path) -> None:
    for command, option, name in (("sample", "--out", "x.npz"), ("likelihood", "--plot", "x.png")):
        shown = run(command, tmp_path / "no checkpoint", option, f"/proc/self/{name}")
        assert shown.exit_code == 1
        assert f"{option} needs a folder to write to, /proc/self is not one" in one_line(shown)


@pytest.mark.parametrize(
    ("command", "name", "writer"),
    [
        (("sample", "-n", 2, "--sampler", "DDIM(steps=2)"), "x.npz", "numpy.savez_compressed"),
        (("sample", "-n", 2, "--sampler", "DDIM(steps=2)"), "x.png", "scoresde.plots.image_grid.save_image_grid"),
        (("likelihood", "--limit", 2, "--nodes", 8), "x.csv", "csv.writer"),
        (("likelihood", "--limit", 2, "--nodes", 8), "x.png", "scoresde.plots.histogram.save_histogram"),
    ],
)
def test_a_failed_write_leaves_the_earlier_output_unchanged(
    command: tuple, name: str, writer: str, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(place: object, *_: object, **__: object) -> None:
        if isinstance(place, Path):
            place.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    out = tmp_path / name
    out.write_text("earlier")
    monkeypatch.setattr(writer, full)
    option = "--plot" if command[0] == "likelihood" and name == "x.png" else "--out"
    failed = run(command[0], digits, *command[1:], option, out, "-q")
    assert failed.exit_code == 1
    assert f"{out} must be writable, got: {os.strerror(errno.ENOSPC)}; free some space" in one_line(failed)
    assert out.read_text() == "earlier"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.EACCES, os.strerror(errno.EACCES), "x.npy"), "got: Permission denied: 'x.npy'; check its path"),
        (OSError(errno.ENOSPC, "a file must be writable, got: [Errno 28] full; free it."), "error: a file must be"),
    ],
)
def test_system_errors_are_sentences(error: OSError, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        raise error

    with pytest.raises(typer.Exit):
        report_errors(command)()
    text = " ".join(capsys.readouterr().err.split())
    assert expected in text
    assert "Errno" not in text


def test_images_of_unequal_sizes_are_answered_by_options_of_the_command(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for index, size in enumerate(((20, 30), (20, 40))):
        Image.new("RGB", size).save(tmp_path / "photos" / f"{index}.png")
    result = run("train", "--data", tmp_path / "photos", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "pass --read size=20 to scale and crop them, --read channels=3 or 1 to make" in one_line(result)


def test_compare_has_its_own_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    def compare() -> None:
        raise ValueError("it has lr = 1. Use those, or start a new run in another run_dir.")

    with pytest.raises(typer.Exit):
        report_errors(compare)()
    assert "Use those, or train again by --fresh, or in another --out." in " ".join(capsys.readouterr().err.split())


@pytest.mark.skipif(os.name == "nt", reason="pipes break otherwise there")
def test_a_closed_pipe_is_not_an_error() -> None:
    read, write = os.pipe()
    os.close(read)
    ended = subprocess.run(
        [sys.executable, "-m", "scoresde", "info", "--weightings"],
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
        text=True,
    )
    os.close(write)
    assert ended.stderr == ""


def test_characters_that_the_terminal_lacks_are_not_an_error() -> None:
    program = [sys.executable, "-m", "scoresde"]
    for words_of in (("train", "--help"), ("info", "--weightings")):
        ended = subprocess.run(
            [*program, *words_of], capture_output=True, check=False, env={**os.environ, "PYTHONIOENCODING": "latin-1"}
        )
        assert ended.returncode == 0, ended.stderr
        assert b"?" in ended.stdout


@pytest.mark.filterwarnings("default::UserWarning")
def test_warnings_and_errors_name_options_of_the_command(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal([0, 50], [1, 900], (40, 2))
    np.save(tmp_path / "a.npy", rows)
    result = run(
        "train", "--data", tmp_path / "a.npy", "--read", "per_feature=true", "--steps", 0, "--out", tmp_path / "x"
    )
    assert result.exit_code == 0, result.output
    result = run(
        "train", "--data", tmp_path / "a.npy", "--read", "per_feature=1", "--steps", 0, "--out", tmp_path / "y"
    )
    assert "per_feature must be True or False, got 1; pass one of the two." in one_line(result)
    result = run("train", "--data", tmp_path / "a.npy", "--steps", 0, "--out", tmp_path / "z")
    assert "Pass --read per_feature=True to confirm this" in one_line(result)
    (tmp_path / "t.csv").write_text("a,b\n" + "".join(f"{i % 3},{i % 7}\n" for i in range(40)))
    twice = ("--read", "columns=a,b", "--condition", "b")
    result = run("train", "--data", tmp_path / "t.csv", *twice, "--steps", 0, "--out", tmp_path / "w")
    assert "name it in --read columns= or in --condition." in one_line(result)


@pytest.mark.parametrize(("name", "remedy"), [("label", "pass --label 3, or"), ("kind", "pass --condition kind=VALUE")])
def test_a_class_that_must_be_given_is_asked_for_by_an_option_of_the_command(
    name: str, remedy: str, tmp_path: Path
) -> None:
    conditions = {name: Classes(10, null=False)}
    save(sd.ScoreModel(sd.MLP((2,), 8, 1, conditions=conditions), sd.VPSDE(), event_shape=(2,)), tmp_path / "run")
    result = run("sample", tmp_path / "run", "-n", 2, "-q")
    assert result.exit_code == 2
    assert remedy in one_line(result)
    assert "--read" not in one_line(result)
