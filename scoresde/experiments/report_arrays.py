"""Arrays that the report draws: frames of the forward process, trajectories of samplers, densities in the plane."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde._core.noise import Noise
from scoresde.likelihood import AdaptiveSolver, log_prob
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.base import Process
from scoresde.process.codes import draw_codes
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.mixed import Mixed
from scoresde.sampling import Sampler, sample

__all__ = ["density_grid", "forward_frames", "stored_values", "trajectories"]


def forward_frames(
    sde: Process, x0: Tensor, frames: int = 11, seed: int = 0
) -> tuple[dict[str, list[float]], np.ndarray]:
    r"""A trajectory of the OU process per event: $x_{\tau'} = e^{-\Delta}x_\tau + \sqrt{1 - e^{-2\Delta}}\,z$.

    Codes of categories are kept with probability $e^{-2\Delta}$, else drawn from the noise distribution.

    Args:
        sde: The process. The frames reach from 0 to the end of its clock, at equal steps of the angle φ, which makes
            the noise grow evenly to the eye.
        x0: Events in model units, ``(n, *D)``.
        frames: Number of frames.
        seed: Random seed of the noise.

    Returns:
        ``tau``, ``alpha``, ``sigma`` and ``log_snr`` of the frames, and the states, ``(frames, n, *D)`` float32.
    """
    noise, last = Noise(torch.Generator().manual_seed(seed)), float(ou.angle(min(sde.tau_max, 5.0)))
    taus = [float(ou.tau_from_angle(last * i / (frames - 1))) for i in range(frames)]
    x, states = x0, [x0]
    for tau, s in zip(taus[1:], taus):
        x = _noised(sde, x, tau, s, noise)
        states.append(x)
    labels = {"tau": taus, "alpha": [float(ou.alpha(v)) for v in taus], "sigma": [float(ou.sigma(v)) for v in taus]}
    labels["log_snr"] = [float(ou.log_snr(v)) for v in taus]
    return labels, torch.stack(states).float().numpy()


def _noised(sde: Process, x: Tensor, tau: float, s: float, noise: Noise) -> Tensor:
    """The state at ``tau`` of the forward process from ``x`` at ``s``."""
    if isinstance(sde, Mixed):
        numbers, codes = sde.split(x)
        parts = _noised(sde.continuous, numbers, tau, s, noise), _noised(sde.categorical, codes, tau, s, noise)
        return torch.cat(parts, -1)
    if isinstance(sde, DiscreteProcess):
        return draw_codes(sde.transition(x, tau, s), sde.draw_noise(x, noise)).to(x)
    return float(ou.alpha(tau - s)) * x + float(ou.sigma(tau - s)) * noise.normal(x)


def trajectories(
    model: Model, sampler: Sampler, n: int = 40, frames: int = 100, seed: int = 0
) -> dict[str, np.ndarray]:
    """Trajectories of a sampler; every sampler gets the same initial noises.

    Args:
        model: Trained or exact.
        sampler: The sampler.
        n: Number of trajectories.
        frames: Maximal number of states, evenly chosen, with the first and the last.
        seed: Random seed of initial noises and noise.

    Returns:
        Times ``tau``, ``(T,)``, and states ``x``, ``(T, n, *D)`` float32.
    """
    device = next(iter([*model.parameters(), *model.buffers()])).device
    generator = torch.Generator(device).manual_seed(seed)
    samples = sample(model, n, sampler, generator=generator, trajectory=True)
    assert samples.trajectory is not None
    assert samples.taus is not None
    rows = np.unique(np.linspace(0, len(samples.taus) - 1, frames).round().astype(int))
    return {"tau": np.asarray(samples.taus)[rows], "x": samples.trajectory[rows].float().cpu().numpy()}


def density_grid(model: Model, events: Tensor, size: int = 48) -> dict[str, np.ndarray]:
    """Log-density of a model of points in the plane, on a square grid a little wider than the data.

    Args:
        model: Trained or exact, of event shape ``(2,)``.
        events: Data in model units, ``(n, 2)``, which set the range of the grid.
        size: Points along each axis.

    Returns:
        ``extent`` (left, right, bottom, top); ``log_prob``, ``(size, size)``, nats, the first row at the bottom; and
        ``mass``, the integral of the density over the grid, which is near 1 for a correct density.
    """
    middle = 0.5 * (events.amin(0) + events.amax(0))
    half = 0.6 * float((events.amax(0) - events.amin(0)).max())
    axes = [torch.linspace(float(m) - half, float(m) + half, size) for m in middle]
    points = torch.stack(torch.meshgrid(axes[1], axes[0], indexing="ij")[::-1], -1).reshape(-1, 2)
    device = next(iter([*model.parameters(), *model.buffers()])).device
    values = log_prob(model, points.to(device), solver=AdaptiveSolver(0.1)).log_prob.cpu().reshape(size, size)
    mass = float(values.exp().sum()) * (2 * half / (size - 1)) ** 2
    extent = [float(axes[0][0]), float(axes[0][-1]), float(axes[1][0]), float(axes[1][-1])]
    return {"extent": np.asarray(extent), "log_prob": values.float().numpy(), "mass": np.asarray(mass)}


def stored_values(x: Tensor, model: Any) -> np.ndarray:
    """Samples as they are stored: integers of quantized data and categories, otherwise model units in float32."""
    x = x.detach().cpu()
    description = model.data
    if description is not None and (description.bins is not None or description.classes is not None):
        return description.to_data(x).numpy()
    return x.float().numpy()
