"""Posterior methods: exact where they say so, their limits, and the contract of a model."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from subclasses import concrete
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.guidance.observation import Observation
from scoresde.guidance.operators import (
    AveragePool,
    Blur,
    FourierMask,
    Function,
    Mask,
    Matrix,
    Operator,
    ParallelBeam,
)
from scoresde.guidance.posterior import DDNM, DDRM, DPS, MMPS, TMPD, JacobianFree, PiGDM, Posterior, PosteriorMethod
from scoresde.model import Model, ScoreModel
from scoresde.nn import MLP, Classes
from scoresde.process import ou
from scoresde.process.parameterization import Eps, V
from scoresde.process.sde import SDE, VPSDE, Flow
from scoresde.sampling import DDPM, Adams, Heun, sample

METHODS: list[Any] = concrete(PosteriorMethod)
TIMES: list[Any] = [1e-4, 0.05, 0.7, 3.0, torch.tensor([0.02, 0.4, 1.1, 3.0])]


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(size: int, seed: int = 3) -> Tensor:
    factor = draw(size, size, seed=seed)
    return factor @ factor.mT / size + 0.05 * torch.eye(size).double()


def gaussian(*shape: int, sde: SDE | None = None) -> Gaussian:
    size = math.prod(shape)
    return Gaussian(draw(*shape, seed=1), covariance(size), sde)


def error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def as_any(value: Any) -> Any:
    return value


def network_model(size: int = 3, **settings: Any) -> ScoreModel:
    return ScoreModel(MLP((size,), width=16, depth=1), VPSDE(), V(), (size,), **settings)


# --- exact cases ------------------------------------------------------------------------------------------------------

OPERATORS: dict[str, Any] = {
    "mask": lambda: Mask(draw(1, 4, 4) > 0),
    "matrix": lambda: Matrix(draw(5, 16), (1, 4, 4)),
    "tall matrix": lambda: Matrix(draw(20, 16), (1, 4, 4)),
    "pool": lambda: AveragePool((1, 4, 4), 2),
    "blur": lambda: Blur(
        torch.tensor([[0.5, 1.0, 0.5]]).double().mT @ torch.tensor([[0.5, 1.0, 0.3]]).double() / 3, (1, 4, 4)
    ),
    "Fourier mask": lambda: FourierMask(draw(4, 4) > 0.5, (1, 4, 4)),
    "projection": lambda: ParallelBeam([0.0, 0.7], (1, 4, 4)),
}


@pytest.mark.parametrize("tau", TIMES, ids=str)
@pytest.mark.parametrize("name", OPERATORS)
def test_mmps_is_exact_for_gaussian_data_and_any_linear_operator(name: str, tau: Any) -> None:
    operator: Operator = OPERATORS[name]()
    prior, y = gaussian(1, 4, 4), operator(draw(1, 1, 4, 4, seed=4))[0]
    observation = Observation(operator, y, noise_std=0.3)
    exact, _ = prior.given(observation)
    x = draw(4, 1, 4, 4, seed=5)
    steered = Posterior(prior, observation, MMPS(iterations=20))
    assert error(steered(x, tau).score, exact(x, tau).score) < 1e-6


@pytest.mark.parametrize("tau", TIMES, ids=str)
def test_mmps_is_exact_with_correlated_noise(tau: Any) -> None:
    prior = gaussian(6)
    observation = Observation(Matrix(draw(3, 6)), draw(3, seed=4), noise_cov=0.1 * covariance(3, seed=6))
    x = draw(4, 6, seed=5)
    assert error(Posterior(prior, observation)(x, tau).score, prior.given(observation)[0](x, tau).score) < 1e-6


@pytest.mark.parametrize("tau", TIMES, ids=str)
@pytest.mark.parametrize("method", [MMPS(), PiGDM(), JacobianFree(), DPS()], ids=str)
def test_correlated_noise_of_entries_that_a_mask_leaves_out_does_not_count(method: Any, tau: Any) -> None:
    prior, noise_cov, observed = Gaussian(draw(4), 1.0), covariance(4, seed=6), torch.tensor([True, False, True, True])
    y, x = draw(4, seed=4), draw(4, 4, seed=5)
    masked = Posterior(prior, Observation(Mask(observed), y, noise_cov=noise_cov), method)
    rows, cov = torch.eye(4).double()[observed], noise_cov[observed][:, observed]
    plain = Posterior(prior, Observation(Matrix(rows), y[observed], noise_cov=cov), method)
    torch.testing.assert_close(masked(x, tau).x0, plain(x, tau).x0, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("tau", TIMES, ids=str)
@pytest.mark.parametrize("kind", [PiGDM, JacobianFree])
@pytest.mark.parametrize("variance", [1.0, 0.3])
def test_methods_with_a_scalar_variance_are_exact_for_isotropic_data(kind: Any, variance: float, tau: Any) -> None:
    prior = Gaussian(draw(6), variance)
    observation = Observation(Matrix(draw(3, 6)), draw(3, seed=4), noise_cov=0.1 * covariance(3, seed=6))
    x, exact = draw(4, 6, seed=5), prior.given(observation)[0]
    assert error(Posterior(prior, observation, kind(variance))(x, tau).score, exact(x, tau).score) < 1e-6


@pytest.mark.parametrize("tau", TIMES, ids=str)
def test_tmpd_is_exact_for_independent_elements_seen_through_a_mask(tau: Any) -> None:
    prior = Gaussian(draw(4), torch.tensor([0.1, 0.5, 1.0, 3.0]).double())
    observation = Observation(Mask(torch.tensor([True, False, True, True])), draw(4, seed=4), noise_std=draw(4).abs())
    x, exact = draw(4, 4, seed=5), prior.given(observation)[0]
    assert error(Posterior(prior, observation, TMPD())(x, tau).score, exact(x, tau).score) < 1e-9


def test_the_noise_weight_of_dps_becomes_exact_as_the_noise_grows() -> None:
    prior, x, errors = gaussian(6), draw(4, 6, seed=5), []
    for std in (10.0, 100.0):
        observation = Observation(Matrix(draw(3, 6)), draw(3, seed=4), noise_std=std)
        shift = Posterior(prior, observation, DPS())(x, 0.7).x0 - prior(x, 0.7).x0
        errors.append(error(shift, prior.given(observation)[0](x, 0.7).x0 - prior(x, 0.7).x0))
    assert errors[0] < 0.1
    assert errors[1] == pytest.approx(errors[0] / 100, rel=0.1)  # of order 1 / noise variance


def test_dps_as_published_is_the_published_step(generator: torch.Generator) -> None:
    prior, steps, zeta = gaussian(6), 10, 0.7
    matrix, y = draw(3, 6), draw(3, seed=4)
    steered = Posterior(prior, Observation(Matrix(matrix), y, noise_std=0.1), DPS(zeta, steps))
    sampler = DDPM(steps)
    taus = sampler.grid.times(prior.sde, steps, prior.sde.tau_max)
    x, z = draw(4, 6, seed=5), draw(4, 6, seed=7)
    for k in (0, 4, 8):
        state = x.clone().requires_grad_()
        norm = (y - prior(state, taus[k]).x0 @ matrix.mT).norm(dim=1)
        (gradient,) = torch.autograd.grad(norm.sum(), state)
        plain, _ = sampler.step(prior, x, taus[k], taus[k + 1], lambda: z, None)
        found, _ = sampler.step(steered, x, taus[k], taus[k + 1], lambda: z, None)
        torch.testing.assert_close(found, plain - zeta * gradient, rtol=1e-9, atol=1e-9)


# --- samples ---------------------------------------------------------------------------------------------------------


def two_of_six() -> tuple[Gaussian, Observation]:
    prior = gaussian(6, sde=VPSDE(tau_min=1e-4))
    return prior, Observation(Matrix(draw(2, 6)), draw(2, seed=4), noise_std=0.3)


@pytest.mark.parametrize("sampler", [Heun(50), Adams(50), DDPM(50)], ids=lambda sampler: type(sampler).__name__)
def test_samples_of_the_default_are_those_of_the_exact_conditional_model(sampler: Any) -> None:
    prior, observation = two_of_six()
    found = sample(Posterior(prior, observation), 50, sampler, seeds=range(50)).x
    exact = sample(prior.given(observation)[0], 50, sampler, seeds=range(50)).x
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("kind", "order"), [(Heun, 2), (Adams, 3)])
def test_samples_of_the_default_depend_on_the_steps_by_the_order_of_the_sampler(kind: Any, order: int) -> None:
    prior, observation = two_of_six()
    model, init = Posterior(prior, observation), draw(50, 6, seed=8)
    ends = {n: sample(model, 50, kind(n), init=init).x for n in (50, 100, 200, 800)}
    errors = [float((ends[n] - ends[800]).square().mean().sqrt()) for n in (50, 100, 200)]
    assert errors[0] < 0.01
    assert min(errors[0] / errors[1], errors[1] / errors[2]) > 0.9 * 2**order


def test_the_target_of_dps_as_published_depends_on_the_steps_and_that_of_the_default_does_not() -> None:
    prior, observation = two_of_six()

    def mean_measurement(method: PosteriorMethod, steps: int) -> float:
        samples = sample(Posterior(prior, observation, method), 500, DDPM(steps), seeds=range(500))
        return float(observation.operator(samples.x)[:, 0].mean())

    exact = float(observation.operator(prior.given(observation)[0].means)[0, 0])
    assert [mean_measurement(MMPS(), steps) for steps in (50, 200)] == pytest.approx([exact] * 2, abs=0.05)
    assert mean_measurement(DPS(0.03, 200), 200) < mean_measurement(DPS(0.03, 50), 50) - 0.5


# --- limits -----------------------------------------------------------------------------------------------------------


def exact_methods() -> list[PosteriorMethod]:
    return [kind() for kind in METHODS]


@pytest.mark.parametrize("method", [m for m in exact_methods() if not isinstance(m, DDNM)], ids=str)
@pytest.mark.parametrize("tau", TIMES, ids=str)
def test_infinite_noise_leaves_the_model_unchanged(method: PosteriorMethod, tau: Any) -> None:
    prior = gaussian(6)
    steered = Posterior(prior, Observation(Matrix(draw(3, 6)), draw(3, seed=4), noise_std=1e6), method)
    x = draw(4, 6, seed=5)
    assert error(steered(x, tau).x0, prior(x, tau).x0) < 1e-9


@pytest.mark.parametrize("method", [*exact_methods(), DPS(1.0)], ids=str)
def test_an_empty_mask_leaves_the_model_unchanged(method: PosteriorMethod) -> None:
    prior, x = gaussian(6), draw(4, 6, seed=5)
    observation = Observation(Mask(torch.zeros(6, dtype=torch.bool)), torch.full((6,), math.nan), noise_std=0.5)
    for tau in TIMES:
        assert torch.equal(Posterior(prior, observation, method)(x, tau).x0, prior(x, tau).x0)


@pytest.mark.parametrize(
    "method", [MMPS(6), PiGDM(), JacobianFree(), DDNM(), DDRM(), TMPD()], ids=lambda m: type(m).__name__
)
@pytest.mark.parametrize("tau", TIMES, ids=str)
def test_a_full_measurement_without_noise_is_the_data_estimate(method: PosteriorMethod, tau: Any) -> None:
    isotropic = isinstance(method, (PiGDM, TMPD))  # exact there; MMPS and the projections for any data
    prior = Gaussian(draw(6), 1.0) if isotropic else gaussian(6)
    y = draw(6, seed=4)
    steered = Posterior(prior, Observation(Mask(torch.ones(6, dtype=torch.bool)), y, noise_std=0.0), method)
    torch.testing.assert_close(steered(draw(4, 6, seed=5), tau).x0, y.expand(4, 6), rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("method", [MMPS(3), JacobianFree(), DDNM(), DDRM()], ids=lambda m: type(m).__name__)
def test_without_noise_the_data_estimate_reproduces_the_measurement(method: PosteriorMethod) -> None:
    prior, matrix, y = gaussian(6), draw(3, 6), draw(3, seed=4)
    steered = Posterior(prior, Observation(Matrix(matrix), y, noise_std=0.0), method)
    for tau in TIMES:
        estimate = steered(draw(4, 6, seed=5), tau).x0
        torch.testing.assert_close(estimate @ matrix.mT, y.expand(4, 3), rtol=1e-6, atol=1e-6)


def test_ddrm_follows_a_component_until_the_noise_exceeds_that_of_the_state() -> None:
    prior, y = gaussian(3), draw(3, seed=4)
    scales = torch.tensor([2.0, 1.0, 0.1]).double()
    steered = Posterior(prior, Observation(Matrix(torch.diag(scales)), scales * y, noise_std=0.5), DDRM(0.8))
    x, tau = draw(2, 3, seed=5), ou.tau_from_log_snr(-2 * math.log(0.4))  # sigma / alpha = .4; noise .25, .5, 5
    plain, found = prior(x, tau).x0, steered(x, tau).x0
    torch.testing.assert_close(found[:, 0], plain[:, 0] + 0.8 * (y[0] - plain[:, 0]))
    assert torch.equal(found[:, 1:], plain[:, 1:])


@pytest.mark.parametrize("noise_std", [0.0, 1e-3, 0.3])
def test_float32_agrees_with_float64_near_the_data(noise_std: float) -> None:
    single = Gaussian(draw(6).float(), covariance(6).float())
    double = Gaussian(draw(6), covariance(6))
    x, y, matrix = draw(8, 6, seed=5), draw(3, seed=4), draw(3, 6)
    for tau in (1e-6, 1e-4, 1e-2, 1.0, 5.0):
        found = Posterior(single, Observation(Matrix(matrix.float()), y.float(), noise_std))(x.float(), tau).x0
        exact = Posterior(double, Observation(Matrix(matrix), y, noise_std))(x, tau).x0
        assert error(found.double(), exact) < 2e-3, tau


# --- the contract of a model ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*exact_methods(), DPS(1.0), MMPS(1)], ids=str)
def test_a_sample_does_not_depend_on_its_batch(method: PosteriorMethod) -> None:
    model = GaussianMixture(torch.ones(3), draw(3, 4), torch.full((3,), 0.1))
    observation = Observation(Matrix(draw(2, 4), (4,)), draw(5, 2, seed=4), noise_std=0.2)
    steered, x, index = Posterior(model, observation, method), draw(6, 4, seed=5), torch.tensor([0, 4, 4, 2, 1, 3])
    whole = steered(x, 0.3, observation=index).x0
    torch.testing.assert_close(steered(x[2:3], 0.3, observation=index[2:3]).x0, whole[2:3], rtol=1e-10, atol=1e-12)
    alone = Posterior(model, Observation(Matrix(draw(2, 4), (4,)), draw(5, 2, seed=4)[2], noise_std=0.2), method)
    torch.testing.assert_close(alone(x, 0.3).x0[3], whole[3], rtol=1e-10, atol=1e-12)


def test_a_mask_per_observation_is_applied_to_its_samples() -> None:
    observed = draw(3, 4) > 0
    prior, y, x = gaussian(4), draw(3, 4, seed=4), draw(5, 4, seed=5)
    steered = Posterior(prior, Observation(Mask(observed, per_observation=True), y, noise_std=0.2), MMPS(4))
    index = torch.tensor([2, 0, 1, 1, 0])
    found = steered(x, 0.3, observation=index).score
    for row, i in enumerate(index.tolist()):
        exact, _ = prior.given(Observation(Mask(observed[i]), y[i], noise_std=0.2))
        assert error(found[row], exact(x, 0.3).score[row]) < 1e-9


def test_a_changed_index_is_noticed() -> None:
    prior, x = gaussian(4), draw(2, 4, seed=5)
    steered = Posterior(prior, Observation(Matrix(draw(2, 4)), draw(3, 2, seed=4), noise_std=0.2))
    index = torch.tensor([0, 1])
    first = steered(x, 0.3, observation=index).x0
    index[0] = 2
    second = steered(x, 0.3, observation=index).x0
    assert torch.equal(second[1], first[1])
    assert not torch.equal(second[0], first[0])
    steered.observation = Observation(Matrix(draw(2, 4)), draw(3, 2, seed=9), noise_std=0.2)
    assert not torch.equal(steered(x, 0.3, observation=index).x0[1], first[1])
    with torch.inference_mode():
        made_here = torch.tensor([2, 1])
        assert torch.equal(steered(x, 0.3, observation=made_here).x0, steered(x, 0.3, observation=index).x0)


def test_sample_takes_the_index_of_the_observations() -> None:
    prior = Gaussian(torch.zeros(2).double(), torch.tensor([[1.0, 0.9], [0.9, 1.0]]).double())
    y = torch.tensor([[-1.0, 0.0], [2.0, 0.0]]).double()
    steered = Posterior(prior, Observation(Mask(torch.tensor([True, False])), y, noise_std=0.1))
    index = torch.arange(2).repeat_interleave(400)
    samples = sample(steered, 800, Adams(10), seeds=range(800), observation=index, batch_size=300)
    for i in range(2):
        exact = prior.given(Observation(Mask(torch.tensor([True, False])), y[i], noise_std=0.1))[0]
        drawn = samples.x[index == i]
        standard_error = exact.sample(2000, generator=torch.Generator().manual_seed(0)).std(0) / 20
        assert bool(((drawn.mean(0) - exact.means[0]).abs() < 4 * standard_error).all())
    three = Observation(Matrix(draw(2, 3)), draw(3, 2), noise_std=0.1)
    with pytest.raises(ValueError, match="3 observations need an index"):
        sample(Posterior(network_model(), three), 3, Adams(2))
    with pytest.raises(TypeError, match="reads no condition 'observed_rows'"):
        sample(Posterior(network_model(), three), 2, Adams(2), observed_rows=index[:2])


class _Calls(nn.Module):
    """Counts its calls and the backward passes through it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.3, 0.5, 0.7]))
        self.forwards, self.backwards = 0, 0

    def _count(self, gradient: Tensor) -> None:
        self.backwards += 1

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        self.forwards += 1
        out = x * self.weight
        if out.requires_grad and torch.is_grad_enabled() and x.requires_grad:
            out.register_hook(self._count)
        return out


