"""`Replay`: a step sampler that is advanced from outside, one network output at a time.

A sampler calls the network itself. Where a loop of another code base calls it and passes the outputs in, the step is
repeated from its start for every output. Steps are pure: given the outputs and the noise that arrived before, a step
takes the same way again, up to its first network call without an output. That call is the next `Replay.request`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor

from scoresde.process.parameterization import Parameterization
from scoresde.process.prediction import GaussianPrediction, Prediction
from scoresde.sampling import StepSampler, Whitened
from scoresde.sampling.whitened import WhitenedCoordinates

__all__ = ["Replay", "call_times", "noise_alone"]


class _Unanswered(Exception):
    """A network call whose output has not arrived."""

    def __init__(self, x: Tensor, tau: float) -> None:
        super().__init__()
        self.x, self.tau = x, tau


class Replay:
    """A run of a sampler that waits at each of its network calls.

    Args:
        sampler: The sampler, with all of its settings.
        taus: The times of its steps, falling.
        x: State at ``taus[0]``, ``(B, *D)``.
        draw: Unit normal noise like a tensor; called once for each noise of the sampler, in its order.

    Attributes:
        index: Number of complete steps.
        request: State and time of the network call that is waited for; None at the end.
    """

    def __init__(
        self, sampler: StepSampler | Whitened, taus: Sequence[float], x: Tensor, draw: Callable[[Tensor], Tensor]
    ) -> None:
        self.index, self.request = 0, None
        self._taus, self._draw = taus, draw
        self._predict: Callable[..., Prediction] = self._answer
        self._coordinates: WhitenedCoordinates | None = None
        if isinstance(sampler, Whitened):
            self._coordinates = WhitenedCoordinates(sampler.moments, x)
            self._predict = partial(self._coordinates.predict, self._answer, taus[0])
            x, sampler = self._coordinates.whiten(x, taus[0]), sampler.sampler
        self._sampler, self._state, self._memory = sampler, x, None
        self._answers: list[Prediction] = []
        self._draws: list[Tensor] = []
        self._read = self._read_draws = 0
        self._advance()

    @property
    def x(self) -> Tensor:
        """State after the steps that are complete, ``(B, *D)``."""
        if self._coordinates is None:
            return self._state
        return self._coordinates.unwhiten(self._state, self._taus[self.index])

    @property
    def at_state(self) -> bool:
        """Whether the request is the state between two steps, which `move` may change."""
        return not self._answers and self.request is not None and self.request[1] == self._taus[self.index]

    def receive(self, prediction: Prediction) -> None:
        """Continues with the answer to `request`, to the next request or to the end; an error changes nothing."""
        assert self.request is not None
        kept = self.index, self.request, self._state, self._memory
        answers, draws = [*self._answers], [*self._draws]
        self._answers.append(prediction)
        try:
            self._advance()
        except BaseException:
            self.index, self.request, self._state, self._memory = kept
            self._answers, self._draws = answers, draws
            raise

    def move(self, x: Tensor) -> None:
        """Replaces the state between two steps by ``x``; what the sampler remembers moves along."""
        tau = self._taus[self.index]
        if self._coordinates is not None:
            x = self._coordinates.whiten(x, tau)
        self._memory = self._sampler.moved(self._memory, tau, x - self._state)
        self._state = x
        self._advance()

    def _advance(self) -> None:
        taus, step = self._taus, self._sampler.step
        while self.index < len(taus) - 1:
            self._read = self._read_draws = 0
            try:
                state, memory = step(
                    self._predict, self._state, taus[self.index], taus[self.index + 1], self._noise, self._memory
                )
            except _Unanswered as call:
                self.request = (call.x, call.tau)
                return
            self._state, self._memory = state, memory
            self.index += 1
            self._answers.clear()
            self._draws.clear()
        self.request = None

    def _answer(self, x: Tensor, tau: float) -> Prediction:
        if self._read == len(self._answers):
            raise _Unanswered(x, tau)
        self._read += 1
        return self._answers[self._read - 1]

    def _noise(self) -> Tensor:
        if self._read_draws == len(self._draws):
            self._draws.append(self._draw(self._state))
        self._read_draws += 1
        return self._draws[self._read_draws - 1]


def call_times(
    sampler: StepSampler | Whitened, taus: Sequence[float], parameterization: Parameterization
) -> list[list[float]]:
    """OU times of the network calls of each step, from a run on zeros.

    Args:
        sampler: The sampler, with all of its settings.
        taus: The times of its steps, falling.
        parameterization: Of the network.
    """
    if isinstance(sampler, Whitened):  # its first step calls no network
        return [[], *call_times(sampler.sampler, taus, parameterization)[1:]]
    like = torch.zeros(1, 1)
    replay = Replay(sampler, taus, like, torch.zeros_like)
    times: list[list[float]] = [[] for _ in taus[1:]]
    while replay.request is not None:
        x, tau = replay.request
        times[replay.index].append(float(tau))
        replay.receive(GaussianPrediction(x, tau, like, parameterization, like))
    return times


@contextmanager
def noise_alone(sampler: StepSampler | Whitened, start: float) -> Iterator[None]:
    """Explains errors of samplers that cannot step from a state without signal, and names samplers that can.

    Args:
        sampler: The sampler.
        start: Time of the first state; if it is infinite, that state is noise alone.

    Raises:
        ValueError: In place of one that is raised within.
    """
    try:
        yield
    except ValueError as error:
        if start < math.inf:
            raise
        raise ValueError(
            f"{type(sampler).__name__} needs a start with some signal, but the first state is noise alone, as with "
            "flow models and zero terminal SNR; take Adams, DDIM, DDPM, NonStationary or RungeKutta."
        ) from error
