"""Samplers of the literature against the formulas of their papers, written independently in scalars.

A state is a vector of fixed length: the coefficients of 1, x_T and the noises, as in `linear_gaussian`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from linear_gaussian import GaussianData, LinearState, fitted_order, rms_error, run_sampler
from scipy.integrate import quad

from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.process.schedule import Cosine, LinearVP
from scoresde.process.sde import VPSDE, Flow
from scoresde.sampling import (
    DDIM,
    DDPM,
    DEIS,
    ERSDE,
    Adams,
    Chain,
    DPMSolver,
    DPMSolverPP,
    Eta,
    ExtendedNoise,
    Heun,
    Interpolation,
    Multistep,
    SASolver,
    SDEDPMSolverPP,
    StepSampler,
    UniformAngle,
    UniPC,
    sample,
)
from scoresde.sampling.multistep import History

State = np.ndarray
DATA = GaussianData(0.7, 0.5)
CLOCK = VPSDE(tau_min=1e-3)
TAUS = [2.6, 1.9, 1.2, 0.8, 0.45, 0.3]  # uneven in every variable
SIZE = 12
ONE, START, *NOISES = np.eye(SIZE)


def alpha(tau: float) -> float:
    return math.exp(-tau)


def sigma(tau: float) -> float:
    return math.sqrt(1.0 - math.exp(-2.0 * tau))


def rho(tau: float) -> float:
    return sigma(tau) / alpha(tau)


def lam(tau: float) -> float:
    return -math.log(rho(tau))


def tau_at(lam: float) -> float:
    return 0.5 * math.log(1.0 + math.exp(-2.0 * lam))


def data_estimate(x: State, tau: float) -> State:
    """E[x_0 | x] of data N(.7, .5²)."""
    gain = alpha(tau) * 0.25 / (alpha(tau) ** 2 * 0.25 + sigma(tau) ** 2)
    return 0.7 * ONE + gain * (x - alpha(tau) * 0.7 * ONE)


def noise_estimate(x: State, tau: float) -> State:
    return (x - alpha(tau) * data_estimate(x, tau)) / sigma(tau)


ESTIMATES = {"x0": data_estimate, "eps": noise_estimate}


def exact(tau: float) -> State:
    """The ODE's solution through x_T at the first time."""
    gain, bias = DATA.ode_map(TAUS[0], tau)
    return bias * ONE + gain * START


def padded(x: Any) -> State:
    return np.pad(x.coefficients, (0, SIZE - len(x.coefficients)))


def noise_source() -> Callable[[], LinearState]:
    noises = iter(NOISES)
    return lambda: LinearState(next(noises))


def ours(sampler: StepSampler, known: int, taus: list[float] = TAUS) -> State:
    """Last state of the sampler, from exact states at the first ``known`` times."""
    x: Any = LinearState(exact(taus[known]))
    memory: Any = None
    if known:
        assert isinstance(sampler, Multistep)
        past = list(reversed(taus[:known]))
        predictions = [DATA.predict(LinearState(exact(tau)), tau) for tau in past]
        first: Any = LinearState(exact(past[0]))
        no_noise = LinearState(0 * ONE) if sampler.stochastic else None
        memory = History(past[0], first, 0.0, no_noise, tuple(past), predictions)
    noise = noise_source()
    for tau, s in zip(taus[known:], taus[known + 1 :]):
        x, memory = sampler.step(DATA.predict, x, tau, s, noise, memory)
    return padded(x)


Formula = Callable[[State, list[float], list[State], float, State], State]
"""``formula(x, at, values, s, z)``: the published step from at[0] to s; times and predictions, the newest first."""


def paper(formula: Formula, prediction: str, known: int, corrector: Formula | None = None) -> State:
    """The published step along the same times, after exact states; a corrector repeats the step before."""
    estimate, taus = ESTIMATES[prediction], TAUS
    at = list(reversed(taus[:known]))
    values = [estimate(exact(tau), tau) for tau in at]
    x, start, z, noises = exact(taus[known]), exact(taus[known - 1]), 0 * ONE, iter(NOISES)
    for tau, s in zip(taus[known:], taus[known + 1 :]):
        new = estimate(x, tau)
        if corrector is not None:
            x = corrector(start, at, [new, *values], tau, z)
        at, values, start, z = [tau, *at], [new, *values], x, next(noises)
        x = formula(x, at, values, s, z)
    return x


