r"""Variational bounds of models of categories: in continuous time, along a chain, and importance-weighted.

$$-\log P(x_0) \le \underbrace{KL(q(x_T \mid x_0)\,\|\,\pi)}_{prior} +
\underbrace{E\int_{\tau_{min}}^T \ell\,d\tau}_{diffusion}
\underbrace{-E\log p(x_0 \mid x_{\tau_{min}})}_{reconstruction}$$

with $\ell$ the path KL (`scoresde.objective.path_kl`). With the exact reverse rates it is an equality at every point,
up to $O(\tau_{min}^2)$ for the product over entries in the last term. The integral is over $\bar\alpha$,
$d\tau = -d\bar\alpha/(2\bar\alpha)$: there the expected integrand is bounded for every kernel, also where the clock
ends without signal. Its variance is not bounded near the data for the uniform kernel, where few entries are redrawn and
each contributes about $1/\sigma^2$. So half of its times are uniform in $\sigma$, the others in $\bar\alpha$.

`continuous_vlb`, `discrete_vlb` and `importance_weighted_vlb` come here for a model of categories.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.noise import Noise
from scoresde._core.tensors import sum_event, widest_dtype
from scoresde.likelihood.batching import ProgressHook
from scoresde.likelihood.bounds.categorical_chain import (
    CategoricalChain,
    categorical_process,
    check_codes_of_data,
    predict_categories,
    prior_kl,
)
from scoresde.model import Model
from scoresde.objective.discrete import cross_entropy, path_kl
from scoresde.objective.timesteps import Timesteps
from scoresde.process import ou
from scoresde.process.base import Marginal
from scoresde.process.codes import at_codes, draw_codes
from scoresde.process.discrete import DiscreteProcess

__all__ = ["CategoricalPaths", "CategoricalTrajectories", "categorical_paths", "refuse_gaussian_options"]

_SIGMA_SHARE = 0.5  # of the uniform kernel's times
_LEAST_KEPT = 2.0**-52  # ᾱ where the integrand has reached its limit
_WHY_NOT = {
    "decoder": "the network's own probabilities of x_0 decode",
    "decode_at": "the network decodes at tau_min; set tau_min of the process",
    "dequantization": "the values are classes, not bins",
    "profile": "a profile holds errors of a noise estimate",
    "prior_log_prob": "the prior is the noise distribution of the process",
    "rev_var": "the reverse step is the posterior averaged over x_0",
}


def refuse_gaussian_options(function: Callable[..., object], options: Mapping[str, object]) -> None:
    """Refuses options of a bound that do not apply to categories.

    Args:
        function: The bound.
        options: By name; None where it was not given.

    Raises:
        TypeError: Names the first such option and why it does not apply.
    """
    for name, value in options.items():
        if value is not None:
            raise TypeError(
                f"{function.__name__} of categories takes no {name}, got {value!r}: {_WHY_NOT[name]}; leave it out."
            )


def categorical_paths(
    model: Model, data: Tensor, timesteps: Timesteps | None, pairs: int, replicates: int
) -> CategoricalPaths:
    """The estimator in continuous time for these data, after checks of both.

    Args:
        model: Of a process of categories.
        data: Codes, ``(B, *D)``.
        timesteps: Distribution of the timesteps; None for the default, see above.
        pairs: Timesteps per lattice.
        replicates: Lattices.
    """
    process = categorical_process(model)
    check_codes_of_data(model, data)
    return CategoricalPaths(model, process, timesteps, pairs, replicates)


@dataclass(frozen=True, eq=False)
class CategoricalPaths:
    """Estimates each term of the bound in continuous time, ``(replicates, B)``.

    Attributes:
        model, process: Of categories.
        timesteps: Distribution of the timesteps; None for the default, see above.
        pairs: Timesteps per lattice, each with two states whose random numbers are r and 1 - r.
        replicates: Lattices, each shifted at random.
    """

    model: Model
    process: DiscreteProcess
    timesteps: Timesteps | None
    pairs: int
    replicates: int

    def __call__(self, data: Tensor, noise: Noise, cond: dict[str, object], hook: ProgressHook) -> dict[str, Tensor]:
        n = self.replicates
        x = data.to(widest_dtype(data.device))
        parts = [self._replicate(x, noise, cond, lambda fraction, i=i: hook((i + fraction) / n)) for i in range(n)]
        return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}

    def _replicate(self, x: Tensor, noise: Noise, cond: dict[str, object], hook: ProgressHook) -> dict[str, Tensor]:
        process, first = self.process, self.process.tau_min
        x_min = process.perturb(x, first, process.draw_noise(x, noise))
        return {
            "prior": prior_kl(process, x),
            "reconstruction": sum_event(cross_entropy(predict_categories(self.model, x_min, first, cond), x)),
            "diffusion": self._diffusion(x, noise, cond, hook),
        }

    def _diffusion(self, x: Tensor, noise: Noise, cond: dict[str, object], hook: ProgressHook) -> Tensor:
        """Integral of the path KL over the clock from one shifted lattice of timesteps, ``(B,)`` float64."""
        shift = noise.uniform(torch.empty(len(x), dtype=x.dtype, device=x.device))
        total = sum_event(torch.zeros_like(x))
        for j in range(self.pairs):
            tau, weight = self._times((shift + j / self.pairs) % 1.0)
            z = self.process.draw_noise(x, noise)
            for numbers in (z, 1.0 - z):
                state = self.process.perturb(x, tau, numbers)
                value = sum_event(path_kl(predict_categories(self.model, state, tau, cond), x))
                total = total + 0.5 / self.pairs * weight.to(total) * value
            hook((j + 1) / self.pairs)
        return total

    def _times(self, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Times τ from numbers in [0, 1), and dτ per number, each ``(B,)``."""
        process = self.process
        if self.timesteps is not None:
            draw = self.timesteps.inverse_cdf(uniforms, process)
            m = Marginal(torch.as_tensor(process.schedule._tau(draw.u)), process.schedule._rate(draw.u))
            return torch.as_tensor(m.tau), torch.as_tensor(m.rate * draw.correction * (1.0 - process.u_min))
        c = 0.0 if process.kernel == "absorbing" else _SIGMA_SHARE
        low, high = (s * (c + (1.0 - c) * s) for s in map(float, map(ou.sigma, (process.tau_min, process.tau_max))))
        target = low + (high - low) * uniforms  # of the distribution function c σ + (1 - c) σ²
        sigma = 2.0 * target / (c + torch.sqrt(c * c + 4.0 * (1.0 - c) * target))
        kept = (1.0 - sigma * sigma).clamp(min=_LEAST_KEPT)
        density = (0.5 * c / sigma + 1.0 - c) / (high - low)  # of ᾱ
        return torch.as_tensor(ou.tau_from_alpha_bar(kept)), 0.5 / (kept * density)


