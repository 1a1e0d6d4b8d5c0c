"""Worker processes that examine several models in parallel and end with the process that started them."""

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

__all__ = ["examine_in_parallel"]

_GRACE = 60.0  # seconds in which a worker that receives SIGTERM may save its training


def examine_in_parallel(
    examination: Examination, jobs: Sequence[tuple[Weighting, int]], workers: int
) -> list[ModelResult]:
    """Examines models in worker processes; if one model fails, or this process ends, all workers end.

    Args:
        examination: What is done with each model.
        jobs: Weighting and seed of each model.
        workers: Number of processes; they share the cores equally.

    Returns:
        The results, in the order of ``jobs``.

    Raises:
        Exception: That of the first model that fails.
        KeyboardInterrupt, SystemExit: After Ctrl-C and after SIGTERM.
    """
    context = multiprocessing.get_context("spawn")
    worker_end, parent_end = context.Pipe(duplex=False)
    with (
        worker_end,
        parent_end,
        _signal_handler(signal.SIGTERM, _exit),
        ProcessPoolExecutor(workers, context, _start_worker, (cores(workers), worker_end)) as pool,
    ):
        with _signal_handler(signal.SIGINT, signal.SIG_IGN):  # inherited by workers: on Ctrl-C this process ends them
            futures = [pool.submit(_examine, examination, *job) for job in jobs]
        try:
            for done in wait(futures, return_when=FIRST_EXCEPTION).done:
                done.result()
            return [future.result() for future in futures]
        except BaseException:
            parent_end.close()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker(threads: int, worker_end: Connection) -> None:
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_parent, args=(worker_end,), daemon=True).start()


def _end_with_parent(worker_end: Connection) -> None:
    """Ends this process when the parent's end of the pipe is closed, on purpose or because the parent has ended."""
    worker_end.poll(None)
    os.kill(os.getpid(), signal.SIGTERM)  # a training saves before it ends, everything else ends at once
    time.sleep(_GRACE)
    os._exit(128 + signal.SIGTERM)


def _examine(examination: Examination, weighting: Weighting, seed: int) -> ModelResult:
    try:
        return examination(weighting, seed)
    except (KeyboardInterrupt, SystemExit):  # otherwise the worker would start the next model
        os._exit(128 + signal.SIGTERM)


def _exit(*_: Any) -> None:
    raise SystemExit(128 + signal.SIGTERM)


@contextmanager
def _signal_handler(number: int, handler: Any) -> Iterator[None]:
    """Sets the handler of a signal for the block; does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, previous)