def agree(one: State, other: State, tolerance: float = 1e-12) -> None:
    np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


def lagrange(nodes: list[float], j: int, p: float) -> float:
    return math.prod((p - q) / (nodes[j] - q) for i, q in enumerate(nodes) if i != j)


def integral(f: Callable[[float], float], a: float, b: float) -> float:
    return quad(f, a, b, epsabs=1e-14, epsrel=1e-13)[0]


# --- one step ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_is_equation_12_with_the_variance_of_equation_16(eta: float) -> None:
    x, noises = exact(TAUS[0]), iter(NOISES)
    for tau, s in zip(TAUS, TAUS[1:]):
        bar, bar_s = alpha(tau) ** 2, alpha(s) ** 2
        std = eta * math.sqrt((1 - bar_s) / (1 - bar)) * math.sqrt(1 - bar / bar_s)
        eps = noise_estimate(x, tau)
        z = next(noises) if eta else 0 * ONE
        x = math.sqrt(bar_s) * (x - math.sqrt(1 - bar) * eps) / math.sqrt(bar)
        x = x + math.sqrt(1 - bar_s - std**2) * eps + std * z
    agree(ours(DDIM(eta=eta), 0), x)


@pytest.mark.parametrize("sampler", [DDIM(eta=1.0), SDEDPMSolverPP(solver_order=1), SASolver(5, UniformAngle(), 1, 0)])
@pytest.mark.parametrize("taus", [TAUS, [*TAUS, 0.0], [4.9, 1e-3, 1e-5]], ids=["uneven", "to zero", "three times"])
def test_with_full_noise_a_first_order_step_is_that_of_ddpm_with_beta_tilde(
    sampler: StepSampler, taus: list[float]
) -> None:
    one, other = run_sampler(sampler, CLOCK, DATA, taus), run_sampler(DDPM(), CLOCK, DATA, taus)
    assert [one.gain, one.bias, one.variance] == pytest.approx([other.gain, other.bias, other.variance], abs=1e-13)


def _dpm_solver_1(x: State, tau: float, s: float) -> State:
    h = lam(s) - lam(tau)
    return alpha(s) / alpha(tau) * x - sigma(s) * math.expm1(h) * noise_estimate(x, tau)


def _dpm_solver_2(x: State, tau: float, s: float, r: float = 0.5) -> State:
    h = lam(s) - lam(tau)
    middle, eps = tau_at(lam(tau) + r * h), noise_estimate(x, tau)
    u = alpha(middle) / alpha(tau) * x - sigma(middle) * math.expm1(r * h) * eps
    change = noise_estimate(u, middle) - eps
    x = alpha(s) / alpha(tau) * x - sigma(s) * math.expm1(h) * eps
    return x - sigma(s) / (2 * r) * math.expm1(h) * change


def _dpm_solver_3(x: State, tau: float, s: float, r1: float = 1 / 3, r2: float = 2 / 3) -> State:
    h = lam(s) - lam(tau)
    one, two, eps = tau_at(lam(tau) + r1 * h), tau_at(lam(tau) + r2 * h), noise_estimate(x, tau)
    u1 = alpha(one) / alpha(tau) * x - sigma(one) * math.expm1(r1 * h) * eps
    d1 = noise_estimate(u1, one) - eps
    u2 = alpha(two) / alpha(tau) * x - sigma(two) * math.expm1(r2 * h) * eps
    u2 = u2 - sigma(two) * r2 / r1 * (math.expm1(r2 * h) / (r2 * h) - 1) * d1
    d2 = noise_estimate(u2, two) - eps
    x = alpha(s) / alpha(tau) * x - sigma(s) * math.expm1(h) * eps
    return x - sigma(s) / r2 * (math.expm1(h) / h - 1) * d2


def _dpm_solver_pp_2s(x: State, tau: float, s: float, r: float = 0.5) -> State:
    h = lam(s) - lam(tau)
    middle, x0 = tau_at(lam(tau) + r * h), data_estimate(x, tau)
    u = sigma(middle) / sigma(tau) * x - alpha(middle) * math.expm1(-r * h) * x0
    d = (1 - 1 / (2 * r)) * x0 + 1 / (2 * r) * data_estimate(u, middle)
    return sigma(s) / sigma(tau) * x - alpha(s) * math.expm1(-h) * d


