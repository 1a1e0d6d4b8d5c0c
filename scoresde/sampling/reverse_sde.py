r"""Samplers of the reverse SDE, $dx = (x + 2\,score)\,dr + \sqrt2\,dW$ with $r = \tau_{max} - \tau$.

They integrate it in log-SNR $\ell$, $dx = \tfrac12(\sigma^2 x - 2\sigma\varepsilon)\,d\ell + \sigma\,dW$, which
loses no digits near the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from scoresde._core.checks import check_integer
from scoresde._core.suggest import nearest
from scoresde._core.tensors import combine, widest_dtype
from scoresde.process import ou
from scoresde.sampling.base import Predict, Sampler, SamplingContext, StepSampler
from scoresde.sampling.grid import Grid, UniformLogSNR

__all__ = ["EulerMaruyama", "ExponentialSDE", "TorchSDE"]


@dataclass(frozen=True)
class EulerMaruyama(StepSampler):
    r"""Euler–Maruyama in log-SNR.

    $x_s = x + \tfrac12(\sigma^2 x - 2\sigma\hat\varepsilon)h + \sigma\sqrt h\,z$ with $h = \ell_s - \ell_\tau$.

    It ends at ``tau_min`` with the noise of that time left in x; ``sample(…, denoise=True)`` removes it. A last step to
    s = 0, where log-SNR is infinite, returns the data estimate, as in `DDPM`.

    Args:
        steps: Number of steps.
        grid: Default `UniformLogSNR`; needs a clock with a finite end.

    Raises:
        ValueError: If the start is at infinite τ (when sampling).
    """

    grid: Grid = field(default_factory=UniformLogSNR)

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def step(
        self, predict: Predict, x: Any, tau: float, s: float, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        if s == 0:
            return predict(x, tau).x0, None
        h, sigma = ou.log_snr(s) - ou.log_snr(tau), ou.sigma(tau)
        if h == math.inf:
            raise ValueError(f"EulerMaruyama needs a finite start, got tau = {tau}; use a clipped clock, or start=.")
        x = predict(x, tau).step(1.0 + 0.5 * h * sigma * sigma, -sigma * h, "eps")
        return combine(1.0, x, sigma * math.sqrt(h), noise()), None


@dataclass(frozen=True)
class ExponentialSDE(StepSampler):
    r"""Exponential integrator: the linear part is solved exactly, the noise estimate is constant over the step.

    $x_s = e^\Delta x - 2e^{-s}(\rho_\tau - \rho_s)\hat\varepsilon + \sqrt{e^{2\Delta} - 1}\,z$ with
    $\Delta = \tau - s$ and $\rho = \sigma/\alpha$, since
    $\int_s^\tau e^{t-s}/\sigma(t)\,dt = e^{-s}(\rho_\tau - \rho_s)$. A last step to s = 0 returns the data estimate,
    as in `DDPM`.

    Args:
        steps: Number of steps.
        grid: Default `UniformLogSNR`; needs a clock with a finite end.

    Raises:
        ValueError: If the start is at infinite τ (when sampling).

    Source: Zhang & Chen 2023 (DEIS), section 3 and appendix for the SDE.
    """

    grid: Grid = field(default_factory=UniformLogSNR)

    order: ClassVar[int] = 1
    stochastic: ClassVar[bool] = True

    def step(
        self, predict: Predict, x: Any, tau: float, s: float, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        if s == 0:
            return predict(x, tau).x0, None
        if tau == math.inf:
            raise ValueError("ExponentialSDE needs a finite start, got tau = inf; use a clipped clock, or start=.")
        growth = math.exp(tau - s)
        integral = ou.sigma(tau) * growth - ou.sigma(s)  # e^-s (rho_tau - rho_s)
        x = predict(x, tau).step(growth, -2.0 * integral, "eps")
        return combine(1.0, x, math.sqrt(math.expm1(2.0 * (tau - s))), noise()), None


@dataclass(frozen=True)
class TorchSDE(Sampler):
    """torchsde's fixed-step solvers on the reverse SDE, even steps in log-SNR, events flattened.

    Args:
        steps: Number of steps; ``"srk"`` makes four network calls per step, ``"euler"`` one.
        method: ``"srk"`` (strong order 1.5) or ``"euler"``.

    Raises:
        ValueError: If the method is unknown, or ``steps`` not a positive integer.
    """

    steps: int = 500
    method: str = "srk"

    def __post_init__(self) -> None:
        check_integer("steps", self.steps)
        if self.method not in ("srk", "euler"):
            raise ValueError(f"no method is named {self.method!r}; {nearest(str(self.method), ('srk', 'euler'))}")

    def run(self, x: Tensor, context: SamplingContext) -> tuple[Tensor, float]:
        """Solves from the start to ``tau_min``; see `Sampler.run`.

        Raises:
            ValueError: If the clock ends without signal, where log-SNR is infinite.
        """
        import torchsde

        first, last = float(ou.log_snr(context.start)), float(ou.log_snr(context.sde.tau_min))
        if not math.isfinite(first):
            raise ValueError("TorchSDE needs a finite start in log-SNR, got an infinite tau; use a clipped clock.")
        sde = _ReverseSDE(context, x.shape)
        flat = x.reshape(len(x), -1)
        log_snrs = [first + (last - first) * i / self.steps for i in range(self.steps)] + [last]
        times = torch.tensor(log_snrs, dtype=widest_dtype(x.device), device=x.device)
        brownian = _brownian(context, flat, *times[[0, -1]].tolist())  # in float32 the ends are rounded
        for i in range(self.steps):
            # One call per step, so that the observer is called. dt is longer than the interval, at whose end torchsde
            # cuts the step.
            dt = 2.0 * (last - first) / self.steps
            with torch.no_grad():
                ends = torchsde.sdeint(sde, flat, times[i : i + 2], bm=brownian, method=self.method, dt=dt)
            assert isinstance(ends, Tensor)
            flat = ends[-1]
            if context.observe is not None:
                final = i + 1 == self.steps
                tau = context.sde.tau_min if final else float(ou.tau_from_log_snr(log_snrs[i + 1]))
                context.observe(i + 1, self.steps, tau, flat.reshape(x.shape))
        return flat.reshape(x.shape), context.sde.tau_min


class _ReverseSDE(torch.nn.Module):
    """The reverse SDE in log-SNR in torchsde's form: flat states, diagonal noise."""

    noise_type = "diagonal"
    sde_type = "ito"

    def __init__(self, context: SamplingContext, shape: torch.Size) -> None:
        super().__init__()
        self.context, self.shape = context, shape
        self.recent: list[tuple[float, Tensor, Tensor]] = []

    def _tau(self, ell: Tensor) -> Tensor:
        sde = self.context.sde
        return ou.tau_from_log_snr(ell.to(widest_dtype(ell.device))).clamp(sde.tau_min, sde.tau_max)

    def f(self, ell: Tensor, y: Tensor) -> Tensor:
        """Drift, ``(B, d)``; torchsde asks several times for the same stage, the network only once."""
        log_snr = float(ell)
        for time, state, drift in self.recent:
            if time == log_snr and state is y:
                return drift
        tau = self._tau(ell)
        sigma = ou.sigma(tau).to(y.dtype)
        eps = self.context.predict(y.reshape(self.shape), tau).eps.reshape(y.shape)
        drift = 0.5 * sigma * sigma * y - sigma * eps
        self.recent = [*self.recent[-3:], (log_snr, y, drift)]
        return drift

    def g(self, ell: Tensor, y: Tensor) -> Tensor:
        """Diffusion, ``(B, d)``."""
        return ou.sigma(self._tau(ell)).to(y.dtype).expand_as(y)


