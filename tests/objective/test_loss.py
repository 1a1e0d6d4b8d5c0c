"""The loss: closed forms at the exact score, invariance to parameterization, timesteps that keep the expectation."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from subclasses import concrete
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde.analytic import Gaussian
from scoresde.model import Model, ScoreModel
from scoresde.objective.equivalences import Equivalence, canonical, equivalences
from scoresde.objective.loss import Loss
from scoresde.objective.timesteps import (
    DiscreteLossMomentTimesteps,
    DiscreteTimesteps,
    ImportanceTimesteps,
    LogNormalTimesteps,
    StratifiedTimesteps,
    TimestepDraw,
    Timesteps,
    UniformTimesteps,
)
from scoresde.objective.weighting import (
    EDM,
    ELBO,
    P2,
    SNR,
    CustomWeighting,
    DiscreteVLB,
    MinSNR,
    Regression,
    Simple,
    Weighting,
)
from scoresde.process import ou
from scoresde.process.base import Marginal
from scoresde.process.parameterization import X0, Eps, Parameterization, PosteriorMean, Score, V, Velocity
from scoresde.process.prediction import GaussianPrediction, Prediction
from scoresde.process.schedule import Cosine, FromBetas, LinearBetas, LinearVP, LogLinear
from scoresde.process.sde import SDE, VE, VPSDE, Flow, SubVP, posterior_coefficients

D = torch.float64
ARGUMENTS: dict[type, tuple[Any, ...]] = {
    CustomWeighting: (CustomWeighting(lambda m: 0.25 * m.snr),),
    DiscreteVLB: (DiscreteVLB(), DiscreteVLB("beta_tilde")),
}


def _all(base: type) -> list[Any]:
    return [made for cls in concrete(base) for made in ARGUMENTS.get(cls) or (cls(),)]


TIMESTEPS, WEIGHTINGS, PARAMETERIZATIONS = _all(Timesteps), _all(Weighting), _all(Parameterization)


def _wide(value: Scalar) -> Tensor:
    return torch.as_tensor(value, dtype=D)


# --- the exact score -------------------------------------------------------------------------------------------------


def _least_error(sde: SDE, u: Tensor, variance: float) -> Tensor:
    """E‖ε̂ - ε‖² per dimension at the exact score of data of variance v: α²v/(α²v + σ²)."""
    signal = variance * _wide(ou.alpha_bar(sde.schedule.tau(u)))
    return signal / (signal + 1 - signal / variance)


@pytest.mark.parametrize("weighting", [Simple(), ELBO(), MinSNR(), P2(), SNR(0.5), EDM()], ids=repr)
@pytest.mark.parametrize("variance", [0.25, 4.0])
def test_at_the_exact_score_of_gaussian_data_the_loss_has_its_closed_form_at_every_time(weighting, variance):
    sde = VPSDE()
    model = Gaussian(torch.tensor([0.7], dtype=D), variance, sde)
    nodes, masses = (torch.as_tensor(v, dtype=D) for v in np.polynomial.hermite_e.hermegauss(8))  # exact: quadratic
    z, eps = torch.cartesian_prod(nodes, nodes).unbind(1)
    mass = torch.cartesian_prod(masses, masses).prod(1) / (2 * math.pi)
    for u in (0.001, 0.1, 0.5, 1.0):
        draw = TimestepDraw(torch.full_like(z, u))
        each = Loss(weighting).at(model, (0.7 + math.sqrt(variance) * z)[:, None], draw, eps[:, None])
        weight = _wide(weighting(sde.marginal(u)))
        exact = weight * _least_error(sde, torch.tensor(u, dtype=D), variance)
        assert (mass * each).sum().item() == pytest.approx(exact.item(), rel=1e-10)


def test_the_elbo_at_the_exact_score_is_half_the_growth_of_log_one_plus_snr():
    # ½ ∫ v e^ℓ/(1 + v e^ℓ) dℓ = ½ log((1 + v SNR_max)/(1 + v SNR_min)), for each dimension
    sde, variance = VPSDE(LogLinear(9.0, -5.0), tau_min=LogLinear(9.0, -5.0).tau_start), 0.25
    x, w = (torch.as_tensor(v, dtype=D) for v in np.polynomial.legendre.leggauss(60))
    u = 0.5 * (1 + x)
    weight = _wide(ELBO()(sde.marginal(u)))
    integral = (0.5 * w * weight * _least_error(sde, u, variance)).sum().item()
    closed = 0.5 * math.log((1 + variance * math.exp(9.0)) / (1 + variance * math.exp(-5.0)))
    assert integral == pytest.approx(closed, rel=1e-12)
    generator = torch.Generator().manual_seed(11)
    model, n = Gaussian(torch.tensor([1.0, -2.0, 0.5], dtype=D), variance, sde), 50_000
    for timesteps in (UniformTimesteps(), StratifiedTimesteps(), ImportanceTimesteps()):
        each = Loss(ELBO(), timesteps)(model, model.sample(n, generator=generator), generator)
        assert each.shape == (n,)
        assert abs(each.mean().item() - 3 * closed) < 4 * each.std().item() / math.sqrt(n)


@pytest.mark.parametrize("sde", [VPSDE(), VPSDE(Cosine()), VE(), SubVP(), Flow()], ids=repr)
def test_the_mean_loss_at_the_exact_score_matches_quadrature_on_every_process(sde):
    generator, n, variance = torch.Generator().manual_seed(7), 40_000, 4.0
    model = Gaussian(torch.tensor([1.0, -2.0], dtype=D), variance, sde)
    u = sde.u_min + (1 - sde.u_min) * (torch.arange(20_000, dtype=D) + 0.5) / 20_000
    closed = 2 * _least_error(sde, u, variance).mean().item()
    each = Loss()(model, model.sample(n, generator=generator), generator)
    assert abs(each.mean().item() - closed) < 4 * each.std().item() / math.sqrt(n)


def test_no_other_function_has_a_smaller_loss_than_the_exact_score(generator):
    sde = VPSDE()
    x0 = 0.5 * torch.randn(20_000, 1, generator=generator, dtype=D)
    draw, eps = (
        TimestepDraw(torch.rand(20_000, generator=generator, dtype=D)),
        torch.randn(x0.shape, generator=generator, dtype=D),
    )
    least = Loss().at(Gaussian(torch.zeros(1, dtype=D), 0.25, sde), x0, draw, eps).mean()
    for mean, variance in ((0.0, 0.4), (0.0, 0.15), (0.2, 0.25)):
        other = Loss().at(Gaussian(torch.full((1,), mean, dtype=D), variance, sde), x0, draw, eps).mean()
        assert other > least


# --- one function, one loss ------------------------------------------------------------------------------------------


@dataclass(eq=False)
class ClosedForm(Model):
    """A nonlinear function with v in closed form, as a network of any parameterization would output it."""

    sde: SDE
    parameterization: Parameterization

    def __post_init__(self) -> None:
        nn.Module.__init__(self)

    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
        alpha, sigma = (_wide(c).reshape(-1, 1) for c in (ou.alpha(tau), ou.sigma(tau)))
        v = torch.sin(2 * x) * alpha + 0.3 * torch.tanh(x.flip(1) - sigma) - 0.1
        p, q = (_wide(c).reshape(-1, 1) for c in self.parameterization.coefficients(tau))
        out = p * (alpha * x - sigma * v) + q * (alpha * v + sigma * x)
        return GaussianPrediction(x, tau, out, self.parameterization)


def _batch(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x0, eps = torch.randn(2, n, 3, generator=generator, dtype=D)
    return x0, eps


@pytest.mark.parametrize("parameterization", [*PARAMETERIZATIONS, V(0.5)], ids=repr)
@pytest.mark.parametrize("weighting", WEIGHTINGS, ids=repr)
def test_a_functions_loss_does_not_depend_on_its_parameterization(parameterization, weighting):
    sde = VPSDE(LinearBetas())
    k = torch.tensor([2, 10, 300, 700, 999, 1000], dtype=D)
    draw = TimestepDraw(k / 1000, torch.tensor(sde.schedule.knots(1000), dtype=D)[k.long() - 1])
    x0, eps = _batch(6)
    loss = Loss(weighting, DiscreteTimesteps(1000, first=2))
    reference = loss.at(ClosedForm(sde, V()), x0, draw, eps)
    assert torch.allclose(loss.at(ClosedForm(sde, parameterization), x0, draw, eps), reference, rtol=1e-10, atol=0)
    prediction = ClosedForm(sde, V())(sde.perturb(x0, sde.schedule.tau(draw.u), eps), sde.schedule.tau(draw.u))
    weight = _wide(weighting(Marginal(sde.schedule.tau(draw.u), sde.schedule.rate(draw.u), draw.s)))
    assert torch.allclose(reference, weight * (prediction.eps - eps).square().sum(1), rtol=1e-9, atol=0)


@pytest.mark.parametrize("signal", [1e-3, 1e-6])
def test_a_functions_loss_does_not_depend_on_its_parameterization_near_pure_noise(signal):
    sde = VPSDE(FromBetas((0.3, 1 - signal)))
    x0, eps = _batch(5)
    draw = TimestepDraw(torch.ones(5, dtype=D), torch.full((5,), float(sde.schedule.tau(0.5)), dtype=D))
    for weighting in (Simple(), ELBO(), SNR(0.0), DiscreteVLB(), MinSNR(), P2(), Regression(V()), Regression(X0())):
        losses = [
            Loss(weighting, DiscreteTimesteps(2)).at(ClosedForm(sde, p), x0, draw, eps)
            for p in (V(), X0(), Velocity(), PosteriorMean(sde.schedule, 2), V(0.5))
        ]
        for other in losses[1:]:
            assert torch.allclose(other, losses[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sde", [VPSDE(FromBetas((0.1, 0.5, 1.0))), Flow(), VPSDE(Cosine(clip=1.0))], ids=repr)
def test_a_functions_loss_at_pure_noise_is_finite_in_every_parameterization(sde):
    x0, eps = _batch(5)
    before = torch.full((5,), float(sde.schedule.tau(2 / 3)), dtype=D)
    draw = TimestepDraw(torch.ones(5, dtype=D), before)
    error = (ClosedForm(sde, X0())(eps, math.inf).out - x0).square().sum(1)
    closed = {
        SNR(0.0): error,  # regression on the data
        Regression(V()): error,
        Regression(Velocity()): error,
        P2(): torch.zeros(5, dtype=D),
        Simple(): torch.zeros(5, dtype=D),
        DiscreteVLB("beta"): 0.5 * torch.exp(-2 * before) * error,  # the KL of DDPM's last step, β = 1
        DiscreteVLB("beta_tilde"): 0.5 * torch.exp(-2 * before) / -torch.expm1(-2 * before) * error,
    }
    for (weighting, exact), p in itertools.product(
        closed.items(), (V(), X0(), Velocity(), PosteriorMean(sde.schedule, 3), V(0.5))
    ):
        timesteps = DiscreteTimesteps(3, first=2) if isinstance(weighting, DiscreteVLB) else UniformTimesteps()
        got = Loss(weighting, timesteps).at(ClosedForm(sde, p), x0, draw, eps)
        assert torch.allclose(got, exact, rtol=1e-10, atol=1e-30), (weighting, p)


@pytest.mark.parametrize("target", PARAMETERIZATIONS, ids=repr)
def test_regression_on_a_target_is_the_squared_error_of_the_output(target):
    sde = VPSDE(LinearBetas())
    x0, eps = _batch(4)
    u = torch.tensor([0.002, 0.3, 0.7, 1.0], dtype=D)
    tau = sde.schedule.tau(u)
    out = ClosedForm(sde, target)(sde.perturb(x0, tau, eps), tau).out
    plain = (out - target.target(x0, eps, tau)).square().sum(1)
    assert torch.allclose(
        Loss(Regression(target)).at(ClosedForm(sde, target), x0, TimestepDraw(u), eps), plain, rtol=1e-9
    )


@pytest.mark.parametrize("rev_var", ["beta", "beta_tilde"])
def test_ddpms_objectives_on_the_mean_the_data_and_the_noise_are_equal(rev_var):
    sde, k = VPSDE(LinearBetas()), torch.tensor([2, 3, 10, 100, 500, 999, 1000])
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=D)
    bars = torch.cumprod(1 - betas, 0)
    beta, bar, before = betas[k - 1, None], bars[k - 1, None], bars[k - 2, None]
    x0, eps = _batch(len(k))
    x = bar.sqrt() * x0 + (1 - bar).sqrt() * eps
    tau = -0.5 * torch.log(bar[:, 0])
    guess = ClosedForm(sde, V())(x, tau)
    variance = beta if rev_var == "beta" else beta * (1 - before) / (1 - bar)
    on_x0, on_x = before.sqrt() * beta / (1 - bar), (1 - beta).sqrt() * (1 - before) / (1 - bar)
    mean = (x - beta / (1 - bar).sqrt() * guess.eps) / (1 - beta).sqrt()  # equation 11
    on_mean = ((on_x0 * x0 + on_x * x - mean) ** 2 / (2 * variance)).sum(1)
    on_data = (on_x0**2 / (2 * variance) * (x0 - guess.x0) ** 2).sum(1)
    on_noise = (beta**2 / (2 * variance * (1 - beta) * (1 - bar)) * (eps - guess.eps) ** 2).sum(1)
    draw = TimestepDraw(k / 1000, torch.tensor(sde.schedule.knots(1000), dtype=D)[k - 1])
    draw = TimestepDraw(k.to(D) / 1000, draw.s)
    loss = Loss(DiscreteVLB(rev_var), DiscreteTimesteps(1000, first=2))
    ours = [loss.at(ClosedForm(sde, p), x0, draw, eps) for p in (PosteriorMean(), X0(), Eps())]
    for other in (on_data, on_noise, *ours):
        assert torch.allclose(other, on_mean, rtol=1e-10, atol=0)


# --- the views -------------------------------------------------------------------------------------------------------


def _view_scales(sde: SDE, u: Tensor) -> tuple[Tensor, Tensor]:
    """Signal and noise scale in the view's coordinates, as in its paper."""
    if isinstance(sde, VE):
        return torch.ones_like(u), 0.01 * 5000.0**u
    if isinstance(sde, Flow):
        return 1 - u, u
    tau = 0.25 * u**2 * 19.9 + 0.05 * u
    return torch.exp(-tau), 1 - torch.exp(-2 * tau)


