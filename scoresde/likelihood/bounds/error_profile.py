r"""Profile of a model's noise-prediction error along log-SNR: its mean, its spread, and a control-variate coefficient.

Let $f = \tfrac12(\|\hat\varepsilon_+ - \varepsilon\|^2 + \|\hat\varepsilon_- + \varepsilon\|^2)$ for a pair of noises
±ε. The spread of $f - c\,(\|\varepsilon\|^2 - d)$ over ε and data gives the density of timesteps. The regression
coefficient c removes the part of f that depends only on the length of ε. The mean of f is integrated in closed form
beforehand, so that only the difference is drawn. None of the three changes the expectation of a bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.call_inputs import as_input
from scoresde._core.checks import check_event_shape, check_finite, check_integer
from scoresde._core.noise import Noise
from scoresde._core.tensors import event_size, sum_event, widest_dtype
from scoresde.likelihood.conditions import likelihood_inputs
from scoresde.likelihood.score_check import refuse_without_score
from scoresde.model import Model, evaluating
from scoresde.objective.timesteps import MeasuredTimesteps
from scoresde.objective.weighting import ELBO
from scoresde.process import ou
from scoresde.process.base import Marginal, Process

__all__ = ["ErrorProfile", "measure_error_profile"]

_LOG_SNR_MIN = -14.0  # lowest log-SNR that is measured: the prior term holds what remains below it


@dataclass(frozen=True)
class ErrorProfile:
    r"""Result of `measure_error_profile` at points of log-SNR: linear between them, constant beyond.

    Args:
        log_snr: The points, nats, strictly rising.
        unexplained: $E f/d$: the share of the noise that the model cannot explain.
        control: c, the regression coefficient of f on $\|\varepsilon\|^2$.
        spread: Root mean square over ε and data of the residual of f. (The part that differs between data has no noise,
            but few timesteps would miss it where the rest is small.)
    """

    log_snr: tuple[float, ...]
    unexplained: tuple[float, ...]
    control: tuple[float, ...]
    spread: tuple[float, ...]

    @property
    def timesteps(self) -> MeasuredTimesteps:
        """Timesteps with density proportional to the spread, one fifth of them uniform in log-SNR.

        This density gives the least error of a stratified estimate.

        Source: Neyman 1934, optimal allocation.
        """
        return MeasuredTimesteps(self.log_snr, self.spread if max(self.spread) > 0 else (1.0,) * len(self.spread))

    def at(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """``unexplained`` and ``control`` interpolated at ``log_snr``, each of its shape."""
        points = torch.tensor(self.log_snr, dtype=log_snr.dtype, device=log_snr.device)
        right = torch.searchsorted(points, log_snr.contiguous()).clamp(1, max(len(points) - 1, 1))
        left, right = right - 1, right.clamp(max=len(points) - 1)
        gap = (points[right] - points[left]).clamp(min=1e-300)
        fraction = ((log_snr - points[left]) / gap).clamp(0.0, 1.0)

        def interpolate(values: tuple[float, ...]) -> Tensor:
            column = torch.tensor(values, dtype=log_snr.dtype, device=log_snr.device)
            return column[left] + fraction * (column[right] - column[left])

        return interpolate(self.unexplained), interpolate(self.control)

    def mean(self, m: Marginal, size: int, tau_start: float) -> Tensor:
        r"""Mean of the diffusion term's integrand, $\lambda\,d\,(r - \alpha^2[\tau_{start} > 0])$, as ``m.tau``.

        r is ``unexplained``, and 0 outside the points. The mean is exact for an exact model and data of its own
        distribution.
        """
        log_snr = torch.as_tensor(m.log_snr)
        inside = (log_snr >= self.log_snr[0]) & (log_snr <= self.log_snr[-1])
        r = torch.where(inside, self.at(log_snr)[0], 0.0)
        return torch.as_tensor(ELBO()(m)) * size * (r - torch.as_tensor(ou.alpha_bar(m.tau)) * (tau_start > 0))

    def integral(self, sde: Process, size: int, tau_start: float) -> float:
        """`mean` integrated over the clock from ``tau_min`` to its end, in closed form, nats."""
        low, high = float(ou.log_snr(sde.tau_max)), float(ou.log_snr(sde.tau_min))
        points = np.clip(self.log_snr, low, high)
        r = np.interp(points, self.log_snr, self.unexplained)
        area = 0.25 * float(((r[1:] + r[:-1]) * np.diff(points)).sum())
        return size * (area - (math.log(ou.sigma(sde.tau_max) / ou.sigma(sde.tau_min)) if tau_start > 0 else 0.0))


def measure_error_profile(
    model: Model,
    x0: ArrayLike,
    *,
    points: int = 24,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
    **cond: Tensor,
) -> ErrorProfile:
    """Measures a profile with four network evaluations per point and batch, in eval mode and without gradients.

    Args:
        model: The model whose bound will be estimated.
        x0: Data in model units, ``(n, *D)``. A few dozen suffice, and they may differ from the data to be scored.
        points: Number of times, uniform in log-SNR, from ``tau_min`` to the end of the clock, or to log-SNR = -14.
        generator: Source of the noise.
        batch_size: Samples at once; default all.
        **cond: Passed to the network, one entry per sample.

    Returns:
        See `ErrorProfile`.

    Raises:
        ValueError: If there are fewer than two samples, they are not finite, ``points`` is less than 2, or the model
            returns NaN or infinity.
    """
    refuse_without_score(measure_error_profile, model)
    check_arguments(measure_error_profile, locals())
    x0, cond = as_input(model, x0, "x0"), likelihood_inputs(model, cond)
    check_integer("points", points, 2)
    if batch_size is not None:
        check_integer("batch_size", batch_size)
    check_event_shape(x0, model.event_shape, "x0")
    if len(x0) < 2:
        raise ValueError(f"a profile needs at least two samples, got {len(x0)}; pass a few dozen.")
    check_finite(x0, "x0")
    high, low = float(ou.log_snr(model.sde.tau_min)), max(float(ou.log_snr(model.sde.tau_max)), _LOG_SNR_MIN)
    log_snrs = tuple(low + (high - low) * i / (points - 1) for i in range(points))
    x0, noise, rows = x0.to(widest_dtype(x0.device)), Noise(generator), len(x0) if batch_size is None else batch_size
    measurements = []
    with torch.inference_mode(False), torch.no_grad(), evaluating(model):
        for log_snr in log_snrs:
            tau, parts = float(ou.tau_from_log_snr(log_snr)), []
            for i in range(0, len(x0), rows):
                batch_cond = {name: value[i : i + rows] for name, value in cond.items()}
                parts.append(_errors_and_lengths(model, x0[i : i + rows], tau, noise, batch_cond))
            measurements.append(_regress(torch.cat(parts, 2), event_size(x0)))
    if not all(math.isfinite(v) for point in measurements for v in point):
        raise ValueError("the model must return finite numbers, got NaN or infinity; check its inputs and weights.")
    unexplained, control, spread = zip(*measurements, strict=True)
    return ErrorProfile(log_snrs, unexplained, control, spread)


def _errors_and_lengths(model: Model, x0: Tensor, tau: float, noise: Noise, cond: dict[str, Tensor]) -> Tensor:
    """f and |eps|² for two independent pairs of noises, ``(2, 2, B)``."""
    pairs = []
    for _ in range(2):
        eps = noise.normal(x0)
        plus, minus = (model(model.sde.perturb(x0, tau, z), tau, **cond).eps - z for z in (eps, -eps))
        pairs.append(torch.stack([sum_event(0.5 * (plus * plus + minus * minus)), sum_event(eps * eps)]))
    return torch.stack(pairs)


def _regress(pairs: Tensor, size: int) -> tuple[float, float, float]:
    """Mean error per dimension, coefficient c and spread at one point, from ``(2, 2, n)``."""
    error, length = pairs[:, 0], pairs[:, 1] - size
    centered = length - length.mean()
    control = (centered * error).sum() / centered.square().sum().clamp(min=1e-300)
    residual = error - control * length
    mean = residual.mean()
    spread = (residual - mean).square().mean().sqrt()
    return float(mean) / max(size, 1), float(control), float(spread)