def _brownian(context: SamplingContext, flat: Tensor, first: float, last: float) -> Any:
    """One Brownian path per sample with per-sample seeds, else one for the batch, seeded from the context's noise."""
    import torchsde

    draws = context.noise.uniform(torch.empty(len(flat), 2, dtype=torch.float32, device=flat.device))
    seeds = [int(high * 2**24) * 2**24 + int(low * 2**24) for high, low in draws.tolist()]

    def interval(seed: int, rows: int) -> Any:
        return torchsde.BrownianInterval(
            t0=first,
            t1=last,
            size=(rows, flat.shape[1]),
            entropy=seed,
            dtype=flat.dtype,
            device=flat.device,
            levy_area_approximation="space-time",
        )

    if context.noise.per_sample:
        return _stacked([interval(seed, 1) for seed in seeds], flat)
    return interval(seeds[0], len(flat))


def _stacked(intervals: list[Any], flat: Tensor) -> Any:
    """The Brownian paths of all rows as one object of torchsde's type."""
    import torchsde

    class Stacked(torchsde.BaseBrownian):
        """Calls the path of every row and concatenates the results."""

        dtype, device, shape = flat.dtype, flat.device, flat.shape  # pyright: ignore[reportAssignmentType]
        levy_area_approximation = "space-time"  # pyright: ignore[reportAssignmentType]

        def __call__(self, ta: Any, tb: Any = None, return_U: bool = False, return_A: bool = False) -> Any:
            parts = [each(ta, tb, return_U=return_U, return_A=return_A) for each in intervals]
            if isinstance(parts[0], tuple):
                return tuple(torch.cat(column) for column in zip(*parts, strict=True))
            return torch.cat(parts)

        def __repr__(self) -> str:
            return f"Stacked({len(intervals)})"

        def size(self) -> torch.Size:
            """Shape of a draw."""
            return self.shape

    return Stacked()
