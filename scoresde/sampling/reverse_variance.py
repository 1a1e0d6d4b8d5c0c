r"""Which variance is best for a reverse step? That of $q(x_s \mid x_\tau)$, which the data's own spread widens.

$q(x_s \mid x_\tau)$ has the mean $\tilde\mu(x, \hat x_0)$ and, on average over states and coordinates, the variance
$\tilde\beta + (e^{-s}\beta/\sigma^2)^2\,V(\tau)$ with $V = E\|x_0 - \hat x_0\|^2/d$. It is 0 for data at one point
(β̃ is then right) and makes β for unit normal data. $V = (\sigma/\alpha)^2\,r$, where
$r = E\|\varepsilon - \hat\varepsilon\|^2/d$ is the share of the noise that the model cannot explain:
$1 - E\|\hat\varepsilon\|^2/d$ for an exact one.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scoresde._core.checks import check_finite
from scoresde._core.noise import Noise
from scoresde._core.tensors import sum_event
from scoresde.model import Model, check_model, check_per_sample, evaluating, refuse_unknown
from scoresde.process import ou

__all__ = ["OptimalVariance", "optimal_variance"]

_TINY, _ONE = 1e-300, 1.0 - 2.0**-53  # a share of 0 or 1 has no finite logit
_LOW = -14.0  # lowest log-SNR looked at: below it the data's variance is all that is left to know


@dataclass(frozen=True)
class OptimalVariance:
    r"""The share r of the noise that a model leaves unexplained, estimated once and stored: `optimal_variance`.

    Between the points it is the share of Gaussian data of a variance $c^2 = r/((1 - r)\,SNR)$ that is interpolated:
    log c² is linear in log-SNR, and constant beyond the ends. For Gaussian data c² is their variance, so that any one
    point gives all; for clusters it falls from that of all data to that within a cluster.

    Args:
        log_snr: Where it was estimated, nats, strictly rising.
        unexplained: r there, in [0, 1]; 0 and 1 are read as the nearest share with a finite logit.

    Raises:
        ValueError: If the two do not fit each other, or a number is out of range.

    Source: Bao, Li, Zhu & Zhang 2022 (Analytic-DPM), theorem 1; for models that are not exact Bao et al. 2022
    (Estimating the optimal covariance with imperfect mean), theorem 3.
    """

    log_snr: tuple[float, ...]
    unexplained: tuple[float, ...]

    def __post_init__(self) -> None:
        at, r = self.log_snr, self.unexplained
        if not at or len(at) != len(r):
            raise ValueError(f"every log_snr has one unexplained share, got {len(at)} and {len(r)} numbers.")
        if not all(a < b for a, b in zip((-math.inf, *at), (*at, math.inf))):
            raise ValueError(f"log_snr must rise strictly and be finite, got {tuple(at)!r}.")
        if not all(0 <= v <= 1 for v in r):
            raise ValueError(f"unexplained shares must lie in [0, 1], got {tuple(r)!r}.")

    @cached_property
    def _log_variances(self) -> tuple[float, ...]:
        """log c² at the points."""
        shares = [min(max(r, _TINY), _ONE) for r in self.unexplained]
        return tuple(math.log(r) - math.log1p(-r) - at for at, r in zip(self.log_snr, shares, strict=True))

    def data_variance(self, log_snr: float) -> float:
        """c²: the variance of Gaussian data that leave as much unexplained."""
        at, values = self.log_snr, self._log_variances
        i = bisect_right(at, log_snr)
        if i == 0 or i == len(at):
            return math.exp(values[0 if i == 0 else -1])
        share = (log_snr - at[i - 1]) / (at[i] - at[i - 1])
        return math.exp(values[i - 1] + share * (values[i] - values[i - 1]))

    def posterior_variance(self, tau: float) -> float:
        r"""$V = E\|x_0 - \hat x_0\|^2/d = c^2\sigma^2/(\alpha^2c^2 + \sigma^2)$ at ``tau``."""
        variance, noise = self.data_variance(ou.log_snr(tau)), ou.beta(tau, 0.0)
        return float(variance * noise / (ou.alpha_bar(tau) * variance + noise))


def optimal_variance(
    model: Model,
    x0: Tensor,
    *,
    points: int = 48,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
    **cond: Tensor,
) -> OptimalVariance:
    r"""Estimates the share of the noise that ``model`` cannot explain, once, for all samplers and numbers of steps.

    At each point $E\|\varepsilon - \hat\varepsilon\|^2/d$ over the data and noises in pairs $\pm\varepsilon$, the same
    at all points, with $\|\varepsilon\|^2/d$, whose mean is 1, as control variate.

    Args:
        model: Evaluated in eval mode, without gradients, ``2 * points`` calls per batch. Where it errs by more than an
            answer of 0 would, its share is taken as 1.
        x0: Data in model units, ``(n, *D)``, or samples of the model. A few thousand elements are enough.
        points: How many times, even in log-SNR from ``tau_min`` to the end of the clock (at most to log-SNR = -14).
        generator: Source of the noise; default torch's global one.
        batch_size: Samples at once; default all.
        **cond: Passed to the network, one entry per sample.

    Returns:
        What ``DDPM(rev_var=…)`` takes; `scoresde.storage.spec` writes it as text.

    Raises:
        TypeError: If the model is none, ``x0`` is not floating, or a keyword is neither an option nor read by the
            network.
        ValueError: If ``x0`` is empty or not finite, ``points`` or ``batch_size`` is no positive integer, the
            conditioning does not fit, or the model returns numbers that are not finite.
    """
    check_model(model)
    refuse_unknown(optimal_variance, model, cond)
    if not x0.is_floating_point():
        raise TypeError(f"x0 must be a floating tensor, got {x0.dtype}; scale the data first (Description.to_model).")
    check_per_sample(cond, len(x0))
    for name, value in {"points": points, "batch_size": 1 if batch_size is None else batch_size}.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    check_finite(x0, "x0")
    if not x0.numel():
        raise ValueError(f"an estimate needs data, got x0 of shape {tuple(x0.shape)}; pass (n, *D) with n > 0.")
    high, low = ou.log_snr(model.sde.tau_min), max(ou.log_snr(model.sde.tau_max), _LOW)
    at = [high - (high - low) * i / max(points - 1, 1) for i in reversed(range(points))]
    noise, rows = Noise(generator).normal(x0), len(x0) if batch_size is None else batch_size
    errors: list[list[Tensor]] = [[] for _ in at]
    powers: list[Tensor] = []
    with torch.no_grad(), evaluating(model):
        for i in range(0, len(x0), rows):
            data, eps = x0[i : i + rows], noise[i : i + rows]
            given = {name: value[i : i + rows] for name, value in cond.items()}
            powers.append(sum_event(eps * eps))
            for found, log_snr in zip(errors, at, strict=True):
                found.append(_unexplained(model, data, eps, ou.tau_from_log_snr(log_snr), given))
    size, power = x0[0].numel(), torch.cat(powers)
    return OptimalVariance(tuple(at), tuple(_mean(torch.cat(found) / size, power / size) for found in errors))


def _unexplained(model: Model, x0: Tensor, eps: Tensor, tau: float, cond: dict[str, Tensor]) -> Tensor:
    """|eps - eps_hat|² of both noises of a pair, averaged, ``(B,)`` float64."""
    total = torch.zeros((), dtype=torch.float64)
    for z in (eps, -eps):
        error = model(model.sde.perturb(x0, tau, z), tau, **cond).eps - z
        total = total + 0.5 * sum_event(error * error).to("cpu")
    return total


def _mean(error: Tensor, power: Tensor) -> float:
    """Mean of ``error``, both ``(n,)``, less what its covariance with ``power``, of mean 1, says of the draw."""
    power = power.to(error)
    apart = power - power.mean()
    slope = (apart * error).sum() / (apart * apart).sum().clamp(min=_TINY)
    plain, better = error.mean(), (error - slope * (power - 1.0)).mean()
    value = float(better if bool(better > 0) else plain)
    if not math.isfinite(value):
        raise ValueError(f"the model must return finite numbers, got a mean squared error of {value}.")
    return min(value, 1.0)