@pytest.mark.parametrize(
    ("sampler", "step"),
    [
        (DPMSolver(solver_order=1), _dpm_solver_1),
        (DPMSolver(solver_order=2), _dpm_solver_2),
        (DPMSolver(solver_order=3), _dpm_solver_3),
        (DPMSolver(solver_order=2, prediction="x0"), _dpm_solver_pp_2s),
    ],
    ids=["DPM-Solver-1", "DPM-Solver-2", "DPM-Solver-3", "DPM-Solver++(2S)"],
)
def test_a_singlestep_dpm_solver_is_the_algorithm_of_its_paper(sampler: StepSampler, step: Any) -> None:
    x = exact(TAUS[0])
    for tau, s in zip(TAUS, TAUS[1:]):
        x = step(x, tau, s)
    agree(ours(sampler, 0), x)


def _heun(y: State, sigma_: float, end: float) -> State:
    """Algorithm 1 of EDM from one noise level to the next; its x is our x/α."""

    def slope(y: State, level: float) -> State:
        tau = 0.5 * math.log1p(level**2)
        return (y - data_estimate(alpha(tau) * y, tau)) / level

    first = slope(y, sigma_)
    guess = y + (end - sigma_) * first
    return guess if end == 0 else y + (end - sigma_) * 0.5 * (first + slope(guess, end))


@pytest.mark.parametrize("last", [TAUS[-1], 0.0])
def test_heun_is_algorithm_1_of_edm(last: float) -> None:
    taus = [*TAUS[:-1], last]
    y = exact(taus[0]) / alpha(taus[0])
    for tau, s in zip(taus, taus[1:]):
        y = _heun(y, rho(tau), rho(s))
    agree(ours(Heun(), 0, taus), alpha(last) * y, 1e-8)


@pytest.mark.parametrize(("churn", "scale"), [(0.5, 1.0), (0.9, 1.003), (40.0, 1.0)])
def test_heun_with_churn_is_algorithm_2_of_edm_with_its_noise_interval(churn: float, scale: float) -> None:
    low, high, noises = rho(0.5), rho(2.0), iter(NOISES)
    y = exact(TAUS[0]) / alpha(TAUS[0])
    for tau, s in zip(TAUS, TAUS[1:]):
        level = rho(tau)
        gamma = min(churn / 5, math.sqrt(2) - 1) if low <= level <= high else 0.0
        raised = level * (1 + gamma)
        if gamma:
            y = y + math.sqrt(raised**2 - level**2) * scale * next(noises)
        y = _heun(y, raised, rho(s))
    sampler = Heun(5, churn=churn, low=low, high=high, noise_scale=scale)
    agree(ours(sampler, 0), alpha(TAUS[-1]) * y, 1e-7)


def test_er_sde_1_is_the_step_of_the_paper_with_its_last_noise_function() -> None:
    def phi(level: float) -> float:
        return level * (math.exp(level**0.3) + 10.0)

    x, noises = exact(TAUS[0]), iter(NOISES)
    for tau, s in zip(TAUS, TAUS[1:]):
        ratio = phi(rho(s)) / phi(rho(tau))
        y = ratio * x / alpha(tau) + (1 - ratio) * data_estimate(x, tau)
        x = alpha(s) * (y + math.sqrt(rho(s) ** 2 - rho(tau) ** 2 * ratio**2) * next(noises))
    agree(ours(ERSDE(solver_order=1), 0), x)


# --- several steps ----------------------------------------------------------------------------------------------------


def _two_m(x: State, at: list[float], m: list[State], s: float, _: State) -> State:
    h = lam(s) - lam(at[0])
    r = (lam(at[0]) - lam(at[1])) / h
    d = (1 + 1 / (2 * r)) * m[0] - 1 / (2 * r) * m[1]
    return sigma(s) / sigma(at[0]) * x - alpha(s) * math.expm1(-h) * d


