"""How is one batch taken back? From its start to the end in one go, and once more with checks where that went wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde._core.tensors import has_values
from scoresde.model import Model
from scoresde.process.parameterization import Prediction
from scoresde.process.sde import SDE
from scoresde.sampling.base import Observer, Progress, Sampler, SamplingContext, SolverError, StepHook
from scoresde.sampling.brownian import Brownian

__all__ = ["SamplingBatch", "BatchResult"]


@dataclass
class BatchResult:
    """What came out for one batch.

    Attributes:
        x: Last state, view's coordinates, ``(B, *D)``.
        tau: OU time at which it stands.
        nfe: Network calls.
        times: OU times of the start, of every step and of a final denoising; empty unless a record is asked for.
        states: States then, view's coordinates; empty unless asked for.
        previews: Data estimates of the last network calls before all those times but the first; as ``states``.
    """

    x: Tensor
    tau: float
    nfe: int
    times: list[float] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    previews: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class SamplingBatch:
    """One batch, ready to be walked back.

    Attributes:
        model: The network, in eval mode.
        sampler: The way back.
        like: Shape, type and device of the state, ``(B, *D)``; its values are not read.
        start: OU time to start from.
        init: State there, view's coordinates; None for a draw from the prior.
        cond: Passed to the network.
        denoise: Ends with a data estimate.
        keep: Keeps the states along the way.
        preview: Keeps the data estimates along the way.
        coupled: Takes the noise from one Brownian path per sample, or per batch where a generator draws it.
        observers: Called after each step; a true answer of one ends the walk.
    """

    model: Model
    sampler: Sampler
    like: Tensor
    start: float
    init: Tensor | None = None
    cond: Mapping[str, Tensor] = field(default_factory=dict)
    denoise: bool = False
    keep: bool = False
    preview: bool = False
    coupled: bool = False
    observers: tuple[Observer, ...] = ()

    def walk(self, generator: torch.Generator | None, seeds: list[int] | None) -> BatchResult:
        """Walks back; a state that is not finite at the end is traced to its network call by a second walk.

        Raises:
            RuntimeError: If the network returned NaN or infinity, or a solver failed.
        """
        before = None if generator is None else generator.get_state()
        failure = None
        try:
            predict, record = _Counted(self.model, self.cond), None
            if self.keep or self.preview or self.observers:
                predict = _Remembered(self.model, self.cond)
                record = _Record(self, predict)
            walk = self._walk(generator, seeds, predict, record)
            if not has_values(walk.x) or bool(torch.isfinite(walk.x).all()):
                return walk
        except SolverError as error:
            failure = error
        if generator is not None and before is not None:
            generator.set_state(before)
        self._walk(generator, seeds, _Checked(self.model, self.cond), None)
        raise failure or RuntimeError(
            f"samples must be finite, but {self.sampler} diverged on finite network outputs; use more steps."
        )

    def _walk(
        self, generator: torch.Generator | None, seeds: list[int] | None, predict: _Counted, record: _Record | None
    ) -> BatchResult:
        sde, noise = self.model.sde, Noise(generator, seeds)
        if self.init is None:
            x = sde.prior(self.like, noise, self.start)
        else:
            x = self.init.to(self.like) / _scale(sde, self.start)
        brownian = Brownian(self.like, _entropy(generator) if seeds is None else seeds) if self.coupled else None
        observe: StepHook | None = None if record is None else record.observe
        path = SamplingContext(predict, sde, noise, self.start, observe, brownian)
        if record is not None:
            record.keep(self.start, x)
        try:
            x, tau = self.sampler.run(x, path)
        except _Stopped as stopped:
            x, tau = stopped.x, stopped.tau
        if self.denoise and tau > 0:
            x, tau = predict(x, tau).x0, 0.0
            if record is not None:
                record.keep(tau, x)
        walk = BatchResult(x * _scale(sde, tau), tau, predict.nfe)
        return (
            walk
            if record is None
            else replace(walk, times=record.times, states=record.states, previews=record.previews)
        )


def _entropy(generator: torch.Generator | None) -> int:
    """A seed drawn from the generator; any, where tensors have no values and nothing is drawn."""
    return 0 if generator is None else int(torch.randint(2**62, (), generator=generator, device=generator.device))


class _Counted:
    """The network call, counted: the first one checked by the model, the others of the same kind not again."""

    def __init__(self, model: Model, cond: Mapping[str, Tensor]) -> None:
        self.nfe = 0
        self._call, self._next, self._cond = model, model.predict, cond

    def __call__(self, x: Tensor, tau: Scalar) -> Prediction:
        self.nfe += 1
        call, self._call = self._call, self._next
        return call(x, tau, **self._cond)


class _Checked(_Counted):
    """The same, refusing an output that is not finite."""

    def __call__(self, x: Tensor, tau: Scalar) -> Prediction:
        prediction = super().__call__(x, tau)
        bad = ~torch.isfinite(prediction.out)
        if bool(bad.any()):
            rows = bad.flatten(1).any(1) if bad.ndim > 1 else bad
            indices = rows.nonzero().flatten().tolist()
            shown = ", ".join(map(str, indices[:8])) + (", …" if len(indices) > 8 else "")
            raise RuntimeError(
                f"the network must return finite numbers, but call {self.nfe}, at tau = {float(tau):.6g}, gave NaN or "
                f"infinity for samples [{shown}] of a batch of {len(x)}; look at its inputs there, or train it then."
            )
        return prediction


class _Remembered(_Counted):
    """The same, and the last prediction kept."""

    last: Prediction | None = None

    def __call__(self, x: Tensor, tau: Scalar) -> Prediction:
        prediction = self.last = super().__call__(x, tau)
        return prediction


class _Stopped(Exception):
    """An observer has seen enough; passes through whatever solver is at work."""

    def __init__(self, x: Tensor, tau: float) -> None:
        super().__init__(f"stopped at tau = {tau:.6g}")
        self.x, self.tau = x, tau


@dataclass
class _Record:
    """What is kept of a walk, and told of it."""

    batch: SamplingBatch
    predict: _Remembered
    times: list[float] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    previews: list[Tensor] = field(default_factory=list)

    def keep(self, tau: float, x: Tensor) -> None:
        """Adds a time; there is no preview before the first network call."""
        self.times.append(tau)
        if self.batch.keep:
            self.states.append(x * _scale(self.batch.model.sde, tau))
        if self.batch.preview and self.predict.last is not None:
            self.previews.append(self.predict.last.x0)  # at tau = 0 the view's coordinates are those of x

    def observe(self, done: int, steps: int, tau: float, x: Tensor) -> None:
        """See `Observe`."""
        last = self.predict.last
        if last is None:
            raise RuntimeError(f"a step must call the network, but {self.batch.sampler} told of one before any call.")
        self.keep(tau, x)
        now = Progress(done, steps, tau, x, last)
        answers = [observer(now) for observer in self.batch.observers]
        if any(answers):
            raise _Stopped(x, tau)


def _scale(sde: SDE, tau: float) -> float:
    """The view's factor; at the start of an infinite clock its limit."""
    return float(sde.scale(min(tau, 300.0)))
