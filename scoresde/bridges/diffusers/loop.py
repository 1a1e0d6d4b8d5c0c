"""`PlannedLoop`: the timesteps that a pipeline loops over, and where in them it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scoresde._core.checks import check_integer
from scoresde.bridges.diffusers.pipeline_run import PipelineRun
from scoresde.bridges.diffusers.received import Received
from scoresde.bridges.diffusers.schedule_plan import Plan
from scoresde.bridges.replay import noise_alone
from scoresde.model import Model, gaussian_process
from scoresde.process import ou
from scoresde.sampling import ExplicitGrid, NonStationary, StepSampler, Whitened

__all__ = ["Planned", "PlannedLoop", "Planner", "steps_of", "with_steps"]


@dataclass(frozen=True, eq=False)
class Planned:
    """A sampler with its calls; it holds for every run.

    Args:
        sampler: The sampler, with the settings that it leaves to the model.
        plan: Its steps and calls.
        timesteps: Times of the calls as the network takes them, ``(calls,)``, on the CPU.
    """

    sampler: StepSampler | Whitened
    plan: Plan
    timesteps: Tensor

    @classmethod
    def of(cls, sampler: StepSampler | Whitened, received: Received, model: Model) -> Planned:
        """The calls of a sampler.

        Args:
            sampler: The sampler.
            received: The model that gets the outputs.
            model: It, or it with clipping.
        """
        sampler, sde = sampler.for_model(model), received.sde
        inner = _inner(sampler)
        with noise_alone(sampler, sde.tau_max):
            start = min(inner.grid.knots(sde, inner.steps, sde.tau_max)[0], sde.tau_max)
            taus = inner.grid.times(sde, inner.steps, start)
            plan = Plan.of(sampler, taus, received.parameterization)
        return cls(sampler, plan, received.network_times(plan.times))


class PlannedLoop:
    """The calls of a sampler in the order of a pipeline's loop.

    Args:
        received: The model that gets the outputs.
        model: It, or it with clipping.
        planned: The sampler and its calls.
        device: Of the timesteps.

    Attributes:
        timesteps: Times of the calls as the network takes them, ``(calls,)``.
        plan: Steps and calls of the whole run.
        begin: The call at which the pipeline begins; None before `begin_at`.
    """

    def __init__(
        self, received: Received, model: Model, planned: Planned, device: torch.device | str | None = None
    ) -> None:
        self._received, self._model, self._sampler, self.plan = received, model, planned.sampler, planned.plan
        self.begin: int | None = None
        self._taus, self._on_host = self.plan.times, [float(t) for t in planned.timesteps.tolist()]
        self.timesteps = planned.timesteps.to(device, copy=True)
        self._run: PipelineRun | None = None

    @property
    def steps(self) -> int:
        """Number of steps."""
        return len(self.plan.calls)

    @property
    def index(self) -> int | None:
        """Number of calls so far, with those left out; None before the first."""
        return None if self._run is None else self._run.index

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the first state in the coordinates of the pipeline."""
        sde, first = gaussian_process(self._received), self.plan.taus[0]
        std = sde.prior_std if first >= sde.tau_max else 1.0
        return std * float(sde.scale(min(first, 300.0)))

    def begin_at(self, index: int) -> None:
        """Leaves out the first calls; the later entries of `timesteps` become those of the shorter run.

        They change in place, because pipelines slice the tensor before they say where they begin.
        """
        plan = self.plan.from_call(index, self._sampler, self._received.parameterization)
        times = self._received.network_times(plan.times)
        self.timesteps[index:] = times.to(self.timesteps)
        self._on_host[index:], self._taus[index:] = [float(t) for t in times.tolist()], plan.times
        self.begin = index
        self._run = PipelineRun(self._received, self._model, self._sampler, plan, index)

    def run_at(self, timestep: Any) -> PipelineRun:
        """The run, if ``timestep`` is its next; the first call begins it.

        Raises:
            ValueError: If it is not, or if all calls have been made.
        """
        if self._run is None:
            self._run = self._begun(float(timestep))
        run = self._run
        if run.over:
            raise ValueError("all steps have been made; call set_timesteps before the next run.")
        on_host = not (isinstance(timestep, Tensor) and timestep.device.type != "cpu")
        if on_host and float(timestep) != self._on_host[run.index]:
            raise ValueError(
                f"timesteps must come in their order, next is {self._on_host[run.index]:g}, got {float(timestep):g}; "
                "call set_timesteps to begin again."
            )
        return run

    def taus_of(self, timesteps: Tensor) -> list[float]:
        """The OU time of each timestep; that of the loop's own timesteps is exact."""
        own = dict(zip(self._on_host, self._taus))
        values = [float(t) for t in timesteps.reshape(-1).tolist()]
        return [own[t] if t in own else self._received.tau_of(t) for t in values]

    def noised(self, data: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        r"""$c(\alpha x_0 + \sigma\varepsilon)$ at timesteps of shape ``()`` or ``(B,)``, see `Scheduler.add_noise`."""
        sde, taus = self._received.sde, self.taus_of(timesteps)
        scales = [float(sde.scale(min(tau, 300.0))) for tau in taus]
        on_data = [scale * ou.alpha(tau) for scale, tau in zip(scales, taus)]
        on_noise = [scale * ou.sigma(tau) for scale, tau in zip(scales, taus)]
        shape = (-1,) + (1,) * (data.ndim - 1)
        a, b = (torch.tensor(values).to(data).reshape(shape) for values in (on_data, on_noise))
        return a * data + b * noise

    def _begun(self, timestep: float) -> PipelineRun:
        if timestep not in self._on_host:
            raise ValueError(f"timestep must be an entry of Scheduler.timesteps, got {timestep:g}; loop over them.")
        begin = self._on_host.index(timestep)
        plan = self.plan.from_call(begin, self._sampler, self._received.parameterization)
        if plan.times != self.plan.times[begin:]:
            raise ValueError(
                f"a run that begins later has other timesteps with {self._sampler}; call set_begin_index({begin}) "
                "before the loop, or take a sampler of order 3 or below."
            )
        return PipelineRun(self._received, self._model, self._sampler, plan, begin)


class Planner:
    """Makes the loop of a sampler for a number of steps or for given times.

    Args:
        received: The model that gets the outputs.
        model: It, or it with clipping.
        sampler: The sampler.
        config: The scheduler's configuration.
    """

    def __init__(
        self, received: Received, model: Model, sampler: StepSampler | Whitened, config: Mapping[str, Any]
    ) -> None:
        self._received, self._model, self._sampler, self._config = received, model, sampler, config
        self._plans: dict[int, Planned] = {}

    def loop(
        self,
        steps: int | None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
        device: torch.device | str | None = None,
    ) -> PlannedLoop:
        """The loop, see `Scheduler.set_timesteps`."""
        received = self._received
        if timesteps is not None and sigmas is not None:
            raise ValueError("the times of the steps must be given once, got timesteps and sigmas; leave one out.")
        if timesteps is None and sigmas is None:
            check_integer("num_inference_steps", steps)
            planned = self._of_steps(steps or 1)
        else:
            if timesteps is not None:
                taus = [received.checked_tau(t) for t in timesteps]
            else:
                taus = received.taus_of_sigmas([] if sigmas is None else list(sigmas), self._config, mu)
            if not taus or any(not a > b for a, b in zip(taus, taus[1:])):
                given = [float(t) for times in (timesteps, sigmas) if times is not None for t in times]
                raise ValueError(
                    f"{'sigmas' if timesteps is None else 'timesteps'} must be one or more falling times, got {given}; "
                    "sort them, or pass num_inference_steps."
                )
            planned = Planned.of(with_steps(self._sampler, len(taus), [*taus, 0.0]), received, self._model)
        return PlannedLoop(received, self._model, planned, device)

    def _of_steps(self, steps: int) -> Planned:
        """The plan of a number of steps, kept for the next run: it computes the weights of the sampler."""
        if steps not in self._plans:
            self._plans[steps] = Planned.of(with_steps(self._sampler, steps), self._received, self._model)
        return self._plans[steps]


def with_steps(sampler: StepSampler | Whitened, steps: int, taus: Sequence[float] | None = None) -> Any:
    """The sampler with another number of steps, and with given times if there are any.

    Raises:
        ValueError: If its number of steps is fixed.
    """
    inner = _inner(sampler)
    grid = inner.grid if taus is None else ExplicitGrid(tuple(taus))
    fixed = isinstance(inner.grid, ExplicitGrid) or (isinstance(inner, NonStationary) and inner.weights)
    if fixed and (taus is not None or steps != inner.steps):
        raise ValueError(
            f"the sampler has {inner.steps} steps of fixed times, got {steps}; pass "
            f"num_inference_steps={inner.steps} to the pipeline, and no times."
        )
    changed = inner if steps == inner.steps and taus is None else replace(inner, steps=steps, grid=grid)
    return Whitened(changed, sampler.moments) if isinstance(sampler, Whitened) else changed


def steps_of(sampler: StepSampler | Whitened) -> int:
    """The number of steps of a sampler."""
    return _inner(sampler).steps


def _inner(sampler: StepSampler | Whitened) -> StepSampler:
    return sampler.sampler if isinstance(sampler, Whitened) else sampler
