r"""How does the reverse SDE walk back? $dx = (x + 2\,score)\,dr + \sqrt2\,dW$, $r = \tau_{max} - \tau$.

In log-SNR $\ell$ it is $dx = \tfrac12(\sigma^2 x - 2\sigma\varepsilon)\,d\ell + \sigma\,dW$, which keeps its digits
near the data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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

    Ends at ``tau_min`` with the noise of that time left in x; ``sample(…, denoise=True)`` takes it out. A last step to
    s = 0, where log-SNR is infinite, is the data estimate, as `DDPM`'s.

    Args:
        steps: Number of steps.
        grid: Default even in log-SNR; needs a clock with a finite end.

    Raises:
        ValueError: If the start is at infinite τ (when sampling).
    """

    grid: Grid = field(default_factory=UniformLogSNR)

    @property
    def order(self) -> int:
        """1, in the terminal variance."""
        return 1

    @property
    def stochastic(self) -> bool:
        """Yes."""
        return True

    def step(
        self, predict: Predict, x: Any, tau: float, s: float, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        """See the class."""
        if s == 0:
            return predict(x, tau).x0, None
        h, sigma = ou.log_snr(s) - ou.log_snr(tau), ou.sigma(tau)
        if h == math.inf:
            raise ValueError(f"EulerMaruyama needs a finite start, got tau = {tau}; use a clipped clock, or start=.")
        x = predict(x, tau).step(1.0 + 0.5 * h * sigma * sigma, -sigma * h, "eps")
        return combine(1.0, x, sigma * math.sqrt(h), noise()), None


@dataclass(frozen=True)
class ExponentialSDE(StepSampler):
    r"""An exponential integrator: the linear part solved exactly, the noise estimate held over the step.

    $x_s = e^\Delta x - 2e^{-s}(\rho_\tau - \rho_s)\hat\varepsilon + \sqrt{e^{2\Delta} - 1}\,z$ with
    $\Delta = \tau - s$ and $\rho = \sigma/\alpha$, since
    $\int_s^\tau e^{t-s}/\sigma(t)\,dt = e^{-s}(\rho_\tau - \rho_s)$. A last step
    to s = 0 is the data estimate, as `DDPM`'s.

    Args:
        steps: Number of steps.
        grid: Default even in log-SNR; needs a clock with a finite end.

    Raises:
        ValueError: If the start is at infinite τ (when sampling).

    Source: Zhang & Chen 2023 (DEIS), section 3 and appendix for the SDE.
    """

    grid: Grid = field(default_factory=UniformLogSNR)

    @property
    def order(self) -> int:
        """1, in the terminal variance."""
        return 1

    @property
    def stochastic(self) -> bool:
        """Yes."""
        return True

    def step(
        self, predict: Predict, x: Any, tau: float, s: float, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        """See the class."""
        if s == 0:
            return predict(x, tau).x0, None
        if tau == math.inf:
            raise ValueError("ExponentialSDE needs a finite start, got tau = inf; use a clipped clock, or start=.")
        growth = math.exp(tau - s)
        fall = ou.sigma(tau) * growth - ou.sigma(s)  # e^-s (rho_tau - rho_s)
        x = predict(x, tau).step(growth, -2.0 * fall, "eps")
        return combine(1.0, x, math.sqrt(math.expm1(2.0 * (tau - s))), noise()), None


@dataclass(frozen=True)
class TorchSDE(Sampler):
    """torchsde's fixed-step solvers on the reverse SDE in log-SNR, events flattened.

    Args:
        method: ``"srk"`` (strong order 1.5) or ``"euler"``.
        steps: Number of steps, even in log-SNR; srk makes four network calls a step, euler one.
    """

    method: str = "srk"
    steps: int = 500

    def __post_init__(self) -> None:
        if self.method not in ("srk", "euler"):
            raise ValueError(f"no method is named {self.method!r}; {nearest(str(self.method), ('srk', 'euler'))}")
        check_integer("steps", self.steps)

    def run(self, x: Tensor, path: SamplingContext) -> tuple[Tensor, float]:
        """Solves from the start to ``tau_min``; see `Sampler.run`.

        Raises:
            ValueError: If the clock ends without signal, where log-SNR is infinite.
        """
        import torchsde

        first, last = float(ou.log_snr(path.start)), float(ou.log_snr(path.sde.tau_min))
        if not math.isfinite(first):
            raise ValueError("TorchSDE needs a finite start in log-SNR, got an infinite tau; use a clipped clock.")
        law = _ReverseSDE(path, x.shape)
        flat = x.reshape(len(x), -1)
        places = [first + (last - first) * i / self.steps for i in range(self.steps)] + [last]
        times = torch.tensor(places, dtype=widest_dtype(x.device), device=x.device)
        paths = _brownian(path, flat, *times[[0, -1]].tolist())  # in float32 the ends are rounded
        for i in range(self.steps):
            # a step for itself, so that it can be told of; longer than its interval, at whose end torchsde cuts it
            dt = 2.0 * (last - first) / self.steps
            with torch.no_grad():
                ends = torchsde.sdeint(law, flat, times[i : i + 2], bm=paths, method=self.method, dt=dt)
            assert isinstance(ends, Tensor)
            flat = ends[-1]
            if path.observe is not None:
                tau = path.sde.tau_min if i + 1 == self.steps else float(ou.tau_from_log_snr(places[i + 1]))
                path.observe(i + 1, self.steps, tau, flat.reshape(x.shape))
        return flat.reshape(x.shape), path.sde.tau_min


class _ReverseSDE(torch.nn.Module):
    """The reverse SDE in log-SNR as torchsde wants it: flat states, diagonal noise."""

    noise_type = "diagonal"
    sde_type = "ito"

    def __init__(self, path: SamplingContext, shape: torch.Size) -> None:
        super().__init__()
        self.path, self.shape = path, shape
        self.recent: list[tuple[float, Tensor, Tensor]] = []

    def _tau(self, ell: Tensor) -> Tensor:
        return ou.tau_from_log_snr(ell.to(widest_dtype(ell.device))).clamp(self.path.sde.tau_min, self.path.sde.tau_max)

    def f(self, ell: Tensor, y: Tensor) -> Tensor:
        """Drift, ``(B, d)``; torchsde asks several times for the same stage, the network only once."""
        now = float(ell)
        for time, state, value in self.recent:
            if time == now and state is y:
                return value
        tau = self._tau(ell)
        sigma = ou.sigma(tau).to(y.dtype)
        eps = self.path.predict(y.reshape(self.shape), tau).eps.reshape(y.shape)
        value = 0.5 * sigma * sigma * y - sigma * eps
        self.recent = [*self.recent[-3:], (now, y, value)]
        return value

    def g(self, ell: Tensor, y: Tensor) -> Tensor:
        """Diffusion, ``(B, d)``."""
        return ou.sigma(self._tau(ell)).to(y.dtype).expand_as(y)


def _brownian(path: SamplingContext, flat: Tensor, first: float, last: float) -> Any:
    """One Brownian path per sample with per-sample seeds, else one for the batch, seeded from the path's noise."""
    import torchsde

    draws = path.noise.uniform(torch.empty(len(flat), 2, dtype=torch.float32, device=flat.device))
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

    if path.noise.per_sample:
        return _stacked([interval(seed, 1) for seed in seeds], flat)
    return interval(seeds[0], len(flat))


def _stacked(intervals: list[Any], flat: Tensor) -> Any:
    """The rows' own Brownian paths as one object of torchsde's kind."""
    import torchsde

    class Stacked(torchsde.BaseBrownian):
        """Calls every row's path and stacks what they return."""

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
