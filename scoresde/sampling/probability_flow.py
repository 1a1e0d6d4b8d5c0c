r"""How does the probability-flow ODE walk back? In the angle it is $dx/d\phi = v$, with no linear part.

From $\phi = \mathrm{atan}(\sigma/\alpha)$ down to the angle of ``tau_min``; nothing is drawn but the start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from scoresde._core import elementwise as ew
from scoresde._core.suggest import nearest
from scoresde._core.tensors import combine, widest_dtype
from scoresde.process import ou
from scoresde.process.parameterization import Prediction
from scoresde.sampling.base import Predict, Sampler, SamplingContext, SolverError, StepHook, StepSampler
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
        grid: Default the chain's.
        eta: η in [0, 1], noise as a share of DDPM's.

    Raises:
        ValueError: If ``eta`` lies outside.

    Source: Song, Meng & Ermon 2021, eqs. 12 and 16; Salimans & Ho 2022, appendix D for the rotation.
    """

    eta: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.eta <= 1:
            raise ValueError(f"eta must lie in [0, 1], got {self.eta!r}; for more noise take SASolver(noise=Eta(2.0)).")

    @property
    def order(self) -> int:
        """1."""
        return 1

    @property
    def stochastic(self) -> bool:
        """Whether η > 0."""
        return self.eta > 0

    def brownian_clock(self, tau: float) -> float:
        """ρ^(-2η²), on which the noise of a short step is an increment."""
        return ew.exp(self.eta**2 * ou.log_snr(tau))

    def step(
        self, predict: Predict, x: Any, tau: Any, s: Any, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        """See the class."""
        if self.eta and s > 0:
            return self._noisy(predict(x, tau), tau, s, noise), None
        delta = ou.angle(tau) - ou.angle(s)
        return predict(x, tau).step(ew.cos(delta), -ew.sin(delta), "v"), None

    def _noisy(self, prediction: Prediction, tau: float, s: float, noise: Callable[[], Any]) -> Any:
        alpha, sigma, alpha_s, sigma_s = ou.alpha(tau), ou.sigma(tau), ou.alpha(s), ou.sigma(s)
        ratio = sigma_s * alpha / (sigma * alpha_s)  # rho_s / rho_tau; 0 from an infinite start
        fresh = self.eta**2 * (1.0 - ratio * ratio)
        kept = ew.sqrt(1.0 - fresh) * sigma_s
        mean = prediction.step(alpha_s * alpha + kept * sigma, kept * alpha - alpha_s * sigma, "v")
        return combine(1.0, mean, sigma_s * ew.sqrt(fresh), noise())


@dataclass(frozen=True)
class _Tableau:
    """An explicit Runge–Kutta method: rows of stage weights, final weights, order (Butcher 2016)."""

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
    r"""A classical Runge–Kutta method on $dx/d\phi = v$: as many network calls a step as it has stages.

    Args:
        steps: Number of steps, not of network calls.
        grid: Default even in the angle.
        method: ``"euler"``, ``"midpoint"``, ``"heun"``, ``"rk3"`` or ``"rk4"``.
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
        """The method's own."""
        return _TABLEAUS[self.method].order

    def step(
        self, predict: Predict, x: Any, tau: float, s: float, noise: Callable[[], Any], memory: Any
    ) -> tuple[Any, Any]:
        """See the class."""
        tableau, start = _TABLEAUS[self.method], ou.angle(tau)
        delta = ou.angle(s) - start
        if s == 0 and any(sum(weights) == 1 for weights in tableau.stages):
            raise ValueError(
                f"a grid must end above 0 where {self.method!r} looks at the end of a step, got {self.grid}; "
                "use UniformAngle(), which ends at tau_min."
            )
        slopes = []
        for weights in tableau.stages:
            # consistent tableaus: a stage stands where its weights sum to; the ends are met exactly
            place = sum(weights)
            time = tau if place == 0 else s if place == 1 else ou.tau_from_angle(start + place * delta)
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

    So a sample depends, within the tolerance, on its neighbors; for one that does not, use a fixed-step method.

    Args:
        method: ``"dopri5"``, ``"bosh3"``, ``"dopri8"``, ``"fehlberg2"`` or ``"adaptive_heun"``.
        rtol, atol: Relative and absolute tolerance of a step, root mean square over batch and event.
        max_steps: Steps, refused ones too, after which it gives up.

    Raises:
        ValueError: If the method is unknown, or a number is not positive.
        SolverError: If the step underflows or ``max_steps`` is passed (when sampling).
    """

    method: str = "dopri5"
    rtol: float = 1e-5
    atol: float = 1e-5
    max_steps: int = 10_000

    def __post_init__(self) -> None:
        known = ("dopri5", "bosh3", "dopri8", "fehlberg2", "adaptive_heun")
        if self.method not in known:
            raise ValueError(f"no method is named {self.method!r}; {nearest(str(self.method), known)}")
        if not (self.rtol > 0 and self.atol > 0 and self.max_steps > 0):
            raise ValueError(
                f"rtol, atol and max_steps must be positive, got {self.rtol!r}, {self.atol!r} and {self.max_steps!r}."
            )

    def run(self, x: Tensor, path: SamplingContext) -> tuple[Tensor, float]:
        """Solves from the start to ``tau_min``; see `Sampler.run`."""
        from torchdiffeq import odeint

        sde, wide = path.sde, widest_dtype(x.device)
        first, last = ou.angle(path.start), ou.angle(sde.tau_min)

        def velocity(phi: Tensor, state: Tensor) -> Tensor:
            # the angle comes back in the state's precision: keep its tau inside the clock
            tau = ou.tau_from_angle(phi.to(wide)).clamp(sde.tau_min, sde.tau_max)
            return path.predict(state, tau).v

        times = torch.tensor([first, last], dtype=wide, device=x.device)
        field = _Observed(velocity, path.observe, first, last)
        # without step_t it oversteps the end and interpolates, which costs two digits
        options = {"step_t": times[-1:], "max_num_steps": self.max_steps, "dtype": wide}
        try:
            end = odeint(field, x, times, rtol=self.rtol, atol=self.atol, method=self.method, options=options)
        except AssertionError as error:
            if "max_num_steps" not in str(error) and "underflow" not in str(error):
                raise  # not the solver's: the network's own
            raise SolverError(
                f"{self} must be able to go on to tau_min, got: {error}; loosen rtol and atol, or take fixed steps."
            ) from error
        assert isinstance(end, Tensor)
        if path.observe is not None:
            path.observe(100, 100, sde.tau_min, end[-1])
        return end[-1], sde.tau_min


class _Observed(torch.nn.Module):
    """The right-hand side together with torchdiffeq's callback for accepted steps, which feeds the observer."""

    def __init__(
        self, velocity: Callable[[Tensor, Tensor], Tensor], observe: StepHook | None, first: float, last: float
    ) -> None:
        super().__init__()
        self.velocity, self.observe, self.ends = velocity, observe, (first, last)
        if observe is not None:
            self.callback_accept_step = self._accept

    def forward(self, phi: Tensor, state: Tensor) -> Tensor:
        return self.velocity(phi, state)

    def _accept(self, phi: Tensor, state: Tensor, dt: Tensor) -> None:
        """torchdiffeq hands over the step's beginning; the start itself is not a step."""
        (first, last), now = self.ends, float(phi)
        if now < first and self.observe is not None:
            self.observe(round(100 * (first - now) / (first - last)), 100, ou.tau_from_angle(now), state)
