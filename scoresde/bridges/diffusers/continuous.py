r"""Samplers that equal the schedulers of flow matching and of EDM, whose noise levels are not a chain of betas."""

from __future__ import annotations

import math

from scoresde.bridges.diffusers.peer_sampler import PeerSampler, found, without
from scoresde.bridges.diffusers.settings import SchedulerSettings
from scoresde.sampling import (
    DDIM,
    DPMSolverPP,
    Grid,
    Karras,
    Sampler,
    SDEDPMSolverPP,
    ShiftedFlow,
    ThenZero,
    UniformLogSNR,
)

__all__ = ["dpm_solver", "edm_sampler", "flow_sampler"]

_EDM_START = "; it starts from √(σ̃² + 1) times the noise, this from σ̃ times the noise"


def edm_sampler(settings: SchedulerSettings, steps: int) -> PeerSampler:
    """Euler's method and DPM-Solver++ on the noise levels of EDM.

    Args:
        settings: The scheduler's.
        steps: Number of steps.
    """
    grid: Grid = Karras(float(settings["rho"])) if settings["sigma_schedule"] == "karras" else UniformLogSNR()
    if settings.class_name == "EulerDiscreteScheduler":
        if not settings["use_karras_sigmas"]:
            return without(settings, "its noise levels have no equal here", DDIM(steps, ThenZero(Karras())))
        grid = Karras()
    if settings["final_sigmas_type"] != "zero":
        return without(settings, "its last step stays at its own noise level", DDIM(steps, grid))
    if settings.class_name != "EDMDPMSolverMultistepScheduler":
        return found(settings, DDIM(steps, ThenZero(grid)), None, _EDM_START)
    sampler = dpm_solver(settings, steps, ThenZero(grid))
    if sampler is None:
        return without(settings, "this variant has no equal here", DPMSolverPP(steps, ThenZero(grid)))
    return found(settings, sampler, None, _EDM_START)


def dpm_solver(settings: SchedulerSettings, steps: int, grid: Grid) -> Sampler | None:
    """DPM-Solver++ of order 1 or 2, or its stochastic form, on a grid that is given; None for other variants.

    Args:
        settings: The scheduler's.
        steps: Number of steps.
        grid: Its times.
    """
    order, kind = settings["solver_order"], settings["algorithm_type"]
    if order not in (1, 2) or (order == 2 and settings["solver_type"] == "heun"):
        return None
    if kind in ("dpmsolver++", "deis"):
        return DPMSolverPP(steps, grid, order)
    return SDEDPMSolverPP(steps, grid, order) if kind == "sde-dpmsolver++" else None


def flow_sampler(
    settings: SchedulerSettings, steps: int, image_tokens: int | None = None, even_to_last: bool = False
) -> PeerSampler:
    """Euler's method on the straight path.

    Args:
        settings: The scheduler's.
        steps: Number of steps.
        image_tokens: Number of tokens of an image, on which a dynamic shift depends; None if unknown.
        even_to_last: Whether the pipeline passes the noise levels 1 … 1/n of n steps, as Flux's does.
    """
    if settings.class_name != "FlowMatchEulerDiscreteScheduler":
        return without(settings, "its method has no equal here")
    unlike = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "shift_terminal", "invert_sigmas")
    if any(settings[name] for name in (*unlike, "stochastic_sampling")):
        return without(settings, "its noise levels or its noise have no equal here", "DDIM(28, ShiftedFlow(3.0))")
    shift, length = float(settings["shift"]), settings["num_train_timesteps"]
    last: float | None = shift / (length + shift - 1.0)
    if settings["use_dynamic_shifting"]:
        if image_tokens is None:
            return without(settings, "its shift depends on the size of the image", "DDIM(28, ShiftedFlow(3.0))")
        shift, last = _dynamic_shift(settings, image_tokens), 1.0 / length
    if even_to_last:
        last = None
    sampler = DDIM(steps, ShiftedFlow(shift, last))
    return found(settings, sampler, None, "; the shift moves the times only")


def _dynamic_shift(settings: SchedulerSettings, image_tokens: int) -> float:
    r"""The shift $e^\mu$, with μ linear in the number of tokens; for ``"linear"`` μ itself."""
    low, high = settings["base_image_seq_len"], settings["max_image_seq_len"]
    slope = (settings["max_shift"] - settings["base_shift"]) / (high - low)
    mu = settings["base_shift"] + slope * (image_tokens - low)
    return math.exp(mu) if settings["time_shift_type"] == "exponential" else mu
