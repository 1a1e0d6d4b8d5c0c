"""A run that is interrupted at any instant and resumed ends bit for bit as one that was not interrupted."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess as Process
from pathlib import Path

import digits_run
import pytest
import torch

from scoresde.storage import checkpoint

KILLS = int(os.environ.get("SCORESDE_KILLS", "20"))
STEPS = 300
HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a forkserver")


def assert_same_run(one: Path, two: Path) -> None:
    """Compares state, history, snapshots and metrics of two runs after their last update."""
    a, b = checkpoint.read_checkpoint(one), checkpoint.read_checkpoint(two)
    assert a.tensors.keys() == b.tensors.keys()
    assert {"model", "ema", "optimizer", "timesteps", "average_0", "average_1"} <= a.tensors.keys()
    for group, named in a.tensors.items():
        for name, tensor in named.items():
            assert torch.equal(tensor, b.tensors[group][name]), f"{group} {name}"
    for name in ("step", "history", "optimizer", "running_means"):
        assert a.meta[name] == b.meta[name], name
    snapshots = [sorted(p.name for p in (run / "averages").iterdir()) for run in (one, two)]
    assert snapshots[0] == snapshots[1]
    for name in snapshots[0]:
        own, other = (checkpoint.read_checkpoint(run / "averages" / name).tensors for run in (one, two))
        assert all(torch.equal(v, other[g][k]) for g, named in own.items() for k, v in named.items()), name
    lines = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (one, two)]
    numbers = [
        [{k: v for k, v in row.items() if k not in ("seconds", "steps_per_second", "seconds_left")} for row in rows]
        for rows in lines
    ]
    assert numbers[0] == numbers[1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption."""
    path = tmp_path_factory.mktemp("whole") / "run"
    digits_run.run(str(path), "--steps", str(STEPS), "--save-every", "1000")
    return path


@pytest.fixture(scope="module")
def started() -> Iterator[Callable[..., Process]]:
    """Starts the run in a new process within milliseconds: a forkserver has imported its modules."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["digits_run"])
    processes = []

    def start(*arguments: str) -> Process:
        ready = context.Event()
        process = context.Process(target=digits_run.run, args=arguments, kwargs={"ready": ready})
        process.start()
        processes.append(process)
        assert ready.wait(60)
        return process

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parent)]))  # the import path of the server
        yield start
        for process in processes:
            process.kill()
            process.join()


def kill_repeatedly(started: Callable[..., Process], path: Path, kills: int, seed: int) -> tuple[list[int], int]:
    """Kills a run ``kills`` times, each time after some updates and a random delay, and resumes it.

    Returns:
        The steps of its newest checkpoints, and the number of kills during a save.
    """
    wait, reached, in_saves = random.Random(seed), [], 0
    arguments = [str(path), "--steps", str(STEPS), "--save-every", "1"]
    for _ in range(kills):
        start = newest(path)
        process = started(*arguments, *(["--resume"] if start else []))
        more = wait.randint(0, max(STEPS // kills - 2, 1))
        while newest(path) < start + more and process.is_alive():
            time.sleep(0.001)
        time.sleep(wait.uniform(0.0, 0.05))
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
        in_saves += any(path.glob(".saving-*/"))
        if any(path.glob("checkpoint-*")):
            reached.append(checkpoint.read_checkpoint(checkpoint.latest_checkpoint(path)).meta["step"])
    return reached, in_saves


def newest(path: Path) -> int:
    """The number of the newest checkpoint; 0 without one."""
    return max((int(folder.name.split("-")[1]) for folder in path.glob("checkpoint-*")), default=0)


def wait_for_start(path: Path, after: str = "") -> None:
    """Waits for the first checkpoint, or for one whose name comes ``after`` another's."""
    for _ in range(6000):
        if any(folder.name > after for folder in path.glob("checkpoint-*")):
            return
        time.sleep(0.01)
    pytest.fail("the run did not start within a minute")


@pytest.mark.slow
def test_a_run_killed_at_random_moments_even_in_saves_ends_as_one_that_was_not(tmp_path, whole, started):
    reached, in_saves = kill_repeatedly(started, tmp_path / "run", KILLS, seed=5)
    print(f"{KILLS} kills, {in_saves} of them in a save; checkpoints at {reached}")
    assert reached == sorted(reached)
    assert len(set(reached)) > KILLS // 4
    digits_run.run(str(tmp_path / "run"), "--steps", str(STEPS), "--save-every", "50", "--resume")
    assert_same_run(whole, tmp_path / "run")
    assert not list((tmp_path / "run").glob(".saving-*/"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_ctrl_c_and_sigterm_save_after_the_current_update_and_the_run_can_be_resumed(tmp_path, number, started):
    arguments = (str(tmp_path / "run"), "--steps", "60", "--save-every", "1000")
    process = started(*arguments, "--pause", "0.05")
    wait_for_start(tmp_path / "run")
    time.sleep(0.5)
    os.kill(process.pid or 0, number)
    process.join(60)
    assert process.exitcode == (1 if number == signal.SIGINT else 128 + signal.SIGTERM)
    assert 0 < checkpoint.read_checkpoint(tmp_path / "run").meta["step"] < 60
    digits_run.run(*arguments, "--resume")
    digits_run.run(str(tmp_path / "other"), *arguments[1:])
    assert_same_run(tmp_path / "other", tmp_path / "run")


def test_a_second_process_is_refused_while_the_first_trains(tmp_path, started):
    arguments = (str(tmp_path / "run"), "--steps", "60", "--save-every", "1000")
    process = started(*arguments, "--pause", "0.2")
    try:
        wait_for_start(tmp_path / "run")
        with pytest.raises(RuntimeError, match="a run directory has one writer"):
            digits_run.run(*arguments, "--resume")
        with pytest.raises(FileExistsError, match="a new run needs a directory without checkpoints"):
            digits_run.run(*arguments)
    finally:
        process.kill()
        process.join()
    digits_run.run(str(tmp_path / "run"), "--steps", "60", "--resume")  # the system has released the lock


def test_incomplete_lines_and_lines_after_the_checkpoint_are_dropped_when_a_run_is_resumed(tmp_path):
    arguments = (str(tmp_path / "run"), "--steps", "60")
    digits_run.run(*arguments)
    metrics = tmp_path / "run" / "metrics.jsonl"
    before = metrics.read_text()
    with metrics.open("a") as file:
        file.write('{"step": 80, "loss": 1.0}\n{"step": 60, "lo')
    digits_run.run(*arguments, "--resume")
    assert metrics.read_text() == before
