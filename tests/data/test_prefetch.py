"""Prefetching changes when events are read, and nothing else."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from scoresde.data import Data, load_data
from scoresde.data.prefetch import Prefetcher
from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.process.sde import VPSDE
from scoresde.training import Callback, CallbackState, Training, train
from scoresde.training.batches import Batches


@pytest.fixture
def prefetcher():
    instance = Prefetcher(torch.arange(40).reshape(20, 2))
    yield instance
    instance.close()


def test_the_rows_are_those_requested_whatever_was_prefetched(prefetcher):
    events, indices = torch.arange(40).reshape(20, 2), [torch.tensor(rows) for rows in ([3, 1], [0, 19], [7], [2, 2])]
    for index, next_index in zip(indices, (indices[1], torch.tensor([4]), None, None)):  # right, wrong, none, none
        assert torch.equal(prefetcher.take(index, next_index), events[index])


def test_prefetched_rows_are_read_before_they_are_requested(prefetcher):
    prefetcher.take(torch.tensor([0]), torch.tensor([5, 6]))
    prefetcher._reader.submit(lambda: None).result(timeout=30)  # the only thread has finished the earlier read
    prefetcher._events.zero_()
    assert prefetcher.take(torch.tensor([5, 6])).tolist() == [[10, 11], [12, 13]]


def test_the_caller_may_overwrite_the_next_indices(prefetcher):
    next_indices = torch.tensor([5])
    prefetcher.take(torch.tensor([0]), next_indices)
    next_indices.fill_(9)
    assert prefetcher.take(next_indices).tolist() == [[18, 19]]


def test_an_index_out_of_range_is_refused(prefetcher):
    prefetcher.take(torch.tensor([0]), torch.tensor([20]))
    with pytest.raises(IndexError, match="index 20 is out of bounds"):
        prefetcher.take(torch.tensor([20]))


def memory_mapped(tmp_path, n: int = 20) -> Data:
    values = np.random.default_rng(0).integers(0, 5, (n, 3), dtype=np.uint8)
    np.save(tmp_path / "values.npy", values)
    return load_data(tmp_path / "values.npy", bins=5, test_fraction=0, shuffle=False)


def model() -> ScoreModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return ScoreModel(MLP((3,), width=8, depth=1, embedding_width=8), VPSDE())


def reader_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("scoresde-data")]


@pytest.mark.parametrize(("accumulate", "processes"), [(1, 1), (3, 1), (1, 2), (2, 2)])
def test_the_prefetched_batch_is_the_next_one_of_the_process(tmp_path, monkeypatch, accumulate, processes):
    monkeypatch.setattr("scoresde.training.batches._RESIDENT", 0)  # as if the data were too large for memory
    settings = Training(batch_size=12, accumulate=accumulate)
    for process in range(processes):
        batches = Batches(model(), memory_mapped(tmp_path), settings, torch.device("cpu"), accumulate * processes)
        assert batches._prefetcher is not None
        shards = [(step, part * processes + process) for step in range(5) for part in range(accumulate)]
        with torch.random.fork_rng(devices=[]):
            for i, (step, shard) in enumerate(shards):
                assert i == 0 or torch.equal(batches._prefetcher._pending[0], batches.indices(step, shard))  # type: ignore[index]
                batches.draw(step, shard)
        batches.close()


@pytest.mark.parametrize("dequantize", [True, False])
def test_a_run_with_prefetching_ends_bit_for_bit_as_one_with_the_data_in_memory(tmp_path, monkeypatch, dequantize):
    data, weights = memory_mapped(tmp_path), []
    settings = Training(steps=9, batch_size=12, accumulate=2, warmup=2, dequantize=dequantize)
    for resident in (1 << 30, 0):
        monkeypatch.setattr("scoresde.training.batches._RESIDENT", resident)
        counts: list[int] = []
        callback = Callback(3, lambda state, counts=counts: counts.append(len(reader_threads())))
        trained = train(model(), data, settings, callbacks=[callback])
        assert counts == [0 if resident else 1] * 3
        assert not reader_threads()
        weights.append(torch.nn.utils.parameters_to_vector(trained.model.parameters()))
    assert torch.equal(*weights)


def test_an_interrupted_run_stops_the_reader_thread(tmp_path, monkeypatch):
    monkeypatch.setattr("scoresde.training.batches._RESIDENT", 0)

    def stop(state: CallbackState) -> None:
        assert reader_threads()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model(), memory_mapped(tmp_path), Training(steps=5, batch_size=4), callbacks=[Callback(2, stop)])
    assert not reader_threads()