@pytest.mark.parametrize("sde", [VE(), SubVP()], ids=repr)
def test_score_matching_in_the_views_own_coordinates_is_our_simple_loss(sde):
    # NCSN and Song's sub-VP: σ̃² ‖s̃(x̃) + ε/σ̃‖², with s̃ the score in x̃ of the same network
    u = torch.tensor([0.05, 0.3, 0.6, 0.9, 1.0], dtype=D)
    x0, eps = _batch(5)
    signal, noise = (c[:, None] for c in _view_scales(sde, u))
    x_view = signal * x0 + noise * eps
    tau, c = sde.schedule.tau(u), torch.sqrt(signal**2 + noise**2)
    score = ClosedForm(sde, Score())(x_view / c, tau).score / c  # dx/dx̃ = 1/c
    native = (noise**2 * (score + eps / noise) ** 2).sum(1)
    for p in (Score(), V()):
        assert torch.allclose(Loss(Simple()).at(ClosedForm(sde, p), x0, TimestepDraw(u), eps), native, rtol=1e-9)


def test_flow_matching_in_its_own_coordinates_is_our_velocity_regression():
    # ‖velocity(x̃, u) - (ε - x0)‖² with x̃ = (1 - u) x0 + u ε
    sde, u = Flow(), torch.tensor([0.05, 0.3, 0.6, 0.9, 0.999], dtype=D)
    x0, eps = _batch(5)
    x_view = (1 - u)[:, None] * x0 + u[:, None] * eps
    tau = sde.schedule.tau(u)
    p = ClosedForm(sde, V())(x_view / torch.hypot(1 - u, u)[:, None], tau)
    native = (p.eps - p.x0 - (eps - x0)).square().sum(1)
    for q in (Velocity(), V(), X0()):
        assert torch.allclose(
            Loss(Regression(Velocity())).at(ClosedForm(sde, q), x0, TimestepDraw(u), eps), native, rtol=1e-9
        )