def _three_m(x: State, at: list[float], m: list[State], s: float, _: State, last: float = 1.0) -> State:
    """The published formula (the authors' code and diffusers), with a factor before its last term."""
    h = lam(s) - lam(at[0])
    r0, r1 = (lam(at[0]) - lam(at[1])) / h, (lam(at[1]) - lam(at[2])) / h
    first, second = (m[0] - m[1]) / r0, (m[1] - m[2]) / r1
    d1 = first + r0 / (r0 + r1) * (first - second)
    d2 = (first - second) / (r0 + r1)
    phi1 = math.expm1(-h)
    phi2 = phi1 / h + 1
    phi3 = phi2 / h - 0.5
    x = sigma(s) / sigma(at[0]) * x - alpha(s) * phi1 * m[0]
    return x + alpha(s) * phi2 * d1 - last * alpha(s) * phi3 * d2


def _three_m_whole(x: State, at: list[float], m: list[State], s: float, z: State) -> State:
    return _three_m(x, at, m, s, z, last=2.0)


def _sde_two_m(x: State, at: list[float], m: list[State], s: float, z: State) -> State:
    """The "midpoint" variant of k-diffusion and diffusers."""
    h = lam(s) - lam(at[0])
    gap, before = -math.expm1(-2 * h), lam(at[0]) - lam(at[1])
    x = sigma(s) / sigma(at[0]) * math.exp(-h) * x + alpha(s) * gap * m[0]
    return x + 0.5 * alpha(s) * gap * (h / before) * (m[0] - m[1]) + sigma(s) * math.sqrt(gap) * z


def _tab(n: int) -> Formula:
    """tAB-DEIS: dx/du = -β/2 x + β/(2σ) eps on Song's linear clock, eps a polynomial in u."""

    def rate(u: float) -> float:
        return 0.1 + 19.9 * u

    def time(u: float) -> float:
        return 0.05 * u + 0.25 * 19.9 * u * u

    def clock(tau: float) -> float:
        return (math.sqrt(0.05**2 + 19.9 * tau) - 0.05) * 2 / 19.9

    def step(x: State, at: list[float], m: list[State], s: float, _: State) -> State:
        nodes = [clock(tau) for tau in at[:n]]
        total = alpha(s) / alpha(at[0]) * x
        for j in range(n):

            def integrand(u: float, j: int = j) -> float:
                return alpha(s) / alpha(time(u)) * 0.5 * rate(u) / sigma(time(u)) * lagrange(nodes, j, u)

            total = total + integral(integrand, clock(at[0]), clock(s)) * m[j]
        return total

    return step


def _rho_ab(n: int) -> Formula:
    def step(x: State, at: list[float], m: list[State], s: float, _: State) -> State:
        nodes = [rho(tau) for tau in at[:n]]
        y = x / alpha(at[0])
        for j in range(n):
            y = y + integral(lambda p, j=j: lagrange(nodes, j, p), rho(at[0]), rho(s)) * m[j]
        return alpha(s) * y

    return step


def _er_sde(n: int) -> Formula:
    """d(x/(α φ)) = x0 d(1/φ) plus noise, φ = ρ(e^(ρ^.3) + 10), x0 a polynomial in ρ."""

    def phi(p: float) -> float:
        return p * (math.exp(p**0.3) + 10.0)

    def slope(p: float) -> float:
        return -(math.exp(p**0.3) * (1 + 0.3 * p**0.3) + 10.0) / phi(p) ** 2

    def step(x: State, at: list[float], m: list[State], s: float, z: State) -> State:
        nodes, ratio = [rho(tau) for tau in at[:n]], phi(rho(s)) / phi(rho(at[0]))
        y = ratio * x / alpha(at[0]) + math.sqrt(rho(s) ** 2 - rho(at[0]) ** 2 * ratio**2) * z
        for j in range(n):
            y = y + phi(rho(s)) * integral(lambda p, j=j: slope(p) * lagrange(nodes, j, p), rho(at[0]), rho(s)) * m[j]
        return alpha(s) * y

    return step


