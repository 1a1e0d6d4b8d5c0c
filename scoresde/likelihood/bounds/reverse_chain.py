r"""Reverse chain over data: the Gaussian KL term of each step, $KL(q(x_s \mid x_\tau, x)\,\|\,p(x_s \mid x_\tau))$.

q is the posterior of the forward kernel, p the reverse step $N(\tilde\mu(x_\tau, \hat x_0),\ rev\_var)$. Only
$\hat x_0$ needs the network, so all other coefficients are tabulated once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde._core.tensors import combine, event_size, expand, sum_event
from scoresde.likelihood.batching import Density
from scoresde.likelihood.bounds.chain_terms import ChainTerms
from scoresde.likelihood.bounds.decoder import Decoder, KernelDecoder, RoundedDecoder, normal_nll
from scoresde.likelihood.bounds.error_profile import ErrorProfile
from scoresde.likelihood.bounds.initial_state import InitialState
from scoresde.likelihood.bounds.terms import normal_entropy, prior_term
from scoresde.model import Model, gaussian_process
from scoresde.process import ou
from scoresde.process.prediction import Prediction
from scoresde.process.sde import posterior_coefficients
from scoresde.sampling import Grid, OptimalVariance
from scoresde.sampling.reverse_variance import check_rev_var, learned_std, reverse_variance

__all__ = ["ReverseChain"]

_LOG_SNR_MIN = -14.0  # steps below this log-SNR have equal probabilities


@dataclass(frozen=True, eq=False)
class ReverseChain(ChainTerms):
    r"""A reverse chain for given data: their initial state, the times and the reverse steps.

    Attributes:
        initial: Initial state of the data.
        knots: OU times $t_0 < \dots < t_K$.
        rev_var: As for `scoresde.sampling.DDPM`.
        prior_log_prob: Log-density at the end of the clock, or None for the view's prior.
        profile: Spread of the terms, or None.
    """

    initial: InitialState
    knots: tuple[float, ...]
    rev_var: str | OptimalVariance
    prior_log_prob: Density | None
    profile: ErrorProfile | None = None

    @classmethod
    def of(
        cls,
        model: Model,
        data: Tensor,
        steps: int,
        grid: Grid,
        rev_var: str | OptimalVariance,
        decoder: Decoder | None,
        prior_log_prob: Density | None,
        profile: ErrorProfile | None = None,
    ) -> ReverseChain:
        """The chain for these data, after checks.

        A grid that ends at 0 has a decoder in its first step: by default the reverse step itself, rounded to the bins
        for integer values. On a grid that ends at ``tau_min`` integer values are decoded there, by default by
        `KernelDecoder`, and floats start there.
        """
        check_rev_var(rev_var)
        knots = tuple(grid.times(model.sde, steps)[::-1])
        if decoder is None and knots[0] == 0.0:
            decoder = _last_step(knots, rev_var)
        elif decoder is None and not data.is_floating_point():
            decoder = KernelDecoder()
        initial = InitialState.of(model, data, decoder, None)
        if initial.decoder is None and knots[0] != initial.tau_start:
            raise ValueError(
                f"floats without a decoder start at tau_min = {initial.tau_start!r}, got a grid that ends at "
                f"{knots[0]!r}; take one that ends there, such as UniformLogSNR(), or Chain(), which ends at 0."
            )
        return cls(initial, knots, rev_var, prior_log_prob, profile)

    @property
    def first(self) -> int:
        return 1 if self.initial.tau_start == 0.0 and self.knots[0] > 0.0 else 2

    @cached_property
    def table(self) -> dict[str, Tensor]:
        """Coefficients of step k = 1 … K at index k, float64; index 0 is unused."""
        rows = [self._row(tau, s) for s, tau in zip(self.knots, self.knots[1:])]
        columns = {name: [0.0, *(row[name] for row in rows)] for name in rows[0]}
        return {name: torch.tensor(values, dtype=torch.float64) for name, values in columns.items()}

    def _row(self, tau: float, s: float) -> dict[str, float]:
        """Coefficients of one step: the state is a x + b eps, the means are p_x0 x̂_0 + p_state x_τ and likewise q."""
        tau_start = self.initial.tau_start
        p_x0, p_state, tilde = posterior_coefficients(tau, s)
        q_x, q_state, q_var = posterior_coefficients(tau - tau_start, s - tau_start)
        beta = ou.beta(tau, s)
        p_var = beta if self.rev_var == "learned" else reverse_variance(self.rev_var, tau, s)
        row = {"tau": tau, "a": ou.alpha(tau - tau_start), "b": ou.sigma(tau - tau_start)}
        row |= {"p_x0": p_x0, "p_state": p_state, "p_var": p_var, "q_x": q_x, "q_state": q_state, "q_var": q_var}
        return {name: float(v) for name, v in {**row, "beta": beta, "beta_tilde": tilde}.items()}

    def at(self, k: Tensor) -> dict[str, Tensor]:
        """Coefficients of the steps ``k``, a tensor ``()`` on the CPU or ``(B,)``; each has the shape of ``k``."""
        return {name: column.to(k.device)[k] for name, column in self.table.items()}

    def reverse(self, prediction: Prediction, x: Tensor, row: dict[str, Tensor]) -> tuple[Tensor, Scalar]:
        """Mean, ``(B, *D)``, and variance, which broadcasts against it, of the reverse step from ``x``."""
        mean = combine(row["p_state"], x, row["p_x0"], prediction.x0)
        if self.rev_var == "learned":
            beta, tilde = (torch.as_tensor(expand(row[name], x)) for name in ("beta", "beta_tilde"))
            return mean, learned_std(prediction, beta, tilde).square()
        return mean, expand(row["p_var"], x)

    def initial_state(self, data: Tensor, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        return self.initial.draw(data, noise)

    def draw_noise(self, x: Tensor, noise: Noise) -> Tensor:
        return noise.normal(x)

    def sizes(self) -> list[float]:
        """Decrease of log-SNR in each step, for log-SNR cut off at -14."""
        log_snrs = self._log_snrs()
        floor = 1e-3 * (log_snrs[0] - log_snrs[-1]) / max(len(log_snrs) - 1, 1)
        return [max(a - b, floor) for a, b in zip(log_snrs, log_snrs[1:])]

    def profiled_sizes(self) -> list[float]:
        if self.profile is None:
            return self.sizes()
        log_snrs = self._log_snrs()
        middles = [0.5 * (a + b) for a, b in zip(log_snrs, log_snrs[1:])]
        spread = np.interp(middles, self.profile.log_snr, self.profile.spread)
        return (np.array(self.sizes()) * (0.2 * spread.mean() + 0.8 * spread)).tolist()

    def _log_snrs(self) -> list[float]:
        return [max(float(ou.log_snr(tau)), _LOG_SNR_MIN) for tau in self.knots[self.first - 1 :]]

    def kl(self, x: Tensor, k: Tensor, z: Tensor, cond: dict[str, object]) -> Tensor:
        r"""KL of step k: $\sum \tfrac12\big(q/p - 1 - \log(q/p) + (\mu_q - \mu_p)^2/p\big)$, q and p the variances.

        Args:
            x, k, cond: See `ChainTerms.kl`.
            z: Unit normal noise, as ``x``.

        Returns:
            ``(B,)`` float64, nats: one draw of $L_{k-1}$.

        Source: Ho, Jain & Abbeel 2020, eqs. 5 and 8, with the part of the variances.
        """
        row = self.at(k)
        state = combine(row["a"], x, row["b"], z)
        p_mean, p_var = self.reverse(self.initial.model(state, row["tau"], **cond), state, row)
        difference = combine(row["q_x"], x, row["q_state"], state) - p_mean
        ratio = expand(row["q_var"], x) / p_var
        return 0.5 * sum_event(ratio - 1.0 - torch.log(torch.as_tensor(ratio)) + difference * difference / p_var)

    def reconstruction(self, data: Tensor, x: Tensor, first_state: Tensor, cond: dict[str, object]) -> Tensor:
        initial = self.initial
        if initial.decoder is not None:
            target = data if initial.quantized else x
            return initial.decoder.cost(initial.model, target, first_state, self.decoding_tau, cond)
        row = self.at(torch.tensor(1))
        mean, variance = self.reverse(initial.model(first_state, self.decoding_tau, **cond), first_state, row)
        return normal_nll(x, mean, variance)

    @property
    def random_prior(self) -> bool:
        return self.prior_log_prob is not None

    @property
    def decoder_calls(self) -> int:
        return 1 if self.initial.decoder is None else self.initial.decoder.calls

    def perturb(self, x: Tensor, tau: float, noise: Noise) -> Tensor:
        elapsed = tau - self.initial.tau_start
        return combine(ou.alpha(elapsed), x, ou.sigma(elapsed), noise.normal(x))

    def prior(self, x: Tensor, noise: Noise) -> Tensor:
        tau_start, sde = self.initial.tau_start, gaussian_process(self.initial.model)
        eps = None if self.prior_log_prob is None else noise.normal(x)
        term = prior_term(sde, x, tau_start=tau_start, prior_log_prob=self.prior_log_prob, eps=eps)
        if tau_start == 0.0:
            return term
        return term - normal_entropy(event_size(x), ou.sigma(sde.tau_max - tau_start))


def _last_step(knots: tuple[float, ...], rev_var: str | OptimalVariance) -> RoundedDecoder:
    """The reverse step to 0, with β̃ of the step before in place of its own, which is 0."""
    if rev_var == "beta" or isinstance(rev_var, OptimalVariance):
        return RoundedDecoder(rev_var)
    _, tau, *later = knots
    tilde = float(posterior_coefficients(later[0], tau)[2] if later else ou.beta(tau, 0.0))
    return RoundedDecoder("learned", tilde) if rev_var == "learned" else RoundedDecoder(tilde)
