r"""Importance-weighted bound (IWAE): $-\log\frac1n\sum_j w_j$ with $w = p(x_{0:K})/q(x_{1:K} \mid x_0)$.

Each trajectory is a draw of the whole chain from the forward process given the data. With one trajectory this is a
draw of the discrete VLB. With more, its expectation falls to -log p of the chain itself, even where the VLB is loose.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.call_inputs import as_input
from scoresde._core.checks import check_integer
from scoresde._core.noise import Noise
from scoresde._core.tensors import combine, event_size, expand, sum_event
from scoresde.likelihood.batching import Density, ProgressHook
from scoresde.likelihood.bounds.categorical import CategoricalTrajectories, refuse_gaussian_options
from scoresde.likelihood.bounds.categorical_chain import CategoricalChain
from scoresde.likelihood.bounds.decoder import Decoder, normal_nll
from scoresde.likelihood.bounds.estimation import estimate_terms
from scoresde.likelihood.bounds.result import Bound
from scoresde.likelihood.bounds.reverse_chain import ReverseChain
from scoresde.likelihood.bounds.terms import normal_entropy, terminal_log_prob
from scoresde.likelihood.conditions import likelihood_inputs
from scoresde.likelihood.score_check import refuse_without_score
from scoresde.model import Model, refuse_unknown
from scoresde.process import ou
from scoresde.process.discrete import DiscreteProcess
from scoresde.sampling import Grid, OptimalVariance, UniformLogSNR
from scoresde.sampling.grid import Chain

__all__ = ["importance_weighted_vlb"]


def importance_weighted_vlb(
    model: Model,
    data: ArrayLike,
    steps: int = 50,
    *,
    trajectories: int = 16,
    grid: Grid | None = None,
    rev_var: str | OptimalVariance = "beta_tilde",
    decoder: Decoder | None = None,
    prior_log_prob: Density | None = None,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    progress: bool = False,
    **cond: object,
) -> Bound:
    r"""Importance-weighted upper bound on -log p of a chain of ``steps``, from ``trajectories`` draws of all its steps.

    Its expectation does not rise with the number of trajectories and tends to the chain's -log p. The process in
    continuous time has no such bound. To approximate it, take a chain uniform in log-SNR down to ``tau_min`` (the
    default for floats) with enough steps.

    Args:
        model: Trained or exact.
        data: Integer values, floats or codes of categories, ``(B, *D)``; `discrete_vlb` states what is bounded.
        steps: Length of the chain: the number of network evaluations per trajectory.
        trajectories: n.
        grid: Default the DDPM chain's for integer values and categories, `UniformLogSNR` for floats.
        rev_var, decoder: As for `discrete_vlb`. A wrong variance removes most of the gain from more trajectories.
        prior_log_prob, generator, seeds, batch_size, progress, **cond: As for `continuous_vlb`.

    Returns:
        See `Bound`. ``terms`` sum to the plain average over the trajectories. ``stderr`` is that of
        $\log\frac1n\sum_j w_j$ to first order: too small where few weights dominate, and NaN for one trajectory.

    Raises:
        TypeError, ValueError, RuntimeError: As `discrete_vlb`.

    Source: Burda, Grosse & Salakhutdinov 2016.
    """
    refuse_unknown(importance_weighted_vlb, model, cond)
    check_arguments(importance_weighted_vlb, locals())
    data, cond = as_input(model, data, "data"), likelihood_inputs(model, cond)
    check_integer("trajectories", trajectories)
    quantized = isinstance(model.sde, DiscreteProcess) or not data.is_floating_point()
    if isinstance(model.sde, DiscreteProcess):
        options = {"rev_var": None if rev_var == "beta_tilde" else rev_var, "decoder": decoder}
        refuse_gaussian_options(importance_weighted_vlb, options | {"prior_log_prob": prior_log_prob})
        chain = CategoricalChain.of(model, data, steps, grid or Chain())
        estimator = CategoricalTrajectories(chain, trajectories)
    else:
        refuse_without_score(importance_weighted_vlb, model)
        grid = grid or (Chain() if quantized or decoder is not None else UniformLogSNR())
        chain = ReverseChain.of(model, data, steps, grid, rev_var, decoder, prior_log_prob)
        estimator = _TrajectoryEstimator(chain, trajectories)
    terms = estimate_terms(model, data, estimator, generator, seeds, batch_size, progress, cond)
    neg_log_w, n = torch.stack(list(terms.values())).sum(0), trajectories
    nats = math.log(n) - torch.logsumexp(-neg_log_w, 0)
    weights = torch.softmax(-neg_log_w, 0)  # normalized over the trajectories
    stderr = torch.full_like(nats, math.nan) if n == 1 else ((weights - 1.0 / n).square().sum(0) * n / (n - 1)).sqrt()
    nfe = model.cost * n * (chain.steps - chain.first + 1 + chain.decoder_calls)
    means = {name: value.mean(0) for name, value in terms.items()}
    dof = torch.full_like(nats, n - 1.0 if n > 1 else math.nan)
    return Bound(nats, means, stderr, dof, nfe, event_size(data), quantized)


@dataclass(frozen=True, eq=False)
class _TrajectoryEstimator:
    """Estimates each term of -log w for each trajectory, ``(trajectories, B)``."""

    chain: ReverseChain
    trajectories: int

    def __call__(self, data: Tensor, noise: Noise, cond: dict[str, object], hook: ProgressHook) -> dict[str, Tensor]:
        n = self.trajectories
        parts = [self._draw(data, noise, cond, lambda fraction, i=i: hook((i + fraction) / n)) for i in range(n)]
        return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}

    def _draw(self, data: Tensor, noise: Noise, cond: dict[str, object], hook: ProgressHook) -> dict[str, Tensor]:
        chain, model = self.chain, self.chain.initial.model
        x, terms = chain.initial.draw(data, noise)
        state, prior = self._end(x, noise)
        diffusion = torch.zeros_like(prior)
        for k in range(chain.steps, chain.first - 1, -1):
            row = chain.at(torch.tensor(k))
            p_mean, p_var = chain.reverse(model(state, row["tau"], **cond), state, row)
            q_mean, q_var = combine(row["q_x"], x, row["q_state"], state), row["q_var"]
            state = q_mean + torch.sqrt(expand(q_var, x)) * noise.normal(x)  # pyright: ignore[reportArgumentType]
            diffusion = diffusion + normal_nll(state, p_mean, p_var) - normal_nll(state, q_mean, q_var)
            hook((chain.steps - k + 1) / (chain.steps - chain.first + 1))
        reconstruction = terms.get("reconstruction", 0.0) + chain.reconstruction(data, x, state, cond)
        return terms | {"prior": prior, "diffusion": diffusion, "reconstruction": reconstruction}

    def _end(self, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        r"""A draw of the chain's end x_K, and $\log q(x_K) - \log\pi(x_K)$ there, nats, ``(B,)``."""
        chain, sde = self.chain, self.chain.initial.model.sde
        elapsed, eps = sde.tau_max - chain.initial.tau_start, noise.normal(x)
        x_end = combine(ou.alpha(elapsed), x, ou.sigma(elapsed), eps)
        size = event_size(x)
        log_q = 0.5 * (size - sum_event(eps * eps)) - normal_entropy(size, ou.sigma(elapsed))
        if chain.prior_log_prob is None:
            return x_end, log_q - sde.prior_log_prob(x_end)
        return x_end, log_q - terminal_log_prob(chain.prior_log_prob, x_end)
