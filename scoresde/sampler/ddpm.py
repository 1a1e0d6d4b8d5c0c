r"""How does DDPM walk back? One draw from $q(x_s \mid x_\tau, \hat x_0)$ a step, on the chain's knots."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scoresde import _tensor as t
from scoresde import ou
from scoresde.sampler.base import Predict, StepSampler
from scoresde.sde import posterior_coefficients
from scoresde.spec import nearest

__all__ = ["DDPM"]


@dataclass(frozen=True)
class DDPM(StepSampler):
    r"""Ancestral sampling: $x_s = \tilde\mu(x, \hat x_0) + \sqrt{rev\_var}\,z$, without noise in the last step.

    Args:
        steps: Any number; the chain's own length K gives the chain as trained.
        grid: Default the chain's, which ends at 0.
        rev_var: ``"beta_tilde"``, the posterior's variance (optimal for data at one point), or ``"beta"``, the
            step's (optimal for unit normal data).

    Source: Ho, Jain & Abbeel 2020, algorithm 2 and eqs. 6–7.
    """

    rev_var: str = "beta_tilde"

    def __post_init__(self) -> None:
        super().__post_init__()
        known = ("beta", "beta_tilde")
        if self.rev_var not in known:
            raise ValueError(f"no rev_var is named {self.rev_var!r}; {nearest(str(self.rev_var), known)}")

    @property
    def order(self) -> int:
        """1."""
        return 1

    @property
    def stochastic(self) -> bool:
        """Yes."""
        return True

    def step(
        self, predict: Predict, x: Any, tau: float, s: float, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        """See the class."""
        on_x0, on_x, rev_var = posterior_coefficients(tau, s)
        mean = t.combine(on_x, x, on_x0, predict(x, tau).x0)
        if s == 0:
            return mean, None
        std = math.sqrt(rev_var if self.rev_var == "beta_tilde" else ou.beta(tau, s))
        return t.combine(1.0, mean, std, noise()), None
