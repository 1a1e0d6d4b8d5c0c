r"""Where along the clock is a bound hard to estimate? The noise error's mean and spread, measured once on some data.

With $f = \tfrac12(\|\hat\varepsilon_+ - \varepsilon\|^2 + \|\hat\varepsilon_- + \varepsilon\|^2)$ from a pair of noises
±ε, the spread of $f - c\,(\|\varepsilon\|^2 - d)$ over ε says how densely to draw times, the regression's c how much
of f is only the length of ε, and the mean of f what may be integrated beforehand, so that only the difference is drawn.
None of the three changes a bound's expectation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from scoresde._core.checks import check_finite
from scoresde._core.noise import Noise
from scoresde._core.tensors import sum_event, widest_dtype
from scoresde.model import Model, evaluating, event_size
from scoresde.objective.timesteps import MeasuredTimesteps
from scoresde.objective.weighting import ELBO
from scoresde.process import ou
from scoresde.process.sde import SDE, Marginal

__all__ = ["ErrorProfile", "measure_error_profile"]

_LOW = -14.0  # lowest log-SNR looked at: what is left below it is in the prior's term


@dataclass(frozen=True)
class ErrorProfile:
    r"""What `measure_error_profile` found, at points of log-SNR; linear between them, constant beyond.

    Args:
        log_snr: The points, nats, strictly rising.
        unexplained: $E f/d$: the share of the noise that the model cannot explain.
        control: c, the regression of f on $\|\varepsilon\|^2$.
        spread: Root mean square over ε, at fixed data, of what is then left of f.
    """

    log_snr: tuple[float, ...]
    unexplained: tuple[float, ...]
    control: tuple[float, ...]
    spread: tuple[float, ...]

    @property
    def timesteps(self) -> MeasuredTimesteps:
        """Times drawn in proportion to the spread, a fifth of them evenly in log-SNR: least error if stratified.

        Source: Neyman 1934, optimal allocation.
        """
        return MeasuredTimesteps(self.log_snr, self.spread if max(self.spread) > 0 else (1.0,) * len(self.spread))

    def at(self, log_snr: Tensor) -> tuple[Tensor, Tensor]:
        """``unexplained`` and ``control`` at ``log_snr``, each of its shape."""
        points = torch.tensor(self.log_snr, dtype=log_snr.dtype, device=log_snr.device)
        right = torch.searchsorted(points, log_snr.contiguous()).clamp(1, max(len(points) - 1, 1))
        left, right = right - 1, right.clamp(max=len(points) - 1)
        gap = (points[right] - points[left]).clamp(min=1e-300)
        share = ((log_snr - points[left]) / gap).clamp(0.0, 1.0)
        found = []
        for values in (self.unexplained, self.control):
            column = torch.tensor(values, dtype=log_snr.dtype, device=log_snr.device)
            found.append(column[left] + share * (column[right] - column[left]))
        return found[0], found[1]

    def mean(self, m: Marginal, size: int, given: float) -> Tensor:
        r"""What the diffusion term's integrand is on average, $\lambda\,d\,(r - \alpha^2[given > 0])$, as ``m.tau``.

        r is ``unexplained``, and 0 outside of the points. For an exact model and data of its own law this is exact.
        """
        log_snr = torch.as_tensor(m.log_snr)
        inside = (log_snr >= self.log_snr[0]) & (log_snr <= self.log_snr[-1])
        r = torch.where(inside, self.at(log_snr)[0], 0.0)
        return torch.as_tensor(ELBO()(m)) * size * (r - torch.as_tensor(ou.alpha_bar(m.tau)) * (given > 0))

    def integral(self, sde: SDE, size: int, given: float) -> float:
        """`mean`, integrated over the clock from ``tau_min``; exact, nats."""
        low, high = float(ou.log_snr(sde.tau_max)), float(ou.log_snr(sde.tau_min))
        points = np.clip(self.log_snr, low, high)
        r = np.interp(points, self.log_snr, self.unexplained)
        area = 0.25 * float(((r[1:] + r[:-1]) * np.diff(points)).sum())
        return size * (area - (math.log(ou.sigma(sde.tau_max) / ou.sigma(sde.tau_min)) if given > 0 else 0.0))


def measure_error_profile(
    model: Model,
    x0: Tensor,
    *,
    points: int = 24,
    generator: torch.Generator | None = None,
    batch_size: int | None = None,
    **cond: Tensor,
) -> ErrorProfile:
    """Measures a profile: four network calls per point and batch, in eval mode and without gradients.

    Args:
        model: The model whose bound is to be estimated.
        x0: Data in model units, ``(n, *D)``; some dozens are enough, and they need not be those scored later.
        points: How many times, even in log-SNR, from ``tau_min`` to the end of the clock (at most to log-SNR = -14).
        generator: Source of the noise.
        batch_size: Samples at once; default all.
        **cond: Passed to the network, one entry per sample.

    Returns:
        See `Profile`.

    Raises:
        ValueError: If there are fewer than two samples, they are not finite, ``points`` is less than 2, or the model
            returns numbers that are not finite.
    """
    if isinstance(points, bool) or not isinstance(points, int) or points < 2:
        raise ValueError(f"points must be an integer of at least 2, got {points!r}.")
    if len(x0) < 2:
        raise ValueError(f"a profile needs at least two samples, got {len(x0)}; pass some dozens.")
    check_finite(x0, "x0")
    high, low = float(ou.log_snr(model.sde.tau_min)), max(float(ou.log_snr(model.sde.tau_max)), _LOW)
    at = tuple(low + (high - low) * i / (points - 1) for i in range(points))
    x0, noise, rows = x0.to(widest_dtype(x0.device)), Noise(generator), len(x0) if batch_size is None else batch_size
    found = []
    with torch.inference_mode(False), torch.no_grad(), evaluating(model):
        for log_snr in at:
            parts = []
            for i in range(0, len(x0), rows):
                given = {name: value[i : i + rows] for name, value in cond.items()}
                parts.append(_look(model, x0[i : i + rows], float(ou.tau_from_log_snr(log_snr)), noise, given))
            found.append(_regress(torch.cat(parts, 2), event_size(x0)))
    if not all(math.isfinite(v) for point in found for v in point):
        raise ValueError("the model must return finite numbers, got NaN or infinity; look at its inputs or weights.")
    unexplained, control, spread = zip(*found, strict=True)
    return ErrorProfile(at, unexplained, control, spread)


def _look(model: Model, x0: Tensor, tau: float, noise: Noise, cond: dict[str, Tensor]) -> Tensor:
    """f and |eps|² for two independent pairs of noises, ``(2, 2, B)``."""
    seen = []
    for _ in range(2):
        eps = noise.normal(x0)
        up, down = (model(model.sde.perturb(x0, tau, z), tau, **cond).eps - z for z in (eps, -eps))
        seen.append(torch.stack([sum_event(0.5 * (up * up + down * down)), sum_event(eps * eps)]))
    return torch.stack(seen)


def _regress(seen: Tensor, size: int) -> tuple[float, float, float]:
    """The three numbers of a point from ``(2, 2, n)``."""
    error, length = seen[:, 0], seen[:, 1] - size
    apart = length - length.mean()
    control = (apart * error).sum() / apart.square().sum().clamp(min=1e-300)
    left = error - control * length
    return float(error.mean()) / max(size, 1), float(control), float((0.5 * (left[0] - left[1]).square().mean()).sqrt())
