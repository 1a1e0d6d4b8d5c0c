r"""Differentiable log-density: gradients by autograd through the ODE solver, or by the adjoint method.

torchdiffeq solves $dx/d\phi = v$ and $d\log p/d\phi = -\nabla\cdot v$ together, with steps that the batch shares: the
continuous normalizing flow of Chen et al. 2018. The adjoint method solves the adjoint ODE backward in time instead of
storing the steps. Its memory does not grow with their number; its gradient has the error of the backward solve.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.call_inputs import as_input
from scoresde._core.checks import check_integer
from scoresde._core.noise import Noise
from scoresde._core.tensors import event_size, sum_event, widest_dtype
from scoresde.likelihood.batching import Density
from scoresde.likelihood.conditions import likelihood_inputs
from scoresde.likelihood.ode.angle_velocity import AngleVelocity
from scoresde.likelihood.ode.scorer import LikelihoodScorer
from scoresde.likelihood.ode.torchdiffeq_solver import TorchDiffEq
from scoresde.likelihood.ode.trace import EXACT_DIMS
from scoresde.likelihood.score_check import refuse_without_score
from scoresde.model import Model, evaluating, refuse_unknown

__all__ = ["differentiable_log_prob"]


def differentiable_log_prob(
    model: Model,
    x: ArrayLike,
    *,
    adjoint: bool = True,
    probes: int | None = None,
    solver: TorchDiffEq | None = None,
    prior_log_prob: Density | None = None,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    **cond: object,
) -> Tensor:
    r"""Log-density at ``tau_min``, as `log_prob` defines it, with gradients in ``x`` and the model's parameters.

    Evaluated in eval mode. The probes are drawn once and stay the same along the trajectory, so that the value and its
    gradient belong to one function. No error is reported: for evaluation use `log_prob`, for training this function.

    Args:
        model: Trained or exact.
        x: Data in the view's coordinates at ``tau_min``, ``(B, *D)``; may require gradients.
        adjoint: Solve the adjoint ODE backward in time; otherwise backpropagate through the solver's steps, all of
            which are then stored.
        probes: Random signs per sample for the divergence; None is exact up to 16 dimensions, and 1 above.
        solver: Tolerances and method; default ``TorchDiffEq(rtol=1e-4, atol=1e-4)``.
        prior_log_prob, generator, seeds: As for `log_prob`.
        **cond: Passed to the network; tensors have one entry per sample.

    Returns:
        Nats, ``(B,)`` float64.

    Raises:
        ValueError: As `log_prob`, and if ``probes`` is neither None nor a positive integer.
        RuntimeError: If the network is not differentiable in x, or the solver does not arrive.

    Source: Chen et al. 2018; Grathwohl et al. 2019.
    """
    refuse_unknown(differentiable_log_prob, model, cond)
    refuse_without_score(differentiable_log_prob, model)
    check_arguments(differentiable_log_prob, locals())
    x, cond = as_input(model, x, "x"), likelihood_inputs(model, cond)
    if probes is not None:
        check_integer("probes", probes)
    solver = TorchDiffEq() if solver is None else solver
    scorer = LikelihoodScorer(model, None, solver, 40, prior_log_prob, cond)
    scorer.check(x.detach(), seeds)
    if not len(x):
        return x.new_zeros(0, dtype=widest_dtype(x.device))
    state = x.to(widest_dtype(x.device)) / float(model.sde.scale(model.sde.tau_min))
    flow = AngleVelocity(model, cond, slice(0, len(x)), tuple(x.shape[1:]))
    flow.quadratic_forms("reverse", state.detach().reshape(len(x), flow.size))  # refuses what is not differentiable
    with evaluating(model):
        directions = _directions(state, probes, Noise(generator, seeds))
        z, integral = _solve(_FlowWithDivergence(flow, directions, solver.max_nfe), state, solver, adjoint)
        return scorer.boundary_term(z.reshape(x.shape)) + sum_event(integral)


class _FlowWithDivergence(nn.Module):
    """The right-hand side v and its divergence; a module, so that the adjoint method finds the parameters."""

    def __init__(self, flow: AngleVelocity, directions: Tensor, max_nfe: int) -> None:
        super().__init__()
        self.model, self.flow, self.directions, self.max_nfe, self.nfe = flow.model, flow, directions, max_nfe, 0

    def forward(self, phi: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        self.nfe += self.flow.cost
        if self.nfe > self.max_nfe:
            raise RuntimeError(
                f"the solver has not arrived after max_nfe = {self.max_nfe} evaluations; loosen rtol, or raise max_nfe."
            )
        x, with_graph = state[0], torch.is_grad_enabled()
        with evaluating(self.model), torch.enable_grad():  # the adjoint method calls it again, from backward()
            x = x if with_graph and x.requires_grad else x.detach().requires_grad_()
            v = self.flow(torch.arange(len(x), device=x.device), phi.expand(len(x)), x)
            forms = [
                (torch.autograd.grad(v, x, e, create_graph=with_graph, retain_graph=True)[0] * e).sum(1)
                for e in self.directions
            ]
            divergence = torch.stack(forms).sum(0)
        return (v, divergence) if with_graph else (v.detach(), divergence.detach())


def _directions(x: Tensor, probes: int | None, noise: Noise) -> Tensor:
    """Unit vectors, or random signs scaled so that the sum of their forms is a mean, ``(P, B, d)``."""
    size = event_size(x)
    if probes is None and size <= EXACT_DIMS:
        return torch.eye(size, dtype=x.dtype, device=x.device).unsqueeze(1).expand(size, len(x), size)
    count = probes or 1
    signs = noise.ragged([count] * len(x), x.detach().new_empty(size)).reshape(len(x), count, size)
    return signs.transpose(0, 1) / count**0.5


def _solve(
    right_hand_side: _FlowWithDivergence, x: Tensor, solver: TorchDiffEq, adjoint: bool
) -> tuple[Tensor, Tensor]:
    """The latent state, ``(B, d)``, and the integral of the divergence, ``(B,)``."""
    from torchdiffeq import odeint, odeint_adjoint  # imported here because it imports scipy, which takes a second

    flow = right_hand_side.flow
    data = x.reshape(len(x), flow.size)
    ends = torch.tensor([flow.phi_min, flow.phi_max], dtype=x.dtype, device=x.device)
    options = {"dtype": x.dtype, "step_t": ends[1:]}
    settings = {"rtol": solver.rtol, "atol": solver.atol, "method": solver.method, "options": options}
    start = (data, data.new_zeros(len(x)))
    if adjoint:
        adjoint_options = {"dtype": x.dtype, "norm": "seminorm"}
        z, integral = odeint_adjoint(right_hand_side, start, ends, adjoint_options=adjoint_options, **settings)
    else:
        z, integral = odeint(right_hand_side, start, ends, **settings)
    return z[-1], integral[-1]
