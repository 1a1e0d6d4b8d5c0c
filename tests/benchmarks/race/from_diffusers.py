"""Schedulers of diffusers: each one in all useful settings, on all spacings.

A scheduler is built and its number of steps is set by its own API. Then its noise levels are replaced by unrounded ones
that end where the problem ends (`race.noise_levels`), and it is stepped. Left out: EDMDPMSolver and EDMEuler
(DPM-Solver++ and Euler on the same noise levels), CosineDPMSolver (SDE-DPM-Solver++ with a Brownian tree), and the
flow-matching, consistency and distillation schedulers (other processes or other networks).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from race.noise_levels import CUSTOM, SHIPPED, noise_levels
from race.peer import Peer, released
from race.problems import Oracle

__all__ = ["deterministic", "stochastic"]

Run = Callable[[Oracle, Tensor, int, str, torch.Generator | None], Tensor]
Settings = dict[str, Any]


def _build(make: str, settings: Settings) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # algorithm_type="dpmsolver" is deprecated, but still released
        released("diffusers.utils.logging").set_verbosity_error()
        return getattr(released("diffusers"), make)(**settings)


def _set_levels(scheduler: Any, steps: int, levels: list[float]) -> None:
    """Sets the number of steps by the scheduler's own method, then unrounded noise levels."""
    scheduler.set_timesteps(steps)
    scheduler.sigmas = torch.tensor(levels, dtype=torch.float64)
    scheduler.set_begin_index(0)


def _seeded(scheduler: Any, generator: torch.Generator | None) -> Settings:
    return {} if generator is None else {"generator": generator}


def vp_state(make: str, settings: Settings) -> Run:
    """Schedulers whose state is in VP coordinates: one call per step."""

    def run(oracle: Oracle, x: Tensor, calls: int, spacing: str, generator: torch.Generator | None) -> Tensor:
        scheduler, levels = _build(make, settings), noise_levels(oracle.span, spacing, calls)
        _set_levels(scheduler, calls, levels)
        for level, time in zip(levels, scheduler.timesteps):
            x = scheduler.step(oracle(x, level).eps, time, x, return_dict=False, **_seeded(scheduler, generator))[0]
        return x

    return run


def ve_state(make: str, settings: Settings, **options: Any) -> Run:
    """Schedulers whose state is x/alpha: one call per step (Euler, LMS)."""

    def run(oracle: Oracle, x: Tensor, calls: int, spacing: str, generator: torch.Generator | None) -> Tensor:
        scheduler, levels = _build(make, settings), noise_levels(oracle.span, spacing, calls)
        _set_levels(scheduler, calls, levels)
        scheduler.is_scale_input_called = True
        x = x * math.hypot(1.0, levels[0])
        for level, time in zip(levels, scheduler.timesteps):
            eps = oracle(x / math.hypot(1.0, level), level).eps
            x = scheduler.step(eps, time.double(), x, return_dict=False, **options, **_seeded(scheduler, generator))[0]
        return x / math.hypot(1.0, levels[-1])

    return run


def _midpoints(levels: list[float]) -> list[float]:
    """Geometric means of neighboring levels."""
    return [math.sqrt(a * b) for a, b in zip(levels, levels[1:])]


def _twice(levels: Iterable[float]) -> list[float]:
    return [level for level in levels for _ in range(2)]


