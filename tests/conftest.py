"""What every test may rely on: one torch thread, a seeded generator, and global state left as it was found."""

from __future__ import annotations

import os
import random
import zlib
from collections.abc import Iterator

# Before anything imports matplotlib, numpy or torch.
os.environ.update(MPLBACKEND="Agg", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np
import pytest
import torch

torch.set_num_threads(1)  # tests run in several processes; threads of their own would only fight over the cores


def _seed_of(request: pytest.FixtureRequest) -> int:
    return zlib.crc32(request.node.name.encode())


@pytest.fixture
def generator(request: pytest.FixtureRequest) -> torch.Generator:
    """Give the test its own random numbers, the same in every run, whichever tests run beside it."""
    return torch.Generator().manual_seed(_seed_of(request))


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
        "thread count": (torch.get_num_threads(), 1, torch.set_num_threads),
    }
    changed = [f"{name} is {now}, was {before}" for name, (now, before, _) in left.items() if now != before]
    for _, before, restore in left.values():
        restore(before)
    if changed:
        pytest.fail(f"the test left global state changed: {'; '.join(changed)}; restore it in the code under test.")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked ``cuda`` where there is no CUDA device."""
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs a CUDA device")
    for item in items:
        if item.get_closest_marker("cuda"):
            item.add_marker(skip)
