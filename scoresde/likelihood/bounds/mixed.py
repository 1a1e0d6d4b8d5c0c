r"""Bound for events of numbers and categories: numbers enter as densities, codes as probabilities.

The numbers y are draws of the distribution at $\tau_{min}$, as in `scoresde.likelihood.bounds.continuous`; the codes c
are data at 0. Both are noised on one clock, and one network call at each time gives the errors of both:

$$-\log p_{\tau_{min}}(y, c) \le E\Big[-\log\pi(y_T) + KL(q(c_T|c)\,\|\,\pi) +
\int\lambda_b\Big(\big\|\tfrac b\sigma\hat\varepsilon - \varepsilon\big\|^2 - a^2 d\Big)du +
\int\sum_{j \neq c_\tau}(\hat r_j - r_j\log\hat r_j + r_j\log r_j - r_j)\,d\tau - \log p(c \mid y, c_{\tau_{min}})
\Big].$$

With the exact model it is an equality at every event, up to how far the end of the clock is from the prior. The terms
of numbers and categories are apart, but each depends on both: the sum is what a model is compared by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde._core.checks import check_event_shape, check_finite
from scoresde._core.noise import Noise
from scoresde._core.tensors import sum_event, widest_dtype
from scoresde.likelihood.batching import ProgressHook
from scoresde.likelihood.bounds.categorical_chain import prior_kl
from scoresde.likelihood.bounds.terms import diffusion_cost, diffusion_state, prior_term
from scoresde.model import Model
from scoresde.objective.discrete import cross_entropy, path_kl
from scoresde.objective.timesteps import ImportanceTimesteps, StratifiedTimesteps, Timesteps
from scoresde.objective.weighting import ELBO
from scoresde.process import ou
from scoresde.process.base import Marginal
from scoresde.process.mixed import Mixed, MixedPrediction

__all__ = ["MixedPaths", "mixed_paths"]


def mixed_paths(model: Model, data: Tensor, timesteps: Timesteps | None, pairs: int, replicates: int) -> MixedPaths:
    """The estimator in continuous time for these data, after checks of both.

    Args:
        model: Of a `Mixed` process.
        data: Numbers in model units, then codes, floating, ``(B, n + K)``.
        timesteps: Distribution of the timesteps; None for uniform in log-SNR, or in u where the clock has no end.
        pairs: Timesteps per lattice.
        replicates: Lattices.

    Raises:
        ValueError: If a number is not finite or a code is none, or the kernel is absorbing and the clock ends with
            signal: the masks of the prior then have no probability of it.
    """
    process = model.sde
    assert isinstance(process, Mixed)
    check_event_shape(data, model.event_shape, "data")
    check_finite(data, "data")
    codes = process.split(data)[1]
    process.categorical.check_codes(codes, "data", process.categorical.most_classes)
    if process.categorical.kernel == "absorbing" and ou.alpha_bar(process.tau_max) > 0:
        raise ValueError(
            f"a bound with the absorbing kernel needs a clock that ends without signal, got {process.schedule}, whose "
            "last states are not all masks; take LinearAlphaBar(), or the uniform kernel."
        )
    if timesteps is None:
        timesteps = StratifiedTimesteps() if process.tau_max == math.inf else ImportanceTimesteps(ELBO())
    return MixedPaths(model, process, timesteps, pairs, replicates)


@dataclass(frozen=True, eq=False)
class MixedPaths:
    """Estimates each term of the bound in continuous time, ``(replicates, B)``.

    Attributes:
        model, process: Of numbers and categories.
        timesteps: Distribution of the timesteps.
        pairs: Timesteps per lattice, each with two states: noises ±ε of the numbers, r and 1 - r of the codes.
        replicates: Lattices, each shifted at random.
    """

    model: Model
    process: Mixed
    timesteps: Timesteps
    pairs: int
    replicates: int

    def __call__(self, data: Tensor, noise: Noise, cond: dict[str, object], hook: ProgressHook) -> dict[str, Tensor]:
        n, data = self.replicates, data.to(widest_dtype(data.device))
        parts = [self._replicate(data, noise, cond, lambda fraction, i=i: hook((i + fraction) / n)) for i in range(n)]
        return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}

    def _replicate(self, data: Tensor, noise: Noise, cond: dict[str, object], hook: ProgressHook) -> dict[str, Tensor]:
        process = self.process
        numbers, codes = process.split(data)
        at_start = process.categorical.perturb(codes, process.tau_min, process.categorical.draw_noise(codes, noise))
        first = self._prediction(torch.cat([numbers, at_start], -1), process.tau_min, cond)
        numeric, categorical = self._diffusion(numbers, codes, noise, cond, hook)
        return {
            "numeric prior": prior_term(process.continuous, numbers, tau_start=process.tau_min),
            "numeric diffusion": numeric,
            "categorical prior": prior_kl(process.categorical, codes),
            "categorical diffusion": categorical,
            "categorical reconstruction": sum_event(cross_entropy(first.categorical, codes)),
        }

    def _diffusion(
        self, numbers: Tensor, codes: Tensor, noise: Noise, cond: dict[str, object], hook: ProgressHook
    ) -> tuple[Tensor, Tensor]:
        """Both integrals over the clock from one shifted lattice of timesteps, ``(B,)`` float64 each."""
        process, tau_start = self.process, self.process.tau_min
        shift = noise.uniform(torch.empty(len(codes), dtype=codes.dtype, device=codes.device))
        totals = [sum_event(torch.zeros_like(codes)) for _ in range(2)]
        for j in range(self.pairs):
            draw = self.timesteps.inverse_cdf((shift + j / self.pairs) % 1.0, process)
            m = Marginal(torch.as_tensor(process.schedule._tau(draw.u)), process.schedule._rate(draw.u))
            eps, uniform = noise.normal(numbers), process.categorical.draw_noise(codes, noise)
            weight = torch.as_tensor(draw.correction).to(totals[0]) * (1.0 - process.u_min) / (2 * self.pairs)
            for z, r in ((eps, uniform), (-eps, 1.0 - uniform)):
                noised = process.categorical.perturb(codes, m.tau, r)
                state = torch.cat([diffusion_state(numbers, m, z, tau_start), noised], -1)
                prediction = self._prediction(state, m.tau, cond)
                rate = torch.as_tensor(m.rate).to(totals[1])
                totals[0] = totals[0] + weight * diffusion_cost(prediction.continuous.eps, m, z, tau_start)
                totals[1] = totals[1] + weight * rate * sum_event(path_kl(prediction.categorical, codes))
            hook((j + 1) / self.pairs)
        return totals[0], totals[1]

    def _prediction(self, x: Tensor, tau: Tensor | float, cond: dict[str, object]) -> MixedPrediction:
        prediction = self.model(x, tau, **cond)
        assert isinstance(prediction, MixedPrediction)
        return prediction
