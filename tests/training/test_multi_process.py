"""Several processes train as one does, fail together, and never hang.

Where how they are started and ended is what is tested, accelerate's launcher starts them. Elsewhere a server forks them
with the environment that the launcher would give them: importing torch anew in every process takes most of the time.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path

import digits_run
import psutil
import pytest
import torch
from accelerate.commands.launch import launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from test_resume import assert_same_run, wait_for_start

from scoresde.storage import checkpoint

pytestmark = pytest.mark.slow

STEPS = 50


FSDP = ("--use_fsdp", "--fsdp_version", "2")
shards = pytest.mark.skipif(
    not hasattr(torch.cpu.Stream, "record_event"), reason="this torch shards no network on the CPU"
)


def command(processes: int, *arguments: str, launcher: tuple[str, ...]) -> list[str]:
    """The launcher's command line."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    launch = [sys.executable, "-m", "accelerate.commands.launch", *launcher, "--num_machines", "1"]
    options = ["--num_processes", str(processes), "--main_process_port", str(port), "--mixed_precision", "no"]
    program = Path(__file__).with_name("digits_run.py")
    return [*launch, *options, "--dynamo_backend", "no", str(program), *arguments]


@contextmanager
def launched(
    processes: int, *arguments: str, launcher: tuple[str, ...] = ("--multi_gpu",)
) -> Iterator[subprocess.Popen[str]]:
    """A run of the launcher, killed at the end; ``--multi_gpu`` means several processes, also on the CPU."""
    here = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": here, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command(processes, *arguments, launcher=launcher),
        env=environment,
        text=True,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        kill(process)
        if process.stderr is not None:
            process.stderr.close()


def kill(process: subprocess.Popen[str]) -> None:
    """Kills the launcher and its child processes."""
    if process.poll() is None:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for member in family:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait()
        psutil.wait_procs(family, timeout=60)


def member(environment: dict[str, str], arguments: tuple[str, ...], errors: Connection) -> None:
    """One process of a group, in a fork: trains, and sends the traceback of a failure."""
    os.environ.update(environment)
    try:
        digits_run.run(*arguments)
    except Exception:
        errors.send(traceback.format_exc())
        os._exit(1)
    atexit._run_exitfuncs()  # as an interpreter does at its end, and a fork does not
    digits_run.check_group_was_left()


def forked(processes: int, *arguments: str, launcher: tuple[str, ...] = ("--multi_gpu",)) -> list[str]:
    """Runs a group of processes to its end, or to the end of the first that fails.

    Returns:
        The tracebacks of those that failed.
    """
    launch = launch_command_parser().parse_args(command(processes, *arguments, launcher=launcher)[3:])
    given = prepare_multi_gpu_env(launch)
    environment = {name: value for name, value in given.items() if os.environ.get(name) != value}
    environment |= {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment |= {"WORLD_SIZE": str(processes), "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1"}
    environment |= {"MASTER_PORT": str(launch.main_process_port)}
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["digits_run", "torch.distributed.fsdp", "torch.distributed.checkpoint.state_dict"])
    ends = [context.Pipe(duplex=False) for _ in range(processes)]
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(processes)]
    group = [
        context.Process(target=member, args=(environment | own, arguments, end))
        for own, (_, end) in zip(ranks, ends, strict=True)
    ]
    here = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", here)  # the import path of the server
        for process in group:
            process.start()
    try:
        stop = time.monotonic() + 180
        while any(process.is_alive() for process in group) and not any(process.exitcode for process in group):
            assert time.monotonic() < stop, "the processes must end within 180 seconds"
            wait([process.sentinel for process in group if process.is_alive()], timeout=1)
        if any(process.exitcode for process in group):
            wait([process.sentinel for process in group], timeout=1)  # the others may fail for the same reason
        failed = [end.recv() for end, _ in ends if end.poll()]
        assert failed or not any(process.exitcode for process in group), [process.exitcode for process in group]
        return failed
    finally:
        for process in group:
            process.kill()
            process.join()


def run_to_the_end(processes: int, *arguments: str, launcher: tuple[str, ...] = ("--multi_gpu",)) -> None:
    failed = forked(processes, *arguments, launcher=launcher)
    assert not failed, failed[0]


def largest_difference(one: Path, two: Path) -> float:
    """The largest difference between two runs' tensors and histories, relative for numbers above 1."""
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
    """A run of two processes without interruption."""
    path = tmp_path_factory.mktemp("two") / "run"
    with launched(2, str(path), "--double", "--steps", str(STEPS), "--save-every", "20") as process:
        _, error = process.communicate(timeout=180)
        assert process.returncode == 0, error
    return path


def test_two_processes_give_the_loss_and_the_weights_of_one(tmp_path, two):
    digits_run.run(str(tmp_path / "one"), "--double", "--steps", str(STEPS), "--accumulate", "2")
    assert len(digits_run.DIGITS.train) < STEPS * 48, "some batch contains the end of an epoch"
    assert len(digits_run.DIGITS.train) % 48
    gap = largest_difference(tmp_path / "one", two)
    print(f"two processes and one, float64, {STEPS} updates: {gap:.1e}")
    assert gap < 1e-9


