r"""How does log p change with the data and the parameters? By autograd through the ODE, or by its adjoint.

The flow and $d\log p/d\phi = -\nabla\cdot v$ are solved together by torchdiffeq, whose steps the batch shares; this is
the continuous normalizing flow of Chen et al. 2018. The adjoint solves back instead of keeping the steps: its memory
does not grow with them, its gradient has the backward solve's own error.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchdiffeq import odeint, odeint_adjoint

from scoresde._core.noise import Noise
from scoresde._core.tensors import sum_event, widest_dtype
from scoresde.likelihood.batching import Density
from scoresde.likelihood.ode.angle_velocity import AngleVelocity
from scoresde.likelihood.ode.log_prob import LikelihoodScorer
from scoresde.likelihood.ode.torchdiffeq_solver import TorchDiffEq
from scoresde.model import Model, evaluating, event_size, refuse_unknown

__all__ = ["differentiable_log_prob"]


def differentiable_log_prob(
    model: Model,
    x: Tensor,
    *,
    adjoint: bool = True,
    probes: int | None = None,
    solver: TorchDiffEq | None = None,
    prior_log_prob: Density | None = None,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    **cond: object,
) -> Tensor:
    r"""Log-density at ``tau_min`` as `log_prob` has it, with gradients in ``x`` and the model's parameters.

    Evaluated in eval mode. The probes are drawn once and kept along the path, so that the value and its gradient belong
    to one function; its error is not reported. To measure, use `log_prob`; to train or to differentiate, this.

    Args:
        model: Trained or exact.
        x: Data in the view's coordinates at ``tau_min``, ``(B, *D)``; gradients reach it if it asks for them.
        adjoint: Solve the adjoint ODE backwards; else backpropagate through the solver's steps, which keeps them all.
        probes: Random signs per sample for the divergence; None is exact up to 16 dimensions and else 1.
        solver: Tolerances and method; default ``TorchDiffEq(rtol=1e-4, atol=1e-4)``.
        prior_log_prob, generator, seeds: As for `log_prob`.
        **cond: Passed to the network; tensors have one entry per sample.

    Returns:
        Nats, ``(B,)`` float64.

    Raises:
        ValueError: As `log_prob`, and if ``probes`` is not a positive integer or None.
        RuntimeError: If the network is not differentiable in x, or the solver does not arrive.

    Source: Chen et al. 2018; Grathwohl et al. 2019.
    """
    refuse_unknown(differentiable_log_prob, model, cond)
    if probes is not None and (isinstance(probes, bool) or not isinstance(probes, int) or probes < 1):
        raise ValueError(f"probes must be a positive integer or None, got {probes!r}; None is exact for small events.")
    chosen = TorchDiffEq() if solver is None else solver
    scorer = LikelihoodScorer(model, None, chosen, 40, prior_log_prob, cond)
    scorer.check(x.detach(), seeds)
    wide = x.to(widest_dtype(x.device)) / float(model.sde.scale(model.sde.tau_min))
    flow = AngleVelocity(model, cond, slice(0, len(x)), tuple(x.shape[1:]))
    flow.forms("reverse", wide.detach().reshape(len(x), flow.size))
    with evaluating(model):
        z, gained = _solve(
            _Slope(flow, _directions(wide, probes, Noise(generator, seeds)), chosen.max_nfe), wide, chosen, adjoint
        )
        return scorer.inside(z.reshape(x.shape)) + sum_event(gained)


class _Slope(nn.Module):
    """The right-hand side on (x, ℓ / d); a module, so that the adjoint finds the parameters."""

    def __init__(self, flow: AngleVelocity, directions: Tensor, max_nfe: int) -> None:
        super().__init__()
        self.model, self.flow, self.directions, self.max_nfe, self.nfe = flow.model, flow, directions, max_nfe, 0

    def forward(self, phi: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        self.nfe += 1
        if self.nfe > self.max_nfe:
            raise RuntimeError(
                f"the solver has not arrived after max_nfe = {self.max_nfe} evaluations; loosen rtol, or raise it."
            )
        x, kept = state[0], torch.is_grad_enabled()
        with torch.enable_grad():
            x = x if kept and x.requires_grad else x.detach().requires_grad_()
            v = self.flow(torch.arange(len(x), device=x.device), phi.expand(len(x)), x)
            forms = [
                (torch.autograd.grad(v, x, e, create_graph=kept, retain_graph=True)[0] * e).sum(1)
                for e in self.directions
            ]
            total = torch.stack(forms).sum(0)
        return (v, total) if kept else (v.detach(), total.detach())


def _directions(x: Tensor, probes: int | None, noise: Noise) -> Tensor:
    """Unit vectors, or random signs scaled so that their forms add up to the mean, ``(P, B, d)``."""
    size = event_size(x)
    if probes is None and size <= 16:
        return torch.eye(size, dtype=x.dtype, device=x.device).unsqueeze(1).expand(size, len(x), size)
    count = probes or 1
    signs = noise.ragged([count] * len(x), x.detach().new_empty(size)).reshape(len(x), count, size)
    return signs.transpose(0, 1) / count**0.5


def _solve(slope: _Slope, x: Tensor, solver: TorchDiffEq, adjoint: bool) -> tuple[Tensor, Tensor]:
    """The state at the prior's end and the divergence's integral, ``(B, d)`` and ``(B,)``."""
    flat = x.reshape(len(x), slope.flow.size)
    times = torch.tensor([slope.flow.low, slope.flow.high], dtype=x.dtype, device=x.device)
    options = {"dtype": x.dtype, "step_t": times[1:]}
    settings = {"rtol": solver.rtol, "atol": solver.atol, "method": solver.method, "options": options}
    start = (flat, flat.new_zeros(len(x)))
    if adjoint:
        z, gained = odeint_adjoint(
            slope, start, times, adjoint_options={"dtype": x.dtype, "norm": "seminorm"}, **settings
        )
    else:
        z, gained = odeint(slope, start, times, **settings)
    return z[-1], gained[-1]
