"""Released posterior methods of deepinv on our exact priors: its VP diffusion and its DDPM solver, without clipping.

deepinv imports torchvision, so it is an option: without both installed there are no methods. A denoiser of deepinv
takes the state over the signal scale, x/α, and σ/α; it is evaluated in float32.
"""

from __future__ import annotations

import importlib
import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from posterior_race.method import Method, Run
from posterior_race.problems import Problem

__all__ = ["methods"]


def _released() -> Any:
    """deepinv, or None."""
    try:
        return importlib.import_module("deepinv")
    except ImportError:
        return None


class _Denoiser(torch.nn.Module):
    """The prior's data estimate as a denoiser of images ``(n, 1, 1, d)``, with a count of its evaluations."""

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem, self.evaluations = problem, 0

    def forward(self, x: Tensor, sigma: Tensor | float, *args: object, **kwargs: object) -> Tensor:
        self.evaluations += 1
        ratio = float(torch.as_tensor(sigma).flatten()[0])
        flat = (x / math.sqrt(1.0 + ratio**2)).double()
        shape = self.problem.prior.event_shape or ()
        x0 = self.problem.model.predict(flat.reshape(len(x), *shape), 0.5 * math.log1p(ratio**2)).x0
        return x0.reshape(x.shape).to(x.dtype)


def _physics(deepinv: Any, problem: Problem) -> Any:
    """The operator on images ``(n, 1, 1, d)``, measurements ``(n, 1, 1, M)``."""
    d = math.prod(problem.prior.event_shape or ())
    operator, eye = problem.observation.operator, torch.eye(d, dtype=torch.float64)
    matrix = operator.apply(eye.reshape(d, *(problem.prior.event_shape or ()))).flatten(1).mT
    support = operator.support()
    rows = slice(None) if support is None else support.flatten()
    matrix = matrix[rows].float()
    std = float(problem.observation.covariance()[0, 0]) ** 0.5
    physics = deepinv.physics.LinearPhysics(
        A=lambda x, **kwargs: x @ matrix.mT.to(x.dtype),
        A_adjoint=lambda y, **kwargs: y @ matrix.to(y.dtype),
        noise_model=deepinv.physics.GaussianNoise(std),
    )
    y = problem.observation.y.flatten()[rows].float()
    return physics, y.expand(problem.count, 1, 1, -1).clone(), d


def _run(kind: str, options: dict[str, Any], cost: int, problem: Problem, work: int, seed: int) -> Run:
    deepinv, sampling = _released(), importlib.import_module("deepinv.sampling")
    denoiser = _Denoiser(problem)
    physics, y, d = _physics(deepinv, problem)
    solver = sampling.DDPMSolver(
        timesteps=torch.linspace(1.0, 0.0, work // cost + 1, dtype=torch.float64), rng=torch.Generator()
    )
    model = sampling.PosteriorDiffusion(
        data_fidelity=getattr(sampling, f"{kind}DataFidelity")(**options),
        denoiser=denoiser,
        sde=sampling.VariancePreservingDiffusion(alpha=1.0),
        solver=solver,
        minus_one_one=False,
    )
    x = model(y, physics, x_init=(problem.count, 1, 1, d), seed=seed)
    return Run(x.double().reshape(problem.count, *(problem.prior.event_shape or ())), denoiser.evaluations * cost)


def methods() -> list[Method]:
    """deepinv's methods; an evaluation and the products with the Jacobian that belong to it are the cost of a step."""
    if _released() is None:
        return []
    settings: dict[str, tuple[str, dict[str, Any], int]] = {
        "DPS": ("DPS", {}, 2),
        "DPS annealed": ("DPS", {"guidance": "annealed"}, 2),
        "PiGDM": ("PiGDM", {"cg_max_iter": 32}, 2),
        "MomentMatching": ("MomentMatching", {}, 5),
    }
    return [Method("deepinv", name, partial(_run, *each)) for name, each in settings.items()]
