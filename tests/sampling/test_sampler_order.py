"""Declared orders of all fixed-step samplers, on the exact linear-Gaussian recursion, without random numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
from linear_gaussian import GaussianData, LinearState, fitted_order, rms_error, run_sampler
from subclasses import concrete

from scoresde.process import ou
from scoresde.process.parameterization import X0, Eps, Parameterization, Score, V, Velocity
from scoresde.process.schedule import LinearBetas
from scoresde.process.sde import SDE, VPSDE
from scoresde.sampling import (
    DDIM,
    DDPM,
    DEIS,
    ERSDE,
    Adams,
    DPMSolver,
    DPMSolverPP,
    Eta,
    EulerMaruyama,
    ExponentialSDE,
    Heun,
    RungeKutta,
    SASolver,
    SDEDPMSolverPP,
    StepSampler,
    UniformAngle,
    UniPC,
)

pytestmark = pytest.mark.scalar

NARROW, WIDE = GaussianData(0.7, 0.5), GaussianData(-1.3, 2.0)
DATA = [pytest.param(NARROW, id="variance .25"), pytest.param(WIDE, id="variance 4")]
CLOCK = VPSDE(tau_min=1e-3)


SETTINGS = [
    DDPM(rev_var="beta"),
    DDIM(eta=0.5),
    DDIM(eta=1.0),
    *(RungeKutta(method=name) for name in ("euler", "midpoint", "heun", "rk3")),
    *(
        Adams(predictor_order=3, corrector_order=0, prediction=f, variable=p)
        for f in ("x0", "eps")
        for p in ("angle", "log_snr", "rho")
    ),
    *(Adams(predictor_order=p, corrector_order=0) for p in (1, 2, 3, 4, 5)),
    *(
        Adams(predictor_order=p, corrector_order=c, prediction="alpha_v", variable=v)
        for p, c in ((3, 0), (2, 3))
        for v in ("angle", "sigma", "artanh_sigma")
    ),
    *(Adams(predictor_order=p, corrector_order=p + 1) for p in (1, 2, 3)),
    *(
        Adams(predictor_order=p, corrector_order=c, prediction="x0", noise=Eta(0.7))
        for p, c in ((1, 0), (2, 0), (3, 3))
    ),
    *(DPMSolver(solver_order=n, prediction=f) for n in (1, 2, 3) for f in ("eps", "x0")),
    *(DPMSolverPP(solver_order=n) for n in (1, 3)),
    *(DEIS(solver_order=n, variable="rho") for n in (2, 3)),
    *(UniPC(solver_order=n, prediction=f) for n in (1, 2) for f in ("eps", "x0")),
    *(SDEDPMSolverPP(solver_order=n) for n in (1, 3)),
    SASolver(predictor_order=2, corrector_order=0),
    ERSDE(solver_order=1),
    Heun(churn=5.0),
]
EVERY = [
    pytest.param(s, id=repr(s).replace("steps=", "")) for s in [*(cls() for cls in concrete(StepSampler)), *SETTINGS]
]


def _sampler(param: Any) -> StepSampler:
    return param.values[0]


SAMPLERS = [p for p in EVERY if _sampler(p).order is not None]
STOCHASTIC = [p for p in SAMPLERS if _sampler(p).stochastic]
SETTLED = VPSDE(tau_min=0.2)
START = 1.0
STEPS = {1: [256, 512, 1024], 2: [128, 256, 512], 3: [128, 256, 512], 4: [128, 256, 512]}


def _slope(sampler: StepSampler, data: GaussianData, declared: int, exact: int = 0) -> float:
    """Fitted order of the error where nothing is stiff and the grid is even, so that it is that of the method alone."""

    def at(n: int) -> float:
        return rms_error(replace(sampler, steps=n), SETTLED, data, UniformAngle().times(SETTLED, n, START), exact)

    return fitted_order(at, [256, 512, 1024] if sampler.stochastic else STEPS.get(declared, [48, 96, 192]))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("sampler", [p for p in SAMPLERS if not _sampler(p).stochastic])
def test_a_deterministic_sampler_has_its_declared_order_from_an_exact_start(
    sampler: StepSampler, data: GaussianData
) -> None:
    sampler = replace(sampler, steps=200)  # the default orders of Adams depend on it
    assert sampler.order is not None
    assert _slope(sampler, data, sampler.order, exact=sampler.order - 1) == pytest.approx(sampler.order, abs=0.15)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_step_sampler_has_its_declared_order_from_its_own_start(sampler: StepSampler, data: GaussianData) -> None:
    sampler = replace(sampler, steps=200)  # as above
    assert sampler.start_order is not None
    assert _slope(sampler, data, sampler.start_order) == pytest.approx(sampler.start_order, abs=0.15)


def _fit(sampler: StepSampler, sde: SDE, data: GaussianData) -> float:
    """The slope of the error at the end of the sampler's own grid, down to ``tau_min``."""

    def at(n: int) -> float:
        each = replace(sampler, steps=n)
        taus = each.grid.times(sde, n)
        return rms_error(each, sde, data, taus)

    return fitted_order(at, STEPS[sampler.order or 1])


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("sampler", [DDPM(), DDPM(rev_var="beta"), DDIM(), EulerMaruyama()], ids=repr)
def test_the_samplers_of_the_three_reverse_processes_are_of_order_one_on_their_own_grids(
    sampler: StepSampler, data: GaussianData
) -> None:
    assert _fit(sampler, VPSDE(), data) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_a_stochastic_sampler_ends_with_the_mean_of_the_data(sampler: StepSampler) -> None:
    end = run_sampler(replace(sampler, steps=2048, grid=UniformAngle()), CLOCK, NARROW)
    assert end.mean == pytest.approx(NARROW.moments(CLOCK.tau_min)[0], abs=2e-3)