# --- timesteps -------------------------------------------------------------------------------------------------------


def _mean(timesteps: Timesteps, sde: SDE, function: Callable[[Tensor], Tensor], n: int = 50_000) -> float:
    draw = timesteps.draw((torch.arange(n, dtype=D) + 0.5) / n, sde)  # the midpoint rule
    assert draw.u.shape == (n,)
    assert bool(((draw.u >= 0) & (draw.u <= 1)).all())
    return (draw.correction * function(draw.u)).mean().item()


@pytest.mark.parametrize(
    "sde", [VPSDE(), VPSDE(Cosine()), VE(tau_min=VE().schedule.tau_start), SubVP(), Flow()], ids=repr
)
@pytest.mark.parametrize(
    "timesteps",
    [
        *TIMESTEPS,
        ImportanceTimesteps(Simple(), 0.3, 7),
        LogNormalTimesteps(-1.0, 2.0, 0.3),
        ImportanceTimesteps(P2(gamma=0.25)),
        DiscreteTimesteps(7),
    ],
    ids=repr,
)
def test_no_choice_of_timesteps_changes_the_expectation(timesteps, sde):
    chain = timesteps.chain
    for function in (torch.ones_like, lambda u: u**2, lambda u: torch.cos(9 * u), lambda u: torch.exp(-5 * u)):
        if chain:  # k is uniform in 1 … K
            expected = function(torch.arange(1, chain.steps + 1, dtype=D) / chain.steps).mean().item()
        else:
            x, w = (torch.as_tensor(v, dtype=D) for v in np.polynomial.legendre.leggauss(40))
            expected = (0.5 * w * function(sde.u_min + (1 - sde.u_min) * 0.5 * (1 + x))).sum().item()
        assert _mean(timesteps, sde, function) == pytest.approx(expected, abs=2e-4)


