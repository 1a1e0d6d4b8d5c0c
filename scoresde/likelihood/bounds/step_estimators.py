r"""Estimators of the sum of a chain's KL terms, $\sum_k L_{k-1}$: over all steps, or over steps sampled at random."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.noise import Noise
from scoresde._core.tensors import event_size
from scoresde.likelihood.batching import ProgressHook
from scoresde.likelihood.bounds.chain_terms import ChainTerms
from scoresde.likelihood.bounds.estimation import error_kurtosis, replicate_dof, variance_of_mean

__all__ = ["AllSteps", "SampledSteps", "variance_from_neighbors"]

_UNIFORM_SHARE = 0.1  # share of the sampled steps that is uniform over k


@dataclass(frozen=True, eq=False)
class AllSteps:
    """Evaluates every term ``draws`` times; adds "variance" and "dof", ``(B,)``, and "per_step", ``(K, B)``."""

    chain: ChainTerms
    draws: int

    def __call__(self, data: Tensor, noise: Noise, cond: dict[str, object], hook: ProgressHook) -> dict[str, Tensor]:
        n = self.draws
        parts = [self._draw(data, noise, cond, lambda fraction, i=i: hook((i + fraction) / n)) for i in range(n)]
        estimates = {name: torch.stack([part[name] for part in parts]).mean(0) for name in parts[0]}
        squares = estimates.pop("squares")  # sum over the parts of their variance squared per degree of freedom
        total, estimates["variance"] = estimates["variance"], estimates["variance"] / n
        estimates["dof"] = torch.where(total == 0, math.inf, n * total.square() / squares.clamp(min=1e-300))
        return estimates

    def _draw(self, data: Tensor, noise: Noise, cond: dict[str, object], hook: ProgressHook) -> dict[str, Tensor]:
        chain = self.chain
        x, terms = chain.initial_state(data, noise)
        decoded = [chain.reconstruction(data, x, chain.perturb(x, chain.decoding_tau, noise), cond) for _ in range(2)]
        reconstruction = 0.5 * (decoded[0] + decoded[1])
        prior = [chain.prior(x, noise) for _ in range(2 if chain.random_prior else 1)]
        kls = []
        for k in range(chain.first, chain.steps + 1):
            kls.append(chain.kl(x, torch.tensor(k), chain.draw_noise(x, noise), cond))
            hook((k - chain.first + 1) / (chain.steps - chain.first + 1))
        kl = torch.stack(kls) if kls else reconstruction.new_zeros(0, len(reconstruction))
        pairs = [0.25 * (draws[0] - draws[-1]).square() for draws in (decoded, prior)]
        neighbors, squares = variance_from_neighbors(kl, torch.tensor(chain.sizes(), dtype=torch.float64).to(kl))
        return terms | {
            "prior": torch.stack(prior).mean(0),
            "diffusion": kl.sum(0),
            "reconstruction": terms.get("reconstruction", 0.0) + reconstruction,
            "variance": sum(pairs, neighbors),
            "squares": sum((pair.square() for pair in pairs), squares),
            "per_step": torch.cat([reconstruction.unsqueeze(0), kl]) if chain.first == 2 else kl,
        }


@dataclass(frozen=True, eq=False)
class SampledSteps:
    """Evaluates ``points`` sampled steps in each replicate; its result has the same entries as that of `AllSteps`."""

    chain: ChainTerms
    points: int
    replicates: int

    def __call__(self, data: Tensor, noise: Noise, cond: dict[str, object], hook: ProgressHook) -> dict[str, Tensor]:
        n, probabilities = self.replicates, self._probabilities()
        parts = [
            self._draw(data, noise, cond, probabilities, lambda fraction, i=i: hook((i + fraction) / n))
            for i in range(n)
        ]
        stacked = {name: torch.stack([part[name] for part in parts]) for name in parts[0]}
        totals = torch.stack([value for name, value in stacked.items() if name != "per_step"]).sum(0)
        dof = torch.full_like(totals[0], replicate_dof(n, n * self.points, error_kurtosis(event_size(data))))
        means = {name: value.mean(0) for name, value in stacked.items()}
        return means | {"variance": variance_of_mean(totals), "dof": dof}

    def _draw(
        self,
        data: Tensor,
        noise: Noise,
        cond: dict[str, object],
        probabilities: Tensor,
        hook: ProgressHook,
    ) -> dict[str, Tensor]:
        chain = self.chain
        x, terms = chain.initial_state(data, noise)
        probabilities = probabilities.to(x)
        state = chain.perturb(x, chain.decoding_tau, noise)
        reconstruction = chain.reconstruction(data, x, state, cond)
        per_step = torch.zeros(chain.steps, len(x), dtype=torch.float64, device=reconstruction.device)
        if chain.first == 2:
            per_step[0] = reconstruction
        shift = noise.uniform(torch.empty(len(x), dtype=x.dtype, device=x.device))
        for j in range(self.points if len(probabilities) else 0):
            index = torch.searchsorted(probabilities.cumsum(0), (shift + j / self.points) % 1.0, right=True)
            index = index.clamp(max=len(probabilities) - 1)
            kl = chain.kl(x, index + chain.first, chain.draw_noise(x, noise), cond)
            kl = kl / (self.points * probabilities[index]).to(per_step)
            per_step.scatter_add_(0, (index + chain.first - 1).to(per_step.device).unsqueeze(0), kl.unsqueeze(0))
            hook((j + 1) / self.points)
        return terms | {
            "prior": chain.prior(x, noise),
            "diffusion": per_step[chain.first - 1 :].sum(0),
            "reconstruction": terms.get("reconstruction", 0.0) + reconstruction,
            "per_step": per_step,
        }

    def _probabilities(self) -> Tensor:
        """Probabilities of the steps from the chain's first on, ``(n,)``."""
        mass = torch.tensor(self.chain.profiled_sizes(), dtype=torch.float64)
        return (1.0 - _UNIFORM_SHARE) * mass / mass.sum() + _UNIFORM_SHARE / max(len(mass), 1)


def variance_from_neighbors(kl: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    r"""Variance V of the sum of independent terms ``(n, B)``, from differences of neighbors, and V² per dof; ``(B,)``.

    The mean and the spread of a term, divided by its size, must change slowly with the step. V is a sum
    over neighbors, $\sum_j V_j$. Its degrees of freedom are $2V^2/\sum_j V_j^2$: two thirds of the number
    of equal terms.

    Source: von Neumann et al. 1941 (mean square successive difference); Satterthwaite 1946.
    """
    if len(kl) < 2:
        unknown = torch.full_like(kl.sum(0), math.nan if len(kl) else 0.0)
        return unknown, unknown
    rate = kl / sizes.unsqueeze(1)
    squares = 0.5 * (rate[1:] - rate[:-1]).square()
    weights = sizes.square().unsqueeze(1)  # the square of a term's neighborhood is the mean of those on its two sides
    shares = 0.5 * squares * (weights[1:] + weights[:-1])
    shares[0] += 0.5 * squares[0] * weights[0]
    shares[-1] += 0.5 * squares[-1] * weights[-1]
    return shares.sum(0), 0.5 * shares.square().sum(0)
