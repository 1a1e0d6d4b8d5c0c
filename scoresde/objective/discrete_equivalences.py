r"""Losses of categories in the literature, as its papers write them: equal weights of the path KL are equal losses.

A loss is $\int w(\ell)\,E[\mathrm{path\ KL}]\,d\tau$, with $\ell$ the log-SNR of the clock. The bound on $-\log p$ has
w = 1. A cross-entropy has a weight for the absorbing kernel only; with the uniform kernel it is another loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde.objective.discrete import chain_kl, cross_entropy, path_kl
from scoresde.process import ou
from scoresde.process.base import Marginal
from scoresde.process.categorical import Categorical
from scoresde.process.codes import over_states
from scoresde.process.discrete_prediction import DiscretePrediction, Logits

__all__ = ["DiscreteEquivalence", "discrete_equivalence_table", "discrete_equivalences"]

_SHORT = 1e-6  # a step of the chain, in units of τ


class DiscreteEquivalence(NamedTuple):
    """One loss of categories.

    Attributes:
        name: As the table prints it.
        kernels: The kernels for which its paper states it.
        integrand: The loss of each entry at its time, nats per unit of u, ``(B, *D)``, from the prediction, the codes
            of the data and the marginal (floats).
    """

    name: str
    kernels: tuple[str, ...]
    integrand: Callable[[DiscretePrediction, Tensor, Marginal], Tensor]

    def canonical(self, log_snr: float) -> float:
        """The weight w of this loss at a log-SNR, nats, of masked entries on the clock of `LinearAlphaBar`."""
        process = Categorical(3, "absorbing")
        tau = float(ou.tau_from_log_snr(log_snr))
        m = Marginal(tau, process.schedule.rate(process.schedule.u(tau)))
        x, out = torch.full((1, 1), 3.0, dtype=torch.float64), torch.tensor([[[0.3, -0.2, 0.5]]], dtype=torch.float64)
        prediction, x0 = Logits().prediction(process, x, tau, out), torch.zeros_like(x)
        return float(self.integrand(prediction, x0, m) / (m.rate * path_kl(prediction, x0)))


def discrete_equivalences() -> list[DiscreteEquivalence]:
    """The literature's losses of categories; those with the same canonical weight are the same loss."""
    both, absorbing = ("uniform", "absorbing"), ("absorbing",)
    return [
        DiscreteEquivalence("PathKL", both, lambda p, x0, m: m.rate * path_kl(p, x0)),
        DiscreteEquivalence("Campbell et al.: reverse rates", both, _rate_form),
        DiscreteEquivalence("SEDD: score entropy", both, _score_entropy),
        DiscreteEquivalence("D3PM: K L_vb, K → ∞", both, _chain_limit),
        DiscreteEquivalence("multinomial diffusion: K L, K → ∞", ("uniform",), _chain_limit),
        DiscreteEquivalence("MDLM: -dᾱ/du / (1 - ᾱ) · CE", absorbing, _mdlm),
        DiscreteEquivalence("CrossEntropy, ᾱ = 1 - u", both, lambda p, x0, _: cross_entropy(p, x0)),
        DiscreteEquivalence("D3PM: auxiliary loss", both, lambda p, x0, _: cross_entropy(p, x0)),
        DiscreteEquivalence("MaskGIT: CE of masked entries", absorbing, _masked_cross_entropy),
    ]


def _rate_form(p: DiscretePrediction, x0: Tensor, m: Marginal) -> Tensor:
    """rate Σ_j (r̂ - r log r̂ + r log r - r) from the rates themselves."""
    r = p.process.conditional_rates(p.x, x0, p.tau)
    return m.rate * (p.rates - r - torch.xlogy(r, p.rates) + torch.xlogy(r, r)).sum(-1)


def _score_entropy(p: DiscretePrediction, x0: Tensor, m: Marginal) -> Tensor:
    """rate Σ_j Q_jx (s_j - y_j log s_j + y_j log y_j - y_j) with s = p_τ(j)/p_τ(x) and y = q(j|x0)/q(x|x0)."""
    leave = 2.0 * p.process.noise_at(p.x)
    inverse = torch.where(leave > 0, 1.0 / leave, 0.0)
    s, y = p.rates * inverse, p.process.conditional_rates(p.x, x0, p.tau) * inverse
    return m.rate * (leave * (s - torch.xlogy(y, s) + torch.xlogy(y, y) - y)).sum(-1)


def _chain_limit(p: DiscretePrediction, x0: Tensor, m: Marginal) -> Tensor:
    """rate KL(q(x_s | x_τ, x0) || p(x_s | x_τ))/(τ - s) of a short step."""
    step = _SHORT * p.tau
    return m.rate * chain_kl(p, x0, p.tau - step) / step


def _mdlm(p: DiscretePrediction, x0: Tensor, m: Marginal) -> Tensor:
    keep, noise = over_states(ou.alpha_bar(p.tau), p.x), over_states(ou.beta(p.tau, 0.0), p.x)
    return 2.0 * m.rate * keep / noise * cross_entropy(p, x0)


def _masked_cross_entropy(p: DiscretePrediction, x0: Tensor, _: Marginal) -> Tensor:
    masked = p.x == float(p.process.most_classes)
    return torch.where(masked, -p.probs.log().gather(-1, x0.long().unsqueeze(-1)).squeeze(-1), 0.0)


def discrete_equivalence_table(log_snrs: tuple[float, ...] = (-6.0, -3.0, 0.0, 3.0, 6.0)) -> str:
    """The losses of categories as text: w at a few log-SNRs for the absorbing kernel, losses with the same w together.

    Args:
        log_snrs: Where w is printed, nats.
    """
    check_arguments(discrete_equivalence_table, locals())
    groups: list[tuple[list[float], list[str]]] = []
    for loss in discrete_equivalences():
        values = [loss.canonical(log_snr) for log_snr in log_snrs]
        for group_values, names in groups:
            if all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(values, group_values, strict=True)):
                names.append(loss.name)
                break
        else:
            groups.append((values, [loss.name]))
    lines = [f"{'w at log-SNR = (categories)':46}" + "".join(f"{value:>11g}" for value in log_snrs)]
    for values, names in groups:
        lines.append("-" * len(lines[0]))
        columns = "".join(f"{value:>11.4g}" for value in values)
        lines.extend(f"{name:46}{columns if i == 0 else ''}" for i, name in enumerate(names))
    return "\n".join(lines)