@pytest.mark.parametrize(
    ("sampler", "formula", "prediction", "known"),
    [
        pytest.param(DPMSolverPP(), _two_m, "x0", 1, id="DPM-Solver++(2M)"),
        pytest.param(DPMSolverPP(solver_order=3), _three_m_whole, "x0", 2, id="DPM-Solver++(3M), twice its last term"),
        pytest.param(SDEDPMSolverPP(), _sde_two_m, "x0", 1, id="SDE-DPM-Solver++(2M)"),
        *(pytest.param(DEIS(solver_order=n), _tab(n), "eps", n - 1, id=f"tAB-DEIS of {n}") for n in (2, 3, 4)),
        *(
            pytest.param(DEIS(solver_order=n, variable="rho"), _rho_ab(n), "eps", n - 1, id=f"rhoAB-DEIS of {n}")
            for n in (2, 3)
        ),
        *(pytest.param(ERSDE(solver_order=n), _er_sde(n), "x0", n - 1, id=f"ER-SDE-{n}") for n in (2, 3)),
    ],
)
def test_a_multistep_step_is_the_formula_of_its_paper(
    sampler: StepSampler, formula: Formula, prediction: str, known: int
) -> None:
    agree(ours(sampler, known), paper(formula, prediction, known), 1e-10)


def _unipc(p: int, corrector: bool, prediction: str, b2: bool) -> Formula:
    """The linear system R a = b of the paper for B(h) = h or e^h - 1; one half where the paper says so."""

    def step(x: State, at: list[float], m: list[State], s: float, _: State) -> State:
        new, values = (m[0], m[1:]) if corrector else (None, m)
        h = lam(s) - lam(at[0])
        signed = -h if prediction == "x0" else h
        b_of_h = math.expm1(signed) if b2 else signed
        ratios = [(lam(tau) - lam(at[0])) / h for tau in at[1:p]]
        changes = [(value - values[0]) / r for value, r in zip(values[1:p], ratios)]
        if new is not None:
            ratios, changes = [*ratios, 1.0], [*changes, new - values[0]]
        n = len(ratios)
        right, phi, factorial = [], math.expm1(signed) / signed - 1, 1
        for k in range(1, n + 1):
            right.append(phi * factorial / b_of_h)
            factorial *= k + 1
            phi = phi / signed - 1 / factorial
        halves = n == 1 and p == (1 if corrector else 2)
        a = [0.5] if halves else np.linalg.solve(np.vander(ratios, n, increasing=True).T, right) if n else []
        outer, on_x = (alpha(s), sigma(s) / sigma(at[0])) if prediction == "x0" else (sigma(s), alpha(s) / alpha(at[0]))
        x = on_x * x - outer * math.expm1(signed) * values[0]
        return x - outer * b_of_h * sum((w * d for w, d in zip(a, changes)), 0 * ONE)

    return step


@pytest.mark.parametrize("b2", [False, True], ids=["bh1", "bh2"])
@pytest.mark.parametrize("prediction", ["x0", "eps"])
def test_unipc_3_solves_the_equations_of_the_paper_for_every_b_of_h(prediction: str, b2: bool) -> None:
    one = ours(UniPC(prediction=prediction), 3)
    agree(one, paper(_unipc(3, False, prediction, b2), prediction, 3, _unipc(3, True, prediction, b2)), 1e-10)


@pytest.mark.parametrize("p", [1, 2])
def test_b_of_h_matters_only_in_the_one_half_of_unipc_1_and_2(p: int) -> None:
    def gap(b2: bool) -> float:
        published = paper(_unipc(p, False, "x0", b2), "x0", p, _unipc(p, True, "x0", b2))
        return float(abs(ours(UniPC(solver_order=p), p) - published).max())

    assert 1e-6 < gap(True) < gap(False) < 0.02


@pytest.mark.parametrize("prediction", ["x0", "eps"])
@pytest.mark.parametrize("p", [1, 2])
def test_unipc_as_published_has_the_one_half_of_the_paper(p: int, prediction: str) -> None:
    published = paper(_unipc(p, False, prediction, True), prediction, p, _unipc(p, True, prediction, True))
    agree(ours(UniPC(solver_order=p, prediction=prediction, as_published=True), p), published, 1e-10)


def test_unipc_as_published_starts_with_a_step_of_order_1() -> None:
    taus = TAUS[:4]
    x, estimate, zero = exact(taus[0]), ESTIMATES["x0"], 0 * ONE
    first = estimate(x, taus[0])
    guess = _unipc(1, False, "x0", True)(x, [taus[0]], [first], taus[1], zero)
    second = estimate(guess, taus[1])
    corrected = _unipc(1, True, "x0", True)(x, [taus[0]], [second, first], taus[1], zero)
    guess = _unipc(2, False, "x0", True)(corrected, [taus[1], taus[0]], [second, first], taus[2], zero)
    third = estimate(guess, taus[2])
    end = _unipc(2, True, "x0", True)(corrected, [taus[1], taus[0]], [third, second, first], taus[2], zero)
    end = _unipc(2, False, "x0", True)(end, [taus[2], taus[1]], [third, second], taus[3], zero)
    agree(ours(UniPC(solver_order=2, as_published=True), 0, taus), end, 1e-10)
    assert UniPC(solver_order=5, as_published=True).start_calls == 0
    assert UniPC(solver_order=2, as_published=True).start_order == 2


