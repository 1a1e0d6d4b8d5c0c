r"""What does one step of a chain cost? $KL(q(x_s \mid x_\tau, x)\,\|\,p(x_s \mid x_\tau))$, both Gaussian.

q is the forward kernel's posterior, p the reverse step $N(\tilde\mu(x_\tau, \hat x_0),\ rev\_var)$. Both are known
up to the network's call, so all factors are tabulated once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde._core.tensors import combine, expand, sum_event
from scoresde.likelihood.batching import Density
from scoresde.likelihood.bounds.decoder import Decoder, KernelDecoder, RoundedDecoder, check_rev_var, normal_cost
from scoresde.likelihood.bounds.result import InitialState
from scoresde.likelihood.bounds.terms import normal_entropy, prior_cost
from scoresde.model import Model, event_size
from scoresde.process import ou
from scoresde.process.parameterization import Prediction
from scoresde.process.sde import posterior_coefficients
from scoresde.sampling import Grid, OptimalVariance
from scoresde.sampling.ddpm import _learned_std

__all__ = ["ReverseChain"]


@dataclass(frozen=True, eq=False)
class ReverseChain:
    r"""A chain over the data: where they stand, the times, and the reverse steps.

    Attributes:
        start: Where the data stand.
        knots: OU times $t_0 < \dots < t_K$.
        rev_var: As for `scoresde.sampling.DDPM`.
        density: Log-density at the end, or None for the view's prior.
    """

    start: InitialState
    knots: tuple[float, ...]
    rev_var: str | OptimalVariance
    density: Density | None

    @classmethod
    def of(
        cls,
        model: Model,
        data: Tensor,
        steps: int,
        grid: Grid,
        rev_var: str | OptimalVariance,
        decoder: Decoder | None,
        density: Density | None,
    ) -> ReverseChain:
        """The chain over these data, checked.

        A grid that ends at 0 has a decoder in its first step, by default the reverse step itself, rounded for levels.
        One that ends at ``tau_min`` decodes levels there, by default by `KernelDecoder`; floats then stand there.
        """
        check_rev_var(rev_var)
        knots = tuple(grid.times(model.sde, steps)[::-1])
        if decoder is None and knots[0] == 0.0:
            decoder = _last_step(knots, rev_var)
        elif decoder is None and not data.is_floating_point():
            decoder = KernelDecoder()
        start = InitialState.of(model, data, decoder, None)
        if start.decoder is None and knots[0] != start.given:
            raise ValueError(
                f"floats without a decoder stand at tau_min = {start.given!r}, got a grid that ends at {knots[0]!r}; "
                "take one that ends there, such as UniformLogSNR(), or Chain(), which ends at 0."
            )
        return cls(start, knots, rev_var, density)

    @property
    def steps(self) -> int:
        """K."""
        return len(self.knots) - 1

    @property
    def first(self) -> int:
        """The first k whose step is a divergence; below it stands the reconstruction."""
        return 1 if self.start.given == 0.0 and self.knots[0] > 0.0 else 2

    @cached_property
    def table(self) -> dict[str, Tensor]:
        """The factors of step k = 1 … K at index k, float64: see `cost`. Index 0 holds no step."""
        rows = [self._row(tau, s) for s, tau in zip(self.knots, self.knots[1:])]
        columns = {name: [0.0, *(row[name] for row in rows)] for name in rows[0]}
        return {name: torch.tensor(values, dtype=torch.float64) for name, values in columns.items()}

    def _row(self, tau: float, s: float) -> dict[str, float]:
        given = self.start.given
        on_x0, on_x, tilde = posterior_coefficients(tau, s)
        from_x, from_state, q_var = posterior_coefficients(tau - given, s - given)
        beta, row = ou.beta(tau, s), {"tau": tau, "a": ou.alpha(tau - given), "b": ou.sigma(tau - given)}
        if isinstance(self.rev_var, OptimalVariance):
            p_var = tilde + on_x0 * on_x0 * self.rev_var.posterior_variance(tau)
        else:
            p_var = tilde if self.rev_var == "beta_tilde" else beta
        row |= {"on_x0": on_x0, "on_x": on_x, "from_x": from_x, "from_state": from_state, "q_var": q_var}
        return {name: float(v) for name, v in {**row, "p_var": p_var, "beta": beta, "beta_tilde": tilde}.items()}

    def at(self, k: Tensor) -> dict[str, Tensor]:
        """The factors of the steps ``k``, a tensor ``()`` on the CPU or ``(B,)``, as it."""
        return {name: column.to(k.device)[k] for name, column in self.table.items()}

    def reverse(self, prediction: Prediction, x: Tensor, row: dict[str, Tensor]) -> tuple[Tensor, Scalar]:
        """Mean, ``(B, *D)``, and variance, ready to meet it, of the reverse step from ``x``."""
        mean = combine(row["on_x"], x, row["on_x0"], prediction.x0)
        if self.rev_var == "learned":
            size = (row["beta"], row["beta_tilde"])
            beta, tilde = (torch.as_tensor(expand(v, x)) for v in size)
            return mean, _learned_std(prediction, beta, tilde).square()
        return mean, expand(row["p_var"], x)

    def cost(self, x: Tensor, k: Tensor, eps: Tensor, cond: dict[str, object]) -> Tensor:
        r"""$\sum \tfrac12\big(q/p - 1 - \log(q/p) + (\mu_q - \mu_p)^2/p\big)$, q and p the variances.

        Args:
            x: Where the data stand, ``(B, *D)``.
            k: Steps, at least `first`: one for all, ``()`` on the CPU, or one for each sample, ``(B,)``.
            eps: Unit normal noise, as ``x``.
            cond: Passed to the network.

        Returns:
            ``(B,)`` float64, nats: one draw of $L_{k-1}$.

        Source: Ho, Jain & Abbeel 2020, eqs. 5 and 8, with the variances' share.
        """
        row = self.at(k)
        state = combine(row["a"], x, row["b"], eps)
        mean, p_var = self.reverse(self.start.model(state, row["tau"], **cond), state, row)
        off = combine(row["from_x"], x, row["from_state"], state) - mean
        ratio = expand(row["q_var"], x) / p_var
        return 0.5 * sum_event(ratio - 1.0 - torch.log(torch.as_tensor(ratio)) + off * off / p_var)

    def reconstruction(self, data: Tensor, x: Tensor, first: Tensor, cond: dict[str, object]) -> Tensor:
        """What the data cost given the state ``first`` at `decoded_at`, ``(B,)`` float64, nats."""
        start = self.start
        if start.decoder is not None:
            return start.decoder.cost(start.model, data if start.levels else x, first, self.decoded_at, cond)
        row = self.at(torch.tensor(1))
        mean, variance = self.reverse(start.model(first, self.decoded_at, **cond), first, row)
        return normal_cost(x, mean, variance)

    @property
    def decoded_at(self) -> float:
        """OU time of the state that the reconstruction starts from."""
        return self.knots[self.first - 1]

    @property
    def decoder_calls(self) -> int:
        """Network calls of one reconstruction."""
        return 1 if self.start.decoder is None else self.start.decoder.calls

    def noised(self, x: Tensor, tau: float, noise: Noise) -> Tensor:
        """A draw of the state at ``tau``, ``(B, *D)``."""
        since = tau - self.start.given
        return combine(ou.alpha(since), x, ou.sigma(since), noise.normal(x))

    def prior(self, x: Tensor, noise: Noise) -> Tensor:
        r"""$KL(q(x_T \mid x)\,\|\,\pi)$, ``(B,)`` float64, nats."""
        given, sde = self.start.given, self.start.model.sde
        eps = None if self.density is None else noise.normal(x)
        cost = prior_cost(sde, x, given=given, density=self.density, eps=eps)
        if given == 0.0:
            return cost
        return cost - normal_entropy(event_size(x), ou.sigma(sde.tau_max - given))


def _last_step(knots: tuple[float, ...], rev_var: str | OptimalVariance) -> RoundedDecoder:
    """The reverse step to 0, where β̃ is 0 and the next step's stands for it."""
    if rev_var == "beta" or isinstance(rev_var, OptimalVariance):
        return RoundedDecoder(rev_var)
    _, tau, *later = knots
    least = posterior_coefficients(later[0], tau)[2] if later else ou.beta(tau, 0.0)
    return RoundedDecoder("learned", float(least)) if rev_var == "learned" else RoundedDecoder(float(least))
