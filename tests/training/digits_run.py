"""A short real run on digits, as a program: what the tests of resuming and of several processes start and kill.

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
import torch._dynamo  # what an optimizer would import in its first step

from scoresde.data import load_data
from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import LossMomentTimesteps
from scoresde.objective.weighting import ELBO
from scoresde.process.sde import VPSDE
from scoresde.training import Callback, CallbackState, Training, train

DIGITS = load_data("digits")  # once, also for all that a server of processes forks


def model(dtype: torch.dtype = torch.float32, seed: int = 1) -> ScoreModel:
    """Classes with a null label, dropout, an output layer that is not zero; the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = MLP((1, 8, 8), width=48, depth=1, embedding_width=16, dropout=0.2, num_classes=10, null_class=True)
        torch.nn.init.normal_(net.leave.weight, std=0.1)
    return ScoreModel(net.to(dtype), VPSDE())


def settings(steps: int, accumulate: int, optimizer: str = "adamw") -> Training:
    """All that has a state is on: averages of several lengths, label dropout, times that follow the loss."""
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
        label_dropout=0.3,
    )


def run(*words: str, ready: Event | None = None) -> None:
    """Trains as the words say, those of the command line; sets ``ready`` when all is prepared."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--double", action="store_true")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--save-every", type=int, default=3)
    parser.add_argument("--pause", type=float, default=0.0, help="Seconds to wait after each update.")
    parser.add_argument("--die", type=int, default=0, help="Update after which a callback fails.")
    asked = parser.parse_args(words)
    torch.set_num_threads(1)

    def pause(moment: CallbackState) -> None:
        if moment.step == asked.die:
            raise ValueError("a callback must not fail, this one did.")
        time.sleep(asked.pause)

    dtype = torch.float64 if asked.double else torch.float32
    callbacks = [Callback(1, pause)] if asked.pause or asked.die else []
    begun = model(dtype, 1 + int(os.environ.get("RANK", "0")))  # the main process's weights are all processes'
    if ready is not None:
        ready.set()
    trained = train(
        begun,
        DIGITS,
        settings(asked.steps, asked.accumulate, asked.optimizer),
        run_dir=asked.out,
        resume=asked.resume,
        save_every=asked.save_every,
        snapshot_every=7,
        callbacks=callbacks,
    )
    assert trained.checkpoint is not None
    assert trained.checkpoint.is_dir()  # in every process


def threads_of_the_group() -> list[str]:
    """Names of the threads that exchange tensors with other processes."""
    names = [thread.read_text().strip() for thread in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


def left() -> None:
    """Fails a process that has not left its group; a thread of it that outlives the run might abort Python's end.

    Pieces: torch's caches of sharded tensors hold on to the group that was left, threads and all.
    """
    pieces = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    if torch.distributed.is_initialized() or (threads_of_the_group() and not pieces):
        os._exit(3)


if __name__ == "__main__":
    atexit.register(left)  # runs after what is registered later
    run(*sys.argv[1:])
