r"""Interpolation between events in the latent space of the probability-flow ODE, on a great circle.

$z_t = \frac{\sin((1 - t)\omega)}{\sin\omega}z_a + \frac{\sin(t\omega)}{\sin\omega}z_b$, with ω the angle between the
latents. Points in between have the norm of draws from the prior, as those on the straight line have not. The ends are
decoded like all other points.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.call_inputs import as_input, check_per_sample, cond_inputs
from scoresde._core.checks import check_integer
from scoresde.inverse.latent import solve_flow
from scoresde.inverse.units import KnownEvents
from scoresde.likelihood.ode import Solver
from scoresde.model import Model, refuse_unknown

__all__ = ["LatentPath", "interpolate"]


@dataclass(frozen=True, eq=False)
class LatentPath:
    """Events along a path between two, for each of n pairs.

    Attributes:
        data: ``(n, points, *D)``, in data units where the model knows its data, else in model units; of two single
            events ``(points, *D)``.
        x: The same in model units, ``(n, points, *E)`` or ``(points, *E)``.
        latents: The points on the great circle, view's coordinates, ``(n, points, *E)`` or ``(points, *E)``.
        error: Root mean square over an event, in model units, of what encoding and decoding changed at the two ends,
            ``(n, 2)`` or ``(2,)``.
    """

    data: Tensor = field(repr=False)
    x: Tensor = field(repr=False)
    latents: Tensor = field(repr=False)
    error: Tensor


def interpolate(
    model: Model,
    a: ArrayLike,
    b: ArrayLike,
    n: int = 8,
    solver: Solver | None = None,
    *,
    batch_size: int | None = None,
    **cond: Tensor,
) -> LatentPath:
    """Interpolates between events: encodes both, follows the great circle between their latents, and decodes.

    Args:
        model: Trained or exact; with at least two dimensions.
        a, b: Two events ``(*D)``, or as many pairs ``(m, *D)``; units as for `encode`.
        n: Number of points, both ends included; at least 2.
        solver, batch_size: As for `encode`.
        **cond: Passed to the network, one entry per pair, ``(m, …)``; for two single events ``(1, …)``.

    Returns:
        See `LatentPath`. Its ends are a and b within the tolerance of the solver; ``error`` says how well.

    Raises:
        ValueError: If the events differ in shape or contradict the description; if two latents point in opposite
            directions, between which no great circle is defined.
        TypeError, SolverError, RuntimeError: As `encode`.

    Example:
        >>> import torch
        >>> from scoresde import GaussianMixture, interpolate
        >>> ring = GaussianMixture.ring()
        >>> a, b = ring.means[0], ring.means[2]
        >>> interpolate(ring, a, b, n=5).data.shape
        torch.Size([5, 2])

    Source: Song, Meng & Ermon 2021 (DDIM), section 5.3 and appendix D.5.
    """
    refuse_unknown(interpolate, model, cond)
    check_arguments(interpolate, locals())
    check_integer("n", n, 2)
    first, last = as_input(model, a, "a"), as_input(model, b, "b")
    if first.shape != last.shape:
        raise ValueError(f"a and b must have one shape, got {tuple(first.shape)} and {tuple(last.shape)}.")
    shape = model.event_shape if model.data is None else model.data.shape
    single = shape is not None and tuple(first.shape) == shape
    if single:
        first, last = first.unsqueeze(0), last.unsqueeze(0)
    ends = KnownEvents.of(model, torch.cat([first, last]), "a and b")
    pairs = len(first)
    inputs = cond_inputs(model, cond)
    check_per_sample(inputs, pairs, "pair")
    twice = {name: torch.cat([value, value]) for name, value in inputs.items()}
    z = solve_flow(model, ends.x, solver, twice, to_noise=True, batch_size=batch_size)
    latents = great_circle(z[:pairs], z[pairs:], torch.linspace(0.0, 1.0, n, dtype=z.dtype, device=z.device))
    each = {name: value.repeat_interleave(n, 0) for name, value in inputs.items()}
    decoded = solve_flow(model, latents.flatten(0, 1), solver, each, to_noise=False, batch_size=batch_size)
    x = decoded.reshape(latents.shape)
    difference = torch.stack([x[:, 0] - ends.x[:pairs], x[:, -1] - ends.x[pairs:]], 1)
    error = difference.flatten(2).square().mean(2).sqrt()
    x = x.to(ends.x.dtype)
    path = LatentPath(ends.to_data(x), x, latents, error)
    return LatentPath(path.data[0], x[0], latents[0], error[0]) if single else path


def great_circle(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    """Points between latents on a great circle; for parallel latents on the straight line, its limit.

    Args:
        a, b: ``(m, *E)``.
        t: Fractions of the way, ``(n,)``.

    Returns:
        ``(m, n, *E)``.

    Raises:
        ValueError: If a and b point in opposite directions.
    """
    flat_a, flat_b = a.flatten(1), b.flatten(1)
    unit_a = flat_a / flat_a.norm(dim=1, keepdim=True).clamp(min=1e-300)
    unit_b = flat_b / flat_b.norm(dim=1, keepdim=True).clamp(min=1e-300)
    # half-angle form: accurate for nearly parallel vectors, where the arc cosine of their product is not
    angle = 2 * torch.atan2((unit_a - unit_b).norm(dim=1), (unit_a + unit_b).norm(dim=1))
    if bool((angle > torch.pi - 1e-6).any()):
        raise ValueError(
            "two latents must not point in opposite directions, because every great circle through one passes the "
            f"other, got the pair {int((angle > torch.pi - 1e-6).nonzero()[0])}; in one dimension all do that or are "
            "parallel. Interpolate through a third event."
        )
    omega, t = angle[:, None], t[None]
    # sinc has the limit of parallel latents
    scale = torch.sinc(omega / torch.pi)
    weight_a = (1 - t) * torch.sinc((1 - t) * omega / torch.pi) / scale
    weight_b = t * torch.sinc(t * omega / torch.pi) / scale
    points = weight_a.unsqueeze(2) * flat_a.unsqueeze(1) + weight_b.unsqueeze(2) * flat_b.unsqueeze(1)
    return points.reshape(len(a), -1, *a.shape[1:])