@dataclass(frozen=True, eq=False)
class CategoricalTrajectories:
    """Estimates each term of -log w for each trajectory of a chain, ``(trajectories, B)``."""

    chain: CategoricalChain
    trajectories: int

    def __call__(self, data: Tensor, noise: Noise, cond: dict[str, object], hook: ProgressHook) -> dict[str, Tensor]:
        n = self.trajectories
        x, _ = self.chain.initial_state(data, noise)
        parts = [self._draw(x, noise, cond, lambda fraction, i=i: hook((i + fraction) / n)) for i in range(n)]
        return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}

    def _draw(self, x: Tensor, noise: Noise, cond: dict[str, object], hook: ProgressHook) -> dict[str, Tensor]:
        chain, process = self.chain, self.chain.process
        state = chain.perturb(x, chain.knots[-1], noise)
        prior = self._log_q_end(x, state) - process.prior_log_prob(state)
        diffusion = torch.zeros_like(prior)
        for k in range(chain.steps, chain.first - 1, -1):
            tau, s = chain.knots[k], chain.knots[k - 1]
            prediction = predict_categories(chain.model, state, tau, cond)
            q = process.posterior(state, x, tau, s)
            state = draw_codes(q, chain.draw_noise(x, noise)).to(x.dtype)
            ratio = at_codes(q, state).log() - at_codes(prediction.step_probs(s), state).log()
            diffusion = diffusion + sum_event(ratio)
            hook((chain.steps - k + 1) / (chain.steps - chain.first + 1))
        return {"prior": prior, "diffusion": diffusion, "reconstruction": chain.reconstruction(x, x, state, cond)}

    def _log_q_end(self, x: Tensor, state: Tensor) -> Tensor:
        r"""$\log q(x_K \mid x_0)$, ``(B,)`` float64, nats."""
        return sum_event(at_codes(self.chain.process.transition(x, self.chain.knots[-1]), state).log())