@pytest.mark.parametrize("method", [*exact_methods(), DPS(0.01), MMPS(2), MMPS(1)], ids=str)
def test_the_cost_is_one_and_one_per_jacobian_product(method: PosteriorMethod) -> None:
    model = ScoreModel(_Calls(), VPSDE(), V(), (3,))
    steered = Posterior(model, Observation(Matrix(draw(2, 3).float()), draw(2).float(), noise_std=9.0), method)
    samples = sample(steered, 4, Heun(5))
    assert isinstance(model.net, _Calls)
    assert samples.nfe == 10 * steered.cost
    checks = 1 if method.needs_jacobian else 0  # that the network is differentiable, once
    assert model.net.forwards + model.net.backwards == samples.nfe + checks
    assert model.net.forwards == 10


@pytest.mark.parametrize("method", [*exact_methods(), DPS(1.0)], ids=str)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_sampling_reads_no_tensor_values(method: PosteriorMethod, device: str) -> None:
    with FakeTensorMode(), torch.device(device):
        model = ScoreModel(MLP((3,), width=8, depth=1), VPSDE(), V(), (3,))
        observed = torch.ones(2, 3, dtype=torch.bool)
        observation = Observation(Mask(observed, per_observation=True), torch.zeros(2, 3), noise_std=0.1)
        index = torch.zeros(4, dtype=torch.long)
        samples = sample(Posterior(model, observation, method), 4, Heun(3), device=device, observation=index)
    assert samples.x.shape == (4, 3)