def _sa_solver(n: int, eta: float, corrector: bool) -> Formula:
    """The theorem of the paper with constant τ = eta, each coefficient by quadrature over λ."""

    def step(x: State, at: list[float], m: list[State], s: float, z: State) -> State:
        a, b = lam(at[0]), lam(s)
        nodes = [b, *map(lam, at)][:n] if corrector else [lam(tau) for tau in at[:n]]
        total = sigma(s) / sigma(at[0]) * math.exp(-(eta**2) * (b - a)) * x
        for j in range(n):

            def integrand(p: float, j: int = j) -> float:
                return math.exp(-(eta**2) * (b - p)) * (1 + eta**2) * math.exp(p) * lagrange(nodes, j, p)

            total = total + sigma(s) * integral(integrand, a, b) * m[j]
        return total + sigma(s) * math.sqrt(-math.expm1(-2 * eta**2 * (b - a))) * z

    return step


@pytest.mark.parametrize("eta", [0.1, 0.6, 1.0, 1.4])
@pytest.mark.parametrize("orders", [(1, 0), (2, 0), (3, 0), (1, 1), (2, 2), (3, 3), (2, 3), (3, 4)], ids=str)
def test_sa_solver_is_the_integral_of_the_paper_and_its_corrector_keeps_the_noise_of_the_predictor(
    orders: tuple[int, int], eta: float
) -> None:
    p, c = orders
    known = max(p, c, 2) - 1
    one = ours(SASolver(5, predictor_order=p, corrector_order=c, noise=Eta(eta)), known)
    corrector = _sa_solver(c, eta, corrector=True) if c else None
    agree(one, paper(_sa_solver(p, eta, corrector=False), "x0", known, corrector), 1e-10)


# --- the published third order ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Published(Multistep):
    """DPM-Solver++(3M) with ``last`` times the published last term; from an exact start."""

    last: float = 1.0

    interpolation: ClassVar[Interpolation] = Interpolation("x0", "log_snr")
    predictor: ClassVar[int] = 3

    def step(self, predict: Any, x: Any, tau: Any, s: Any, noise: Any, memory: Any) -> tuple[Any, Any]:
        at, values = memory or ([], [])
        at, values = [tau, *at][:3], [predict(x, tau).x0, *values][:3]
        if len(at) < 3:
            return x, (at, values)
        padded_values = [padded(value) for value in values]
        x = LinearState(_three_m(padded(x), at, padded_values, s, 0 * ONE, self.last))
        return x, (at, values)


def _slope(sampler: StepSampler, exact: int) -> float:
    sde = VPSDE(tau_min=0.2)
    taus = {n: UniformAngle().times(sde, n, 1.0) for n in (128, 256, 512)}
    return fitted_order(lambda n: rms_error(replace(sampler, steps=n), sde, DATA, taus[n], exact), list(taus))


def test_the_published_3m_has_half_of_its_last_term_and_is_of_second_order() -> None:
    assert _slope(_Published(), 2) == pytest.approx(2.0, abs=0.1)
    assert _slope(_Published(last=2.0), 2) == pytest.approx(3.0, abs=0.1)
    assert _slope(DPMSolverPP(solver_order=3), 2) == pytest.approx(3.0, abs=0.1)
    gap = ours(DPMSolverPP(solver_order=3), 2) - paper(_three_m, "x0", 2)
    assert abs(gap).max() > 1e-4


# --- the start --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _WarmedUp(StepSampler):
    """Adams–Bashforth 4 on v that begins with orders 1, 2, 3: the usual start, not ours."""

    order: ClassVar[int] = 4

    def step(self, predict: Any, x: Any, tau: Any, s: Any, noise: Any, memory: Any) -> tuple[Any, Any]:
        at, values = memory or ((), [])
        at, values = (tau, *at)[:4], [predict(x, tau).v, *values][:4]
        _, weights = Interpolation("v", "angle").weights(tau, s, at)
        for weight, value in zip(weights, values):
            x = x + value * weight
        return x, (at, values)


