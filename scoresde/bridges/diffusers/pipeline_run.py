"""`PipelineRun`: one run of a sampler inside a loop that calls the network, one output at a time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scoresde._core.noise import Noise
from scoresde._core.tensors import is_narrow
from scoresde.bridges.diffusers.received import Received
from scoresde.bridges.diffusers.schedule_plan import Plan
from scoresde.bridges.replay import Replay
from scoresde.model import Model
from scoresde.sampling import StepSampler, Whitened

__all__ = ["PipelineRun"]


class _Shown:
    """A state that the pipeline was given, and whether it is still the same.

    Args:
        x: The state.
    """

    def __init__(self, x: Tensor) -> None:
        self._x = x
        # tensors made in inference mode do not count their changes
        self._kept = x.clone() if x.is_inference() else None
        self._version = None if x.is_inference() else x._version

    def is_unchanged(self, sample: Tensor) -> bool:
        """Whether ``sample`` is that state, with the same values."""
        if sample is not self._x:
            return False
        return torch.equal(sample, self._kept) if self._kept is not None else sample._version == self._version


class PipelineRun:
    """The state of a run between two calls of `Scheduler.step`.

    Args:
        received: The model that gets the outputs.
        model: It, or it with clipping.
        sampler: The sampler, with all of its settings.
        plan: Its steps and calls.
        begin: Number of calls of the whole run that come before.

    Attributes:
        index: Number of calls so far, with ``begin``.
    """

    def __init__(
        self, received: Received, model: Model, sampler: StepSampler | Whitened, plan: Plan, begin: int = 0
    ) -> None:
        self.index = begin
        self._received, self._model, self._sampler, self._plan = received, model, sampler, plan
        self._replay: Replay | None = None
        self._shown: _Shown | None = None
        self._idle, self._end = plan.idle, begin + len(plan.times)
        self._generator: Any = None

    @property
    def over(self) -> bool:
        """Whether all outputs have been received."""
        return self.index >= self._end

    def step(self, out: Tensor, sample: Tensor, generator: Any) -> Tensor:
        """The state at which the network is called next, or the last one, in the coordinates of the pipeline."""
        self._generator = generator
        if self._replay is None:
            x = self._received.state(sample.float() if is_narrow(sample) else sample, self._plan.taus[0])
            self._replay = Replay(self._sampler, self._plan.taus, x.clone() if x is sample else x, self._draw)
        if self._idle > 0:
            self._idle -= 1
            if self._idle > 0:
                self.index += 1
                return sample
        else:
            self._receive(self._replay, out, sample)
        shown = self._next(self._replay, sample.dtype)
        self.index += 1  # not before an error
        if self.over:
            self._replay = self._shown = None  # the scheduler outlives the run; its states need not
        else:
            self._shown = _Shown(shown)
        return shown

    def network_input(self, sample: Tensor) -> Tensor:
        """The input of the network for a state in the coordinates of the pipeline; any batch."""
        received, replay = self._received, self._replay
        if replay is not None and replay.request is not None and self._shown and self._shown.is_unchanged(sample):
            x, tau = replay.request
            return received.network_input(x, tau).to(sample.dtype)
        tau = self._plan.times[self.index - self._end]
        return received.network_input(received.state(sample, tau), tau)

    def _receive(self, replay: Replay, out: Tensor, sample: Tensor) -> None:
        assert replay.request is not None
        x, tau = replay.request
        if self._shown and not self._shown.is_unchanged(sample):  # changed by the pipeline or its callback
            x = self._received.state(sample.to(x.dtype), tau)
            if replay.at_state:
                replay.move(x)
                x, tau = replay.request
        self._received.out = out
        try:
            prediction = self._model.predict(x, tau)
        finally:
            self._received.out = None
        replay.receive(prediction)

    def _next(self, replay: Replay, dtype: torch.dtype) -> Tensor:
        x, tau = replay.request or (replay.x, self._plan.taus[-1])
        shown = self._received.shown(x, tau).to(dtype)
        return shown.clone() if shown is x else shown  # the pipeline may change it in place

    def _draw(self, like: Tensor) -> Tensor:
        generators = self._generator
        if not isinstance(generators, (list, tuple)):
            return Noise(generators).normal(like)
        if len(generators) != len(like):
            raise ValueError(
                f"generators must be one per sample, {len(like)} here, got {len(generators)}; pass one for all."
            )
        rows = [torch.randn(like.shape[1:], generator=g, dtype=like.dtype, device=g.device) for g in generators]
        return torch.stack([row.to(like.device) for row in rows])
