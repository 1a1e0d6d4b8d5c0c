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
        self._shown: Tensor | None = None
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
            self._replay = Replay(self._sampler, self._plan.taus, x, self._draw)
        self.index += 1
        if self._idle > 0:
            self._idle -= 1
            if self._idle > 0:
                return sample
        else:
            self._receive(self._replay, out, sample)
        self._shown = self._next(self._replay, sample.dtype)
        if self.over:
            self._replay = None  # the scheduler outlives the run; its states need not
        return self._shown

    def network_input(self, sample: Tensor) -> Tensor:
        """The input of the network for a state in the coordinates of the pipeline; any batch."""
        received, replay = self._received, self._replay
        if replay is not None and replay.request is not None and sample is self._shown:
            return received.network_input(*replay.request).to(sample.dtype)
        tau = self._plan.times[self.index - self._end]
        return received.network_input(received.state(sample, tau), tau)

    def _receive(self, replay: Replay, out: Tensor, sample: Tensor) -> None:
        assert replay.request is not None
        x, tau = replay.request
        if self._shown is not None and sample is not self._shown:  # changed by the pipeline or its callback
            x = self._received.state(sample.to(x.dtype), tau)
            if replay.at_state:
                replay.move(x)
                x, tau = replay.request
        self._received.out = out
        replay.receive(self._model.predict(x, tau))
        self._received.out = None

    def _next(self, replay: Replay, dtype: torch.dtype) -> Tensor:
        x, tau = replay.request or (replay.x, self._plan.taus[-1])
        shown = self._received.shown(x, tau)
        return shown if shown.dtype == dtype else shown.to(dtype)

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
