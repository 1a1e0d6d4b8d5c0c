r"""Optimal variance of a reverse step, $\tilde\beta + (e^{-s}\beta/\sigma^2)^2\,V(\tau)$, and its estimate for a model.

The distribution $q(x_s \mid x_\tau)$ has the mean $\tilde\mu(x, \hat x_0)$ and this variance, averaged over states and
coordinates, with $V = E\|x_0 - \hat x_0\|^2/d$. For data at one point V is 0, so β̃ is right; for unit normal data the
variance is β. $V = (\sigma/\alpha)^2\,r$, where $r = E\|\varepsilon - \hat\varepsilon\|^2/d$ is the fraction of the
noise variance that the model leaves unexplained. For an exact model $r = 1 - E\|\hat\varepsilon\|^2/d$.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from scoresde._core.annotations import CheckedArguments, check_arguments
from scoresde._core.call_inputs import check_per_sample
from scoresde._core.checks import check_event_shape, check_finite, check_integer
from scoresde._core.noise import Noise
from scoresde._core.tensors import sum_event
from scoresde.model import Model, check_model, evaluating, refuse_unknown
from scoresde.process import ou

__all__ = ["OptimalVariance", "optimal_variance"]

_MIN_FRACTION, _MAX_FRACTION = 1e-300, 1.0 - 2.0**-53  # 0 and 1 have no finite logit
_MIN_LOG_SNR = -14.0  # below it only the variance of all data matters, so nothing more can be estimated


@dataclass(frozen=True)
class OptimalVariance(CheckedArguments):
    r"""The fraction r of the noise variance that a model leaves unexplained; `optimal_variance` estimates it.

    Between the points, r is that of Gaussian data whose variance $c^2 = r/((1 - r)\,SNR)$ is interpolated: log c² is
    linear in log-SNR, and constant beyond the first and the last point. For Gaussian data c² is their variance, so one
    point gives all values. For clustered data c² falls from the variance of all data to that within a cluster.

    Args:
        log_snr: Points of the estimate, nats, strictly increasing.
        unexplained: r at these points, in [0, 1]. 0 and 1 are replaced by the nearest value with a finite logit.

    Raises:
        ValueError: If the two have different lengths, or a number is out of range.

    Source: Bao, Li, Zhu & Zhang 2022 (Analytic-DPM), theorem 1; for models that are not exact Bao et al. 2022
    (Estimating the optimal covariance with imperfect mean), theorem 3.
    """

    log_snr: tuple[float, ...]
    unexplained: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("log_snr", "unexplained"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        log_snr, unexplained = self.log_snr, self.unexplained
        if not log_snr or len(log_snr) != len(unexplained):
            raise ValueError(
                "log_snr and unexplained must have the same length of at least 1, got "
                f"{len(log_snr)} and {len(unexplained)} numbers."
            )
        if not all(a < b for a, b in zip((-math.inf, *log_snr), (*log_snr, math.inf))):
            raise ValueError(f"log_snr must increase strictly and be finite, got {tuple(log_snr)!r}.")
        if not all(0 <= r <= 1 for r in unexplained):
            raise ValueError(f"unexplained must lie in [0, 1], got {tuple(unexplained)!r}.")

    @cached_property
    def _log_variances(self) -> tuple[float, ...]:
        """log c² at the points."""
        fractions = [min(max(r, _MIN_FRACTION), _MAX_FRACTION) for r in self.unexplained]
        return tuple(math.log(r) - math.log1p(-r) - at for at, r in zip(self.log_snr, fractions, strict=True))

    def data_variance(self, log_snr: float) -> float:
        """c²: the variance of Gaussian data for which the model would leave the same fraction unexplained."""
        points, values = self.log_snr, self._log_variances
        i = bisect_right(points, log_snr)
        if i == 0 or i == len(points):
            return math.exp(values[0 if i == 0 else -1])
        weight = (log_snr - points[i - 1]) / (points[i] - points[i - 1])
        return math.exp(values[i - 1] + weight * (values[i] - values[i - 1]))

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
    r"""Estimates the fraction of the noise variance that ``model`` leaves unexplained.

    One estimate serves all samplers and numbers of steps. At each point it is $E\|\varepsilon - \hat\varepsilon\|^2/d$
    over the data and noises in pairs $\pm\varepsilon$, the same noises at all points. $\|\varepsilon\|^2/d$, whose mean
    is 1, is the control variate.

    Args:
        model: The model; run in eval mode, without gradients, with ``2 * points`` calls per batch. Where its error is
            larger than that of the estimate 0, the fraction is set to 1.
        x0: Data in model units, ``(n, *D)``, or samples of the model. A few thousand elements are enough.
        points: Number of times, uniform in log-SNR from ``tau_min`` to the end of the clock, but not below log-SNR -14.
        generator: Source of the noise; default torch's global one.
        batch_size: Samples at once; default all.
        **cond: Passed to the network, one entry per sample.

    Returns:
        The argument of ``DDPM(rev_var=…)``; `scoresde.storage.spec` writes it as text.

    Raises:
        TypeError: If ``model`` is not a Model, ``x0`` is not floating, or a keyword is neither an option nor read by
            the network.
        ValueError: If ``x0`` is empty or not finite; if ``points`` or ``batch_size`` is not a positive integer; if the
            conditioning does not fit; if the model returns numbers that are not finite.
    """
    check_model(model)
    refuse_unknown(optimal_variance, model, cond)
    check_arguments(optimal_variance, locals())
    check_event_shape(x0, model.event_shape, "x0")
    if not x0.is_floating_point():
        raise TypeError(f"x0 must be a floating tensor, got {x0.dtype}; scale the data first (Description.to_model).")
    check_per_sample(cond, len(x0))
    check_integer("points", points)
    rows = len(x0) if batch_size is None else batch_size
    if batch_size is not None:
        check_integer("batch_size", batch_size)
    check_finite(x0, "x0")
    if not x0.numel():
        raise ValueError(f"an estimate needs data, got x0 of shape {tuple(x0.shape)}; pass (n, *D) with n > 0.")
    high, low = ou.log_snr(model.sde.tau_min), max(ou.log_snr(model.sde.tau_max), _MIN_LOG_SNR)
    log_snrs = [high - (high - low) * i / max(points - 1, 1) for i in reversed(range(points))]
    noise = Noise(generator).normal(x0)
    errors: list[list[Tensor]] = [[] for _ in log_snrs]
    powers: list[Tensor] = []
    with torch.no_grad(), evaluating(model):
        for i in range(0, len(x0), rows):
            data, eps = x0[i : i + rows], noise[i : i + rows]
            batch_cond = {name: value[i : i + rows] for name, value in cond.items()}
            powers.append(sum_event(eps * eps))
            for point_errors, log_snr in zip(errors, log_snrs, strict=True):
                point_errors.append(_pair_error(model, data, eps, ou.tau_from_log_snr(log_snr), batch_cond))
    size, power = x0[0].numel(), torch.cat(powers)
    unexplained = tuple(_controlled_mean(torch.cat(each) / size, power / size) for each in errors)
    return OptimalVariance(tuple(log_snrs), unexplained)


def _pair_error(model: Model, x0: Tensor, eps: Tensor, tau: float, cond: dict[str, Tensor]) -> Tensor:
    """|eps - eps_hat|² averaged over the pair of noises ±eps, ``(B,)`` float64."""
    total = torch.zeros((), dtype=torch.float64)
    for z in (eps, -eps):
        error = model(model.sde.perturb(x0, tau, z), tau, **cond).eps - z
        total = total + 0.5 * sum_event(error * error).to("cpu")
    return total


def _controlled_mean(error: Tensor, power: Tensor) -> float:
    """Mean of ``error`` with the control variate ``power``, whose mean is 1; both ``(n,)``. At most 1."""
    power = power.to(error)
    centered = power - power.mean()
    slope = (centered * error).sum() / (centered * centered).sum().clamp(min=1e-300)
    plain, controlled = error.mean(), (error - slope * (power - 1.0)).mean()
    value = float(controlled if bool(controlled > 0) else plain)
    if not math.isfinite(value):
        raise ValueError(f"the model must return finite numbers, got a mean squared error of {value}.")
    return min(value, 1.0)
