"""Every command of a page runs here in small, is run by another part of CI, or says beside it that it is not run."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import run
from page_commands import PAGES, ROOT, Command, commands, small
from PIL import Image
from sklearn.datasets import load_digits

FOLDER_OF_DIFFUSERS = ROOT / "tests/bridges/models/diffusers/linear"
# Runs that a page takes for granted.
RUNS = {
    "runs/digits": ("digits", "--condition", "label"),
    "runs/classes": ("digits", "--condition", "label"),
    "runs/faces": ("faces.npy", "--bins", "256", "--lengths", "0.02,0.05"),
    "runs/customers": ("customers.csv",),
    "runs/iris": ("customers.csv",),
    "runs/text": ("book.txt", "--read", "length=16"),
    "runs/ring": ("ring", "--lengths", "0.05,0.1"),
    "runs/x": ("customers.csv",),
    "runs/series": ("series.npy",),
    "runs/mine": ("my-images",),
    "RUN": ("book.txt", "--read", "length=16"),
    "runs/book": ("book.txt", "--read", "length=16"),
}
# Files that a page means otherwise than the others do: its name, and that of the file it stands for.
OTHER_FILES = {"data.md": ("new.csv", "customers.csv")}
CI = (ROOT / ".ci/run").read_text() + (ROOT / ".github/workflows/ci.yml").read_text()


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the pages name."""
    folder, rng = tmp_path_factory.mktemp("pages"), np.random.default_rng(0)
    for name, missing in (("customers", 0.0), ("new", 0.1), ("table", 0.0), ("incomplete", 0.1), ("patients", 0.0)):
        rows = [[f"{rng.integers(20, 70)}", f"{rng.normal():.3f}", "xyz"[rng.integers(3)]] for _ in range(120)]
        cells = [["" if rng.random() < missing else cell for cell in row] for row in rows]
        (folder / f"{name}.csv").write_text("\n".join(["age,income,kind", *map(",".join, cells)]))
    shutil.copy(folder / "customers.csv", folder / "people.csv")
    rows = [f"{20 + i % 40},{('Rome', 'Oslo')[i % 2]},{rng.normal():.2f},{i % 5}" for i in range(40)]
    (folder / "income.csv").write_text("\n".join(["age,city,income,visits", *rows]))
    (folder / "book.txt").write_text("one fish two fish red fish blue fish " * 40)
    (folder / "other.txt").write_text("two fish one fish blue fish red fish " * 10)
    np.save(folder / "genes.npy", rng.integers(0, 4, (60, 12)))
    faces = rng.integers(0, 256, (60, 3, 8, 8), dtype=np.uint8)
    np.save(folder / "faces.npy", faces)
    np.save(folder / "mine.npy", faces)
    series = rng.normal(size=(60, 2, 12))
    np.save(folder / "series.npy", series)
    np.save(folder / "past.npy", np.where(np.arange(12) < 8, series[:2], np.nan))
    np.savez(folder / "captions.npz", x=faces, text=rng.normal(size=(60, 5, 4)))
    np.savez(folder / "texts.npz", text=rng.normal(size=(10, 5, 4)))
    values = np.asarray(load_digits(return_X_y=True)[0])[:170].reshape(-1, 8, 8)
    digits = (values * (255 / 16)).round().astype(np.uint8)  # what the diffusers folder has learned
    photos = rng.integers(0, 256, (170, 16, 16, 3), dtype=np.uint8)
    for name, images in (("photos", photos), ("my-images", digits), ("images", digits)):
        (folder / name).mkdir()
        for index, image in enumerate(images):
            Image.fromarray(image).save(folder / name / f"{index}.png")
    for name in ("image", "mask"):
        Image.fromarray(rng.integers(0, 2, (8, 8), dtype=np.uint8) * 255).save(folder / f"{name}.png")
    for name in ("my-pipeline", "my-diffusers-folder"):
        shutil.copytree(FOLDER_OF_DIFFUSERS, folder / name)
    shutil.copytree(ROOT / "examples/fashion-mnist", folder / "examples/fashion-mnist")
    return folder


@pytest.fixture(scope="session")
def compared() -> set[tuple[str, ...]]:
    """Options and data of the comparisons that ran; no other command reads what they write."""
    return set()


def execute(command: Command, compared: set[tuple[str, ...]]) -> None:
    """Runs a ``scoresde`` command with few steps; first trains the run that it reads, if no command before it did."""
    words = small(command.words[1:])
    reads = next((word for word in words[1:] if word in RUNS), None)
    out = words.index("--out") + 1 if "--out" in words else None
    if words[0] == "compare" and out:
        settings = tuple(sorted({word for word in words if word.startswith("--")} | {words[words.index("--data") + 1]}))
        if settings in compared:
            return
        compared.add(settings)
    if reads and not Path(reads).exists() and reads != (out and words[out]):
        prepare = small(["train", "--out", reads, "--data", *RUNS[reads]])
        prepared = run(*prepare)
        assert prepared.exit_code == 0, f"{' '.join(prepare)}\n{prepared.output}{prepared.stderr}"
    result = run(*words)
    fails_a_check = words[0] in ("verify", "open") and result.exit_code == 1 and "error:" not in result.stderr
    assert result.exit_code == 0 or fails_a_check, f"line {command.line}: {' '.join(words)}\n{result.output}"
    assert out is None or Path(words[out]).exists(), f"line {command.line}: {words[out]} was not written"