def test_the_knots_of_a_long_chain_give_the_uniform_expectation():
    for function in (lambda u: u**2, lambda u: torch.cos(9 * u)):
        ends = (function(torch.ones(1)) - function(torch.zeros(1))).item()
        gap = _mean(DiscreteTimesteps(1000), VPSDE(), function) - _mean(UniformTimesteps(), VPSDE(), function)
        assert gap == pytest.approx(ends / 2000, abs=3e-4)  # the right end of each step, and u_min


@pytest.mark.parametrize("timesteps", TIMESTEPS, ids=repr)
def test_timesteps_come_from_the_generator_one_per_sample(timesteps):
    before, like = torch.get_rng_state(), torch.empty(64, 2, dtype=torch.float16)
    draws = [
        timesteps.draw(timesteps.uniforms(like, Noise(torch.Generator().manual_seed(3))), VPSDE(LinearBetas()))
        for _ in range(2)
    ]
    assert torch.equal(draws[0].u, draws[1].u)
    assert draws[0].u.shape == (64,)
    assert draws[0].u.dtype == D
    assert torch.equal(torch.get_rng_state(), before)
    for n in (0, 1):
        assert timesteps.draw(torch.rand(n, dtype=D), VPSDE()).u.shape == (n,)


def test_stratified_timesteps_have_less_variance_in_the_batch_mean():
    generator = torch.Generator().manual_seed(1)
    batches = {
        timesteps: torch.stack(
            [timesteps.draw(torch.rand(64, generator=generator, dtype=D), VPSDE()).u.mean() for _ in range(200)]
        )
        for timesteps in (UniformTimesteps(), StratifiedTimesteps())
    }
    assert batches[StratifiedTimesteps()].std() < 0.2 * batches[UniformTimesteps()].std()


