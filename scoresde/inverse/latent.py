r"""Inversion of the probability-flow ODE, $dx/d\phi = v(x, \phi)$: events to latents at the end of the clock and back.

An event is taken as the state at ``tau_min``, as for a log-density. The map is one-to-one, so that decoding an encoded
event returns it within the tolerance of the solver. No divergence is computed: the cost is that of sampling by an ODE.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.call_inputs import as_input, check_per_sample, cond_inputs, empty_state
from scoresde._core.checks import check_event_shape, check_finite, check_kind
from scoresde._core.tensors import widest_dtype
from scoresde.inverse.units import KnownEvents
from scoresde.likelihood.batching import batches, evaluation_mode
from scoresde.likelihood.ode import AdaptiveSolver, Solver, Status
from scoresde.likelihood.ode.angle_velocity import AngleVelocity
from scoresde.model import Model, gaussian_process, refuse_unknown
from scoresde.process import ou
from scoresde.sampling import SolverError

__all__ = ["decode", "encode", "solve_flow"]

_SOLVER = AdaptiveSolver(tol=1e-3)


def encode(
    model: Model,
    x: ArrayLike,
    solver: Solver | None = None,
    *,
    batch_size: int | None = None,
    **cond: Tensor,
) -> Tensor:
    r"""Latents of events: their states at the end of the clock, by the probability-flow ODE.

    Args:
        model: Trained or exact.
        x: Events, ``(n, *D)``: in data units where the model knows its data (``model.data``), else in model units.
            Integers of quantized data are taken at the centers of their bins.
        solver: Default ``AdaptiveSolver(tol=1e-3)``, with a step size per event.
        batch_size: Events at once; default all.
        **cond: Passed to the network, one entry per event, ``(n, …)``.

    Returns:
        Latents in the view's coordinates, ``(n, *E)`` in float64, near draws from the prior of the view;
        ``sample(model, n, ODE(), init=latents)`` and `decode` lead back.

    Raises:
        TypeError: If the model is not a Model or the solver not a Solver.
        ValueError: If the events contradict the description, or shapes do not fit.
        SolverError: If the solver does not reach the end for an event.
        RuntimeError: If the network returns NaN; names τ and the events.

    Example:
        >>> import torch
        >>> from scoresde import Gaussian, decode, encode
        >>> model = Gaussian(torch.tensor([1.0, 2.0], dtype=torch.float64), 0.25)
        >>> latents = encode(model, torch.tensor([[1.5, 2.0]], dtype=torch.float64))
        >>> decode(model, latents).round(decimals=3)
        tensor([[1.5000, 2.0000]], dtype=torch.float64)

    Source: Song et al. 2021, section 4.3 and appendix D.2 (encoding); Song, Meng & Ermon 2021, section 4.3.
    """
    refuse_unknown(encode, model, cond)
    check_arguments(encode, locals())
    events = KnownEvents.of(model, x)
    return solve_flow(model, events.x, solver, cond, to_noise=True, batch_size=batch_size)


def decode(
    model: Model,
    z: ArrayLike,
    solver: Solver | None = None,
    *,
    batch_size: int | None = None,
    **cond: Tensor,
) -> Tensor:
    """Events of latents, by the probability-flow ODE from the end of the clock: the inverse of `encode`.

    Args:
        model, solver, batch_size, **cond: As for `encode`.
        z: Latents in the view's coordinates, floating, ``(n, *E)``.

    Returns:
        Events, ``(n, *D)``: in data units where the model knows its data, else in model units.

    Raises:
        TypeError, ValueError, SolverError, RuntimeError: As `encode`.
    """
    refuse_unknown(decode, model, cond)
    check_arguments(decode, locals())
    z = as_input(model, z, "z")
    if not z.is_floating_point():
        raise TypeError(f"z must be a floating tensor, got {z.dtype}; pass what encode returns.")
    check_event_shape(z, model.event_shape, "z")
    check_finite(z, "z")
    x = solve_flow(model, z, solver, cond, to_noise=False, batch_size=batch_size).to(empty_state(model).dtype)
    return x if model.data is None else model.data.to_data(x)


def solve_flow(
    model: Model,
    x: Tensor,
    solver: Solver | None,
    cond: dict[str, Tensor],
    to_noise: bool,
    batch_size: int | None,
) -> Tensor:
    """The ends of the trajectories that begin at ``x``, ``(n, *E)``, in the view's coordinates and in float64.

    Args:
        model: Its ODE is solved, in eval mode and without gradients.
        x: States in the view's coordinates, ``(n, *E)``: at ``tau_min`` if ``to_noise``, else at ``tau_max``.
        solver: None for the default of `encode`.
        cond: Passed to the network.
        to_noise: The direction.
        batch_size: Events at once; None for all.

    Raises:
        SolverError: If the solver does not reach the end for an event.
    """
    solver = _SOLVER if solver is None else solver
    check_kind("solver", solver, Solver)
    inputs, sde = cond_inputs(model, cond), gaussian_process(model, "the probability-flow ODE")
    check_per_sample(inputs, len(x), "event")
    first, last = (sde.tau_min, sde.tau_max) if to_noise else (sde.tau_max, sde.tau_min)
    state = x.detach().to(widest_dtype(x.device)) / float(sde.scale(min(first, 300.0)))
    ends = [state[:0]]
    with evaluation_mode(model):
        for rows in batches(len(x), batch_size):
            flow = AngleVelocity(model, dict(inputs), rows, tuple(x.shape[1:]))
            span = (flow.phi_min, flow.phi_max) if to_noise else (flow.phi_max, flow.phi_min)
            with flow.global_indices():
                solution = solver.solve(flow, state[rows].flatten(1), *span)
            _check_arrived(solution.status, solution.phi, rows.start)
            ends.append(solution.end.reshape(state[rows].shape))
    return torch.cat(ends) * float(sde.scale(min(last, 300.0)))


def _check_arrived(status: Tensor, phi: Tensor, first: int) -> None:
    failed = (status != Status.ARRIVED).nonzero().flatten().tolist()
    if failed:
        listed = ", ".join(str(row + first) for row in failed[:8]) + (" …" if len(failed) > 8 else "")
        tau = float(ou.tau_from_angle(phi[failed[0]].cpu()))
        raise SolverError(
            f"every event must reach the end of the ODE, but [{listed}] did not: "
            f"{Status(int(status[failed[0]])).name} at tau = {tau:.4g}; loosen tol of AdaptiveSolver, or raise max_nfe."
        )
