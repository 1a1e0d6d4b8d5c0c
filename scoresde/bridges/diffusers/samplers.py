r"""Samplers that equal a diffusers scheduler: the same steps at the same times, where there is such a method here.

DDIM, Euler in $\tilde\sigma$ and Euler on the straight path are one method, since all three hold the estimates
$\hat x_0$ and $\hat\varepsilon$ constant over a step; ancestral Euler is `DDIM` with η = 1.
"""

from __future__ import annotations

import math
from dataclasses import replace

from scoresde.bridges.diffusers.continuous import dpm_solver, edm_sampler, flow_sampler
from scoresde.bridges.diffusers.peer_sampler import PeerSampler, found, without
from scoresde.bridges.diffusers.rules import rounds_times
from scoresde.bridges.diffusers.settings import FLOW, SchedulerSettings
from scoresde.process.sde import SDE
from scoresde.sampling import (
    DDIM,
    DDPM,
    DPMSolverPP,
    Grid,
    Heun,
    Karras,
    Sampler,
    Spaced,
    ThenZero,
    UniformLogSNR,
    UniPC,
)

__all__ = ["default_steps", "peer_sampler"]

_MULTISTEP = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
_REV_VAR = {
    "fixed_small": "beta_tilde",
    "fixed_small_log": "beta_tilde",
    "fixed_large": "beta",
    "fixed_large_log": "beta",
    "learned_range": "learned",
}


def default_steps(settings: SchedulerSettings, flow_steps: int = 28) -> int:
    """Steps that the pipelines make by default: the whole chain with DDPM, 50 with the other chains, 28 with flows.

    Args:
        settings: The scheduler's.
        flow_steps: The number with flow matching.
    """
    if settings.class_name.startswith("DDPM"):
        return int(settings["num_train_timesteps"])
    if settings.class_name == "ScoreSdeVeScheduler":
        return 2000
    return flow_steps if settings.class_name in FLOW else 50


def peer_sampler(
    settings: SchedulerSettings,
    process: SDE,
    steps: int,
    image_tokens: int | None = None,
    even_to_last: bool = False,
) -> PeerSampler:
    """The sampler that equals a scheduler with ``steps`` steps.

    Args:
        settings: The scheduler's.
        process: The process of `model_rules`.
        steps: Number of steps.
        image_tokens, even_to_last: As in `flow_sampler`.

    Returns:
        The sampler, its start and findings; no sampler where the method, or its times, have no equal here.
    """
    name = settings.class_name
    if name in FLOW:
        return flow_sampler(settings, steps, image_tokens, even_to_last)
    if name.startswith(("LCM", "TCD")):
        return without(settings, "it samples a distilled network in few steps of its own", "the scheduler itself")
    if name.startswith("EDM") or (name == "EulerDiscreteScheduler" and settings["timestep_type"] == "continuous"):
        return edm_sampler(settings, steps)
    if name.startswith(("DDIM", "DDPM")):
        return _of_alpha_bar(settings, process, steps)
    if name in ("EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler"):
        return _of_sigma(settings, process, steps)
    if name in _MULTISTEP:
        return _multistep(settings, process, steps)
    return without(settings, "its method has no equal here")


def _spacing(settings: SchedulerSettings, *, end: int = 0, extra: bool = False, rounded: bool = True) -> Spaced:
    """The grid of ``timestep_spacing`` and ``steps_offset``."""
    spacing = settings["timestep_spacing"]
    offset = settings["steps_offset"] if spacing == "leading" else 0
    extra = extra and spacing != "trailing"
    return Spaced(spacing, settings["num_train_timesteps"], offset, end, extra, rounded or spacing != "linspace")


def _start(grid: Spaced, process: SDE, steps: int) -> float | None:
    """The time of the first step, unless that is the end of the clock."""
    first = grid.timesteps(steps)[0]
    return None if first == grid.length else float(process.schedule.tau(first / grid.length))


def _of_alpha_bar(settings: SchedulerSettings, process: SDE, steps: int) -> PeerSampler:
    """DDIM and DDPM. DDIM's step always leads ``K // steps`` timesteps down, whatever its timesteps are."""
    ddpm, length = settings.class_name.startswith("DDPM"), settings["num_train_timesteps"]
    end = 0 if ddpm or settings["set_alpha_to_one"] else 1
    grid = _spacing(settings, end=end)
    ks = grid.timesteps(steps)
    if ddpm:
        return _ddpm(settings, grid, ks, process, steps)
    stride = length // steps
    if any(a - b != stride for a, b in zip(ks, ks[1:])) or ks[-1] > stride:
        consistent = DDIM(steps, grid if ks[-1] > end else _spacing(settings))
        return without(settings, f"its steps lead {stride} timesteps down, and not to its next timestep", consistent)
    if ks[-1] > end:
        return found(settings, DDIM(steps, grid), _start(grid, process, steps))
    if steps == 1 or settings["timestep_spacing"] != "leading":
        return without(settings, "its last step stays at its own time")
    shorter = DDIM(steps - 1, replace(grid, extra=True))
    if settings["clip_sample"] or settings["thresholding"]:  # which is all that its last step does
        return without(settings, "its last step leads from τ_1 to τ_1", shorter)
    why = ", whose last step, from τ_1 to τ_1, changes nothing"
    return found(settings, shorter, _start(grid, process, steps), why)