def test_a_warm_up_by_orders_1_2_3_gives_second_order_and_our_start_does_not() -> None:
    assert _slope(_WarmedUp(), 0) == pytest.approx(2.0, abs=0.1)
    assert _slope(_WarmedUp(), 3) == pytest.approx(4.0, abs=0.15)
    assert _slope(Adams(predictor_order=4, corrector_order=0), 0) == pytest.approx(4.0, abs=0.15)


@pytest.mark.parametrize(
    ("sampler", "extra"),
    [
        *((Adams(9, predictor_order=p, corrector_order=0), extra) for p, extra in enumerate((0, 0, 0, 1, 3, 6), 1)),
        (Adams(9), 0),
        (Adams(9, predictor_order=3, corrector_order=4), 1),
        (UniPC(9), 1),
        (UniPC(9, solver_order=2), 0),
        (DEIS(9, solver_order=4), 1),
        (DPMSolverPP(9, solver_order=3), 0),
        (SASolver(9), 0),
        (SASolver(9, predictor_order=4, corrector_order=5), 0),
        (ERSDE(9), 0),
    ],
    ids=str,
)
def test_the_start_costs_nothing_up_to_order_3_one_call_at_4_and_three_at_5(sampler: Multistep, extra: int) -> None:
    assert sampler.start_calls == extra
    model = Gaussian(torch.tensor([0.7, -1.3], dtype=torch.float64), 0.25, CLOCK)
    assert sample(model, 2, sampler, seeds=[1, 2]).nfe == 9 + extra


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adams(predictor_order=0), r"predictor's order must be an integer from 1 to 6, got 0"),
        (lambda: Adams(predictor_order=7), r"predictor's order must be an integer from 1 to 6, got 7"),
        (lambda: Adams(corrector_order=7), r"corrector's order must be an integer from 0 to 6, got 7"),
        (lambda: Adams(corrector_order=-1), r"corrector's order must be an integer from 0 to 6, got -1"),
        (lambda: Adams(predictor_order=True), r"predictor's order must be .* got True"),
        (lambda: Adams(predictor_order=2.0), r"predictor's order must be .* got 2\.0"),  # pyright: ignore
        (lambda: UniPC(solver_order=6), r"corrector's order must be an integer from 0 to 6, got 7"),
        (lambda: DEIS(solver_order=0), r"predictor's order must be .* got 0"),
        (lambda: DPMSolverPP(solver_order=9), r"predictor's order must be .* got 9"),
        (lambda: ERSDE(solver_order=0), r"predictor's order must be .* got 0"),
        (lambda: SASolver(predictor_order=0), r"predictor's order must be .* got 0"),
        (lambda: SDEDPMSolverPP(solver_order=0), r"predictor's order must be .* got 0"),
        (lambda: DPMSolver(solver_order=4), r"orders 1, 2 and 3, got 4; take `Adams`"),
        (
            lambda: DPMSolver(prediction="xo"),
            r"no prediction is named 'xo'; did you mean x0\? Valid: alpha_v, eps, v, x0",
        ),
        (lambda: UniPC(prediction="esp"), r"no prediction is named 'esp'; did you mean eps\?"),
        (lambda: Adams(prediction="V"), r"no prediction is named 'V'; did you mean v\?"),
        (
            lambda: Adams(variable="angel"),
            r"no variable is named 'angel'; did you mean angle\? Valid: angle, artanh_sigma, log_snr, rho, sigma, tau",
        ),
        (lambda: DEIS(variable="rho_"), r"no variable is named 'rho_'; did you mean rho\?"),
        (lambda: Adams(noise=Eta()), r"a noise function goes with prediction='x0', got 'alpha_v'; take 'x0'"),
        (lambda: Interpolation("eps", "rho", ExtendedNoise()), r"goes with prediction='x0', got 'eps'"),
        (lambda: Heun(churn=-1.0), r"Heun needs churn >= 0, .* got Heun\(.*churn=-1\.0"),
        (lambda: Heun(churn=math.nan), r"Heun needs churn >= 0"),
        (lambda: Heun(low=2.0, high=2.0), r"0 <= low < high"),
        (lambda: Heun(noise_scale=0.0), r"noise_scale > 0"),
        (lambda: Eta(-0.1), r"Eta needs eta > 0 and 0 <= low < high, got Eta\(eta=-0\.1"),
        (lambda: Eta(math.inf), r"Eta needs eta > 0"),
        (lambda: Eta(0.0), r"for the ODE pass noise=None"),
        (lambda: Eta(low=1.0, high=0.5), r"0 <= low < high, got Eta\(eta=1\.0, low=1\.0, high=0\.5"),
        (lambda: ExtendedNoise(power=0.0), r"power must be a positive finite number, got 0\.0"),
        (lambda: ExtendedNoise(offset=-1.0), r"offset must be a positive finite number, got -1\.0"),
        (lambda: DDIM(eta=1.5), r"eta must lie in \[0, 1\], got 1\.5; .*SASolver\(noise=Eta"),
        (lambda: UniPC(0), r"steps must be a positive integer, got 0"),
        (lambda: Heun(2.5), r"steps must be a positive integer, got 2\.5"),  # pyright: ignore
    ],
)
def test_an_invalid_setting_is_refused_when_the_sampler_is_made(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    "sampler",
    [
        Adams(5, prediction="x0"),
        Adams(5, prediction="eps", corrector_order=0),
        Adams(5, prediction="v", variable="log_snr"),
        DEIS(5),
        DPMSolver(5),
        DPMSolver(5, prediction="x0"),
        DPMSolverPP(5),
        UniPC(5),
        UniPC(5, prediction="eps"),
        SASolver(5),
        SDEDPMSolverPP(5),
        ERSDE(5),
        Heun(5),
        Heun(5, churn=2.0),
    ],
    ids=repr,
)
def test_a_start_without_signal_is_refused_with_the_remedy(sampler: StepSampler) -> None:
    model = Gaussian(torch.tensor([0.7, -1.3], dtype=torch.float64), 0.25, Flow())
    with pytest.raises(ValueError, match=r"got tau = inf; use .*(clipped clock|start=)"):
        sample(model, 2, sampler, seeds=[1, 2])


