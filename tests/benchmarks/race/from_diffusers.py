"""How do diffusers' schedulers sample the exact problems? Each, in every setting that makes sense, on every spacing.

A scheduler is built and told its number of steps by its own API; then its noise levels are replaced by unrounded ones
that end at u = 1e-3 (`race.ladders`), and it is stepped. Left out: EDMDPMSolver and EDMEuler (DPM-Solver++ and Euler
on the same levels), CosineDPMSolver (SDE-DPM-Solver++ with a Brownian tree), the flow-matching, consistency and
distillation schedulers (other processes or other networks).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from race.entry import Peer, released
from race.ladders import LENT, OWN, ladder
from race.problems import Oracle

__all__ = ["deterministic", "stochastic"]

Run = Callable[[Oracle, Tensor, int, str, torch.Generator | None], Tensor]
Settings = dict[str, Any]


def _build(make: str, settings: Settings) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # algorithm_type="dpmsolver" is on its way out, but still released
        released("diffusers.utils.logging").set_verbosity_error()
        return getattr(released("diffusers"), make)(**settings)


def _place(scheduler: Any, steps: int, levels: list[float]) -> None:
    """The scheduler's own preparation, then unrounded levels."""
    scheduler.set_timesteps(steps)
    scheduler.sigmas = torch.tensor(levels, dtype=torch.float64)
    scheduler.set_begin_index(0)


def _seeded(scheduler: Any, generator: torch.Generator | None) -> Settings:
    return {} if generator is None else {"generator": generator}


def preserving(make: str, settings: Settings) -> Run:
    """Schedulers whose state is in VP coordinates: one call a step."""

    def run(oracle: Oracle, x: Tensor, calls: int, spacing: str, generator: torch.Generator | None) -> Tensor:
        scheduler, levels = _build(make, settings), ladder(spacing, calls)
        _place(scheduler, calls, levels)
        for level, time in zip(levels, scheduler.timesteps):
            x = scheduler.step(oracle(x, level).eps, time, x, return_dict=False, **_seeded(scheduler, generator))[0]
        return x

    return run


def exploding(make: str, settings: Settings, **options: Any) -> Run:
    """Schedulers whose state is x/alpha: one call a step (Euler, LMS)."""

    def run(oracle: Oracle, x: Tensor, calls: int, spacing: str, generator: torch.Generator | None) -> Tensor:
        scheduler, levels = _build(make, settings), ladder(spacing, calls)
        _place(scheduler, calls, levels)
        scheduler.is_scale_input_called = True
        x = x * math.hypot(1.0, levels[0])
        for level, time in zip(levels, scheduler.timesteps):
            eps = oracle(x / math.hypot(1.0, level), level).eps
            x = scheduler.step(eps, time.double(), x, return_dict=False, **options, **_seeded(scheduler, generator))[0]
        return x / math.hypot(1.0, levels[-1])

    return run


def _half_levels(levels: list[float]) -> list[float]:
    """Geometric middles."""
    return [math.sqrt(a * b) for a, b in zip(levels, levels[1:])]


def _twice(levels: Iterable[float]) -> list[float]:
    return [level for level in levels for _ in range(2)]


