"""Reading ahead changes when events are read, and nothing else."""

from __future__ import annotations

import pytest
import torch

from scoresde.data.ahead import Ahead


@pytest.fixture
def ahead():
    reader = Ahead(torch.arange(40).reshape(20, 2))
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
