r"""What is the bound of DDPM's chain, term by term? $L_T + \sum_{k=2}^K L_{k-1} + L_0$.

$L_T = KL(q(x_K \mid x_0)\,\|\,\pi)$, $L_{k-1} = E\,KL(q(x_{k-1} \mid x_k, x_0)\,\|\,p(x_{k-1} \mid x_k))$ and
$L_0 = -E\log p(x_0 \mid x_1)$. As K grows the sum tends to the bound in continuous time, at first order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scoresde._core.noise import Noise
from scoresde.likelihood.batching import Density
from scoresde.likelihood.bounds.decoder import Decoder
from scoresde.likelihood.bounds.error_profile import ErrorProfile
from scoresde.likelihood.bounds.result import Bound, check_count, estimate_terms, mean_variance
from scoresde.likelihood.bounds.reverse_chain import ReverseChain
from scoresde.model import Model, event_size, refuse_unknown
from scoresde.process import ou
from scoresde.sampling import Grid, OptimalVariance
from scoresde.sampling.grid import Chain as ChainGrid

__all__ = ["discrete_vlb"]

_LOW = -14.0  # below this log-SNR all steps are drawn alike
_EVEN = 0.1  # share of the draws that is spread evenly over k


def discrete_vlb(
    model: Model,
    data: Tensor,
    steps: int = 1000,
    *,
    grid: Grid | None = None,
    rev_var: str | OptimalVariance = "beta_tilde",
    decoder: Decoder | None = None,
    draws: int = 1,
    terms: int | None = None,
    replicates: int = 4,
    profile: ErrorProfile | None = None,
    prior_log_prob: Density | None = None,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    progress: bool = False,
    **cond: object,
) -> Bound:
    r"""The bound of a chain of ``steps`` K, each term from its own draw of noise.

    With ``terms=None`` every term is evaluated, in ``draws * (K - 1)`` network calls and two for each reconstruction.
    The standard error compares neighboring terms, each divided by its fall in log-SNR, and two draws of L_0: it is
    right where the terms vary smoothly with k, else too large. With ``terms=n`` each sample has n steps of its own
    among them, by ``replicates`` lattices shifted at random, whose scatter is the standard error; the sum stays
    unbiased.

    What is bounded: levels, -log P(k) in nats and bits, with a decoder in the first step. Floats: -log p of the clean
    x_0 in model units, or, on a grid that ends at ``tau_min``, -log p of the law there (`log_prob`'s, but for the
    view's volume, which is added). Means are not clipped.

    Args:
        model: Trained or exact.
        data: Raw integer levels, or floats in model units, ``(B, *D)``.
        steps: The chain's length K.
        grid: Where the steps are; default the DDPM chain's own, which ends at 0. On one that ends at ``tau_min``,
            levels are decoded there, by default by `KernelDecoder`.
        rev_var: ``"beta"``, ``"beta_tilde"``, ``"learned"`` or an `OptimalVariance`, as for `scoresde.sampling.DDPM`.
        decoder: Default: the chain's last step, rounded to the cell (`RoundedDecoder`); for β̃, which is 0 there, with that of
            the step before.
        draws: Draws of every term.
        terms: How many of the terms are evaluated, a multiple of the replicates; default all.
        replicates: Independent lattices where not all are; at least 2.
        profile: From `measure_error_profile`: which steps to draw more often. Default: in proportion to the fall in log-SNR.
        prior_log_prob, generator, seeds, batch_size, progress, **cond: As for `continuous_vlb`.

    Returns:
        See `Bound`; with ``per_step``.

    Raises:
        TypeError, ValueError, RuntimeError: As `continuous_vlb`; if the grid does not suit the data; if the variance
            is to be learned and the model returns none.

    Source: Ho, Jain & Abbeel 2020, eqs. 5, 8 and 13; Nichol & Dhariwal 2021 (learned variances).
    """
    refuse_unknown(discrete_vlb, model, cond)
    check_count("draws", draws)
    chain = ReverseChain.of(model, data, steps, grid or ChainGrid(), rev_var, decoder, prior_log_prob)
    if terms is None:
        estimate = _Every(chain, draws)
        nfe = draws * (chain.steps - chain.first + 1 + 2 * chain.decoder_calls)
    else:
        check_count("replicates", replicates, 2)
        check_count("terms", terms, replicates)
        if terms % replicates:
            raise ValueError(f"terms must be a multiple of the replicates, {replicates}, got {terms}.")
        estimate = _Some(chain, terms // replicates, replicates, profile)
        nfe = terms + replicates * chain.decoder_calls
    found = estimate_terms(model, data, estimate, generator, seeds, batch_size, progress, cond)
    variance, per_step = found.pop("variance"), found.pop("per_step")
    per_step = per_step.mean(1) if len(data) else torch.zeros(chain.steps, dtype=torch.float64)
    nats = torch.stack(list(found.values())).sum(0)
    return Bound(nats, found, variance.sqrt(), nfe, event_size(data), not data.is_floating_point(), per_step)


@dataclass(frozen=True, eq=False)
class _Every:
    """Every term, ``draws`` times; besides the terms gives "variance", ``(B,)``, and "per_step", ``(K, B)``."""

    chain: ReverseChain
    draws: int

    def __call__(
        self, data: Tensor, noise: Noise, cond: dict[str, object], tell: Callable[[float], None]
    ) -> dict[str, Tensor]:
        parts = [
            self._draw(data, noise, cond, lambda done, i=i: tell((i + done) / self.draws)) for i in range(self.draws)
        ]
        found = {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]}
        found["variance"] = found["variance"] / self.draws
        return found

    def _draw(
        self, data: Tensor, noise: Noise, cond: dict[str, object], tell: Callable[[float], None]
    ) -> dict[str, Tensor]:
        chain = self.chain
        x, found = chain.start.place(data, noise)
        decoded = [chain.reconstruction(data, x, chain.noised(x, chain.decoded_at, noise), cond) for _ in range(2)]
        first = 0.5 * (decoded[0] + decoded[1])
        prior = [chain.prior(x, noise) for _ in range(2 if chain.density is not None else 1)]
        costs = []
        for k in range(chain.first, chain.steps + 1):
            costs.append(chain.cost(x, torch.tensor(k), noise.normal(x), cond))
            tell((k - chain.first + 1) / (chain.steps - chain.first + 1))
        cost = torch.stack(costs) if costs else first.new_zeros(0, len(first))
        variance = 0.25 * ((decoded[0] - decoded[1]).square() + (prior[0] - prior[-1]).square())
        steps = torch.cat([first.unsqueeze(0), cost]) if chain.first == 2 else cost
        return found | {
            "prior": torch.stack(prior).mean(0),
            "diffusion": cost.sum(0),
            "reconstruction": found.get("reconstruction", 0.0) + first,
            "variance": variance + _neighbors(cost, _falls(chain).to(cost)),
            "per_step": steps,
        }


def _neighbors(cost: Tensor, falls: Tensor) -> Tensor:
    """Variance of the sum of independent terms ``(n, B)`` whose mean and spread per fall change slowly, ``(B,)``."""
    if len(cost) < 2:
        return torch.full_like(cost.sum(0), math.nan if len(cost) else 0.0)
    each = cost / falls.unsqueeze(1)
    squares = 0.5 * (each[1:] - each[:-1]).square()
    local = 0.5 * (torch.cat([squares[:1], squares]) + torch.cat([squares, squares[-1:]]))
    return (falls.square().unsqueeze(1) * local).sum(0)


def _falls(chain: ReverseChain) -> Tensor:
    """How far log-SNR falls in the steps from the chain's first on, ``(n,)``, counted down to -14."""
    at = [max(float(ou.log_snr(tau)), _LOW) for tau in chain.knots[chain.first - 1 :]]
    least = 1e-3 * (at[0] - at[-1]) / max(len(at) - 1, 1)
    return torch.tensor([max(a - b, least) for a, b in zip(at, at[1:])], dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class _Some:
    """Some of the terms, ``points`` in each replicate; gives what `_Every` gives."""

    chain: ReverseChain
    points: int
    replicates: int
    profile: ErrorProfile | None

    def __call__(
        self, data: Tensor, noise: Noise, cond: dict[str, object], tell: Callable[[float], None]
    ) -> dict[str, Tensor]:
        n, mass = self.replicates, self._mass()
        parts = [self._draw(data, noise, cond, mass, lambda done, i=i: tell((i + done) / n)) for i in range(n)]
        stacked = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
        totals = torch.stack([value for name, value in stacked.items() if name != "per_step"]).sum(0)
        return {name: value.mean(0) for name, value in stacked.items()} | {"variance": mean_variance(totals)}

    def _draw(
        self, data: Tensor, noise: Noise, cond: dict[str, object], mass: Tensor, tell: Callable[[float], None]
    ) -> dict[str, Tensor]:
        chain = self.chain
        x, found = chain.start.place(data, noise)
        mass = mass.to(x)
        first = chain.reconstruction(data, x, chain.noised(x, chain.decoded_at, noise), cond)
        steps = torch.zeros(chain.steps, len(x), dtype=torch.float64, device=first.device)
        if chain.first == 2:
            steps[0] = first
        shift = noise.uniform(torch.empty(len(x), dtype=x.dtype, device=x.device))
        for j in range(self.points):
            index = torch.searchsorted(mass.cumsum(0), (shift + j / self.points) % 1.0, right=True)
            index = index.clamp(max=len(mass) - 1)
            cost = chain.cost(x, index + chain.first, noise.normal(x), cond) / (self.points * mass[index]).to(steps)
            steps.scatter_add_(0, (index + chain.first - 1).to(steps.device).unsqueeze(0), cost.unsqueeze(0))
            tell((j + 1) / self.points)
        return found | {
            "prior": chain.prior(x, noise),
            "diffusion": steps[chain.first - 1 :].sum(0),
            "reconstruction": found.get("reconstruction", 0.0) + first,
            "per_step": steps,
        }

    def _mass(self) -> Tensor:
        """Probabilities of the steps from the chain's first on, ``(n,)``."""
        falls, knots = _falls(self.chain), self.chain.knots[self.chain.first - 1 :]
        if self.profile is not None:
            at = [0.5 * (max(ou.log_snr(s), _LOW) + max(ou.log_snr(tau), _LOW)) for s, tau in zip(knots, knots[1:])]
            spread = torch.as_tensor(np.interp(at, self.profile.log_snr, self.profile.spread), dtype=torch.float64)
            falls = falls * (0.2 * spread.mean() + 0.8 * spread)
        return (1.0 - _EVEN) * falls / falls.sum() + _EVEN / len(falls)
