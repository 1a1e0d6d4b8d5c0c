"""A short training run on digits, as a program that the tests of resuming and of several processes start and kill.

python tests/training/digits_run.py OUT [--resume] [--steps 60] …
python -m accelerate.commands.launch --cpu --num_processes 2 tests/training/digits_run.py OUT
"""

from __future__ import annotations

import argparse
import atexit
import os
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import torch
import torch._dynamo  # an optimizer imports it in its first step

from scoresde.data import Data, Description, load_data
from scoresde.model import ScoreModel
from scoresde.nn import MLP, Classes
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import LossMomentTimesteps
from scoresde.objective.weighting import ELBO
from scoresde.process.sde import VPSDE
from scoresde.training import Callback, CallbackState, Training, run_length, train

DIGITS = load_data("digits")  # once, also for processes that a server forks


def incomplete_digits() -> Data:
    """The digits as real numbers, of which a third is missing."""
    x = DIGITS.train / 16.0
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 1 / 3] = torch.nan
    return Data(x, x[:0], Description("digits", (1, 8, 8), missing=True), DIGITS.train_cond)


def model(dtype: torch.dtype = torch.float32, seed: int = 1, observed: bool = False) -> ScoreModel:
    """A model with classes, a null label, dropout and a nonzero output layer; the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = MLP((1, 8, 8), 48, 1, 16, dropout=0.2, conditions={"label": Classes(10)}, observed=observed)
        torch.nn.init.normal_(net.linear_out.weight, std=0.1)
    return ScoreModel(net.to(dtype), VPSDE())


def settings(steps: int, accumulate: int, optimizer: str = "adamw", minutes: float | None = None) -> Training:
    """Settings that use everything with a state: EMAs of several lengths, label dropout, adaptive timesteps."""
    loss = Loss(ELBO(), LossMomentTimesteps(bins=8, memory=4))
    return Training(
        steps,
        48,
        loss,
        optimizer,
        lr=3e-3,
        warmup=10,
        ema=0.98,
        lengths=(0.05, 0.1),
        accumulate=accumulate,
        condition_dropout=0.3,
        minutes=minutes,
    )


def run(*arguments: str, ready: Event | None = None) -> None:
    """Trains with the arguments of a command line; sets ``ready`` before training starts."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--double", action="store_true")
    parser.add_argument("--missing", action="store_true", help="Train on digits of which a third is missing.")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--pace", type=float, help="Seconds that each update is measured to take, in a child process.")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--save-every", type=int, default=3)
    parser.add_argument("--pause", type=float, default=0.0, help="Seconds to wait after each update.")
    parser.add_argument("--die", type=int, default=0, help="Update after which a callback fails.")
    options = parser.parse_args(arguments)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # rounding may depend on their number
    try:
        _run(options, ready)
    finally:
        torch.set_num_threads(threads)


def _run(options: argparse.Namespace, ready: Event | None) -> None:
    if options.pace is not None:  # a count of updates that does not depend on the load
        measure = run_length._time
        run_length._time = lambda run, count: measure(run, 1) * 0 + options.pace

    def pause(state: CallbackState) -> None:
        if state.step == options.die:
            raise ValueError("a callback must not fail, this one did.")
        time.sleep(options.pause)

    dtype = torch.float64 if options.double else torch.float32
    callbacks = [Callback(1, pause)] if options.pause or options.die else []
    rank = int(os.environ.get("RANK", "0"))
    initial = model(dtype, 1 + rank, options.missing)  # all processes get the main one's weights
    if ready is not None:
        ready.set()
    trained = train(
        initial,
        incomplete_digits() if options.missing else DIGITS,
        settings(options.steps, options.accumulate, options.optimizer, options.minutes),
        run_dir=options.out,
        resume=options.resume,
        save_every=options.save_every,
        snapshot_every=7,
        callbacks=callbacks,
    )
    assert trained.checkpoint is not None
    assert trained.checkpoint.is_dir()  # in every process


def threads_of_the_group() -> list[str]:
    """Names of the threads that exchange tensors with other processes."""
    names = [thread.read_text().strip() for thread in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


def check_group_was_left() -> None:
    """Fails a process that has not left its process group: a thread that outlives the run may abort Python's exit.

    With FSDP torch's caches of sharded tensors keep the group and its threads.
    """
    sharded = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    if torch.distributed.is_initialized() or (threads_of_the_group() and not sharded):
        os._exit(3)


if __name__ == "__main__":
    atexit.register(check_group_was_left)  # runs after functions that are registered later
    run(*sys.argv[1:])