@pytest.mark.parametrize("method", [*exact_methods(), DPS(1.0)], ids=str)
def test_an_empty_batch_works(method: PosteriorMethod) -> None:
    steered = Posterior(gaussian(3), Observation(Matrix(draw(2, 3)), draw(2), noise_std=0.3), method)
    assert steered(draw(0, 3), 0.5).x0.shape == (0, 3)


@pytest.mark.parametrize("method", [MMPS(), PiGDM()], ids=str)
def test_all_grad_modes_give_the_same_value(method: PosteriorMethod) -> None:
    model = network_model()
    steered = Posterior(model, Observation(Matrix(draw(2, 3).float()), draw(2).float(), noise_std=0.3), method)
    x = draw(4, 3, seed=5).float()
    plain = steered(x, 0.5).x0
    assert not plain.requires_grad
    with torch.no_grad():
        assert torch.equal(steered(x, 0.5).x0, plain)
    with torch.inference_mode():
        assert torch.equal(steered(x.clone(), 0.5).x0, plain)


def test_a_gradient_in_x_reaches_through_the_method() -> None:
    prior = gaussian(3)
    observation = Observation(Matrix(draw(2, 3)), draw(2), noise_std=0.3)
    x = draw(4, 3, seed=5).requires_grad_()
    (found,) = torch.autograd.grad(Posterior(prior, observation)(x, 0.5).x0.square().sum(), x)
    (exact,) = torch.autograd.grad(prior.given(observation)[0](x, 0.5).x0.square().sum(), x)
    torch.testing.assert_close(found, exact, rtol=1e-8, atol=1e-10)


