"""Several processes, started by accelerate's launcher: they do what one does, fail together, and never hang."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import digits_run
import psutil
import pytest
import torch
from test_resume import same, until_begun

from scoresde.storage import checkpoint

pytestmark = pytest.mark.slow

STEPS = 50


PIECES = ("--use_fsdp", "--fsdp_version", "2")


def command(processes: int, *words: str, how: tuple[str, ...]) -> list[str]:
    """The launcher's command line."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *how, "--num_machines", "1"]
    options = ["--num_processes", str(processes), "--main_process_port", str(port), "--mixed_precision", "no"]
    program = Path(__file__).with_name("digits_run.py")
    return [*launch, *options, "--dynamo_backend", "no", str(program), *words]


@contextmanager
def launched(processes: int, *words: str, how: tuple[str, ...] = ("--multi_gpu",)) -> Iterator[subprocess.Popen[str]]:
    """The launcher (whose word for several processes is ``--multi_gpu``, also on the CPU); nothing of it is left."""
    here = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": here, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command(processes, *words, how=how), env=environment, text=True, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        yield process
    finally:
        kill(process)
        if process.stderr is not None:
            process.stderr.close()


def kill(process: subprocess.Popen[str]) -> None:
    """Signal 9 to the launcher and to all that it has started."""
    if process.poll() is None:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()
        psutil.wait_procs(family, timeout=60)


def finished(processes: int, *words: str, how: tuple[str, ...] = ("--multi_gpu",)) -> None:
    with launched(processes, *words, how=how) as process:
        _, error = process.communicate(timeout=180)
        assert process.returncode == 0, error


def near(one: Path, two: Path) -> float:
    """The largest difference between two runs' tensors, histories included; of numbers above 1 the relative one."""
    a, b = checkpoint.read_checkpoint(one), checkpoint.read_checkpoint(two)
    assert a.tensors.keys() == b.tensors.keys()
    assert a.meta["step"] == b.meta["step"]
    gaps = [
        ((v - b.tensors[g][k]).abs() / v.abs().clamp(min=1.0)).max().item()
        for g, named in a.tensors.items()
        for k, v in named.items()
    ]
    gaps += [abs(x - y) for (_, x), (_, y) in zip(a.meta["history"], b.meta["history"], strict=True)]
    return max(gaps)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two processes, not stopped."""
    path = tmp_path_factory.mktemp("two") / "run"
    finished(2, str(path), "--double", "--steps", str(STEPS), "--save-every", "20")
    return path


def test_two_processes_give_the_loss_and_the_weights_of_one(tmp_path, two):
    digits_run.run(str(tmp_path / "one"), "--double", "--steps", str(STEPS), "--accumulate", "2")
    assert len(digits_run.DIGITS.train) < STEPS * 48, "the batch that ends an epoch is among them"
    assert len(digits_run.DIGITS.train) % 48
    gap = near(tmp_path / "one", two)
    print(f"two processes and one, float64, {STEPS} updates: {gap:.1e}")
    assert gap < 1e-9


def test_three_processes_give_the_loss_and_the_weights_of_one(tmp_path):
    finished(3, str(tmp_path / "three"), "--double", "--steps", str(STEPS))
    digits_run.run(str(tmp_path / "one"), "--double", "--steps", str(STEPS), "--accumulate", "3")
    gap = near(tmp_path / "one", tmp_path / "three")
    print(f"three processes and one, float64, {STEPS} updates: {gap:.1e}")
    assert gap < 1e-9


def test_two_processes_turn_matrices_as_one_does(tmp_path):
    words = ("--double", "--steps", str(STEPS), "--optimizer", "muon")
    finished(2, str(tmp_path / "two"), *words)
    digits_run.run(str(tmp_path / "one"), *words, "--accumulate", "2")
    gap = near(tmp_path / "one", tmp_path / "two")
    print(f"two processes and one, Muon, float64, {STEPS} updates: {gap:.1e}")
    assert gap < 1e-9


def test_muon_refuses_a_network_in_pieces(tmp_path):
    with launched(2, str(tmp_path / "run"), "--optimizer", "muon", how=PIECES) as process:
        _, error = process.communicate(timeout=180)
    assert process.returncode != 0
    assert "Muon needs whole matrices, got a network in pieces (FSDP)" in error


def test_a_network_in_three_uneven_pieces_is_trained_saved_and_resumed_as_a_whole_one(tmp_path):
    words = (str(tmp_path / "pieces"), "--double", "--pause", "0.001")  # with a callback, which sees it whole
    finished(3, *words, "--steps", "20", how=PIECES)
    finished(3, *words, "--steps", str(STEPS), "--resume", how=PIECES)
    digits_run.run(str(tmp_path / "one"), "--double", "--steps", str(STEPS), "--accumulate", "3")
    gap = near(tmp_path / "one", tmp_path / "pieces")
    print(f"three pieces and a whole, float64, {STEPS} updates: {gap:.1e}")
    assert gap < 1e-9
    assert checkpoint.load(tmp_path / "pieces", average=0.08).net.training is False


def test_two_processes_killed_all_at_once_or_one_alone_go_on_bit_for_bit(tmp_path, two):
    words = (str(tmp_path / "run"), "--double", "--steps", str(STEPS), "--save-every", "1")
    wait, reached = random.Random(3), [0]
    for alone in (False, True):
        last = checkpoint.read_checkpoint(tmp_path / "run").path.name if reached[-1] else "checkpoint-000001"
        with launched(2, *words, "--pause", "0.1", *(["--resume"] if reached[-1] else [])) as process:
            until_begun(tmp_path / "run", after=last)
            time.sleep(wait.uniform(0.2, 0.8))
            workers = psutil.Process(process.pid).children()
            assert len(workers) == 2
            if alone:
                workers[1].kill()  # the launcher ends the other
            else:
                kill(process)
            process.wait(timeout=60)
            psutil.wait_procs(workers, timeout=60)
        reached.append(checkpoint.read_checkpoint(checkpoint.latest_checkpoint(tmp_path / "run")).meta["step"])
    print(f"killed at {reached[1:]}")
    assert reached[0] < reached[1] < reached[2] < STEPS
    finished(2, *words, "--resume")
    same(two, tmp_path / "run")


def test_what_fails_in_the_main_process_ends_all_at_once_with_its_message(tmp_path):
    with launched(2, str(tmp_path / "run"), "--die", "5", "--save-every", "4") as process:
        began = time.monotonic()
        _, error = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "a callback must not fail, this one did" in error
    assert "all processes must go on together, process 0 failed" in error
    assert time.monotonic() - began < 60
    assert checkpoint.read_checkpoint(tmp_path / "run").meta["step"] == 4


def test_ctrl_c_reaches_all_processes_and_one_process_can_go_on_for_them(tmp_path, two):
    words = (str(tmp_path / "run"), "--double", "--steps", str(STEPS), "--save-every", "1000")
    with launched(2, *words, "--pause", "0.05") as process:
        until_begun(tmp_path / "run")
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert checkpoint.read_checkpoint(tmp_path / "run").meta["step"] in (20, 40)  # they ask each other every 20 updates
    digits_run.run(*words, "--resume", "--accumulate", "2")
    assert near(two, tmp_path / "run") < 1e-9


def test_no_line_of_metrics_is_written_twice(two):
    steps = [json.loads(line)["step"] for line in (two / "metrics.jsonl").read_text().splitlines()]
    assert steps == [20, 40, 50]
    assert torch.isfinite(torch.tensor([point[1] for point in checkpoint.read_checkpoint(two).meta["history"]])).all()
