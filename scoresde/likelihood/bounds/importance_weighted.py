r"""How much closer do several trajectories come? $-\log\frac1n\sum_j w_j$ with $w = p(x_{0:K})/q(x_{1:K} \mid x_0)$.

Each trajectory is a draw of the whole chain from the forward process given the data. With one it is the discrete bound,
drawn; with more it falls, in expectation, towards -log p of the chain itself, whatever the bound's gap was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.noise import Noise
from scoresde._core.tensors import combine, expand, sum_event
from scoresde.likelihood.batching import Density
from scoresde.likelihood.bounds.decoder import Decoder, normal_cost
from scoresde.likelihood.bounds.result import Bound, check_count, estimate_terms
from scoresde.likelihood.bounds.reverse_chain import ReverseChain
from scoresde.likelihood.bounds.terms import end_log_prob, normal_entropy
from scoresde.model import Model, event_size, refuse_unknown
from scoresde.process import ou
from scoresde.sampling import Grid, OptimalVariance, UniformLogSNR
from scoresde.sampling.grid import Chain as ChainGrid

__all__ = ["importance_weighted_vlb"]


def importance_weighted_vlb(
    model: Model,
    data: Tensor,
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
    r"""The importance-weighted bound of a chain of ``steps``, by ``trajectories`` draws of all its steps.

    It does not rise with the trajectories, in expectation, and tends to the chain's -log p. There is no such bound of
    the process in continuous time: for that, as here by default for floats, take a chain even in log-SNR down to
    ``tau_min``, with as many steps as it needs.

    Args:
        model: Trained or exact.
        data: Raw integer levels, or floats in model units, ``(B, *D)``; see `discrete_vlb` for what is bounded.
        steps: The chain's length: so many network calls per trajectory.
        trajectories: n.
        grid: Default the DDPM chain's for levels, `UniformLogSNR` for floats.
        rev_var, decoder: As for `discrete_vlb`. The wrong variance costs most of what trajectories can win.
        prior_log_prob, generator, seeds, batch_size, progress, **cond: As for `continuous_vlb`.

    Returns:
        See `Bound`. ``terms`` sum to the trajectories' plain average; ``stderr`` is that of $\log\frac1n\sum_j w_j$ to
        first order, too small where few weights carry the sum, and NaN for one trajectory.

    Raises:
        TypeError, ValueError, RuntimeError: As `discrete_vlb`.

    Source: Burda, Grosse & Salakhutdinov 2016.
    """
    refuse_unknown(importance_weighted_vlb, model, cond)
    check_count("trajectories", trajectories)
    levels = not data.is_floating_point()
    grid = grid or (ChainGrid() if levels or decoder is not None else UniformLogSNR())
    chain = ReverseChain.of(model, data, steps, grid, rev_var, decoder, prior_log_prob)
    found = estimate_terms(model, data, _Weighted(chain, trajectories), generator, seeds, batch_size, progress, cond)
    total = torch.stack(list(found.values())).sum(0)
    nats = math.log(trajectories) - torch.logsumexp(-total, 0)
    share = torch.softmax(-total, 0)  # w over the sum of all
    n = trajectories
    stderr = torch.full_like(nats, math.nan) if n == 1 else ((share - 1.0 / n).square().sum(0) * n / (n - 1)).sqrt()
    nfe = trajectories * (chain.steps - chain.first + 1 + chain.decoder_calls)
    means = {name: value.mean(0) for name, value in found.items()}
    return Bound(nats, means, stderr, nfe, event_size(data), levels)


@dataclass(frozen=True, eq=False)
class _Weighted:
    """Each term of -log w, by trajectory: ``(trajectories, B)``."""

    chain: ReverseChain
    trajectories: int

    def __call__(
        self, data: Tensor, noise: Noise, cond: dict[str, object], tell: Callable[[float], None]
    ) -> dict[str, Tensor]:
        n = self.trajectories
        parts = [self._draw(data, noise, cond, lambda done, i=i: tell((i + done) / n)) for i in range(n)]
        return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}

    def _draw(
        self, data: Tensor, noise: Noise, cond: dict[str, object], tell: Callable[[float], None]
    ) -> dict[str, Tensor]:
        chain, start = self.chain, self.chain.start
        x, found = start.place(data, noise)
        state, prior = self._end(x, noise)
        total = torch.zeros_like(prior)
        for k in range(chain.steps, chain.first - 1, -1):
            row = chain.at(torch.tensor(k))
            p_mean, p_var = chain.reverse(start.model(state, row["tau"], **cond), state, row)
            q_mean, q_var = combine(row["from_x"], x, row["from_state"], state), row["q_var"]
            state = q_mean + torch.sqrt(expand(q_var, x)) * noise.normal(x)  # pyright: ignore[reportArgumentType]
            total = total + normal_cost(state, p_mean, p_var) - normal_cost(state, q_mean, q_var)
            tell((chain.steps - k + 1) / (chain.steps - chain.first + 1))
        first = chain.reconstruction(data, x, state, cond)
        return found | {
            "prior": prior,
            "diffusion": total,
            "reconstruction": found.get("reconstruction", 0.0) + first,
        }

    def _end(self, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        r"""A draw of the chain's end and $\log q(x_K) - \log\pi(x_K)$ there, nats, ``(B,)``."""
        chain, sde = self.chain, self.chain.start.model.sde
        since = sde.tau_max - chain.start.given
        eps = noise.normal(x)
        end = combine(ou.alpha(since), x, ou.sigma(since), eps)
        size = event_size(x)
        log_q = 0.5 * (size - sum_event(eps * eps)) - normal_entropy(size, ou.sigma(since))
        log_prior = sde.prior_log_prob(end) if chain.density is None else end_log_prob(chain.density, end)
        return end, log_q - log_prior