def heun(make: str, settings: Settings) -> Run:
    """Heun and the stochastic DPM-Solver of k-diffusion: two calls per step; an odd last call is Heun's Euler step."""

    def run(oracle: Oracle, x: Tensor, calls: int, spacing: str, generator: torch.Generator | None) -> Tensor:
        uses_midpoints = make == "DPMSolverSDEScheduler"
        calls = calls - calls % 2 if uses_midpoints else calls
        scheduler, levels = _build(make, settings), noise_levels(oracle.span, spacing, (calls + 1) // 2)
        _set_levels(scheduler, (calls + 1) // 2, [levels[0], *_twice(levels[1:])])
        call_levels = [levels[0], *_twice(levels[1:])]
        if uses_midpoints:
            call_levels[1::2] = _midpoints(levels)
            scheduler.noise_sampler_seed = (
                None if generator is None else int(torch.randint(2**31, (), generator=generator))
            )
        x = x * math.hypot(1.0, levels[0])
        for i in range(calls):
            eps = oracle(x / math.hypot(1.0, call_levels[i]), call_levels[i]).eps
            x = scheduler.step(eps, torch.tensor(float(i)), x, return_dict=False)[0]
        return x / math.hypot(1.0, levels[-1])

    return run


def midpoint(make: str, settings: Settings) -> Run:
    """KDPM2, deterministic or ancestral: two calls per step."""

    def run(oracle: Oracle, x: Tensor, calls: int, spacing: str, generator: torch.Generator | None) -> Tensor:
        steps = calls // 2
        scheduler, levels = _build(make, settings), noise_levels(oracle.span, spacing, steps)
        _set_levels(scheduler, steps + 1, [levels[0], *_twice(levels[1:]), levels[-1]])
        ends, middles = levels[1:], _midpoints(levels)
        interpolated = [levels[0], *_twice(middles)]
        if "Ancestral" in make:
            up = [b * math.sqrt(a * a - b * b) / a for a, b in zip(levels, ends)]
            down = [math.sqrt(b * b - u * u) for b, u in zip(ends, up)]
            middles = [math.sqrt(a * b) for a, b in zip(levels, down)]
            # each step has two entries, one per call; sigma_down is read one entry earlier, and not at the first call
            scheduler.sigmas_up = _float64([u for v in up for u in (v, v)])
            scheduler.sigmas_down = _float64(_twice(down))
            interpolated = _twice(middles)
        scheduler.sigmas_interpol = _float64(interpolated)
        call_levels = [level for pair in zip(levels, middles) for level in pair]
        x = x * math.hypot(1.0, levels[0])
        for i, level in enumerate(call_levels):
            eps = oracle(x / math.hypot(1.0, level), level).eps
            x = scheduler.step(eps, torch.tensor(float(i)), x, return_dict=False, **_seeded(scheduler, generator))[0]
        return x / math.hypot(1.0, levels[-1])

    return run


def _float64(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def ipndm(oracle: Oracle, x: Tensor, calls: int, spacing: str, generator: torch.Generator | None) -> Tensor:
    """IPNDM; its betas and alphas are our sigma and alpha, and its model output is v."""
    scheduler, levels = _build("IPNDMScheduler", {}), noise_levels(oracle.span, spacing, calls)
    scheduler.set_timesteps(calls)
    scheduler.betas = _float64([level / math.hypot(1.0, level) for level in levels])
    scheduler.alphas = _float64([1 / math.hypot(1.0, level) for level in levels])
    scheduler.set_begin_index(0)
    for level, time in zip(levels, scheduler.timesteps):
        x = scheduler.step(oracle(x, level).v, time, x, return_dict=False)[0]
    return x


def chain(make: str, settings: Settings, extra: int = 0, **options: Any) -> Run:
    """Schedulers that look up alpha_bar by integer times (DDIM, DDPM, PNDM), on a chain with exactly these knots.

    ``extra`` is the number of calls of the start-up beyond one per step. Time k is knot k + 1, and knot 0 is the end.
    DDPM draws no noise at time 0, so there time k is knot k.
    """

    def run(oracle: Oracle, x: Tensor, calls: int, spacing: str, generator: torch.Generator | None) -> Tensor:
        steps, shift = calls - extra, int(make == "DDPMScheduler")
        fine = 2 if extra == 9 else 1  # the Runge-Kutta start-up of PNDM needs midpoints, in the spacing's variable
        levels = noise_levels(oracle.span, spacing, steps * fine)
        bars = _float64([1 / (1 + level * level) for level in levels[::-1]])
        scheduler = _build(
            make, {"num_train_timesteps": steps * fine + shift, "timestep_spacing": "leading", **settings}
        )
        scheduler.set_timesteps(steps)
        if shift:
            scheduler.timesteps = torch.arange(steps, 0, -1)
            scheduler.alphas_cumprod, scheduler.one = bars, bars[0]
        else:
            scheduler.alphas_cumprod, scheduler.final_alpha_cumprod = bars[fine:], bars[0]
        for time in scheduler.timesteps:
            level = float(scheduler.alphas_cumprod[time].reciprocal().sub(1.0).sqrt())
            eps = oracle(x, level).eps
            x = scheduler.step(eps, int(time), x, return_dict=False, **options, **_seeded(scheduler, generator))[0]
        return x

    return run


def _spaced(
    label: str, run: Run, shipped: Iterable[str] = tuple(SHIPPED), custom: bool = True, min_calls: int = 1
) -> list[Peer]:
    peers = []
    for spacing in (*shipped, *(CUSTOM if custom else ())):

        def run_spacing(
            oracle: Oracle, x: Tensor, calls: int, generator: torch.Generator | None, spacing: str = spacing
        ) -> Tensor:
            return run(oracle, x, calls, spacing, generator)

        peers.append(
            Peer(f"diffusers {label} {spacing}", run_spacing, custom_spacing=spacing in CUSTOM, min_calls=min_calls)
        )
    return peers


def _dpm_solver() -> list[Peer]:
    peers = []
    for kind in ("dpmsolver", "dpmsolver++"):
        for order, form in ((2, "midpoint"), (2, "heun"), (3, "midpoint")):
            for end in ({"lower_order_final": True}, {"lower_order_final": False}, {"euler_at_final": True}):
                if kind == "dpmsolver" and "euler_at_final" in end:
                    continue
                settings = {"algorithm_type": kind, "solver_order": order, "solver_type": form, **end}
                tail = {"lower_order_final": "", "euler_at_final": " euler-end"}[next(iter(end))]
                tail = " full-end" if end.get("lower_order_final") is False else tail
                run = vp_state("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min", **settings})
                peers += _spaced(f"{kind} {order}M {form}{tail}", run)
        for order, form in ((2, "midpoint"), (2, "heun"), (3, "midpoint"), (3, "heun")):
            for lower in (True, False):  # if the steps are not a multiple of the order, the scheduler sets it to True
                settings = {
                    "algorithm_type": kind,
                    "solver_order": order,
                    "solver_type": form,
                    "lower_order_final": lower,
                }
                run = vp_state("DPMSolverSinglestepScheduler", {"final_sigmas_type": "sigma_min", **settings})
                peers += _spaced(f"{kind} {order}S {form}{'' if lower else ' full-end'}", run)
    return peers


def _unipc() -> list[Peer]:
    peers = []
    for x0 in (True, False):
        for order, form in ((1, "bh2"), (2, "bh1"), (2, "bh2"), (3, "bh1"), (3, "bh2"), (4, "bh2"), (5, "bh2")):
            for lower in (True, False):
                settings = {"solver_order": order, "solver_type": form, "predict_x0": x0, "lower_order_final": lower}
                run = vp_state("UniPCMultistepScheduler", {"final_sigmas_type": "sigma_min", **settings})
                name = f"UniPC-{order} {form} {'x0' if x0 else 'eps'}{'' if lower else ' full-end'}"
                peers += _spaced(name, run)
    return peers


def _sa_solver(tau: float, lower: bool = True) -> list[Peer]:
    peers = []
    for predictor, corrector in ((2, 1), (2, 2), (3, 1), (3, 3), (3, 4), (4, 4)):
        for kind in ("data_prediction", "noise_prediction"):
            settings = {
                "predictor_order": predictor,
                "corrector_order": corrector,
                "algorithm_type": kind,
                "tau_func": lambda time: tau,
                "lower_order_final": lower,
            }
            name = f"SA-Solver {predictor}/{corrector} {kind[:-11]}" + (f" tau {tau:g}" if tau else "")
            peers += _spaced(name, vp_state("SASolverScheduler", settings))
    return peers


def deterministic() -> list[Peer]:
    """All deterministic schedulers."""
    plain = {"clip_sample": False, "set_alpha_to_one": False}
    peers = [*_dpm_solver(), *_unipc(), *_sa_solver(0.0)]
    for order in (2, 3):
        for lower in (True, False):
            settings = {"solver_order": order, "lower_order_final": lower}
            peers += _spaced(
                f"DEIS-{order}{'' if lower else ' full-end'}", vp_state("DEISMultistepScheduler", settings)
            )
    for order in (2, 3, 4):
        peers += _spaced(f"LMS-{order}", ve_state("LMSDiscreteScheduler", {}, order=order))
    peers += _spaced("Euler", ve_state("EulerDiscreteScheduler", {}))
    peers += _spaced("Heun", heun("HeunDiscreteScheduler", {}), min_calls=2)
    peers += _spaced("KDPM2", midpoint("KDPM2DiscreteScheduler", {}), min_calls=2)
    peers += _spaced("iPNDM", ipndm)
    peers += _spaced("DDIM", chain("DDIMScheduler", plain))
    peers += _spaced("PLMS", chain("PNDMScheduler", {"skip_prk_steps": True}, extra=1), min_calls=5)
    peers += _spaced("PNDM", chain("PNDMScheduler", {}, extra=9), min_calls=14)
    return peers


def stochastic() -> list[Peer]:
    """All stochastic schedulers."""
    peers = []
    for order, form in ((1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint")):
        for kind in ("sde-dpmsolver++", "sde-dpmsolver"):
            if kind == "sde-dpmsolver" and order == 3:
                continue  # diffusers does not implement it
            settings = {"algorithm_type": kind, "solver_order": order, "solver_type": form, "lower_order_final": True}
            run = vp_state("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min", **settings})
            peers += _spaced(f"{kind} {order}M {form}", run)
    for tau in (0.5, 1.0):
        peers += _sa_solver(tau)
    for eta in (0.5, 1.0):
        plain = {"clip_sample": False, "set_alpha_to_one": False}
        peers += _spaced(f"DDIM eta {eta:g}", chain("DDIMScheduler", plain, eta=eta))
    for variance in ("fixed_small", "fixed_large"):
        settings = {"clip_sample": False, "variance_type": variance}
        peers += _spaced(f"DDPM {variance}", chain("DDPMScheduler", settings))
    peers += _spaced("Euler ancestral", ve_state("EulerAncestralDiscreteScheduler", {}))
    peers += _spaced("KDPM2 ancestral", midpoint("KDPM2AncestralDiscreteScheduler", {}), min_calls=2)
    peers += _spaced("DPM-SDE", heun("DPMSolverSDEScheduler", {}), min_calls=2)
    return peers