def test_a_learned_variance_and_conditions_are_passed_on() -> None:
    net = MLP((3,), width=8, depth=1, outputs=2, conditions={"label": Classes(4)})
    model = ScoreModel(net, VPSDE(), Eps(), (3,), learned_variance=True)
    steered = Posterior(model, Observation(Matrix(draw(2, 3).float()), draw(2).float(), noise_std=0.3))
    x, label = draw(4, 3, seed=5).float(), torch.arange(4)
    torch.testing.assert_close(steered(x, 0.5, label=label).mix, model(x, 0.5, label=label).mix)
    assert sample(steered, 4, DDPM(3, rev_var="learned"), label=label).x.shape == (4, 3)


def test_the_end_of_a_clock_without_signal_is_the_limit() -> None:
    prior = gaussian(4, sde=Flow())
    observation = Observation(Matrix(draw(2, 4)), draw(2, seed=4), noise_std=0.2)
    x, exact = draw(3, 4, seed=5), prior.given(observation)[0]
    assert error(Posterior(prior, observation)(x, prior.sde.tau_max).v, exact(x, prior.sde.tau_max).v) < 1e-4


def test_a_nonlinear_operator_is_linearized_at_the_data_estimate() -> None:
    prior, matrix, x = gaussian(4), draw(2, 4), draw(3, 4, seed=5)
    linear = Observation(Matrix(matrix), draw(2, seed=4), noise_std=0.2)
    function = Observation(Function(lambda v: v @ matrix.mT, (4,), (2,)), draw(2, seed=4), noise_std=0.2)
    for method in (MMPS(), PiGDM(), JacobianFree(), TMPD(), DPS(), DPS(1.0)):
        expected = Posterior(prior, linear, method)(x, 0.3).x0
        torch.testing.assert_close(Posterior(prior, function, method)(x, 0.3).x0, expected, rtol=1e-9, atol=1e-10)


