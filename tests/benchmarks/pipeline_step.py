"""Cost of a scheduler's step in a pipeline of diffusers: ours with several samplers beside diffusers' own schedulers.

    pip install -e '.[diffusers]' -c constraints.txt
    python tests/benchmarks/pipeline_step.py [--threads 1] [--rounds 30]

The network is left out: its output is a constant. Shown is the shortest mean time of a call of ``scale_model_input``
and ``step`` over the rounds, for runs of 20 steps, and the time of `set_timesteps` in the second run.
"""

from __future__ import annotations

import argparse
import importlib
import time
from typing import Any

import torch

from scoresde.bridges.diffusers import Scheduler
from scoresde.sampling import DDIM, DDPM, ERSDE, Adams, DPMSolverPP, Heun, SASolver, UniPC

STEPS = 20
SHAPES = ((1, 4, 64, 64), (4, 4, 64, 64), (1, 3, 32, 32))
OURS = (
    Adams(STEPS),
    DDIM(STEPS),
    DPMSolverPP(STEPS),
    UniPC(STEPS),
    Heun(STEPS),
    DDPM(STEPS),
    SASolver(STEPS),
    ERSDE(STEPS),
)
THEIRS = ("DPMSolverMultistepScheduler", "DDIMScheduler", "UniPCMultistepScheduler", "HeunDiscreteScheduler")


def schedulers() -> dict[str, Any]:
    """All schedulers on Stable Diffusion's betas; the first is DPM-Solver++(2M), which the others are compared with."""
    diffusers: Any = importlib.import_module("diffusers")
    betas: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    base = diffusers.DDIMScheduler(**betas, clip_sample=False)
    theirs = {name: getattr(diffusers, name)(**betas) for name in THEIRS}
    theirs["DDIMScheduler"] = base
    stochastic = diffusers.DPMSolverMultistepScheduler(**betas, algorithm_type="sde-dpmsolver++")
    ours = {f"ours: {type(sampler).__name__}": Scheduler(sampler, base) for sampler in OURS}
    return {**theirs, "DPMSolverMultistepScheduler, sde": stochastic, **ours}


def seconds_per_call(scheduler: Any, out: torch.Tensor) -> tuple[float, float]:
    """Mean time of a call in one run, and the time of `set_timesteps`."""
    began = time.perf_counter()
    scheduler.set_timesteps(STEPS)
    planned = time.perf_counter() - began
    x, times = torch.randn(out.shape), list(scheduler.timesteps)
    began = time.perf_counter()
    for t in times:
        scheduler.scale_model_input(x, t)
        x = scheduler.step(out, t, x, return_dict=False)[0]
    return (time.perf_counter() - began) / len(times), planned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    for shape in SHAPES:
        out, every = torch.randn(shape), schedulers()
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in every}
        for _ in range(options.rounds + 1):
            for name, scheduler in every.items():  # in turn, so that all meet the same load
                runs[name].append(seconds_per_call(scheduler, out))
        best = {name: min(call for call, _ in times[1:]) for name, times in runs.items()}
        print(f"\nlatent {shape}: microseconds per call, relative to {THEIRS[0]}, set_timesteps in milliseconds")
        for name, call in best.items():
            planned = min(plan for _, plan in runs[name][1:])
            print(f"  {name:34s} {1e6 * call:7.0f} {call / best[THEIRS[0]]:6.2f} {1e3 * planned:8.3f}")


if __name__ == "__main__":
    main()
