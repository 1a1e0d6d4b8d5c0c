r"""Samplers of the probability-flow ODE, $dx/d\phi = v$ in the angle $\phi = \mathrm{atan}(\sigma/\alpha)$.

In the angle it has no linear part. The integration runs from the start down to the angle of ``tau_min``. The only
random draw is the start, except in `DDIM` with η > 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_integer, check_positive
from scoresde._core.suggest import nearest
from scoresde._core.tensors import combine, widest_dtype
from scoresde.process import ou
from scoresde.process.prediction import Prediction
from scoresde.sampling.base import Predict, Sampler, SamplingContext, SolverError, StepSampler
from scoresde.sampling.grid import Grid, UniformAngle

__all__ = ["DDIM", "ODE", "RungeKutta"]


@dataclass(frozen=True)
class DDIM(StepSampler):
    r"""$x_s = \alpha_s\hat x_0 + \kappa\sigma_s\hat\varepsilon + \sigma_s\sqrt{1 - \kappa^2}\,z$, of order 1.

    $1 - \kappa^2 = \eta^2(1 - \rho_s^2/\rho_\tau^2)$, ρ = σ/α. With η = 0 it is the exponential integrator of the
    probability-flow ODE, the rotation $\cos\delta\,x - \sin\delta\,\hat v$ by $\delta = \phi_\tau - \phi_s$; with
    η = 1 it is DDPM with $\tilde\beta$. On the chain's grid it ends at τ = 0.

    Args:
        steps: Number of steps.
        grid: Default `Chain`.
        eta: η in [0, 1]: 0 adds no noise, 1 the noise of DDPM.

    Raises:
        ValueError: If ``eta`` lies outside [0, 1].

    Source: Song, Meng & Ermon 2021, eqs. 12 and 16; Salimans & Ho 2022, appendix D for the rotation.
    """

    eta: float = 0.0

    order: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {self.eta!r}; for more noise take SASolver(noise=Eta(2.0)).")

    @property
    def stochastic(self) -> bool:
        """Whether η > 0."""
        return self.eta > 0

    def brownian_clock(self, tau: float) -> float:
        """ρ^(-2η²): the noise of a step is an increment of it, exactly for η = 1, else to first order in the step."""
        return ew.exp(self.eta**2 * ou.log_snr(tau))

    def step(
        self, predict: Predict, x: Any, tau: Any, s: Any, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        if self.eta and s > 0:
            return self._noisy(predict(x, tau), tau, s, noise), None
        delta = ou.angle(tau) - ou.angle(s)
        return predict(x, tau).step(ew.cos(delta), -ew.sin(delta), "v"), None

    def _noisy(self, prediction: Prediction, tau: float, s: float, noise: Callable[[], Any]) -> Any:
        alpha, sigma, alpha_s, sigma_s = ou.alpha(tau), ou.sigma(tau), ou.alpha(s), ou.sigma(s)
        ratio = sigma_s * alpha / (sigma * alpha_s)  # rho_s / rho_tau; 0 from an infinite start
        added = self.eta**2 * (1.0 - ratio * ratio)  # 1 - kappa²
        on_eps = ew.sqrt(1.0 - added) * sigma_s
        mean = prediction.step(alpha_s * alpha + on_eps * sigma, on_eps * alpha - alpha_s * sigma, "v")
        return combine(1.0, mean, sigma_s * ew.sqrt(added), noise())


@dataclass(frozen=True)
class _Tableau:
    """Butcher tableau of an explicit Runge–Kutta method: stage weights, final weights, order (Butcher 2016)."""

    stages: tuple[tuple[float, ...], ...]
    final: tuple[float, ...]
    order: int


_TABLEAUS = {
    "euler": _Tableau(((),), (1.0,), 1),
    "midpoint": _Tableau(((), (0.5,)), (0.0, 1.0), 2),
    "heun": _Tableau(((), (1.0,)), (0.5, 0.5), 2),
    "rk3": _Tableau(((), (0.5,), (-1.0, 2.0)), (1 / 6, 2 / 3, 1 / 6), 3),
    "rk4": _Tableau(((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6), 4),
}


@dataclass(frozen=True)
class RungeKutta(StepSampler):
    r"""A classical Runge–Kutta method on $dx/d\phi = v$, with one network call per stage.

    Args:
        steps: Number of steps, not of network calls.
        grid: Default `UniformAngle`.
        method: ``"euler"``, ``"midpoint"``, ``"heun"``, ``"rk3"`` or ``"rk4"``.

    Raises:
        ValueError: If the method is unknown; when sampling, if the grid ends at 0 and the method has a stage there.
    """

    steps: int = 50
    grid: Grid = field(default_factory=UniformAngle)
    method: str = "rk4"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in _TABLEAUS:
            raise ValueError(f"no method is named {self.method!r}; {nearest(str(self.method), _TABLEAUS)}")

    @property
    def order(self) -> int:
        return _TABLEAUS[self.method].order

    def step(
        self, predict: Predict, x: Any, tau: float, s: float, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        tableau, start = _TABLEAUS[self.method], ou.angle(tau)
        delta = ou.angle(s) - start
        if s == 0 and any(sum(weights) == 1 for weights in tableau.stages):
            raise ValueError(
                f"a grid must end above 0 where {self.method!r} evaluates the end of a step, got {self.grid}; "
                "use UniformAngle(), which ends at tau_min."
            )
        slopes = []
        for weights in tableau.stages:
            node = sum(weights)  # the tableaus are consistent; the ends of the step are exact
            time = tau if node == 0 else s if node == 1 else ou.tau_from_angle(start + node * delta)
            slopes.append(predict(_advance(x, delta, weights, slopes), time).v)
        return _advance(x, delta, tableau.final, slopes), None


def _advance(x: Any, delta: float, weights: tuple[float, ...], slopes: list[Any]) -> Any:
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            x = combine(1.0, x, delta * weight, slope)
    return x


@dataclass(frozen=True)
class ODE(Sampler):
    """torchdiffeq's adaptive solvers on the probability-flow ODE; one step size is shared by the whole batch.

    A sample therefore depends, within the tolerance, on the rest of its batch. Fixed-step samplers do not.

    Args:
        method: ``"dopri5"``, ``"bosh3"``, ``"dopri8"``, ``"fehlberg2"`` or ``"adaptive_heun"``.
        rtol, atol: Relative and absolute tolerance of a step, root mean square over batch and event.
        max_nfe: Largest number of network evaluations, those of rejected steps included.

    Raises:
        ValueError: If the method is unknown, or a number is not positive.
        SolverError: When sampling, if the step size underflows or ``max_nfe`` is not enough.
    """

    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5
    max_nfe: int = 10_000

    def __post_init__(self) -> None:
        known = ("dopri5", "bosh3", "dopri8", "fehlberg2", "adaptive_heun")
        if self.method not in known:
            raise ValueError(f"no method is named {self.method!r}; {nearest(str(self.method), known)}")
        check_positive(rtol=self.rtol, atol=self.atol)
        check_integer("max_nfe", self.max_nfe)

    def run(self, x: Tensor, context: SamplingContext) -> tuple[Tensor, float]:
        """Solves from the start to ``tau_min``; see `Sampler.run`."""
        from torchdiffeq import odeint

        sde, wide = context.sde, widest_dtype(x.device)
        first, last = ou.angle(context.start), ou.angle(sde.tau_min)
        field = _Velocity(self, context, first, last)
        times = torch.tensor([first, last], dtype=wide, device=x.device)
        # without step_t the solver passes the end and interpolates, which costs two digits
        options = {"step_t": times[-1:], "dtype": wide}
        try:
            end = odeint(field, x, times, rtol=self.rtol, atol=self.atol, method=self.method, options=options)
        except AssertionError as error:
            if "underflow" not in str(error):
                raise  # an assertion of the network
            raise SolverError(
                f"{self} did not reach tau_min: {error}; loosen rtol and atol, or take fixed steps."
            ) from error
        assert isinstance(end, Tensor)
        if context.observe is not None:
            context.observe(100, 100, sde.tau_min, end[-1])
        return end[-1], sde.tau_min


class _Velocity(torch.nn.Module):
    """v as a function of the angle, counted, with torchdiffeq's callback for accepted steps."""

    def __init__(self, solver: ODE, context: SamplingContext, first: float, last: float) -> None:
        super().__init__()
        self.solver, self.context, self.first, self.last, self.nfe = solver, context, first, last, 0
        if context.observe is not None:
            self.callback_accept_step = self._report

    def forward(self, phi: Tensor, state: Tensor) -> Tensor:
        """v at the angle ``phi``, ``(B, *D)``."""
        self.nfe += 1
        if self.nfe > self.solver.max_nfe:
            raise SolverError(
                f"{self.solver} did not reach tau_min within max_nfe = {self.solver.max_nfe} network evaluations; "
                "loosen rtol and atol, raise max_nfe, or take fixed steps."
            )
        sde = self.context.sde
        # phi comes back in the precision of the state: keep its tau inside the clock
        tau = ou.tau_from_angle(phi.to(widest_dtype(phi.device))).clamp(sde.tau_min, sde.tau_max)
        return self.context.predict(state, tau).v

    def _report(self, phi: Tensor, state: Tensor, dt: Tensor) -> None:
        """Reports the start of an accepted step, which torchdiffeq passes; the first state itself is not a step."""
        angle = float(phi)
        if angle < self.first and self.context.observe is not None:
            percent = round(100 * (self.first - angle) / (self.first - self.last))
            self.context.observe(percent, 100, ou.tau_from_angle(angle), state)
