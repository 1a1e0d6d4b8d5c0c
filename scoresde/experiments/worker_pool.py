"""How are several models examined side by side? Each in a process of its own, which ends with this one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import torch

from scoresde.experiments.examine import Examination, ModelResult
from scoresde.objective.weighting import Weighting
from scoresde.storage.environment import cores

__all__ = ["side_by_side"]

_PATIENCE = 60.0  # seconds in which a worker that is told to end may save what it trains


def side_by_side(examination: Examination, jobs: Sequence[tuple[Weighting, int]], workers: int) -> list[ModelResult]:
    """What is found about each model, in the order of the jobs.

    When one fails, or this process ends by whatever signal, the others save what they train and end too.

    Args:
        examination: What is done to each.
        jobs: Weighting and seed of each.
        workers: Processes, each with its share of the cores.

    Raises:
        Exception: What the first model to fail raised.
        KeyboardInterrupt, SystemExit: After Ctrl-C and after SIGTERM.
    """
    context = multiprocessing.get_context("spawn")
    leash, held = context.Pipe(duplex=False)
    with (
        leash,
        held,
        _handled(signal.SIGTERM, _leave),
        ProcessPoolExecutor(workers, context, _begin, (cores(workers), leash)) as pool,
    ):
        with _handled(signal.SIGINT, signal.SIG_IGN):  # workers inherit it: after Ctrl-C this process ends them
            waiting = [pool.submit(_examine, examination, *job) for job in jobs]
        try:
            for failed in wait(waiting, return_when=FIRST_EXCEPTION).done:
                failed.result()
            return [each.result() for each in waiting]
        except BaseException:
            held.close()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _begin(threads: int, leash: Connection) -> None:
    torch.set_num_threads(threads)
    threading.Thread(target=_follow, args=(leash,), daemon=True).start()


def _follow(leash: Connection) -> None:
    """Ends this process when the other end of the leash is let go, on purpose or because its process is gone."""
    leash.poll(None)
    os.kill(os.getpid(), signal.SIGTERM)  # training saves before it ends, all else ends at once
    time.sleep(_PATIENCE)
    os._exit(128 + signal.SIGTERM)


def _examine(examination: Examination, weighting: Weighting, seed: int) -> ModelResult:
    try:
        return examination(weighting, seed)
    except (KeyboardInterrupt, SystemExit):  # else the worker would take on the next model
        os._exit(128 + signal.SIGTERM)


def _leave(*_: Any) -> None:
    raise SystemExit(128 + signal.SIGTERM)


@contextmanager
def _handled(number: int, handler: Any) -> Iterator[None]:
    """Another handler of a signal for a while; only the main thread can have one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)
