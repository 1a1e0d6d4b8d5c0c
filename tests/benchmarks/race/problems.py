"""Exact problems for the sampler benchmark: a ring of eight Gaussians and a 64-D mixture, VP linear clock 0.1 ... 20.

The benchmark runs from u = 1 to u = 1e-3 in float64. All samplers start from the same draws of N(0, I) in VP
coordinates: the prior, not the exact distribution at the end, where alpha(u = 1) = 6.6e-3. The reference is DOP853 at
1e-12 from the same draws.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.integrate import solve_ivp
from torch import Tensor

from race.span import Span
from scoresde.analytic import GaussianMixture
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.prediction import Prediction
from scoresde.process.schedule import LinearVP
from scoresde.process.sde import VPSDE

__all__ = ["END", "PROBLEMS", "SPAN", "START", "Oracle", "Problem", "mixture", "ring"]

U_END = 1e-3
CLOCK = LinearVP(beta_min=0.1, beta_max=20.0)
START, END = float(CLOCK.tau(1.0)), float(CLOCK.tau(U_END))
SPAN = Span(CLOCK, START, END, U_END)
BATCH, NOISE_SEED, MIXTURE_SEED, TOLERANCE = 512, 0, 64, 1e-12
CACHE = Path(__file__).parents[3] / "runs" / "benchmarks"


def _sde() -> VPSDE:
    return VPSDE(CLOCK, tau_min=END)


def ring(dtype: torch.dtype = torch.float64) -> GaussianMixture:
    """Eight spheres of standard deviation 0.1 on a circle of radius 1, scaled to unit variance."""
    return GaussianMixture.ring(8, radius=1.0, std=0.1, unit=True, sde=_sde()).to(dtype)


def mixture(dtype: torch.dtype = torch.float64) -> GaussianMixture:
    """64-D, ten components: means N(0, I), 64 standard deviations each, log-uniform in [0.03, 1], along the axes.

    One factor then scales the whole distribution to a variance of 1 on average over the dimensions. numpy's
    `default_rng(64)` draws the means first, then the standard deviations, so that it can be reproduced.
    """
    rng = np.random.default_rng(MIXTURE_SEED)
    means = torch.from_numpy(rng.standard_normal((10, 64)))
    stds = torch.from_numpy(np.exp(rng.uniform(math.log(0.03), 0.0, (10, 64))))
    scale = (means.var(0, correction=0) + stds.square().mean(0)).mean().sqrt()
    return GaussianMixture(torch.ones(10), means / scale, (stds / scale) ** 2, _sde()).to(dtype)


@dataclass
class Oracle:
    """A model in VP coordinates, with a count of its calls.

    Attributes:
        model: Exact, or a trained network; the latter converts the states to its own type and its outputs back.
        span: Where the samplers start and end, on the model's clock.
        calls: Network calls so far.
    """

    model: Model
    span: Span
    calls: int = 0

    def __call__(self, x: Tensor, ratio: float | Tensor) -> Prediction:
        """One network call at the time where sigma/alpha is ``ratio``."""
        self.calls += 1
        return self.model(x, 0.5 * math.log1p(float(ratio) ** 2))


@dataclass(frozen=True)
class Problem:
    """An exact model, the common initial states and the exact end points.

    Attributes:
        name: ``"ring"`` or ``"mixture"``.
        model: Exact.
        seed: Of the initial states.
    """

    name: str
    model: GaussianMixture = field(repr=False)
    seed: int = NOISE_SEED

    @cached_property
    def start(self) -> Tensor:
        """Initial states, N(0, I), ``(512, d)`` float64."""
        return self.noise(self.seed)

    def noise(self, seed: int, n: int = BATCH) -> Tensor:
        """Draws of N(0, I), ``(n, d)`` float64."""
        size = self.model.means.shape[1]
        return torch.from_numpy(np.random.default_rng(seed).standard_normal((n, size)))

    @cached_property
    def truth(self) -> Tensor:
        """Exact end points at u = 1e-3, ``(512, d)``."""
        return self.solve(self.start)

    def solve(self, start: Tensor) -> Tensor:
        """End points of ``start`` by DOP853 on dx/dphi = v, cached on disk under a hash of all inputs."""
        parameters = [b.tolist() for b in (self.model.means, self.model.variances, self.model.log_weights)]
        key = json.dumps([parameters, start.tolist(), START, END, TOLERANCE])
        path = CACHE / f"truth-{self.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"x": self._integrate(start)}, path)
        return load_file(path)["x"]

    def _integrate(self, start: Tensor) -> Tensor:
        def slope(phi: float, flat: np.ndarray) -> np.ndarray:
            x = torch.from_numpy(flat).reshape(start.shape)
            return self.model(x, float(ou.tau_from_angle(phi))).v.reshape(-1).numpy()

        span = (float(ou.angle(START)), float(ou.angle(END)))
        solution = solve_ivp(slope, span, start.reshape(-1).numpy(), method="DOP853", rtol=TOLERANCE, atol=TOLERANCE)
        if not solution.success:
            raise RuntimeError(f"DOP853 failed on {self.name}: {solution.message}")
        return torch.from_numpy(solution.y[:, -1].copy()).reshape(start.shape)

    def error(self, x: Tensor) -> float:
        """Root mean square over all elements against `truth`."""
        return float((x.double() - self.truth).square().mean().sqrt())


PROBLEMS = {"ring": ring, "mixture": mixture}
