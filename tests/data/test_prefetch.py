"""Reading ahead changes when events are read, and nothing else."""

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
def ahead():
    reader = Prefetcher(torch.arange(40).reshape(20, 2))
    yield reader
    reader.close()


def test_every_answer_is_what_was_asked_for_whatever_was_announced(ahead):
    events, indices = torch.arange(40).reshape(20, 2), [torch.tensor(rows) for rows in ([3, 1], [0, 19], [7], [2, 2])]
    for index, then in zip(indices, (indices[1], torch.tensor([4]), None, None)):  # right, wrong, none, none
        assert torch.equal(ahead.take(index, then), events[index])


def test_what_was_announced_is_read_before_it_is_asked_for(ahead):
    ahead.take(torch.tensor([0]), torch.tensor([5, 6]))
    ahead._reader.submit(lambda: None).result(timeout=30)  # the one thread has done what came before
    ahead._events.zero_()
    assert ahead.take(torch.tensor([5, 6])).tolist() == [[10, 11], [12, 13]]


def test_an_announcement_may_be_overwritten_by_its_owner(ahead):
    then = torch.tensor([5])
    ahead.take(torch.tensor([0]), then)
    then.fill_(9)
    assert ahead.take(then).tolist() == [[18, 19]]


def test_an_event_that_is_not_there_is_refused(ahead):
    ahead.take(torch.tensor([0]), torch.tensor([20]))
    with pytest.raises(IndexError, match="index 20 is out of bounds"):
        ahead.take(torch.tensor([20]))


def mapped(tmp_path, n: int = 20) -> Data:
    levels = np.random.default_rng(0).integers(0, 5, (n, 3), dtype=np.uint8)
    np.save(tmp_path / "levels.npy", levels)
    return load_data(tmp_path / "levels.npy", bins=5, test_fraction=0, shuffle=False)


def model() -> ScoreModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return ScoreModel(MLP((3,), width=8, depth=1, embedding_width=8), VPSDE())


def readers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("scoresde-data")]


@pytest.mark.parametrize(("accumulate", "processes"), [(1, 1), (3, 1), (1, 2), (2, 2)])
def test_what_a_process_announces_is_what_it_asks_for_next(tmp_path, monkeypatch, accumulate, processes):
    monkeypatch.setattr("scoresde.training.batches._RESIDENT", 0)  # as if the data were too large to be held
    settings = Training(batch_size=12, accumulate=accumulate)
    for process in range(processes):
        batches = Batches(model(), mapped(tmp_path), settings, torch.device("cpu"), accumulate * processes)
        assert batches._ahead is not None
        asked = [(step, part * processes + process) for step in range(5) for part in range(accumulate)]
        with torch.random.fork_rng(devices=[]):
            for i, (step, shard) in enumerate(asked):
                assert i == 0 or torch.equal(batches._ahead._coming[0], batches.indices(step, shard))  # type: ignore[index]
                batches.draw(step, shard)
        batches.close()


@pytest.mark.parametrize("dequantize", [True, False])
def test_a_run_that_reads_ahead_ends_bit_for_bit_as_one_that_holds_the_data(tmp_path, monkeypatch, dequantize):
    data, ends = mapped(tmp_path), []
    settings = Training(steps=9, batch_size=12, accumulate=2, warmup=2, dequantize=dequantize)
    for resident in (1 << 30, 0):
        monkeypatch.setattr("scoresde.training.batches._RESIDENT", resident)
        seen = []
        trained = train(model(), data, settings, callbacks=[Callback(3, lambda moment: seen.append(len(readers())))])  # noqa: B023
        assert seen == [0 if resident else 1] * 3
        assert not readers()
        ends.append(torch.nn.utils.parameters_to_vector(trained.model.parameters()))
    assert torch.equal(*ends)


def test_a_run_that_is_broken_off_leaves_no_reader_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("scoresde.training.batches._RESIDENT", 0)

    def stop(moment: CallbackState) -> None:
        assert readers()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(model(), mapped(tmp_path), Training(steps=5, batch_size=4), callbacks=[Callback(2, stop)])
    assert not readers()