def test_the_residual_of_the_linear_system_is_returned() -> None:
    prior, x = gaussian(6), draw(4, 6, seed=5)
    observation = Observation(Matrix(draw(4, 6)), draw(4, seed=4), noise_std=0.3)
    residuals = [Posterior(prior, observation, MMPS(n)).shift(x, 0.5)[1].residual for n in (1, 2, 3, 4)]
    sizes = [float(r.max()) for r in residuals if r is not None]
    assert len(sizes) == 4
    assert sizes[-1] < 1e-9 < sizes[-2] < 1.0


def test_a_network_that_is_not_differentiable_is_refused() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            return x.detach() * self.weight

    model = ScoreModel(Detached(), VPSDE(), V(), (3,))
    observation = Observation(Matrix(draw(2, 3).float()), draw(2).float(), noise_std=0.3)
    with pytest.raises(ValueError, match="differentiable in x"):
        Posterior(model, observation)(torch.zeros(2, 3), 0.5)
    assert Posterior(model, observation, JacobianFree())(torch.zeros(2, 3), 0.5).x0.shape == (2, 3)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda m: Posterior(m, Observation(Matrix(draw(2, 4)), draw(2), 0.1)), r"events of shape \(3,\), got \(4,\)"),
        (lambda m: Posterior(m, Observation(Matrix(draw(2, 3)), draw(2), 0.0), DPS()), "must be positive definite"),
        (lambda m: Posterior(m, as_any(draw(2))), "observation must be an Observation"),
        (lambda m: Posterior(m, Observation(Matrix(draw(2, 3)), draw(2), 0.1), as_any(MMPS)), "method must be a"),
        (lambda m: Posterior(m, Observation(Matrix(draw(2, 3)), draw(2), None, torch.eye(2)), TMPD()), "independent"),
        (lambda m: Posterior(m, Observation(Matrix(draw(2, 3)), draw(2), None, torch.eye(2)), DDRM()), "one noise_std"),
        (lambda m: Posterior(m, Observation(Function(torch.sin, (3,), (3,)), draw(3), 0.1), DDNM()), "linear operator"),
        (lambda m: Posterior(m, Observation(Blur(draw(1), (1, 3)), draw(1, 3), 0.1), DDRM()), r"events of shape"),
        (lambda m: MMPS(0), "iterations must be a positive integer"),
        (lambda m: DPS(-1.0), "zeta must be a positive"),
        (lambda m: DDRM(1.5), r"eta_b must lie in \[0, 1\]"),
    ],
)
def test_what_a_method_cannot_use_is_refused(make: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        make(gaussian(3))


@pytest.mark.parametrize(
    ("index", "words"),
    [(torch.zeros(3), "integer tensor"), (torch.zeros(2, dtype=torch.long), r"shape \(3,\)"), ([0, 0, 0.5], "integer")],
)
def test_an_index_of_another_kind_is_refused(index: Any, words: str) -> None:
    steered = Posterior(gaussian(3), Observation(Matrix(draw(2, 3)), draw(4, 2), 0.1))
    with pytest.raises((TypeError, ValueError), match=words):
        steered(draw(3, 3), 0.5, observation=index)


def test_a_steered_model_says_that_its_field_is_no_score() -> None:
    model: Model = Posterior(gaussian(3), Observation(Matrix(draw(2, 3)), draw(2), 0.1))
    reason = model.why_no_score()
    assert reason is not None
    assert "no density's score" in reason


def test_an_index_outside_of_the_observations_is_refused() -> None:
    three = Observation(Mask(torch.tensor([True, False, True])), torch.zeros(3, 3), noise_std=0.1)
    model = Posterior(network_model(), three)
    for index in (torch.tensor([0, 3]), torch.tensor([-1, 0])):
        with pytest.raises(ValueError, match=r"observation must lie in 0 … 2, one of 3 observations"):
            sample(model, 2, Adams(2), observation=index)