def test_discrete_timesteps_are_the_chains_knots_with_the_previous_ones():
    sde = VPSDE(LinearBetas())
    knots = torch.tensor(sde.schedule.knots(1000), dtype=D)
    draw = DiscreteTimesteps(1000).draw((torch.arange(1000, dtype=D) + 0.5) / 1000, sde)
    assert draw.s is not None
    assert torch.allclose(_wide(sde.schedule.tau(draw.u)), knots[1:], rtol=1e-12)
    assert torch.allclose(draw.s, knots[:-1], rtol=1e-12)
    assert draw.s[0].item() == 0.0
    late = DiscreteTimesteps(1000, first=2).draw((torch.arange(999, dtype=D) + 0.5) / 999, sde)
    assert torch.equal(late.u, draw.u[1:])
    before = DiscreteTimesteps(10).draw(torch.zeros(1, dtype=D), VPSDE(LogLinear(), tau_min=1e-5)).s
    assert before is not None
    assert before.item() == 0.0  # the chain starts at the data even if the clock does not


def test_importance_sampling_of_the_elbo_is_uniform_in_log_snr():
    sde = VPSDE()
    u = ImportanceTimesteps(ELBO(), bins=1024).draw((torch.arange(4000, dtype=D) + 0.5) / 4000, sde).u
    log_snrs = _wide(ou.log_snr(_wide(sde.schedule.tau(u))))
    even = torch.linspace(float(ou.log_snr(1e-5)), float(ou.log_snr(sde.tau_max)), 4000, dtype=D)
    assert (log_snrs - even).abs().max().item() < 0.05


@pytest.mark.parametrize("bad", [0, -1, 2.5, True])
def test_a_chain_without_steps_is_refused(bad):
    with pytest.raises(ValueError, match="steps must be a positive integer, got"):
        DiscreteTimesteps(bad)
    with pytest.raises(ValueError, match=r"first must be an integer from 1 to 10, got"):
        DiscreteTimesteps(10, first=bad)


# --- faults ----------------------------------------------------------------------------------------------------------


def _linear(sde: SDE | None = None, parameterization: Parameterization | None = None, **where: Any) -> ScoreModel:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3, **where)

        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            scaled = torch.tanh(0.1 * log_snr).to(x.dtype)
            return self.layer(torch.cat([x, scaled[:, None]], 1))

    return ScoreModel(Net(), VPSDE() if sde is None else sde, parameterization)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda m: -m.sigma, r"finite and not negative, but CustomWeighting\(.*\) is -0.* at tau = .* \(u = "),
        (lambda m: m.sigma * math.nan, r"but CustomWeighting\(.*\) is nan at tau = "),
        (lambda m: torch.where(m.tau > 1, math.inf, m.tau), r"but CustomWeighting\(.*\) is inf at tau = 1.00"),
        (
            lambda m: m.sigma[:, None],
            r"must return one number per time, but CustomWeighting\(.*\) returned \(4096, 1\) for \(4096,\)",
        ),
        (lambda m: 1.0, r"must return one number per time, but CustomWeighting\(.*\) returned float"),
    ],
)
def test_a_weighting_that_is_negative_or_not_finite_is_refused_by_name_and_time(function, text):
    with pytest.raises(ValueError, match=text):
        Loss(CustomWeighting(function))(_linear(), torch.zeros(2, 3))


def test_the_infinite_first_term_of_the_bound_is_refused_with_its_time_and_can_be_left_out():
    model, x0 = _linear(VPSDE(LinearBetas())), torch.zeros(4, 3)
    with pytest.raises(ValueError, match=r"DiscreteVLB\(rev_var='beta_tilde'\) is inf at tau = 5e-05 \(u = 0.001\)"):
        Loss(DiscreteVLB("beta_tilde"), DiscreteTimesteps(1000))(model, x0)
    assert bool(torch.isfinite(Loss(DiscreteVLB("beta_tilde"), DiscreteTimesteps(1000, first=2))(model, x0)).all())
    with pytest.raises(ValueError, match="needs the steps of a chain"):
        Loss(DiscreteVLB())(model, x0)


def test_a_weighting_that_is_not_hashable_is_refused_with_the_remedy():
    @dataclass
    class Loose(Weighting):
        def __call__(self, m: Marginal) -> Scalar:
            return m.sigma

    with pytest.raises(TypeError, match=r"must be hashable, got .*Loose.*; write .* as @dataclass\(frozen=True\)"):
        Loss(Loose())(_linear(), torch.zeros(2, 3))


def test_integer_data_are_refused():
    with pytest.raises(TypeError, match=r"x0 must be a floating tensor, got torch.uint8; scale the data first"):
        Loss()(_linear(), torch.zeros(2, 3, dtype=torch.uint8))


@pytest.mark.parametrize("event", [(), (3,), (2, 3), (1, 2, 3), (1, 2, 2, 3)])
def test_events_of_any_shape_and_empty_batches_have_a_loss(event, generator):
    model = Gaussian(torch.zeros(event, dtype=D), 0.5)
    for n in (0, 1, 5):
        x0 = model.sample(n, generator=generator)
        for timesteps in TIMESTEPS:
            assert Loss(timesteps=timesteps)(model, x0, generator).shape == (n,)
    flat = Gaussian(torch.zeros(math.prod(event), dtype=D), 0.5)
    x0, eps = torch.randn(2, 5, *event, generator=generator, dtype=D)
    draw = TimestepDraw(torch.linspace(0.1, 1, 5, dtype=D))
    assert torch.allclose(
        Loss().at(model, x0, draw, eps), Loss().at(flat, x0.reshape(5, -1), draw, eps.reshape(5, -1)), rtol=1e-13
    )


