"""A trained network's probability-flow ODE as a benchmark problem: initial states, their fine ends, held-out data.

Initial states are draws of the process' prior in x, made by numpy's ``default_rng(seed)`` in float64. An end is the
state in x at ``tau_min``. The reference is the network's own: Adams of fourth order with 400 steps, even in log-SNR,
on which networks depend smoothly. A second solution, of third order with 300 steps on another grid, checks it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from race.networks import Trained
from scoresde.model import Model, gaussian_process
from scoresde.sampling import Adams, Karras, Sampler, UniformLogSNR, sample

__all__ = ["SAMPLES", "NetworkProblem", "end_state"]

REFERENCE = Adams(400, UniformLogSNR(), predictor_order=4, corrector_order=4, prediction="v")
CHECK = Adams(300, Karras(), predictor_order=3, corrector_order=3, prediction="v")
_METHOD = "Adams 4/4, 400 steps even in log-SNR; 3/3, 300 steps of Karras"
SAMPLES = {"moons-eps": 512, "circles-x0": 512, "cancer-v": 512, "wine-v": 512, "fashion-v": 16}
_DEFAULT_SAMPLES = 64


@dataclass(frozen=True, eq=False)
class NetworkProblem:
    """A trained network, the common initial states and the end points of its own ODE.

    Attributes:
        trained: The network and its held-out data.
        folder: Where the reference is kept, under a hash of the weights and the initial states.
        seed: Of the initial states.
    """

    trained: Trained
    folder: Path = field(repr=False)
    seed: int = 0

    @property
    def name(self) -> str:
        """Name of the network."""
        return self.trained.name

    @property
    def model(self) -> Model:
        """The network."""
        return self.trained.model

    @cached_property
    def start(self) -> Tensor:
        """Initial states in x, ``(n, *D)`` float64."""
        return self.noise(self.seed, SAMPLES.get(self.name, _DEFAULT_SAMPLES))

    def noise(self, seed: int, n: int) -> Tensor:
        """Draws of the prior in x, ``(n, *D)`` float64."""
        z = np.random.default_rng(seed).standard_normal((n, *(self.model.event_shape or ())))
        return gaussian_process(self.model).prior_std * torch.from_numpy(z)

    @property
    def truth(self) -> Tensor:
        """End points of the reference, ``(n, *D)`` float64."""
        return self._solutions["end"]

    @property
    def reference_error(self) -> float:
        """Root mean square difference of the reference and the second fine solution."""
        return float((self._solutions["check"] - self.truth).square().mean().sqrt())

    @cached_property
    def _solutions(self) -> dict[str, Tensor]:
        path = self.folder / f"{self.name}-{self._hash()}.safetensors"
        if not path.exists():
            solutions = {"end": end_state(self.model, REFERENCE, self.start)[0]}
            solutions["check"] = end_state(self.model, CHECK, self.start)[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file({"start": self.start, **solutions}, path)
        return load_file(path)

    def _hash(self) -> str:
        digest = hashlib.sha256(f"{self.model.sde!r} {_METHOD}".encode())  # not of Adams, which may get more settings
        for value in (*self.model.state_dict().values(), self.start):
            digest.update(value.detach().numpy().tobytes())
        return digest.hexdigest()[:16]


def end_state(model: Model, sampler: Sampler, start: Tensor) -> tuple[Tensor, int]:
    """The last state in x from ``start`` in x, with the number of network calls.

    Raises:
        AssertionError: If the sampler does not end at ``tau_min``.
    """
    sde = model.sde
    samples = sample(model, tuple(start.shape), sampler, init=float(sde.scale(sde.tau_max)) * start)
    if abs(samples.tau - sde.tau_min) > 1e-9 * sde.tau_min:
        raise AssertionError(f"{sampler} ended at {samples.tau!r}; the end must be {sde.tau_min!r}.")
    return samples.x / float(sde.scale(samples.tau)), samples.nfe
