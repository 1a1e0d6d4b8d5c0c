"""Sampling of one batch: from its first state to its last, and a checked second run where the result is not finite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde._core.tensors import has_values
from scoresde.model import Model
from scoresde.process.base import Process
from scoresde.process.discrete_prediction import DiscretePrediction
from scoresde.process.prediction import Prediction
from scoresde.process.sde import SDE
from scoresde.sampling.base import Sampler, SamplingContext, SolverError
from scoresde.sampling.brownian import VirtualBrownianTree
from scoresde.sampling.divergence import MagnitudeLimit, guidance_remedy
from scoresde.sampling.observer import Observer, Progress, StepHook

__all__ = ["BatchResult", "SamplingBatch"]


@dataclass
class BatchResult:
    """Samples of one batch.

    Attributes:
        x: Last state, view's coordinates, ``(B, *D)``.
        tau: OU time of ``x``.
        nfe: Number of network evaluations.
        times: OU times of the start, of every step and of a final denoising; empty without observation.
        states: States at ``times``, view's coordinates; empty unless asked for.
        previews: Data estimates of the last network calls before each of ``times[1:]``; empty unless asked for.
    """

    x: Tensor
    tau: float
    nfe: int
    times: list[float] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    previews: list[Tensor] = field(default_factory=list)


@dataclass(frozen=True)
class SamplingBatch:
    """All that determines the samples of one batch, except the random numbers.

    Attributes:
        model: The network, in eval mode.
        sampler: The sampler.
        like: Shape, type and device of the state, ``(B, *D)``; its values are not read.
        start: OU time of the first state.
        init: First state, view's coordinates; None for a draw from the prior.
        cond: Passed to the network.
        denoise: Ends with a data estimate.
        trajectory: Records the states.
        previews: Records the data estimates.
        coupled: Takes the noise from one Brownian path per sample, or per batch where a generator draws it.
        observers: Called after each step; a true return value of one stops sampling.
    """

    model: Model
    sampler: Sampler
    like: Tensor
    start: float
    init: Tensor | None = None
    cond: Mapping[str, Tensor] = field(default_factory=dict)
    denoise: bool = False
    trajectory: bool = False
    previews: bool = False
    coupled: bool = False
    observers: tuple[Observer, ...] = ()

    def run(self, generator: torch.Generator | None, seeds: list[int] | None) -> BatchResult:
        """Samples; if the result is not finite, a second run finds the network call that caused it.

        Raises:
            RuntimeError: If the network returned NaN or infinity, a solver failed, or the samples are finite but far
                outside the range of the data.
        """
        before = None if generator is None else generator.get_state()
        failure = None
        try:
            predict, record = _Counted(self.model, self.cond), None
            if self.trajectory or self.previews or self.observers:
                predict = _Remembered(self.model, self.cond)
                record = _Record(self, predict)
            result = self._run_once(generator, seeds, predict, record)
            if self._check_magnitude(result):
                return result
        except SolverError as error:
            failure = error
        if generator is not None and before is not None:
            generator.set_state(before)
        self._run_once(generator, seeds, _Checked(self.model, self.cond), None)
        raise failure or RuntimeError(
            f"samples must be finite, but {self.sampler} diverged on finite network outputs; use more steps."
        )

    def _check_magnitude(self, result: BatchResult) -> bool:
        """Whether the samples are finite; see `MagnitudeLimit.check`."""
        if not has_values(result.x):
            return True
        sde = self.model.sde
        if not isinstance(sde, SDE):
            return bool(torch.isfinite(result.x).all())
        init = None if self.init is None else self.init / _scale(sde, self.start)
        return MagnitudeLimit(self.model, result.tau, init).check(result.x / _scale(sde, result.tau), self.sampler)

    def _run_once(
        self, generator: torch.Generator | None, seeds: list[int] | None, predict: _Counted, record: _Record | None
    ) -> BatchResult:
        sde, noise = self.model.sde, Noise(generator, seeds)
        if self.init is None:
            x = sde.prior(self.like, noise, self.start)
        else:
            x = self.init.to(self.like) / _scale(sde, self.start)
        brownian = None
        if self.coupled:
            brownian = VirtualBrownianTree(self.like, _seed_from(generator) if seeds is None else seeds)
        observe: StepHook | None = None if record is None else record.observe
        context = SamplingContext(predict, sde, noise, self.start, observe, brownian, self.model.jump_times)
        if record is not None:
            record.add(self.start, x)
        try:
            x, tau = self.sampler.run(x, context)
        except _Stopped as stopped:
            x, tau = stopped.x, stopped.tau
        if self.denoise and tau > 0:
            x, tau = predict(x, tau).x0, 0.0
            if record is not None:
                record.add(tau, x)
        result = BatchResult(x * _scale(sde, tau), tau, predict.nfe)
        if record is None:
            return result
        return replace(result, times=record.times, states=record.states, previews=record.previews)


def _seed_from(generator: torch.Generator | None) -> int:
    """A seed drawn from the generator; 0 without one, where tensors have no values and nothing is drawn."""
    return 0 if generator is None else int(torch.randint(2**62, (), generator=generator, device=generator.device))


class _Counted:
    """The network call, counted by the model's cost. The model checks the arguments of the first call only."""

    def __init__(self, model: Model, cond: Mapping[str, Tensor]) -> None:
        self.calls, self._cost, self._varying = 0, model.cost, 0
        self._cost_at = model.cost_at if _cost_varies(model) else None
        self._call, self._next, self._cond, self._model = model, model.predict, cond, model

    @property
    def nfe(self) -> int:
        """Network evaluations so far."""
        return self.calls * self._cost if self._cost_at is None else self._varying

    def __call__(self, x: Tensor, tau: Scalar, s: Scalar | None = None) -> Prediction:
        self.calls += 1
        if self._cost_at is not None:
            self._varying += self._cost_at(tau)
        call, self._call = self._call, self._next
        if s is None:
            return call(x, tau, **self._cond)
        return call(x, tau, s=s, **self._cond)