@pytest.mark.parametrize("sampler", [DDPM(7), ExponentialSDE(7)], ids=repr)
def test_samplers_that_draw_from_the_conditional_of_a_gaussian_have_its_exact_mean(sampler: StepSampler) -> None:
    end = run_sampler(replace(sampler, grid=UniformAngle()), CLOCK, NARROW)
    assert end.mean == pytest.approx(NARROW.moments(CLOCK.tau_min)[0], abs=1e-12)


def test_beta_tilde_is_exact_for_data_at_a_point_and_beta_for_unit_normal_data() -> None:
    taus = [2.0, 0.9, 0.31, 0.05]
    point, unit = GaussianData(0.7, 0.0), GaussianData(0.0, 1.0)
    end = run_sampler(DDPM(3), CLOCK, point, taus)
    assert end.mean == pytest.approx(point.moments(0.05)[0], abs=1e-14)
    assert end.variance == pytest.approx(ou.sigma(0.05) ** 2, abs=1e-14)
    assert run_sampler(DDPM(3, rev_var="beta"), CLOCK, unit, taus).variance == pytest.approx(1.0, abs=1e-14)


def test_the_ddpm_step_is_algorithm_2_of_the_paper() -> None:
    beta, previous = 0.03, 0.6  # beta_t and alpha_bar_{t-1}
    alpha_bar = previous * (1 - beta)
    tau, s = -0.5 * math.log(alpha_bar), -0.5 * math.log(previous)
    eps: Any = WIDE.predict(LinearState(np.array([0.0, 1.0])), tau).eps
    expected = (LinearState(np.array([0.0, 1.0])) + eps * (-beta / math.sqrt(1 - alpha_bar))) * (
        1 / math.sqrt(1 - beta)
    )
    end = run_sampler(DDPM(1), CLOCK, WIDE, [tau, s])
    assert [end.bias, end.gain] == pytest.approx(expected.coefficients.tolist(), abs=1e-14)
    _, std = WIDE.moments(tau)
    noise = end.variance - (end.gain * std) ** 2
    assert noise == pytest.approx((1 - previous) / (1 - alpha_bar) * beta, rel=1e-12)


def test_ddim_is_the_step_of_the_paper_from_the_data_estimate_and_the_noise_estimate() -> None:
    tau, s = 1.1, 0.4
    prediction: Any = NARROW.predict(LinearState(np.array([0.0, 1.0])), tau)
    expected = prediction.x0 * ou.alpha(s) + prediction.eps * ou.sigma(s)
    end = run_sampler(DDIM(1), CLOCK, NARROW, [tau, s])
    assert [end.bias, end.gain] == pytest.approx(expected.coefficients.tolist(), abs=1e-15)


@pytest.mark.parametrize("parameterization", [X0(), Eps(), Score(), V(), V(0.5), Velocity()], ids=repr)
@pytest.mark.parametrize("sampler", [*SAMPLERS])
def test_the_parameterization_does_not_change_the_samples(
    sampler: StepSampler, parameterization: Parameterization
) -> None:
    sampler = replace(sampler, steps=6)
    one = run_sampler(sampler, CLOCK, WIDE)
    other = run_sampler(sampler, CLOCK, GaussianData(WIDE.mean, WIDE.std, parameterization))
    assert [other.gain, other.bias, other.variance] == pytest.approx([one.gain, one.bias, one.variance], rel=1e-9)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_step_works(sampler: StepSampler) -> None:
    end = run_sampler(replace(sampler, steps=1), VPSDE(LinearBetas()), NARROW)
    assert math.isfinite(end.gain + end.bias + end.variance)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_noise_is_drawn_only_in_steps_that_end_above_zero(sampler: StepSampler) -> None:
    assert run_sampler(sampler, CLOCK, NARROW, [2.0, 1.0, 0.5, 0.1]).draws == (3 if sampler.stochastic else 0)
    if sampler.stochastic:
        assert run_sampler(sampler, CLOCK, NARROW, [2.0, 1.0, 0.5, 0.0]).draws == 2


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_the_step_of_a_stochastic_sampler_to_zero_is_the_data_estimate(sampler: StepSampler) -> None:
    prediction: Any = NARROW.predict(LinearState(np.array([0.0, 1.0])), 0.02)
    end = run_sampler(sampler, CLOCK, NARROW, [0.02, 0.0])
    assert [end.bias, end.gain] == pytest.approx(prediction.x0.coefficients.tolist(), abs=1e-13)