def heun(make: str, settings: Settings) -> Run:
    """Heun and the stochastic DPM-Solver of k-diffusion: two calls a step; an odd last call is Heun's Euler step."""

    def run(oracle: Oracle, x: Tensor, calls: int, spacing: str, generator: torch.Generator | None) -> Tensor:
        middle = make == "DPMSolverSDEScheduler"
        calls = calls - calls % 2 if middle else calls
        scheduler, levels = _build(make, settings), ladder(spacing, (calls + 1) // 2)
        _place(scheduler, (calls + 1) // 2, [levels[0], *_twice(levels[1:])])
        at = [levels[0], *_twice(levels[1:])]
        if middle:
            at[1::2] = _half_levels(levels)
            scheduler.noise_sampler_seed = (
                None if generator is None else int(torch.randint(2**31, (), generator=generator))
            )
        x = x * math.hypot(1.0, levels[0])
        for i in range(calls):
            eps = oracle(x / math.hypot(1.0, at[i]), at[i]).eps
            x = scheduler.step(eps, torch.tensor(float(i)), x, return_dict=False)[0]
        return x / math.hypot(1.0, levels[-1])

    return run


def midpoint(make: str, settings: Settings) -> Run:
    """KDPM2, deterministic or ancestral: two calls a step."""

    def run(oracle: Oracle, x: Tensor, calls: int, spacing: str, generator: torch.Generator | None) -> Tensor:
        steps = calls // 2
        scheduler, levels = _build(make, settings), ladder(spacing, steps)
        _place(scheduler, steps + 1, [levels[0], *_twice(levels[1:]), levels[-1]])
        ends, middles = levels[1:], _half_levels(levels)
        interpolated = [levels[0], *_twice(middles)]
        if "Ancestral" in make:
            up = [b * math.sqrt(a * a - b * b) / a for a, b in zip(levels, ends)]
            down = [math.sqrt(b * b - u * u) for b, u in zip(ends, up)]
            middles = [math.sqrt(a * b) for a, b in zip(levels, down)]
            # a step's entries stand at its two calls; sigma_down is read one entry earlier, and unused at the first
            scheduler.sigmas_up = _levels([u for v in up for u in (v, v)])
            scheduler.sigmas_down = _levels(_twice(down))
            interpolated = _twice(middles)
        scheduler.sigmas_interpol = _levels(interpolated)
        at = [level for pair in zip(levels, middles) for level in pair]
        x = x * math.hypot(1.0, levels[0])
        for i, level in enumerate(at):
            eps = oracle(x / math.hypot(1.0, level), level).eps
            x = scheduler.step(eps, torch.tensor(float(i)), x, return_dict=False, **_seeded(scheduler, generator))[0]
        return x / math.hypot(1.0, levels[-1])

    return run


def _levels(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def ipndm(oracle: Oracle, x: Tensor, calls: int, spacing: str, generator: torch.Generator | None) -> Tensor:
    """Its betas and alphas are sigma and alpha; it wants v."""
    scheduler, levels = _build("IPNDMScheduler", {}), ladder(spacing, calls)
    scheduler.set_timesteps(calls)
    scheduler.betas = _levels([level / math.hypot(1.0, level) for level in levels])
    scheduler.alphas = _levels([1 / math.hypot(1.0, level) for level in levels])
    scheduler.set_begin_index(0)
    for level, time in zip(levels, scheduler.timesteps):
        x = scheduler.step(oracle(x, level).v, time, x, return_dict=False)[0]
    return x


def chain(make: str, settings: Settings, extra: int = 0, **options: Any) -> Run:
    """Schedulers that look up alpha_bar by integer times (DDIM, DDPM, PNDM): given a chain with just these knots.

    ``extra`` is the number of calls that the start-up adds to one per step. Time k stands for knot k + 1, its
    predecessor 0 for the end (DDPM draws no noise at time 0, so there time k stands for knot k).
    """

    def run(oracle: Oracle, x: Tensor, calls: int, spacing: str, generator: torch.Generator | None) -> Tensor:
        steps, shift = calls - extra, int(make == "DDPMScheduler")
        fine = 2 if extra == 9 else 1  # PNDM's Runge-Kutta start-up looks at middles, in the spacing's variable
        levels = ladder(spacing, steps * fine)
        bars = _levels([1 / (1 + level * level) for level in levels[::-1]])
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


def _spaced(label: str, run: Run, own: Iterable[str] = tuple(OWN), lent: bool = True, least: int = 1) -> list[Peer]:
    peers = []
    for spacing in (*own, *(LENT if lent else ())):

        def one(
            oracle: Oracle, x: Tensor, calls: int, generator: torch.Generator | None, spacing: str = spacing
        ) -> Tensor:
            return run(oracle, x, calls, spacing, generator)

        peers.append(Peer(f"diffusers {label} {spacing}", one, lent=spacing in LENT, least=least))
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
                run = preserving("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min", **settings})
                peers += _spaced(f"{kind} {order}M {form}{tail}", run)
        for order, form in ((2, "midpoint"), (2, "heun"), (3, "midpoint"), (3, "heun")):
            for lower in (True, False):  # where the steps are no multiple of the order, the scheduler makes it True
                settings = {
                    "algorithm_type": kind,
                    "solver_order": order,
                    "solver_type": form,
                    "lower_order_final": lower,
                }
                run = preserving("DPMSolverSinglestepScheduler", {"final_sigmas_type": "sigma_min", **settings})
                peers += _spaced(f"{kind} {order}S {form}{'' if lower else ' full-end'}", run)
    return peers


def _unipc() -> list[Peer]:
    peers = []
    for x0 in (True, False):
        for order, form in ((1, "bh2"), (2, "bh1"), (2, "bh2"), (3, "bh1"), (3, "bh2"), (4, "bh2"), (5, "bh2")):
            for lower in (True, False):
                settings = {"solver_order": order, "solver_type": form, "predict_x0": x0, "lower_order_final": lower}
                run = preserving("UniPCMultistepScheduler", {"final_sigmas_type": "sigma_min", **settings})
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
            peers += _spaced(name, preserving("SASolverScheduler", settings))
    return peers


def deterministic() -> list[Peer]:
    """Every deterministic one."""
    plain = {"clip_sample": False, "set_alpha_to_one": False}
    peers = [*_dpm_solver(), *_unipc(), *_sa_solver(0.0)]
    for order in (2, 3):
        for lower in (True, False):
            settings = {"solver_order": order, "lower_order_final": lower}
            peers += _spaced(
                f"DEIS-{order}{'' if lower else ' full-end'}", preserving("DEISMultistepScheduler", settings)
            )
    for order in (2, 3, 4):
        peers += _spaced(f"LMS-{order}", exploding("LMSDiscreteScheduler", {}, order=order))
    peers += _spaced("Euler", exploding("EulerDiscreteScheduler", {}))
    peers += _spaced("Heun", heun("HeunDiscreteScheduler", {}), least=2)
    peers += _spaced("KDPM2", midpoint("KDPM2DiscreteScheduler", {}), least=2)
    peers += _spaced("iPNDM", ipndm)
    peers += _spaced("DDIM", chain("DDIMScheduler", plain))
    peers += _spaced("PLMS", chain("PNDMScheduler", {"skip_prk_steps": True}, extra=1), least=5)
    peers += _spaced("PNDM", chain("PNDMScheduler", {}, extra=9), least=14)
    return peers


def stochastic() -> list[Peer]:
    """Every one that draws noise."""
    peers = []
    for order, form in ((1, "midpoint"), (2, "midpoint"), (2, "heun"), (3, "midpoint")):
        for kind in ("sde-dpmsolver++", "sde-dpmsolver"):
            if kind == "sde-dpmsolver" and order == 3:
                continue  # not implemented there
            settings = {"algorithm_type": kind, "solver_order": order, "solver_type": form, "lower_order_final": True}
            run = preserving("DPMSolverMultistepScheduler", {"final_sigmas_type": "sigma_min", **settings})
            peers += _spaced(f"{kind} {order}M {form}", run)
    for tau in (0.5, 1.0):
        peers += _sa_solver(tau)
    for eta in (0.5, 1.0):
        plain = {"clip_sample": False, "set_alpha_to_one": False}
        peers += _spaced(f"DDIM eta {eta:g}", chain("DDIMScheduler", plain, eta=eta))
    for variance in ("fixed_small", "fixed_large"):
        settings = {"clip_sample": False, "variance_type": variance}
        peers += _spaced(f"DDPM {variance}", chain("DDPMScheduler", settings))
    peers += _spaced("Euler ancestral", exploding("EulerAncestralDiscreteScheduler", {}))
    peers += _spaced("KDPM2 ancestral", midpoint("KDPM2AncestralDiscreteScheduler", {}), least=2)
    peers += _spaced("DPM-SDE", heun("DPMSolverSDEScheduler", {}), least=2)
    return peers