def _cost_varies(model: Model) -> bool:
    """Whether the cost of a call depends on its time; asked once, because `Model.cost_at` visits every submodule."""
    return any(isinstance(part, Model) and type(part).cost_at is not Model.cost_at for part in model.modules())


class _Checked(_Counted):
    """The network call, counted; an output that is not finite is an error."""

    def __call__(self, x: Tensor, tau: Scalar, s: Scalar | None = None) -> Prediction:
        prediction = super().__call__(x, tau, s)
        bad = ~torch.isfinite(prediction.out)
        if isinstance(prediction, DiscretePrediction):
            bad &= ~prediction.out.isneginf()  # the logit of an impossible class
        if bool(bad.any()):
            rows = bad.flatten(1).any(1) if bad.ndim > 1 else bad
            indices = rows.nonzero().flatten().tolist()
            shown = ", ".join(map(str, indices[:8])) + (", …" if len(indices) > 8 else "")
            for name, value in self._cond.items():
                if value.is_floating_point() and bool((wrong := ~value[rows].isfinite()).any()):
                    first = value[rows][wrong][0].item()
                    raise ValueError(
                        f"condition {name!r} must be finite, or NaN in a whole entry where the network has a null, got "
                        f"{_shown(first)} for samples [{shown}], for which the network returned NaN or infinity; "
                        "correct these entries."
                    )
            first = tau[rows][0] if isinstance(tau, Tensor) and tau.ndim else tau  # with several, of the first sample
            remedy = guidance_remedy(self._model) or "Check its inputs there, or train it at that noise level."
            raise RuntimeError(
                f"the network must return finite numbers, but call {self.calls}, at tau = {float(first):.6g}, "
                f"gave NaN or infinity for samples [{shown}] of a batch of {len(x)}. {remedy.strip()}"
            )
        return prediction


class _Remembered(_Counted):
    """The network call, counted, with the last prediction."""

    last: Prediction | None = None

    def __call__(self, x: Tensor, tau: Scalar, s: Scalar | None = None) -> Prediction:
        prediction = self.last = super().__call__(x, tau, s)
        return prediction


class _Stopped(Exception):
    """An observer stops sampling; passes through any solver."""

    def __init__(self, x: Tensor, tau: float) -> None:
        super().__init__(f"stopped at tau = {tau:.6g}")
        self.x, self.tau = x, tau


@dataclass
class _Record:
    """Records times, states and previews, and calls the observers."""

    batch: SamplingBatch
    predict: _Remembered
    times: list[float] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    previews: list[Tensor] = field(default_factory=list)

    def add(self, tau: float, x: Tensor) -> None:
        """Adds a time; before the first network call there is no preview."""
        self.times.append(tau)
        if self.batch.trajectory:
            self.states.append(x * _scale(self.batch.model.sde, tau))
        if self.batch.previews and self.predict.last is not None:
            self.previews.append(self.predict.last.x0)  # at tau = 0 the view's coordinates are those of x

    def observe(self, done: int, steps: int, tau: float, x: Tensor) -> None:
        """The `StepHook` of the batch."""
        last = self.predict.last
        if last is None:
            raise RuntimeError(
                f"a step must call the network, but {self.batch.sampler} reported a step before any call."
            )
        self.add(tau, x)
        progress = Progress(done, steps, tau, x, last)
        answers = [observer(progress) for observer in self.batch.observers]
        if any(answers):
            raise _Stopped(x, tau)


def _shown(number: float) -> str:
    return "NaN" if number != number else f"{number:g}"


def _scale(sde: Process, tau: float) -> float:
    """The view's factor; at the start of an infinite clock its limit."""
    return float(sde.scale(min(tau, 300.0)))
