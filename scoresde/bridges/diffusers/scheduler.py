"""`Scheduler`: a sampler of this package as a scheduler of diffusers, for any of its pipelines.

The pipeline calls the network; each `Scheduler.step` passes one output to the sampler (`scoresde.bridges.replay`).
A method with several network calls in a step has several timesteps in it, as diffusers' Heun.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from scoresde.bridges.diffusers.loop import PlannedLoop, Planner, steps_of
from scoresde.bridges.diffusers.peer import CLASS_NAME, class_of_diffusers, frozen_config, output_of_step
from scoresde.bridges.diffusers.received import Received
from scoresde.bridges.diffusers.replaced import replaced_config
from scoresde.bridges.diffusers.rules import model_rules, steered_model
from scoresde.bridges.diffusers.settings import SchedulerSettings
from scoresde.bridges.diffusers.stored import read_scheduler, sampler_of_text, write_scheduler
from scoresde.sampling import DDIM, StepSampler, Whitened

__all__ = ["Scheduler"]


class Scheduler:
    """A sampler as a scheduler of diffusers: ``pipe.scheduler = Scheduler(Adams(20), pipe.scheduler)``.

    Clock, prediction and clipping are those of the scheduler that it replaces. A pipeline then takes the same steps as
    `scoresde.sample` with the pipeline's network in an adapter (`scoresde.adapters.FromStep` for DDPM's step), from the
    same noise, bit for bit. Guidance, callbacks and img2img work as with diffusers' own schedulers.

    Where a pipeline passes no generator to its scheduler, as those of flow models do not, the noise of stochastic
    samplers comes from torch's global generator. A state that a callback or a mask changes between two steps is carried
    on; a change between two network calls of one step only moves the point of the second call.

    ``num_inference_steps`` of the pipeline is the number of steps. A calibrated sampler, or one with an explicit grid,
    has a fixed number, which the pipeline must then ask for.

    Args:
        sampler: A step sampler, or what `calibrate` returns.
        scheduler: The scheduler that is replaced, or its configuration.
        event_shape: Shape of one sample, e.g. ``(4, 64, 64)``, on which the default grid depends where the network does
            not estimate noise; None if unknown, or as the replaced `Scheduler` has it.
        rounding: Whether the network takes integer timesteps only. By default it receives fractions, or what the
            replaced `Scheduler` has.
        **changes: Entries of the configuration to change, e.g. ``clip_sample=False``.

    Raises:
        TypeError: If an argument is of another kind, or a change is of no entry.
        ValueError: If the scheduler's model cannot be expressed here.
        ImportError: If diffusers is not installed.
    """

    def __new__(cls, *_: Any, **__: Any) -> Scheduler:
        return super().__new__(class_of_diffusers(cls))

    def __init__(
        self,
        sampler: StepSampler | Whitened,
        scheduler: Any,
        event_shape: tuple[int, ...] | None = None,
        rounding: bool | None = None,
        **changes: Any,
    ) -> None:
        if not isinstance(sampler, (StepSampler, Whitened)):
            raise TypeError(
                f"sampler must be a step sampler, whose calls are known in advance, got {sampler!r}; take Adams(20)."
            )
        name, config = replaced_config(scheduler, event_shape, rounding, changes)
        settings = SchedulerSettings(name, config, "the scheduler's configuration")
        rules = model_rules(settings)
        if rules.kind == "flow":  # pipelines such as Flux's then leave the noise levels to the scheduler
            config["use_flow_sigmas"] = True
        self._sampler, self._internal_dict = sampler, frozen_config(config)
        self._received = Received.of(rules, config["rounding"], config["event_shape"])
        # diffusers' DDIM keeps the noise estimate of the unclipped output
        model, _ = steered_model(self._received, settings, not isinstance(sampler, DDIM))
        self._planner = Planner(self._received, model, sampler, config)
        self._planned: PlannedLoop | None = None

    # --- configuration -------------------------------------------------------------------------------------------

    @property
    def config(self) -> Any:
        """The configuration of the replaced scheduler, its class as ``replaces``, and the settings of this one."""
        return self._internal_dict

    @classmethod
    def from_config(cls, config: Any, sampler: StepSampler | Whitened | None = None, **changes: Any) -> Scheduler:
        """The scheduler of a configuration, e.g. ``Scheduler.from_config(pipe.scheduler.config, sampler=Adams(20))``.

        Args:
            config: A configuration of diffusers, or one that `save_pretrained` wrote.
            sampler: The sampler; None for the one in the configuration.
            **changes: Entries to change; ``event_shape`` and ``rounding`` among them.

        Raises:
            ValueError: If there is no sampler.
        """
        config = {**config, **changes}
        text = config.pop("sampler", None)
        if sampler is None and text is None:
            raise ValueError("a configuration of another scheduler has no sampler; pass sampler=, e.g. Adams(20).")
        return cls(sampler_of_text(text) if sampler is None else sampler, config)

    def save_pretrained(self, save_directory: str | os.PathLike[str], **_: Any) -> None:
        """Writes ``scheduler_config.json`` with the sampler as text, for `from_pretrained`.

        Args:
            save_directory: The folder; created if it does not exist.
            **_: Options of uploads, which pipelines pass.

        Raises:
            TypeError: If the sampler has no text form.
        """
        write_scheduler(Path(save_directory), self.config, self._sampler)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], subfolder: str | None = None, **_: Any
    ) -> Scheduler:
        """The scheduler of a folder that `save_pretrained` wrote; nothing is downloaded.

        Args:
            pretrained_model_name_or_path: The folder.
            subfolder: A folder in it, e.g. ``"scheduler"``.
            **_: Options of downloads, which pipelines pass.

        Raises:
            FileNotFoundError: If it holds no ``scheduler_config.json``.
            ValueError: If that is not of a `Scheduler`.
        """
        return cls.from_config(*read_scheduler(Path(pretrained_model_name_or_path) / (subfolder or "")))

    # --- times ---------------------------------------------------------------------------------------------------

    @property
    def _loop(self) -> PlannedLoop:
        if self._planned is None:
            self._planned = self._planner.loop(steps_of(self._sampler))
        return self._planned

    @property
    def timesteps(self) -> Tensor:
        """The times of the network calls as the network takes them, ``(calls,)``, on the device of `set_timesteps`."""
        return self._loop.timesteps

    @property
    def num_inference_steps(self) -> int:
        """Number of steps."""
        return self._loop.steps

    @property
    def order(self) -> int:
        """Network calls of a step, 1 where their number differs between steps: pipelines skip multiples of it."""
        return self._loop.plan.calls_per_step

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the first state in the coordinates of the pipeline."""
        return self._loop.init_noise_sigma

    @property
    def step_index(self) -> int | None:
        """Number of network calls so far; None before the first."""
        return self._loop.index

    @property
    def begin_index(self) -> int | None:
        """The call at which the pipeline begins; None if it did not say."""
        return self._loop.begin

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: torch.device | str | None = None,
        timesteps: Sequence[float] | None = None,
        sigmas: Sequence[float] | None = None,
        mu: float | None = None,
    ) -> None:
        """Plans a run. Pipelines call it before their loop.

        Args:
            num_inference_steps: Number of steps.
            device: Of `timesteps`.
            timesteps: Timesteps of the steps instead of the sampler's grid, falling; the last step ends at the data.
            sigmas: Noise levels instead, as diffusers counts them: σ/α, of a flow its σ in (0, 1] before the shift.
            mu: Shift of the given ``sigmas`` of a flow. The sampler's own grid is not shifted.

        Raises:
            ValueError: If the sampler has another number of steps, or the times are given twice.
        """
        self._planned = self._planner.loop(num_inference_steps, timesteps, sigmas, mu, device)

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Begins the run at a later call, as img2img does. `timesteps` from there on are those of the shorter run.

        Args:
            begin_index: Number of calls that are left out.

        Raises:
            ValueError: If the sampler cannot begin later, or not there.
        """
        self._loop.begin_at(begin_index)

    # --- the loop ------------------------------------------------------------------------------------------------

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """The input of the network for a state in the coordinates of the pipeline; itself, except for EDM's networks.

        Args:
            sample: The state, ``(B, *D)``.
            timestep: An entry of `timesteps`.
        """
        return self._loop.run_at(timestep).network_input(sample) if self._received.scales_input else sample

    def step(
        self,
        model_output: Tensor,
        timestep: Any,
        sample: Tensor,
        eta: float = 0.0,
        use_clipped_model_output: bool | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        return_dict: bool = True,
    ) -> Any:
        """Passes one output of the network to the sampler.

        Args:
            model_output: The output at ``(sample, timestep)`` after guidance, ``(B, *D)``, or with twice the channels
                for a learned variance.
            timestep: The entry of `timesteps` that the network received.
            sample: The state that it received, ``(B, *D)``.
            eta, use_clipped_model_output: Options of DDIM; the sampler decides here, and only defaults are accepted.
            generator: Source of the sampler's noise, or one per sample.
            return_dict: Whether to return an object with ``prev_sample`` instead of a tuple.

        Returns:
            The state at the next entry of `timesteps`, or the last state.

        Raises:
            ValueError: If ``timestep`` is not the next one, or all calls have been made.
        """
        if eta or use_clipped_model_output:
            raise ValueError(
                f"the noise of a step is the sampler's, got eta={eta} and use_clipped_model_output="
                f"{use_clipped_model_output}; leave them out and take a sampler such as DDPM() or ERSDE()."
            )
        state = self._loop.run_at(timestep).step(model_output, sample, generator)
        return output_of_step(state) if return_dict else (state,)

    def add_noise(self, original_samples: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        r"""Noised data in the coordinates of the pipeline, $c(\alpha x_0 + \sigma\varepsilon)$, as img2img needs them.

        Args:
            original_samples: Data, ``(B, *D)``.
            noise: Unit normal noise, ``(B, *D)``.
            timesteps: Times as the network takes them, ``()`` or ``(B,)``.
        """
        return self._loop.noised(original_samples, noise, timesteps)

    def scale_noise(self, sample: Tensor, timestep: Tensor, noise: Tensor) -> Tensor:
        """`add_noise` under the name and with the order of diffusers' flow schedulers."""
        return self.add_noise(sample, noise, timestep)

    def __repr__(self) -> str:
        """The sampler, and the class of the scheduler that it replaces; `config` has all settings."""
        return f"Scheduler({self._sampler}, {self.config['replaces']})"

    def __len__(self) -> int:
        return int(self.config.get("num_train_timesteps", 1000))


def __getattr__(name: str) -> Any:
    """What pipelines of diffusers look for in the module of a saved scheduler's class."""
    if name in (CLASS_NAME, "SchedulerMixin"):
        joined = class_of_diffusers(Scheduler)
        return joined if name == CLASS_NAME else joined.__mro__[2]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