def _ddpm(settings: SchedulerSettings, grid: Spaced, ks: list[float], process: SDE, steps: int) -> PeerSampler:
    kind = settings["variance_type"]
    if kind not in _REV_VAR:
        raise ValueError(
            f"variance_type must be one of {', '.join(_REV_VAR)}, got {kind!r} in {settings.file}; networks with this "
            "variance cannot be opened."
        )
    sampler = DDPM(steps, grid, _REV_VAR[kind])
    if ks[-1] > 1 and _REV_VAR[kind] != "beta_tilde":
        return without(settings, "it adds noise in its last step, to time 0", sampler)
    if kind == "fixed_large_log":
        return without(settings, "it takes the root of a logarithm for the variance, which is NaN", sampler)
    return found(settings, sampler, _start(grid, process, steps), f", variance_type {kind}")


def _sigma_grid(settings: SchedulerSettings) -> Grid | None:
    """The grid of ``use_…_sigmas``, which leads from the noise level of the first timestep to that of the last."""
    even = UniformLogSNR()
    grids = {"use_karras_sigmas": Karras(), "use_exponential_sigmas": even, "use_lu_lambdas": even}
    return next((ThenZero(grid) for name, grid in grids.items() if settings[name]), None)


def _of_sigma(settings: SchedulerSettings, process: SDE, steps: int) -> PeerSampler:
    """Euler, ancestral Euler and Heun in σ̃."""
    name = settings.class_name
    if process.tau_max == math.inf:
        return without(settings, "its noise rises again in the last step, which it sets to ᾱ = 2^-24")
    if settings["use_beta_sigmas"] or settings["interpolation_type"] != "linear":
        return without(settings, "its noise levels have no equal here")
    if settings["final_sigmas_type"] != "zero":
        return without(settings, "its last step ends at sigma_min")
    spaced, grid = _spacing(settings, rounded=False), _sigma_grid(settings)
    if grid is not None and (settings["sigma_min"] or settings["sigma_max"]):
        return without(settings, "its noise levels are not those of its betas", DDIM(steps, grid))
    if grid is not None and spaced.timesteps(steps)[-1] != 1:
        return without(settings, "its noise levels end above that of the first timestep", DDIM(steps, grid))
    start, grid = _start(spaced, process, steps), grid or spaced
    if name == "HeunDiscreteScheduler":
        sampler: Sampler = Heun(steps, grid)
    else:
        sampler = DDIM(steps, grid, eta=1.0 if "Ancestral" in name else 0.0)
    first = (
        "" if settings["timestep_spacing"] == "leading" else "; it starts from σ times the noise, this from the noise"
    )
    return found(settings, sampler, start, first)


def _multistep(settings: SchedulerSettings, process: SDE, steps: int) -> PeerSampler:
    """DPM-Solver++ and UniPC."""
    if settings["use_flow_sigmas"]:
        return without(settings, "its noise levels on the straight path have no equal here", "Adams(steps=20)")
    if process.tau_max == math.inf:
        return without(settings, "its noise rises again in the last step, which it sets to ᾱ = 2^-24")
    levels = _sigma_grid(settings)
    truncates = settings["use_beta_sigmas"] or (levels is not None and not rounds_times(settings))
    if truncates or (levels and (settings["sigma_min"] or settings["sigma_max"])):
        return without(
            settings, "its noise levels, or their times, have no equal here", DPMSolverPP(steps, levels or ThenZero())
        )
    if settings["lambda_min_clipped"] not in (None, -float("inf")):
        return without(settings, "its chain is cut at lambda_min_clipped")
    end = 0 if settings["final_sigmas_type"] == "zero" else 1
    if end and settings["lower_order_final"] and (steps < 15 or settings.class_name.startswith("UniPC")):
        return without(settings, "its last step is of lower order, and does not end at 0")
    if end and settings["euler_at_final"]:
        return without(settings, "its last step is of lower order, and does not end at 0")
    if end and levels is not None:
        return without(settings, "its last step does not end at 0", DPMSolverPP(steps, levels))
    spaced = _spacing(settings, end=end, extra=True)
    grid, start = (levels, None) if levels is not None else (spaced, _start(spaced, process, steps))
    is_unipc = settings.class_name.startswith("UniPC")
    sampler = _unipc(settings, steps, grid) if is_unipc else dpm_solver(settings, steps, grid)
    if sampler is None:
        return without(settings, "this variant has no equal here", DPMSolverPP(steps, grid))
    return found(settings, sampler, start)


def _unipc(settings: SchedulerSettings, steps: int, grid: Grid) -> Sampler | None:
    order, kind = settings["solver_order"], settings["solver_type"]
    if order not in (1, 2) or kind == "bh1" or not settings["predict_x0"]:
        return None
    if settings["disable_corrector"] or settings["solver_p"]:
        return None
    return UniPC(steps, grid, order, as_published=True)