@pytest.mark.filterwarnings("ignore:the condition")  # the runs here have labels
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_run_from_top_to_bottom(
    page: Path, files: Path, compared: set[tuple[str, ...]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = [c for c in commands(page) if c.words[0] == "scoresde" and len(c.words) > 2 and not c.marked]
    here = [command for command in here if command.words[1] != "watch"]  # served until stopped: test_watch.py
    here = [c for c in here if c.words[1] != "train" or "--out" in c.words]  # others are parts of a sentence
    if not here:
        return
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    if page.name in OTHER_FILES:
        name, source = OTHER_FILES[page.name]
        shutil.copy(source, name)
    for command in here:
        execute(command, compared)


def chosen(program: str) -> list[tuple[str, Command]]:
    """The commands of a program on all pages, with the page."""
    found = [(str(page.relative_to(ROOT)), command) for page in PAGES for command in commands(page)]
    return [
        (page, command) for page, command in found if command.words[0] == program and command.words[1:] != ["launch"]
    ]


@pytest.mark.slow
def test_the_commands_for_several_processes_on_a_cpu_run(
    files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu = [command for _, command in chosen("accelerate") if command.text.startswith("ACCELERATE_USE_CPU=true")]
    assert len(on_cpu) == 2
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    for command in on_cpu:
        start, inner = command.words[2:], command.words.index("scoresde") + 1
        launcher = [*start[: inner - 4], "--num_machines", "1", "--main_process_port", port, "--mixed_precision", "no"]
        words = [sys.executable, "-m", "accelerate.commands.launch", *launcher, "--dynamo_backend", "no"]
        words += ["-m", "scoresde", *small(command.words[inner:])]
        done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"line {command.line}: {' '.join(words)}\n{done.stdout}{done.stderr}"
    assert Path("grid.png").exists()


def test_other_commands_for_several_processes_need_gpus_and_say_so() -> None:
    others = [(page, c) for page, c in chosen("accelerate") if not c.text.startswith("ACCELERATE_USE_CPU=true")]
    assert len(others) > 3
    assert [(page, c.line) for page, c in others if not c.marked] == []


def test_make_has_every_target_of_a_page_and_ci_runs_it_or_the_page_says_not() -> None:
    makefile = (ROOT / "Makefile").read_text()
    stages = " ".join(re.findall(r"^(?:stage|both) (.+)$", CI, re.MULTILINE)).split()
    run_by_ci = {*stages, *re.findall(r"make ([a-z-]+)", CI)} | {"demo"}  # demo: the README's command, small, above
    found = chosen("make")
    assert len(found) > 10
    for page, command in found:
        for target in (word for word in command.words[1:] if "=" not in word):
            assert re.search(rf"^[a-z -]*\b{target}\b[a-z -]*:", makefile, re.MULTILINE), (page, command)
            assert target in run_by_ci or command.marked, (page, command)


def test_the_programs_of_a_page_exist_with_their_options_and_ci_runs_them_or_the_page_says_not() -> None:
    found = chosen("python")
    assert len(found) > 15
    for page, command in found:
        source = (ROOT / command.words[1]).read_text(encoding="utf-8")
        for option in (word for word in command.words[2:] if word.startswith("--") and word != "--help"):
            name = option.removeprefix("--").replace("-", "_")
            assert f'"{option}"' in source or re.search(rf"^    {name}: Annotated", source, re.MULTILINE), (
                page,
                command,
            )
        run_by_ci = command.words[1].startswith("examples/")  # make examples, with --quick
        run_by_ci |= command.words[1:] == ["tests/gpu_check.py", "--rehearse"]  # test_gpu_check.py
        assert run_by_ci or command.marked, (page, command)


def test_the_extras_of_a_page_exist_and_ci_installs_them_or_the_page_says_not() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = dict(re.findall(r"^(\w+) = \[(.*?)\]$", project, re.MULTILINE | re.DOTALL))
    installed = [*re.findall(r"\w+", re.findall(r"scoresde\[([\w,]+)\]", extras["test"])[0]), "peft"]
    found = [(page, c, extra) for page, c in chosen("pip") for extra in re.findall(r"\[(\w+)\]", c.text)]
    assert len(found) > 5
    for page, command, extra in found:
        assert extra in extras, (page, command)
        assert extra in installed or command.marked, (page, command)