def _noise_ratios(sampler: StepSampler, step: float) -> tuple[float, float]:
    """Log ratio of the two noises of a step split into two, in the last state and on the sampler's Brownian clock.

    Both halves are of length ``step / 2`` in log ρ. Data at a point, so that the network does not damp the noise.
    """
    log_rho = [0.3, 0.3 - step / 2, 0.3 - step]
    taus = [ou.tau_from_log_snr(-2.0 * value) for value in log_rho]
    point, x = GaussianData(0.7, 0.0), LinearState(np.array([0.0, 1.0]))
    for i, (tau, s) in enumerate(zip(taus, taus[1:])):
        draw = LinearState(np.eye(4)[2 + i])
        x, _ = sampler.step(point.predict, x, tau, s, lambda draw=draw: draw, None)
    first, middle, last = (sampler.brownian_clock(tau) for tau in taus)
    *_, one, other = x.coefficients
    return math.log(one / other), 0.5 * math.log((middle - first) / (last - middle))


@pytest.mark.parametrize("eta", [0.3, 0.5, 0.8])
def test_the_noise_of_ddim_has_the_covariance_that_its_brownian_clock_states_to_first_order(eta: float) -> None:
    # For b = ρ^(-2η²) the log ratio of sqrt(b_1 - b_0) and sqrt(b_2 - b_1) is -η² step / 2 exactly. That of the sampler
    # is smaller by the fraction (1 - η²) step / 2. Any other exponent would be off by a constant factor.
    for step in (0.04, 0.02, 0.01):
        sampled, clock = _noise_ratios(DDIM(eta=eta), step)
        assert clock == pytest.approx(-0.5 * eta**2 * step, rel=1e-8)
        assert sampled == pytest.approx(clock, rel=0.5 * step)


def test_the_noise_of_ddim_with_eta_1_has_the_covariance_of_its_clock_for_steps_of_any_length() -> None:
    for step in (0.01, 0.5, 3.0):
        sampled, clock = _noise_ratios(DDIM(eta=1.0), step)
        assert sampled == pytest.approx(clock, rel=1e-9)


@dataclass(frozen=True)
class _Overstated(StepSampler):
    """Euler's method with a wrong declaration: order 2."""

    order: ClassVar[int] = 2

    def step(self, predict: Any, x: Any, tau: float, s: float, noise: Any, memory: Any) -> tuple[Any, Any]:
        return x + (ou.angle(s) - ou.angle(tau)) * predict(x, tau).v, None


def test_a_declared_order_that_is_too_high_is_detected() -> None:
    slope = _fit(_Overstated(grid=UniformAngle()), CLOCK, NARROW)
    assert slope == pytest.approx(1.0, abs=0.1)
    assert slope != pytest.approx(_Overstated().order, abs=0.15)


def test_the_exact_recursion_is_that_of_the_formula_written_in_scalars() -> None:
    taus = UniformAngle().times(CLOCK, 5)
    end, state = run_sampler(EulerMaruyama(5), CLOCK, NARROW, taus), _coefficients(taus)
    mean, std = NARROW.moments(taus[0])
    assert end.mean == pytest.approx(state[0] + state[1] * mean, abs=1e-14)
    assert end.variance == pytest.approx((state[1] * std) ** 2 + np.square(state[2:]).sum(), abs=1e-14)


def _coefficients(taus: list[float]) -> np.ndarray:
    """Euler–Maruyama, written independently in scalars."""
    state = np.array([0.0, 1.0])
    for tau, s in zip(taus, taus[1:]):
        sigma, h = ou.sigma(tau), ou.log_snr(s) - ou.log_snr(tau)
        mean, std = NARROW.moments(tau)
        eps = sigma / std**2 * (state - mean * np.eye(1, len(state))[0])
        state = np.append(state + h * (0.5 * sigma**2 * state - sigma * eps), sigma * math.sqrt(h))
    return state
