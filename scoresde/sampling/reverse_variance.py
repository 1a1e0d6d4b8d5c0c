r"""Variance of a reverse DDPM step, ``rev_var``: $\beta$, $\tilde\beta$, optimal, or learned.

$\tilde\beta = \beta\,(1 - \bar\alpha_s)/(1 - \bar\alpha_\tau)$ is the variance of $q(x_s \mid x_\tau, x_0)$. The
optimal variance adds the posterior variance of $x_0$, and a learned one is $\beta^{mix}\tilde\beta^{1 - mix}$.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.checks import short_repr
from scoresde._core.elementwise import Scalar
from scoresde._core.suggest import nearest
from scoresde.process import ou
from scoresde.process.prediction import Prediction
from scoresde.process.sde import posterior_coefficients
from scoresde.sampling.optimal_variance import OptimalVariance

__all__ = ["check_rev_var", "learned_std", "reverse_variance"]

_NAMES = ("beta", "beta_tilde", "learned")


def check_rev_var(rev_var: object) -> None:
    """Refuses an unknown choice of the reverse variance.

    Raises:
        ValueError: Names the nearest valid one.
    """
    named = isinstance(rev_var, str) and rev_var in _NAMES
    if not named and not isinstance(rev_var, OptimalVariance):
        raise ValueError(f"no rev_var is named {short_repr(rev_var)}; {nearest(str(rev_var), _NAMES)}")


def reverse_variance(rev_var: str | OptimalVariance, tau: float, s: float) -> float:
    r"""Variance of the step from ``tau`` to ``s``.

    Args:
        rev_var: ``"beta"``, ``"beta_tilde"`` or an `OptimalVariance`; a learned one depends on x, see `learned_std`.
        tau, s: OU times with ``0 <= s < tau``.

    Returns:
        The variance; 0 for $\tilde\beta$ at s = 0.

    Source: Ho, Jain & Abbeel 2020, section 3.2; Bao et al. 2022 (Analytic-DPM), eq. 7 (optimal).
    """
    if rev_var == "beta":
        return float(ou.beta(tau, s))
    on_x0, _, beta_tilde = posterior_coefficients(tau, s)
    if isinstance(rev_var, OptimalVariance):
        return float(beta_tilde + on_x0 * on_x0 * rev_var.posterior_variance(tau))
    return float(beta_tilde)


def learned_std(prediction: Prediction, beta: Scalar, beta_tilde: Scalar) -> Tensor:
    r"""Standard deviation between $\tilde\beta$ and $\beta$, interpolated in the logarithm by ``prediction.mix``.

    Args:
        prediction: Of a model with a learned variance.
        beta, beta_tilde: Variances of the step; numbers, or tensors that broadcast against the event.

    Returns:
        ``(B, *D)``.

    Raises:
        ValueError: If the model returns no ``mix``.

    Source: Nichol & Dhariwal 2021, eq. 15.
    """
    if prediction.mix is None:
        raise ValueError(
            "a learned variance needs a model that returns one, got a prediction without mix; build it with "
            "ScoreModel(…, learned_variance=True), or take rev_var='beta_tilde' or optimal_variance(model, x0)."
        )
    low = 0.5 * ew.log(beta_tilde)
    return torch.exp(prediction.mix * (0.5 * ew.log(beta) - low) + low)
