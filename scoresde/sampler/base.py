"""How is a sample drawn? One `sample` for every way back from the prior, and the two kinds of sampler."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from scoresde import _tensor as t
from scoresde import ou
from scoresde._tensor import Noise, Scalar
from scoresde.data import Description
from scoresde.model import Model, evaluating
from scoresde.parameterization import Prediction
from scoresde.sampler.grid import Chain, Grid
from scoresde.sde import SDE

__all__ = ["Observer", "Path", "Predict", "Sampler", "Samples", "StepSampler", "sample"]

Predict = Callable[[Any, Any], Prediction]
"""One network call: ``predict(x, tau)``."""

Observer = Callable[[int, int, float, Tensor], None]
"""Called with (steps done, steps in all, tau, x) after each step; adaptive solvers call it with their own steps."""


@dataclass(frozen=True)
class Samples:
    """What `sample` returns.

    Attributes:
        x: Samples in the view's coordinates (those of the data, at ``tau``), model units, ``(n, *D)``.
        tau: OU time at which they stand: ``tau_min``, or 0 after the chain's last step or a final denoising.
        nfe: Network calls per sample (of a batch-coupled adaptive solver: of the batch).
        taus: Times of the trajectory, or None.
        trajectory: States at those times, view's coordinates, ``(len(taus), n, *D)``, or None.
        description: The data's description, or None.
    """

    x: Tensor
    tau: float
    nfe: int
    taus: tuple[float, ...] | None = None
    trajectory: Tensor | None = None
    description: Description | None = None

    @cached_property
    def data(self) -> Tensor:
        """The samples in the data's own units (levels, where they are quantised), ``(n, *D)``.

        Raises:
            ValueError: If the model does not carry its data's description.
        """
        if self.description is None:
            raise ValueError("data units need the data's description, got a model without one; use .x (model units).")
        return self.description.to_data(self.x)


@dataclass
class Path:
    """What a sampler is given for one batch, and what it leaves behind.

    Attributes:
        predict: The network call, counted.
        sde: The process.
        noise: Source of randomness.
        start: OU time at which ``x`` stands.
        observe: Called after each step, or None.
    """

    predict: Predict
    sde: SDE
    noise: Noise
    start: float
    observe: Observer | None = None


class Sampler(ABC):
    """A way back along the clock. Settings are dataclass fields; nothing is kept between calls."""

    @abstractmethod
    def run(self, x: Tensor, path: Path) -> tuple[Tensor, float]:
        """Takes ``x`` from ``path.start`` back.

        Args:
            x: State in x, ``(B, *D)``.
            path: Network, process, noise and observer.

        Returns:
            The state and the OU time at which it stands.
        """


@dataclass(frozen=True)
class StepSampler(Sampler):
    """A fixed-step method: one pure `step`, walked along a grid.

    Args:
        steps: Number of steps.
        grid: Where they are.
    """

    steps: int = 1000
    grid: Grid = field(default_factory=Chain)

    def __post_init__(self) -> None:
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"steps must be a positive integer, got {self.steps!r}.")

    @property
    @abstractmethod
    def order(self) -> int:
        """Order of the global error in the step: of the terminal map, or variance where the step draws noise."""

    @property
    def stochastic(self) -> bool:
        """Whether the step draws noise."""
        return False

    @abstractmethod
    def step(
        self, predict: Predict, x: Any, tau: float, s: float, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        """One step back from ``tau`` to ``s``.

        Args:
            predict: ``predict(x, tau)``, one network call.
            x: State at ``tau``, touched only by + and × with floats: a tensor, or an exact law.
            tau, s: OU times with ``0 <= s < tau``.
            noise: Draws unit normal noise like ``x``; to be called only if ``s > 0``.
            memory: What the last step returned; None at first.

        Returns:
            State at ``s`` and the memory for the next step.
        """

    def run(self, x: Tensor, path: Path) -> tuple[Tensor, float]:
        """Walks the grid; see `Sampler.run`."""
        taus = self.grid.times(path.sde, self.steps, path.start)
        predict, observe, step, memory = path.predict, path.observe, self.step, None

        def noise() -> Tensor:
            return path.noise.normal(x)

        for i in range(self.steps):
            x, memory = step(predict, x, taus[i], taus[i + 1], noise, memory)
            if observe is not None:
                observe(i + 1, self.steps, taus[i + 1], x)
        return x, taus[-1]


def sample(
    model: Model,
    shape: int | Sequence[int],
    sampler: Sampler,
    *,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    start: float | None = None,
    init: Tensor | None = None,
    denoise: bool = False,
    batch_size: int | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    trajectory: bool = False,
    progress: bool = False,
    observe: Observer | None = None,
    **cond: Tensor,
) -> Samples:
    """Draws samples.

    Args:
        model: Trained or exact; evaluated in eval mode, without gradients.
        shape: Number of samples (the model then knows its event shape), or ``(n, *D)``.
        sampler: Which way back, e.g. ``DDPM(steps=250)``, ``EulerMaruyama()``, ``ODE()``.
        generator: Source of all randomness; the global random state is then left alone. Default: a new generator
            seeded from the global one.
        seeds: One integer per sample instead: a sample then depends on its own seed only, not on its batch (but for
            solvers that say that the batch shares their step).
        start: OU time to start from; default the end of the clock. Below it the start is N(0, I) in x.
        init: State at ``start`` in the view's coordinates, ``(n, *D)``, instead of a draw from the prior.
        denoise: Ends with one more network call, which replaces x by its data estimate; counted in ``nfe``.
        batch_size: Samples at once; default all.
        device: Where to sample; default where the model is. The model is not moved.
        dtype: Type of the state; default the model's, at least float32.
        trajectory: Also returns the states along the way.
        progress: Shows a progress bar.
        observe: Called after each step with (steps done, steps in all, tau, x).
        **cond: Passed to the network, one entry per sample, ``(n, …)``.

    Returns:
        The samples, see `Samples`.

    Raises:
        ValueError: If the shape, seeds, start or conditioning do not fit.
        RuntimeError: If the network returns NaN or infinity: names the network call, tau and the samples.
    """
    size = _shape(model, shape)
    like = _reference(model, device, dtype)
    first = model.sde.tau_max if start is None else float(start)
    if init is None and start is not None:
        _warn_about_prior(first)
    if generator is None and seeds is None and like.device.type != "meta":
        generator = torch.Generator(like.device).manual_seed(int(torch.randint(2**62, ())))
    seeds, init, cond = _per_sample(size[0], seeds, init, cond)
    chunk = size[0] if batch_size is None else batch_size
    if chunk < 1 and size[0] > 0:
        raise ValueError(f"batch_size must be a positive integer, got {batch_size!r}.")
    parts = []
    with _bar(progress) as bar, torch.no_grad(), evaluating(model):
        for i in range(0, size[0], max(chunk, 1)):
            rows = slice(i, min(i + chunk, size[0]))
            part = like.new_empty((rows.stop - rows.start, *size[1:]))
            run = _Run(model, sampler, first, denoise, trajectory, {k: v[rows] for k, v in cond.items()})
            run.observers = [o for o in (observe, bar(i, size[0])) if o is not None]
            run.start_state = None if init is None else init[rows].to(part)
            parts.append(run(part, generator, None if seeds is None else seeds[rows]))
    return _join(parts, size, like, model, trajectory)


def _shape(model: Model, shape: int | Sequence[int]) -> tuple[int, ...]:
    if isinstance(shape, int):
        if model.event_shape is None:
            raise ValueError(
                f"a number of samples needs a model that knows its event shape, got n = {shape} and a model without "
                "one; pass the whole shape (n, *D), or event_shape to ScoreModel."
            )
        shape = (shape, *model.event_shape)
    size = tuple(int(n) for n in shape)
    if not size or any(n < 0 for n in size):
        raise ValueError(f"shape must be (n, *D) with n >= 0, got {size}.")
    return size


def _reference(model: Model, device: torch.device | str | None, dtype: torch.dtype | None) -> Tensor:
    """An empty tensor of the type and device to sample in."""
    held = next((p for p in [*model.parameters(), *model.buffers()] if p.is_floating_point()), torch.empty(0))
    kind = dtype or torch.promote_types(held.dtype, torch.float32)
    return torch.empty(0, dtype=kind, device=device or held.device)


def _warn_about_prior(tau: float) -> None:
    alpha = float(ou.alpha(tau))
    if alpha > 0.1:
        warnings.warn(
            f"sampling starts at tau = {tau:.4g}, where alpha = {alpha:.3g} of the data is still in x, from N(0, I), a "
            "bad guess; start later, or give the state by init=.",
            stacklevel=3,
        )


def _per_sample(
    n: int, seeds: Sequence[int] | None, init: Tensor | None, cond: dict[str, Tensor]
) -> tuple[list[int] | None, Tensor | None, dict[str, Tensor]]:
    for name, value in {"seeds": seeds, "init": init, **cond}.items():
        if value is not None and len(value) != n:
            raise ValueError(f"{name} must have one entry per sample, {n}, got {len(value)}.")
    if init is not None:
        t.check_finite(init, "init")
    return None if seeds is None else [int(seed) for seed in seeds], init, cond


@dataclass
class _Run:
    """One batch, and its replay where a network call has gone wrong."""

    model: Model
    sampler: Sampler
    start: float
    denoise: bool
    keep: bool
    cond: dict[str, Tensor]
    observers: list[Observer] = field(default_factory=list)
    start_state: Tensor | None = None
    nfe: int = 0

    def __call__(self, part: Tensor, generator: torch.Generator | None, seeds: list[int] | None) -> Samples:
        before = None if generator is None else generator.get_state()
        x, tau, kept = self._walk(part, Noise(generator, seeds), self._predict)
        if x.device.type != "meta" and not bool(torch.isfinite(x).all()):
            if generator is not None and before is not None:
                generator.set_state(before)
            self.nfe, self.observers = 0, []
            self._walk(part, Noise(generator, seeds), self._predict_checked)
            raise RuntimeError("the samples are not finite though every network output was; use more steps.")
        taus = tuple(time for time, _ in kept)
        states = torch.stack([state for _, state in kept]) if kept else None
        return Samples(x, tau, self.nfe, taus or None, states)

    def _walk(self, part: Tensor, noise: Noise, predict: Predict) -> tuple[Tensor, float, list[tuple[float, Tensor]]]:
        sde, kept = self.model.sde, []

        def observe(done: int, steps: int, tau: float, x: Tensor) -> None:
            if self.keep:
                kept.append((tau, x * _scale(sde, tau)))
            for observer in self.observers:
                observer(done, steps, tau, x)

        if self.start_state is None:
            x = sde.prior(part, noise, self.start)
        else:
            x = self.start_state / _scale(sde, self.start)
        if self.keep:
            kept.append((self.start, x * _scale(sde, self.start)))
        watch = observe if self.keep or self.observers else None
        x, tau = self.sampler.run(x, Path(predict, sde, noise, self.start, watch))
        if self.denoise and tau > 0:
            x, tau = predict(x, tau).x0, 0.0
            if watch is not None and self.keep:
                kept.append((0.0, x))
        return x * _scale(sde, tau), tau, kept

    def _predict(self, x: Tensor, tau: Scalar) -> Prediction:
        self.nfe += 1
        return self.model(x, tau, **self.cond)

    def _predict_checked(self, x: Tensor, tau: Scalar) -> Prediction:
        prediction = self._predict(x, tau)
        bad = ~torch.isfinite(prediction.out)
        if bool(bad.any()):
            rows = bad.flatten(1).any(1) if bad.ndim > 1 else bad
            indices = rows.nonzero().flatten().tolist()
            shown = ", ".join(map(str, indices[:8])) + (" …" if len(indices) > 8 else "")
            raise RuntimeError(
                f"the network returned NaN or infinity in call {self.nfe} at tau = {float(tau):.6g}, for the samples "
                f"[{shown}] of a batch of {len(x)}; look at its inputs there, or train it at that time."
            )
        return prediction


def _scale(sde: SDE, tau: float) -> float:
    """The view's factor; at the start of an infinite clock its limit."""
    return float(sde.scale(min(tau, 300.0)))