def test_a_generator_makes_the_loss_repeatable_and_keeps_the_global_random_state():
    model, x0 = _linear(), torch.randn(8, 3)
    before = torch.get_rng_state()
    a, b = (Loss()(model, x0, torch.Generator().manual_seed(4)) for _ in range(2))
    assert torch.equal(a, b)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_network_has_a_loss_in_full_precision_and_gradients(dtype):
    wide, narrow = _linear(), _linear(dtype=dtype)
    narrow.net.load_state_dict(wide.net.state_dict())
    wide.net.load_state_dict({name: value.float() for name, value in narrow.net.state_dict().items()})
    x0 = torch.randn(256, 3, dtype=D)
    losses = [Loss()(m, x0, torch.Generator().manual_seed(1)) for m in (narrow, wide.double())]
    assert losses[0].dtype == D
    assert torch.allclose(losses[0], losses[1], rtol=0.1, atol=0.1)  # only the network rounds
    losses[0].mean().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in narrow.parameters() if p.grad is not None)


def test_the_gradient_of_the_loss_is_that_of_a_hand_written_one():
    model, x0, eps = _linear().double(), *_batch(6)
    u = torch.linspace(0.1, 0.9, 6, dtype=D)
    tau = model.sde.schedule.tau(u)
    alpha, sigma = (_wide(c)[:, None] for c in (ou.alpha(tau), ou.sigma(tau)))
    x = alpha * x0 + sigma * eps
    v = model.net(x, _wide(ou.log_snr(tau)).float())
    hand = (alpha * v + sigma * x - eps).square().sum()
    parameters = list(model.parameters())
    ours = torch.autograd.grad(Loss().at(model, x0, TimestepDraw(u), eps).sum(), parameters)
    for a, b in zip(ours, torch.autograd.grad(hand, parameters), strict=True):
        assert torch.allclose(a, b, rtol=1e-9)


# --- fake and meta devices -------------------------------------------------------------------------------------------


