"""Which arrays does a report draw? The forward process, samples, and for data in the plane the ways back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.likelihood import AdaptiveSolver, log_prob
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.sde import SDE
from scoresde.sampling import Sampler, sample

__all__ = ["density", "film", "paths"]


def film(sde: SDE, x0: Tensor, frames: int = 11, seed: int = 0) -> tuple[dict[str, list[float]], np.ndarray]:
    r"""One path of the OU process from each event: $x_{\tau'} = e^{-\Delta}x_\tau + \sqrt{1 - e^{-2\Delta}}\,z$.

    Args:
        sde: The process; the frames stand from 0 to the end of its clock, evenly in the angle φ, which is even to the
            eye.
        x0: Events in model units, ``(n, *D)``.
        frames: Number of frames.
        seed: Of the noise.

    Returns:
        ``tau``, ``alpha``, ``sigma`` and ``log_snr`` of the frames, and the states, ``(frames, n, *D)`` float32.
    """
    generator, last = torch.Generator().manual_seed(seed), float(ou.angle(min(sde.tau_max, 5.0)))
    taus = [float(ou.tau_from_angle(last * i / (frames - 1))) for i in range(frames)]
    x, states = x0, [x0]
    for tau, s in zip(taus[1:], taus):
        eps = torch.randn(x.shape, dtype=x.dtype, generator=generator)
        x = float(ou.alpha(tau - s)) * x + float(ou.sigma(tau - s)) * eps
        states.append(x)
    labels = {"tau": taus, "alpha": [float(ou.alpha(v)) for v in taus], "sigma": [float(ou.sigma(v)) for v in taus]}
    labels["log_snr"] = [float(ou.log_snr(v)) for v in taus]
    return labels, torch.stack(states).float().numpy()


def paths(model: Model, sampler: Sampler, n: int = 40, frames: int = 100, seed: int = 0) -> dict[str, np.ndarray]:
    """Trajectories of one sampler from the same starts for each: times ``(T,)`` and states ``(T, n, *D)`` float32.

    Args:
        model: Trained or exact.
        sampler: The way back.
        n: Number of trajectories.
        frames: Most states kept, evenly chosen, the first and the last among them.
        seed: Of starts and noise.
    """
    device = next(iter([*model.parameters(), *model.buffers()])).device
    generator = torch.Generator(device).manual_seed(seed)
    drawn = sample(model, n, sampler, generator=generator, trajectory=True)
    assert drawn.trajectory is not None
    assert drawn.taus is not None
    pick = np.unique(np.linspace(0, len(drawn.taus) - 1, frames).round().astype(int))
    return {"tau": np.asarray(drawn.taus)[pick], "x": drawn.trajectory[pick].float().cpu().numpy()}


def density(model: Model, around: Tensor, size: int = 48) -> dict[str, np.ndarray]:
    """Log-density of a model of points in the plane, on a grid a little wider than the data.

    Args:
        model: Trained or exact, of event shape ``(2,)``.
        around: The data, model units, ``(n, 2)``.
        size: Points along each axis.

    Returns:
        ``extent`` (left, right, bottom, top), ``log_prob`` ``(size, size)``, nats, the first row at the bottom, and
        ``mass``, the integral of the density over the grid, which is near 1 where the density is right.
    """
    middle = 0.5 * (around.amin(0) + around.amax(0))
    half = 0.6 * float((around.amax(0) - around.amin(0)).max())
    axes = [torch.linspace(float(m) - half, float(m) + half, size) for m in middle]
    grid = torch.stack(torch.meshgrid(axes[1], axes[0], indexing="ij")[::-1], -1).reshape(-1, 2)
    device = next(iter([*model.parameters(), *model.buffers()])).device
    found = log_prob(model, grid.to(device), solver=AdaptiveSolver(0.1)).log_prob.cpu().reshape(size, size)
    mass = float(found.exp().sum()) * (2 * half / (size - 1)) ** 2
    extent = [float(axes[0][0]), float(axes[0][-1]), float(axes[1][0]), float(axes[1][-1])]
    return {"extent": np.asarray(extent), "log_prob": found.float().numpy(), "mass": np.asarray(mass)}


def as_levels(x: Tensor, model: Any) -> np.ndarray:
    """Samples for a picture: levels where the data are quantized, else model units in float32."""
    x = x.detach().cpu()
    description = model.data
    if description is not None and description.bins is not None:
        return description.to_data(x).numpy()
    return x.float().numpy()


def spread(n: int, count: int) -> list[int]:
    """``count`` of ``n`` indices, evenly spread."""
    return [math.floor(i * n / count) for i in range(min(n, count))]
