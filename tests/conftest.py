"""What every test may rely on: one torch thread, a seeded generator, and global state left as it was found."""

from __future__ import annotations

import gc
import json
import os
import random
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

# Before anything imports matplotlib, numpy or torch. Tests run in several processes; more threads would only compete.
os.environ.setdefault("TEST_THREADS", "1")
os.environ.update(
    dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), os.environ["TEST_THREADS"])
)
os.environ.update(MPLBACKEND="Agg")

import numpy as np
import pytest
import torch
from browser import browser  # noqa: F401 -- a fixture
from torch.utils._python_dispatch import TorchDispatchMode

THREADS = int(os.environ["TEST_THREADS"])
torch.set_num_threads(THREADS)

HERE = Path(__file__).parent
DURATIONS = HERE / "durations.json"
NUMERIC = ("core", "process", "objective", "sampling", "likelihood")  # marked "portable"


def _seed_of(request: pytest.FixtureRequest) -> int:
    return zlib.crc32(request.node.name.encode())


@pytest.fixture
def generator(request: pytest.FixtureRequest) -> torch.Generator:
    """Give the test its own random numbers, the same in every run, whichever tests run beside it."""
    return torch.Generator().manual_seed(_seed_of(request))


class NoKernels(TorchDispatchMode):
    """Refuses every operation on tensors."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        pytest.fail(f"a test marked scalar must not compute with tensors, got {func}; remove the mark.")


@pytest.fixture(autouse=True)
def _scalar_tests_use_no_tensors(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hold a test to its mark: what computes with floats alone is the same on every processor."""
    with NoKernels() if request.node.get_closest_marker("scalar") else nullcontext():
        yield


@pytest.fixture(autouse=True)
def _global_state_is_seeded_and_left_alone(request: pytest.FixtureRequest) -> Iterator[None]:
    """Seed what draws from global random state (initial weights), and fail a test that leaves a default changed."""
    seed = _seed_of(request)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 -- libraries under test may still draw from it
    torch.manual_seed(seed)
    yield
    left = {
        "default dtype": (torch.get_default_dtype(), torch.float32, torch.set_default_dtype),
        "grad mode": (torch.is_grad_enabled(), True, torch.set_grad_enabled),
        "thread count": (torch.get_num_threads(), THREADS, torch.set_num_threads),
    }
    changed = [f"{name} is {now}, was {before}" for name, (now, before, _) in left.items() if now != before]
    for _, before, restore in left.values():
        restore(before)
    if changed:
        pytest.fail(f"the test left global state changed: {'; '.join(changed)}; restore it in the code under test.")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that stores how long each file takes."""
    parser.addoption("--store-durations", action="store_true", help="store the seconds that each test file takes")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Take what lives as long as the process out of garbage collection: each pass over it takes most of a second.

    The libraries and some ten thousand tests have millions of objects, and every training run collects garbage.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.enable()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave unread what has no numeric test if only those are asked for."""
    inside = collection_path.is_relative_to(HERE) and collection_path != HERE
    if config.option.markexpr == "portable" and inside:
        return True if collection_path.relative_to(HERE).parts[0] not in NUMERIC else None
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip CUDA tests where there is no device, mark the numeric tests, and begin with the files that take longest."""
    for item in items:
        if item.get_closest_marker("cuda") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        folder = item.path.relative_to(HERE).parts[0]
        if folder in NUMERIC and not any(map(item.get_closest_marker, ("slow", "scalar"))):
            item.add_marker(pytest.mark.portable)
    seconds = json.loads(DURATIONS.read_text(encoding="utf-8")) if DURATIONS.exists() else {}
    items.sort(key=lambda item: -seconds.get(_name(item.path), 0.0))  # stable: the order within a file stays


_seconds: dict[str, float] = defaultdict(float)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Add up the time of each file."""
    _seconds[_name(HERE.parent / report.nodeid.partition("::")[0])] += report.duration


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Store the times of all files, on request; with several processes the controller stores them."""
    gc.unfreeze()  # the summary imports hypothesis, which asks the garbage collector for references
    if session.config.getoption("--store-durations") and not hasattr(session.config, "workerinput"):
        stored = {name: round(value, 1) for name, value in sorted(_seconds.items()) if value >= 0.5}
        DURATIONS.write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")


def _name(path: Path) -> str:
    return path.relative_to(HERE).as_posix()