class _Float64(TorchDispatchMode):
    """Records every float64 tensor that an operation makes on a device."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self.device, self.operations = device, []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, (tuple, list)) else [out]:
            if isinstance(value, Tensor) and value.device.type == self.device and value.dtype == D:
                self.operations.append(func)
        return out


def _runs() -> Iterator[tuple[Loss, SDE]]:
    for timesteps, weighting in itertools.product(TIMESTEPS, WEIGHTINGS):
        if isinstance(weighting, DiscreteVLB):
            if timesteps.chain is not None:
                yield Loss(weighting, DiscreteTimesteps(1000, first=2)), VPSDE(LinearBetas())
        else:
            yield Loss(weighting, timesteps), VPSDE(LinearBetas())
    for sde in (VPSDE(LinearVP()), VPSDE(Cosine()), VPSDE(LogLinear(), tau_min=1e-5), VE(), SubVP(), Flow()):
        yield from ((Loss(timesteps=timesteps), sde) for timesteps in TIMESTEPS)


def test_every_loss_runs_on_fake_tensors_without_reading_a_value():
    with FakeTensorMode():
        x0 = torch.randn(4, 3, device="meta")
        for sde, losses in itertools.groupby(_runs(), key=lambda run: run[1]):
            model = _linear(sde, device="meta")
            total = torch.zeros((), device="meta")
            for loss, _ in losses:
                out = loss(model, x0)
                assert out.shape == (4,)
                total = total + out.mean()
            total.backward()
        for parameterization in PARAMETERIZATIONS:
            assert Loss()(_linear(VPSDE(LinearBetas()), parameterization, device="meta"), x0).shape == (4,)


def test_no_float64_tensor_is_made_on_a_device_without_float64(monkeypatch):
    monkeypatch.setattr(
        "scoresde._core.tensors.has_float64", lambda device: device.type != "meta"
    )  # meta stands in for it
    with _Float64("meta") as recorder:
        x0 = torch.randn(4, 3, device="meta")
        for sde, losses in itertools.groupby(_runs(), key=lambda run: run[1]):
            model = _linear(sde, device="meta")
            for loss, _ in losses:
                assert loss(model, x0).dtype == torch.float32
        Loss()(model, x0).mean().backward()
        for parameterization in PARAMETERIZATIONS:
            model = _linear(VPSDE(LinearBetas()), parameterization, device="meta")
            for tau in (0.5, torch.full((4,), 0.5, device="meta"), torch.full((), 0.5, device="meta")):
                p = model(x0, tau)
                assert p.eps.dtype == p.x0.dtype == p.score.dtype == p.v.dtype == torch.float32
        Gaussian(torch.zeros(3), torch.ones(3)).to("meta")(x0, 0.5)
    with FakeTensorMode(), recorder:
        log_prob = VPSDE().prior_log_prob(torch.randn(4, 3, device="meta"))
        assert log_prob.dtype == D
        assert log_prob.device.type == "cpu"  # the device of the sum
    assert recorder.operations == []
    with _Float64("meta") as control:  # the recorder does record one
        torch.zeros(2, device="meta").to(D)
    assert control.operations


# --- a learned variance ----------------------------------------------------------------------------------------------


@dataclass(eq=False)
class ShiftedScore(Model):
    """The exact score of unit normal data plus a shift, with a given mix."""

    mix: Tensor
    shift: Tensor
    sde: SDE

    def __post_init__(self) -> None:
        nn.Module.__init__(self)

    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
        sigma = _wide(ou.sigma(tau)).reshape(-1, 1)
        return GaussianPrediction(x, tau, sigma * x + self.shift, Eps(), self.mix.expand(x.shape))


def test_the_hybrid_loss_adds_the_chains_bound_of_the_reverse_normal_step_by_step():
    sde, (x0, eps) = VPSDE(LinearBetas()), _batch(5)
    k = torch.tensor([2, 3, 50, 700, 1000])
    draw = DiscreteTimesteps(1000).at(k.to(D), sde)
    model = ShiftedScore(torch.tensor(0.3, dtype=D), torch.tensor(0.2, dtype=D), sde)
    loss = Loss(Simple(), DiscreteTimesteps(1000, first=2), hybrid=0.01)
    added = (loss.at(model, x0, draw, eps) - Loss().at(model, x0, draw, eps)) / 0.01 / 999
    # torch's KL of q(x_s | x, x0) from a normal about DDPM's mean, eq. 11, all from DDPM's own betas
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=D)
    bars = torch.cumprod(1 - betas, 0)
    beta, bar, before = betas[k - 1, None], bars[k - 1, None], bars[k - 2, None]
    x = bar.sqrt() * x0 + (1 - bar).sqrt() * eps
    eps_hat = (1 - bar).sqrt() * x + 0.2
    mean = (x - beta / (1 - bar).sqrt() * eps_hat) / (1 - beta).sqrt()
    true = before.sqrt() * beta / (1 - bar) * x0 + (1 - beta).sqrt() * (1 - before) / (1 - bar) * x
    tilde = beta * (1 - before) / (1 - bar)
    std = (0.5 * (0.3 * beta.log() + 0.7 * tilde.log())).exp()
    normal = torch.distributions.Normal
    kl = torch.distributions.kl_divergence(normal(true, tilde.sqrt()), normal(mean, std)).sum(1)
    assert torch.allclose(added, kl, rtol=1e-7)


def test_the_hybrid_bound_trains_the_variance_alone_and_skips_the_first_step():
    sde, (x0, eps) = VPSDE(LinearBetas()), _batch(3)
    mix, shift = (torch.tensor(v, dtype=D, requires_grad=True) for v in (0.3, 0.2))
    model = ShiftedScore(mix, shift, sde)
    for k, trained in ((1.0, False), (2.0, True)):
        draw = DiscreteTimesteps(1000).at(torch.full((3,), k, dtype=D), sde)
        gradients = {}
        for hybrid in (0.0, 0.01):
            total = Loss(Simple(), DiscreteTimesteps(1000), hybrid).at(model, x0, draw, eps).sum()
            gradients[hybrid] = torch.autograd.grad(total, (mix, shift), allow_unused=True, materialize_grads=True)
        assert torch.equal(gradients[0.0][1], gradients[0.01][1])
        assert gradients[0.0][0] == 0
        assert bool(gradients[0.01][0] != 0) == trained


def test_the_hybrid_loss_trains_the_variance_to_the_optimum_between_its_bounds():
    # for exact Gaussian scores the best reverse variance is β̃ + on_x0² Var(x0 | x), in closed form
    sde, variance, k = VPSDE(LinearBetas()), 0.25, 300
    tau, s = (float(sde.schedule.tau(i / 1000)) for i in (k, k - 1))
    exact = Gaussian(torch.zeros(1, dtype=D), variance, sde)
    n = 50_000
    generator = torch.Generator().manual_seed(1)
    x0, eps = exact.sample(n, generator=generator), torch.randn(n, 1, generator=generator, dtype=D)
    draw = DiscreteTimesteps(1000).at(torch.full((n,), float(k), dtype=D), sde)

    class Learned(Model):
        def __init__(self) -> None:
            super().__init__()
            self.sde, self.mix = sde, nn.Parameter(torch.tensor(0.5, dtype=D))

        def predict(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
            prediction = exact.predict(x, tau)
            return GaussianPrediction(x, tau, prediction.eps, Eps(), self.mix.expand(x.shape))

    model = Learned()
    loss = Loss(Simple(), DiscreteTimesteps(1000), hybrid=1.0)
    low, high = 0.0, 1.0
    for _ in range(22):  # the bound is convex in mix: bisect its gradient
        model.mix.data.fill_(0.5 * (low + high))
        (slope,) = torch.autograd.grad(loss.at(model, x0, draw, eps).sum(), model.mix)
        low, high = (low, model.mix.item()) if slope > 0 else (model.mix.item(), high)
    on_x0, _, tilde = posterior_coefficients(tau, s)
    alpha, noise = float(ou.alpha_bar(tau)), float(ou.beta(tau, 0.0))
    posterior_variance = variance * noise / (alpha * variance + noise)  # Var(x0 | x)
    best = float(tilde) + float(on_x0) ** 2 * posterior_variance
    mix = model.mix.item()
    learned = math.exp(mix * math.log(float(ou.beta(tau, s))) + (1 - mix) * math.log(float(tilde)))
    assert abs(learned - best) < 4 * math.sqrt(2 / n) * (best - float(tilde))  # the mean of n squares of a normal
    assert 0 < model.mix.item() < 1


def test_a_learned_variance_needs_a_chain_and_a_model_that_returns_one():
    with pytest.raises(
        ValueError,
        match=r"needs the steps of a chain, got timesteps=UniformTimesteps\(\); draw timesteps by DiscreteTimesteps",
    ):
        Loss(hybrid=0.001)
    with pytest.raises(ValueError, match="hybrid must be finite and not negative, got -1"):
        Loss(timesteps=DiscreteTimesteps(10), hybrid=-1)
    with pytest.raises(ValueError, match=r"got a prediction without mix.*learned_variance=True"):
        Loss(timesteps=DiscreteTimesteps(1000), hybrid=0.001)(_linear(), torch.zeros(2, 3))


# --- one canonical weight, one gradient ------------------------------------------------------------------------------


def _groups() -> list[list[Equivalence]]:
    """Groups of the literature's losses with the same canonical weight."""
    groups: list[tuple[list[float], list[Equivalence]]] = []
    for loss in equivalences():
        weight = loss.canonical()
        values = [float(weight(log_snr)) for log_snr in (-5.0, -2.0, 0.5, 3.0, 6.0)]
        for group_values, members in groups:
            if all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(values, group_values)):
                members.append(loss)
                break
        else:
            groups.append((values, [loss]))
    return [members for _, members in groups if len(members) > 1]


