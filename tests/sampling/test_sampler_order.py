"""Does every fixed-step sampler have the order it declares? On the exact linear-Gaussian law, without a draw."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from linear_gaussian import GaussianData, Law, error, order, walk
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
    pytest.param(s, id=repr(s).replace("steps=", "")) for s in [*(kind() for kind in concrete(StepSampler)), *SETTINGS]
]


def _sampler(param: Any) -> StepSampler:
    return param.values[0]


SAMPLERS = [p for p in EVERY if _sampler(p).order is not None]
STOCHASTIC = [p for p in SAMPLERS if _sampler(p).stochastic]
SETTLED = VPSDE(tau_min=0.2)
START = 1.0
STEPS = {1: [256, 512, 1024], 2: [128, 256, 512], 3: [128, 256, 512], 4: [128, 256, 512]}


def _slope(sampler: StepSampler, data: GaussianData, declared: int, exact: int = 0) -> float:
    """Where nothing is stiff and the grid is even, so that the slope is the method's own."""

    def at(n: int) -> float:
        return error(replace(sampler, steps=n), SETTLED, data, UniformAngle().times(SETTLED, n, START), exact)

    return order(at, [256, 512, 1024] if sampler.stochastic else STEPS.get(declared, [48, 96, 192]))


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("sampler", [p for p in SAMPLERS if not _sampler(p).stochastic])
def test_a_deterministic_sampler_has_its_declared_order_from_an_exact_start(
    sampler: StepSampler, data: GaussianData
) -> None:
    assert sampler.order is not None
    assert _slope(sampler, data, sampler.order, exact=sampler.order - 1) == pytest.approx(sampler.order, abs=0.15)


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_step_sampler_has_its_declared_order_from_its_own_start(sampler: StepSampler, data: GaussianData) -> None:
    assert sampler.start_order is not None
    assert _slope(sampler, data, sampler.start_order) == pytest.approx(sampler.start_order, abs=0.15)


def _fit(sampler: StepSampler, sde: SDE, data: GaussianData) -> float:
    """The slope of the error at the end of the sampler's own grid, down to ``tau_min``."""

    def at(n: int) -> float:
        each = replace(sampler, steps=n)
        taus = each.grid.times(sde, n)
        return error(each, sde, data, taus)

    return order(at, STEPS[sampler.order or 1])


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("sampler", [DDPM(), DDPM(rev_var="beta"), DDIM(), EulerMaruyama()], ids=repr)
def test_the_walks_of_the_three_views_are_of_order_one_where_users_meet_them(
    sampler: StepSampler, data: GaussianData
) -> None:
    assert _fit(sampler, VPSDE(), data) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_the_mean_that_a_stochastic_sampler_ends_with_is_the_data_s(sampler: StepSampler) -> None:
    end = walk(replace(sampler, steps=2048, grid=UniformAngle()), CLOCK, NARROW)
    assert end.mean == pytest.approx(NARROW.law(CLOCK.tau_min)[0], abs=2e-3)


@pytest.mark.parametrize("sampler", [DDPM(7), ExponentialSDE(7)], ids=repr)
def test_samplers_that_draw_from_a_gaussian_s_own_conditional_keep_its_mean_exactly(sampler: StepSampler) -> None:
    end = walk(replace(sampler, grid=UniformAngle()), CLOCK, NARROW)
    assert end.mean == pytest.approx(NARROW.law(CLOCK.tau_min)[0], abs=1e-12)


def test_beta_tilde_is_exact_for_data_at_a_point_and_beta_for_unit_normal_data() -> None:
    taus = [2.0, 0.9, 0.31, 0.05]
    point, unit = GaussianData(0.7, 0.0), GaussianData(0.0, 1.0)
    end = walk(DDPM(3), CLOCK, point, taus)
    assert end.mean == pytest.approx(point.law(0.05)[0], abs=1e-14)
    assert end.variance == pytest.approx(ou.sigma(0.05) ** 2, abs=1e-14)
    assert walk(DDPM(3, rev_var="beta"), CLOCK, unit, taus).variance == pytest.approx(1.0, abs=1e-14)


def test_the_ddpm_step_is_algorithm_2_of_the_paper() -> None:
    beta, previous = 0.03, 0.6  # beta_t and alpha_bar_{t-1}
    alpha_bar = previous * (1 - beta)
    tau, s = -0.5 * math.log(alpha_bar), -0.5 * math.log(previous)
    eps: Any = WIDE.predict(Law(np.array([0.0, 1.0])), tau).eps
    expected = (Law(np.array([0.0, 1.0])) + eps * (-beta / math.sqrt(1 - alpha_bar))) * (1 / math.sqrt(1 - beta))
    end = walk(DDPM(1), CLOCK, WIDE, [tau, s])
    assert [end.bias, end.gain] == pytest.approx(expected.coefficients.tolist(), abs=1e-14)
    _, std = WIDE.law(tau)
    noise = end.variance - (end.gain * std) ** 2
    assert noise == pytest.approx((1 - previous) / (1 - alpha_bar) * beta, rel=1e-12)