class _Bar:
    """A rich progress bar over the steps of all batches, or nothing."""

    def __init__(self, shown: bool) -> None:
        self.progress: Any = None
        if shown:
            from rich.progress import Progress

            self.progress = Progress()

    def __enter__(self) -> Callable[[int, int], Observer | None]:
        if self.progress is None:
            return lambda done, total: None
        self.progress.start()
        task = self.progress.add_task("sampling", total=1.0)

        def observer(done: int, total: int) -> Observer:
            def observe(step: int, steps: int, tau: float, x: Tensor) -> None:
                self.progress.update(task, completed=(done + len(x) * step / steps) / max(total, 1))

            return observe

        return observer

    def __exit__(self, *_: object) -> None:
        if self.progress is not None:
            self.progress.stop()


def _bar(shown: bool) -> _Bar:
    return _Bar(shown)


def _join(parts: list[Samples], size: tuple[int, ...], like: Tensor, model: Model, trajectory: bool) -> Samples:
    if not parts:
        return Samples(like.new_empty(size), model.sde.tau_min, 0, None, None, model.data)
    if trajectory and len({part.taus for part in parts}) > 1:
        raise ValueError("a trajectory needs the same times in every batch; leave batch_size out for adaptive solvers.")
    states = [part.trajectory for part in parts if part.trajectory is not None]
    return Samples(
        torch.cat([part.x for part in parts]),
        parts[0].tau,
        max(part.nfe for part in parts),
        parts[0].taus,
        torch.cat(states, 1) if states else None,
        model.data,
    )