@pytest.mark.parametrize("members", _groups(), ids=lambda members: members[0].name)
def test_losses_with_one_canonical_weight_have_one_gradient(members):
    # the expectation over u by quadrature in log-SNR: each row on its own clock, density and target
    log_snrs = torch.linspace(8.0, -6.0, 30, dtype=D)
    generator = torch.Generator().manual_seed(3)
    x0, eps = torch.randn(2, 30, 3, generator=generator, dtype=D)
    net = _linear().double().net
    gradients = []
    for _, weighting, schedule, parameterization, density in members:
        sde = VPSDE(schedule, tau_min=max(1e-6, 1.01 * schedule.tau_start))
        tau = _wide(ou.tau_from_log_snr(log_snrs))
        u = _wide(schedule.u(tau))
        m = sde.marginal(u)
        per_u = 0.5 / _wide(ELBO()(m))  # du per unit of log-SNR
        p = 1.0 if density is None else _wide(density(m))
        on = CustomWeighting(lambda m, w=weighting, q=parameterization: w(m) * Regression(q)(m))
        model = ScoreModel(net, sde, V())
        each = Loss(on).at(model, x0, TimestepDraw(u, None, per_u * p), eps)
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(each.sum(), list(net.parameters()))]))
    for gradient, loss in zip(gradients[1:], members[1:]):
        assert torch.allclose(gradient, gradients[0], rtol=1e-6, atol=1e-9 * float(gradients[0].abs().max())), loss.name


def test_the_check_of_a_weighting_covers_every_step_of_a_long_chain():
    with pytest.raises(ValueError, match=r"ELBO\(\) is inf at tau = .*\(u = 1\)"):
        Loss(ELBO(), DiscreteTimesteps(5000))(_linear(Flow()), torch.zeros(2, 3))


def test_a_weighting_with_an_unhashable_field_is_refused_with_the_remedy():
    @dataclass(frozen=True)
    class Listed(Weighting):
        values: list[float]

        def __call__(self, m: Marginal) -> Scalar:
            return m.sigma

    with pytest.raises(TypeError, match=r"must be hashable, got .*list.*; write their classes"):
        Loss(Listed([1.0]))(_linear(), torch.zeros(2, 3))


def _tensor_only(value: Scalar) -> Tensor:
    assert isinstance(value, Tensor)
    return value


def test_a_custom_weighting_can_be_a_density_of_timesteps():
    custom = CustomWeighting(lambda m: torch.exp(-_tensor_only(m.tau)))
    model, x0 = _linear(), torch.zeros(64, 3)
    assert bool(torch.isfinite(Loss(Simple(), ImportanceTimesteps(custom))(model, x0)).all())
    assert canonical(custom, model.sde.schedule)(0.0) == pytest.approx(
        float(canonical(custom, model.sde.schedule)(torch.zeros(1))), rel=1e-6
    )


@pytest.mark.parametrize(
    ("whole", "part"), [(DiscreteLossMomentTimesteps, 100), (ImportanceTimesteps, ELBO), (Regression, V)]
)
def test_settings_refuse_parts_of_another_class(whole, part):
    with pytest.raises(TypeError, match="must be a (DiscreteTimesteps|Weighting|Parameterization), got"):
        whole(part)