def test_ddim_is_the_paper_s_step_from_the_data_estimate_and_the_noise_estimate() -> None:
    tau, s = 1.1, 0.4
    prediction: Any = NARROW.predict(Law(np.array([0.0, 1.0])), tau)
    expected = prediction.x0 * ou.alpha(s) + prediction.eps * ou.sigma(s)
    end = walk(DDIM(1), CLOCK, NARROW, [tau, s])
    assert [end.bias, end.gain] == pytest.approx(expected.coefficients.tolist(), abs=1e-15)


@pytest.mark.parametrize("parameterization", [X0(), Eps(), Score(), V(), V(0.5), Velocity()], ids=repr)
@pytest.mark.parametrize("sampler", [*SAMPLERS])
def test_what_the_network_outputs_does_not_change_the_walk(
    sampler: StepSampler, parameterization: Parameterization
) -> None:
    sampler = replace(sampler, steps=6)
    one = walk(sampler, CLOCK, WIDE)
    other = walk(sampler, CLOCK, GaussianData(WIDE.mean, WIDE.std, parameterization))
    assert [other.gain, other.bias, other.variance] == pytest.approx([one.gain, one.bias, one.variance], rel=1e-9)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_one_step_works(sampler: StepSampler) -> None:
    end = walk(replace(sampler, steps=1), VPSDE(LinearBetas()), NARROW)
    assert math.isfinite(end.gain + end.bias + end.variance)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_noise_is_drawn_in_every_step_that_ends_above_zero_and_in_no_other(sampler: StepSampler) -> None:
    assert walk(sampler, CLOCK, NARROW, [2.0, 1.0, 0.5, 0.1]).draws == (3 if sampler.stochastic else 0)
    if sampler.stochastic:
        assert walk(sampler, CLOCK, NARROW, [2.0, 1.0, 0.5, 0.0]).draws == 2


@pytest.mark.parametrize("sampler", STOCHASTIC)
def test_a_stochastic_sampler_s_step_to_zero_is_the_data_estimate(sampler: StepSampler) -> None:
    prediction: Any = NARROW.predict(Law(np.array([0.0, 1.0])), 0.02)
    end = walk(sampler, CLOCK, NARROW, [0.02, 0.0])
    assert [end.bias, end.gain] == pytest.approx(prediction.x0.coefficients.tolist(), abs=1e-13)


@dataclass(frozen=True)
class _Half(StepSampler):
    """Someone's new sampler, which claims an order that it does not have."""

    @property
    def order(self) -> int:
        return 2

    def step(self, predict: Any, x: Any, tau: float, s: float, noise: Any, memory: Any) -> tuple[Any, Any]:
        return x + (ou.angle(s) - ou.angle(tau)) * predict(x, tau).v, None


def test_a_class_that_claims_too_high_an_order_is_found_out() -> None:
    slope = _fit(_Half(grid=UniformAngle()), CLOCK, NARROW)
    assert slope == pytest.approx(1.0, abs=0.1)
    assert slope != pytest.approx(_Half().order, abs=0.15)


def test_the_exact_law_is_that_of_the_recursion_written_in_scalars() -> None:
    taus = UniformAngle().times(CLOCK, 5)
    end, state = walk(EulerMaruyama(5), CLOCK, NARROW, taus), _coefficients(taus)
    mean, std = NARROW.law(taus[0])
    assert end.mean == pytest.approx(state[0] + state[1] * mean, abs=1e-14)
    assert end.variance == pytest.approx((state[1] * std) ** 2 + np.square(state[2:]).sum(), abs=1e-14)


def _coefficients(taus: list[float]) -> np.ndarray:
    """Euler–Maruyama written once more, in scalars."""
    state = np.array([0.0, 1.0])
    for tau, s in zip(taus, taus[1:]):
        sigma, h = ou.sigma(tau), ou.log_snr(s) - ou.log_snr(tau)
        mean, std = NARROW.law(tau)
        eps = sigma / std**2 * (state - mean * np.eye(1, len(state))[0])
        state = np.append(state + h * (0.5 * sigma**2 * state - sigma * eps), sigma * math.sqrt(h))
    return state