def test_two_processes_give_the_weights_of_one_on_data_with_missing_values(tmp_path):
    run_to_the_end(2, str(tmp_path / "two"), "--double", "--missing", "--steps", "20")
    digits_run.run(str(tmp_path / "one"), "--double", "--missing", "--steps", "20", "--accumulate", "2")
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 1e-9


@pytest.mark.parametrize("launcher", [("--multi_gpu",), pytest.param(FSDP, marks=shards)], ids=["ddp", "fsdp"])
def test_two_processes_agree_on_the_updates_that_fit_a_time(tmp_path, launcher):
    minutes = ("--minutes", "0.3", "--pace", "0.1", "--save-every", "1000")
    run_to_the_end(2, str(tmp_path / "two"), "--double", *minutes, launcher=launcher)
    count = checkpoint.read_checkpoint(tmp_path / "two").meta["step"]
    assert count >= 20
    settings = digits_run.settings(60, 2).fitted(count)
    options = {"run_dir": tmp_path / "one", "snapshot_every": 7}
    digits_run.train(digits_run.model(torch.float64), digits_run.DIGITS, settings, **options)
    assert largest_difference(tmp_path / "one", tmp_path / "two") < 1e-9


def test_three_processes_give_the_loss_and_the_weights_of_one(tmp_path):
    run_to_the_end(3, str(tmp_path / "three"), "--double", "--steps", str(STEPS))
    digits_run.run(str(tmp_path / "one"), "--double", "--steps", str(STEPS), "--accumulate", "3")
    gap = largest_difference(tmp_path / "one", tmp_path / "three")
    print(f"three processes and one, float64, {STEPS} updates: {gap:.1e}")
    assert gap < 1e-9


def test_two_processes_give_muons_weights_of_one(tmp_path):
    arguments = ("--double", "--steps", str(STEPS), "--optimizer", "muon")
    run_to_the_end(2, str(tmp_path / "two"), *arguments)
    digits_run.run(str(tmp_path / "one"), *arguments, "--accumulate", "2")
    gap = largest_difference(tmp_path / "one", tmp_path / "two")
    print(f"two processes and one, Muon, float64, {STEPS} updates: {gap:.1e}")
    assert gap < 1e-9


def test_muon_refuses_a_sharded_network(tmp_path):
    failed = forked(2, str(tmp_path / "run"), "--optimizer", "muon", launcher=FSDP)
    assert "Muon needs whole matrices, got a sharded network (FSDP)" in failed[0]


@shards
def test_a_network_in_three_uneven_shards_is_trained_saved_and_resumed_as_a_whole_one(tmp_path):
    arguments = (
        str(tmp_path / "sharded"),
        "--double",
        "--pause",
        "0.001",
    )  # with a callback, which gets the whole network
    run_to_the_end(3, *arguments, "--steps", "20", launcher=FSDP)
    run_to_the_end(3, *arguments, "--steps", str(STEPS), "--resume", launcher=FSDP)
    digits_run.run(str(tmp_path / "one"), "--double", "--steps", str(STEPS), "--accumulate", "3")
    gap = largest_difference(tmp_path / "one", tmp_path / "sharded")
    print(f"three shards and a whole, float64, {STEPS} updates: {gap:.1e}")
    assert gap < 1e-9
    assert checkpoint.load(tmp_path / "sharded", average=0.08).net.training is False


def test_two_processes_killed_together_or_one_alone_resume_bit_for_bit(tmp_path, two):
    arguments = (str(tmp_path / "run"), "--double", "--steps", str(STEPS), "--save-every", "1")
    wait, reached = random.Random(3), [0]
    for alone in (False, True):
        last = checkpoint.read_checkpoint(tmp_path / "run").path.name if reached[-1] else "checkpoint-000001"
        with launched(2, *arguments, "--pause", "0.1", *(["--resume"] if reached[-1] else [])) as process:
            wait_for_start(tmp_path / "run", after=last)
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
    run_to_the_end(2, *arguments, "--resume")
    assert_same_run(two, tmp_path / "run")


def test_a_failure_in_the_main_process_ends_all_processes_with_its_message(tmp_path):
    with launched(2, str(tmp_path / "run"), "--die", "5", "--save-every", "4") as process:
        start = time.monotonic()
        _, error = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "a callback must not fail, this one did" in error
    assert "all processes must succeed, process 0 failed" in error
    assert time.monotonic() - start < 60
    assert checkpoint.read_checkpoint(tmp_path / "run").meta["step"] == 4


def test_ctrl_c_reaches_all_processes_and_one_process_can_resume_their_run(tmp_path, two):
    arguments = (str(tmp_path / "run"), "--double", "--steps", str(STEPS), "--save-every", "1000")
    with launched(2, *arguments, "--pause", "0.05") as process:
        wait_for_start(tmp_path / "run")
        time.sleep(0.3)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert checkpoint.read_checkpoint(tmp_path / "run").meta["step"] in (20, 40)  # they synchronize every 20 updates
    digits_run.run(*arguments, "--resume", "--accumulate", "2")
    assert largest_difference(two, tmp_path / "run") < 1e-9


def test_no_line_of_metrics_is_written_twice(two):
    steps = [json.loads(line)["step"] for line in (two / "metrics.jsonl").read_text().splitlines()]
    assert steps == [20, 40, 50]
    assert torch.isfinite(torch.tensor([point[1] for point in checkpoint.read_checkpoint(two).meta["history"]])).all()