@pytest.mark.parametrize("sampler", [Adams(9), Adams(9, predictor_order=5, corrector_order=5), SASolver(9)], ids=repr)
def test_a_start_with_a_trace_of_signal_is_enough(sampler: StepSampler) -> None:
    model = Gaussian(torch.tensor([0.7, -1.3], dtype=torch.float64), 0.25, Flow())
    one = sample(model, 2, replace(sampler, steps=200), seeds=[1, 2], start=12.0).x
    assert (one - torch.tensor([0.7, -1.3])).abs().max() < 4 * 0.5


@pytest.mark.parametrize("sde", [VPSDE(Cosine()), VPSDE(LinearVP(0.1, 30.0))], ids=["cosine", "a longer linear clock"])
def test_deis_in_the_u_of_song_states_the_remedy_on_clocks_that_end_later(sde: VPSDE) -> None:
    model = Gaussian(torch.tensor([0.7, -1.3], dtype=torch.float64), 0.25, sde)
    with pytest.raises(ValueError, match=r"ends at tau = 5.025, got .*variable=model.sde.schedule"):
        sample(model, 2, DEIS(9), seeds=[1, 2])
    assert sample(model, 2, DEIS(9, variable=sde.schedule), seeds=[1, 2]).x.shape == (2, 2)


@pytest.mark.parametrize("settings", [{"variable": 3}, {"prediction": "x0", "noise": 0.5}], ids=str)
def test_a_variable_or_a_noise_function_of_another_type_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=rf"{list(settings)[-1]} must be .* got"):
        Adams(5, **settings)


@pytest.mark.parametrize("sampler", [DEIS(3, Chain(), solver_order=4), DEIS(4, Chain(), solver_order=5)], ids=repr)
def test_a_run_to_zero_shorter_than_its_start_ends_with_one_constant_estimate(sampler: StepSampler) -> None:
    model = GaussianMixture.ring(sde=VPSDE(tau_min=1e-4))
    truth = sample(model, 64, Adams(100), seeds=range(64)).x
    assert float((sample(model, 64, sampler, seeds=range(64)).x - truth).square().mean().sqrt()) < 2
