"""Twisted SMC: the chain's exact posterior and evidence for Gaussian data, its rate, and independent posteriors."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from gaussian_chain import chain_end, given
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import scoresde as sd
from scoresde.guidance.observation import Observation
from scoresde.guidance.operators import LinearOperator, Mask, Matrix, Operator
from scoresde.inverse import IsotropicTwist, JacobianTwist, TwistedSMC, sample_posterior
from scoresde.inverse.twisted_smc import chain_times
from scoresde.sampling import DenseEnds, OptimalVariance, UniformLogSNR

F64 = torch.float64
MEAN = torch.tensor([0.5, -0.3, 0.2], dtype=F64)
ROOT = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.5, 0.0], [-0.5, 0.4, 0.3]], dtype=F64)
COV = ROOT @ ROOT.mT
A = torch.tensor([[1.0, 0.5, 0.0], [0.0, -0.4, 1.0]], dtype=F64)
Y = torch.tensor([0.9, -0.6], dtype=F64)
NOISE = torch.tensor([[0.16, 0.05], [0.05, 0.09]], dtype=F64)
TWISTS = [IsotropicTwist(), JacobianTwist()]


def gaussian() -> sd.Gaussian:
    return sd.Gaussian(MEAN, COV)


def observations(count: int) -> Observation:
    return Observation(Matrix(A), Y.expand(count, 2).clone(), noise_cov=NOISE)


def chain_given(method: TwistedSMC) -> tuple[Tensor, Tensor, float]:
    """Posterior mean, covariance and log p(y) of the method's chain."""
    assert isinstance(method.rev_var, str)
    end = chain_end(MEAN, COV, chain_times(method.grid, sd.VPSDE(), method.steps), method.rev_var)
    return given(end.mean, end.cov, A, Y, NOISE)


@pytest.mark.parametrize("twist", TWISTS, ids=["isotropic", "jacobian"])
@pytest.mark.parametrize("rev_var", ["beta", "beta_tilde"])
def test_log_evidence_is_within_two_standard_errors_of_the_chains_own(twist: Any, rev_var: str) -> None:
    method = TwistedSMC(12, 256, twist, rev_var)
    _, _, log_p = chain_given(method)
    samples = sample_posterior(gaussian(), observations(60), method=method, seeds=range(60))
    assert samples.log_evidence is not None
    assert samples.standard_error is not None
    error = samples.log_evidence - log_p
    assert int((error.abs() <= 2 * samples.standard_error).sum()) >= 52
    assert 0.6 < float(error.std() / samples.standard_error.mean()) < 1.3
    # the evidence itself is unbiased: 4 standard errors of the mean of 60
    ratio = error.exp()
    assert abs(float(ratio.mean()) - 1) < 4 * float(ratio.std()) / math.sqrt(60)


@pytest.mark.parametrize("twist", TWISTS, ids=["isotropic", "jacobian"])
@pytest.mark.parametrize("rev_var", ["beta", "beta_tilde"])
def test_particles_have_the_chains_posterior_mean_and_covariance(twist: Any, rev_var: str) -> None:
    method = TwistedSMC(10, 512, twist, rev_var)
    mean, cov, _ = chain_given(method)
    samples = sample_posterior(gaussian(), observations(30), method=method, seeds=range(30))
    means = samples.mean()
    deviation = samples.x - mean
    covs = torch.einsum("mn,mnd,mne->mde", samples.log_weights.exp(), deviation, deviation)
    # the runs are independent, so their spread gives the error of their mean; the bias of the normalized weights is 1/P
    assert bool(((means.mean(0) - mean).abs() < 4 * means.std(0) / math.sqrt(30) + 4e-3).all())
    assert bool(((covs.mean(0) - cov).abs() < 4 * covs.std(0) / math.sqrt(30) + 4e-3).all())
    assert float(covs.std(0).max()) < 0.06


@pytest.mark.parametrize("twist", TWISTS, ids=["isotropic", "jacobian"])
def test_error_falls_with_the_root_of_the_particles(twist: Any) -> None:
    errors = []
    for particles in (32, 512):
        method = TwistedSMC(8, particles, twist)
        mean, _, _ = chain_given(method)
        samples = sample_posterior(gaussian(), observations(60), method=method, seeds=range(60))
        errors.append(float((samples.mean() - mean).square().mean().sqrt()))
    assert 3.0 < errors[0] / errors[1] < 5.3  # sqrt(16) = 4, from 180 numbers each


def test_gap_to_the_exact_evidence_falls_with_the_steps() -> None:
    _, _, exact = given(MEAN, COV, A, Y, NOISE)
    gaps = []
    for steps in (24, 96, 384):
        samples = sample_posterior(
            gaussian(), observations(8), method=TwistedSMC(steps, 256, JacobianTwist(), "beta_tilde"), seeds=range(8)
        )
        assert samples.log_evidence is not None
        gaps.append(abs(float(samples.log_evidence.mean()) - exact))
    assert gaps[1] < 0.5 * gaps[0]
    assert gaps[2] < 0.5 * gaps[1]


def test_the_optimal_variance_makes_the_chain_of_isotropic_data_exact_at_few_steps() -> None:
    variance = OptimalVariance((0.0,), (0.2,))
    c2 = variance.data_variance(0.0)
    _, _, log_p = given(MEAN, c2 * torch.eye(3, dtype=F64), A, Y, NOISE)
    method = TwistedSMC(12, 512, IsotropicTwist(variance), variance)
    samples = sample_posterior(sd.Gaussian(MEAN, c2), observations(40), method=method, seeds=range(40))
    assert samples.log_evidence is not None
    error = samples.log_evidence - log_p
    assert abs(float(error.mean())) < 4 * float(error.std()) / math.sqrt(40)  # 0.12 with rev_var="beta"
    assert float(error.std()) < 0.05


def test_jacobian_twist_needs_hardly_any_resampling_on_gaussian_data() -> None:
    samples = sample_posterior(
        gaussian(), observations(4), method=TwistedSMC(50, 512, JacobianTwist(), threshold=0.0), seeds=range(4)
    )
    assert samples.ess is not None
    assert samples.ess.shape == (4, 51)
    assert float(samples.ess[:, -1].min()) > 0.9 * 512


def mixture_given(y: float, std: float) -> tuple[Tensor, float]:
    """Shares of the modes of the ring and log p(y) given its first coordinate."""
    ring = sd.GaussianMixture.ring()
    variance = ring.variances.flatten() + std**2
    log_terms = (
        ring.log_weights - 0.5 * (y - ring.means[:, 0]).square() / variance - 0.5 * (2 * math.pi * variance).log()
    )
    return torch.softmax(log_terms, 0), float(torch.logsumexp(log_terms, 0))


@pytest.mark.parametrize("twist", TWISTS, ids=["isotropic", "jacobian"])
def test_modes_of_a_mixture_have_their_exact_shares(twist: Any) -> None:
    shares, log_p = mixture_given(0.9, 0.05)
    seen = Observation(Mask(torch.tensor([True, False])), torch.tensor([[0.9, 7.0]] * 10, dtype=F64), noise_std=0.05)
    samples = sample_posterior(sd.GaussianMixture.ring(), seen, method=TwistedSMC(100, 1024, twist), seeds=range(10))
    mode = torch.cdist(samples.x.flatten(0, 1), sd.GaussianMixture.ring().means).argmin(1).reshape(10, -1)
    found = torch.stack([(samples.log_weights.exp() * (mode == k)).sum(1) for k in range(8)], 1)
    assert bool(((found.mean(0) - shares).abs() < 4 * found.std(0) / math.sqrt(10) + 0.004).all())
    assert samples.log_evidence is not None
    assert abs(float(samples.log_evidence.mean()) - log_p) < 0.05  # of the chain, 0.03 below


def test_a_permutation_or_split_of_the_observations_gives_the_same_samples() -> None:
    mask = torch.tensor([[True, False, False], [False, True, True], [True, True, True], [False, False, True]])
    y = torch.tensor([[0.3, 0.1, -0.2], [1.0, 0.5, 0.4], [-0.5, 0.2, 0.1], [0.0, 0.1, 0.9]], dtype=F64)
    method = TwistedSMC(10, 64, JacobianTwist())

    def run(index: list[int], **options: Any) -> sd.PosteriorSamples:
        seen = Observation(Mask(mask[index], per_observation=True), y[index], noise_std=0.2)
        return sample_posterior(gaussian(), seen, method=method, seeds=[10 + i for i in index], **options)

    together, order = run([0, 1, 2, 3]), [2, 0, 3, 1]
    for other, index in ((run(order), order), (run([0, 1, 2, 3], batch_size=3), [0, 1, 2, 3]), (run([2]), [2])):
        torch.testing.assert_close(other.x, together.x[index])
        torch.testing.assert_close(other.log_weights, together.log_weights[index])
        for name in ("log_evidence", "standard_error", "ess"):
            torch.testing.assert_close(getattr(other, name), getattr(together, name)[index])


def test_a_mask_and_its_matrix_give_the_same_posterior() -> None:
    mask = Mask(torch.tensor([True, False, True]))
    matrix = Matrix(torch.tensor([[1.0, 0, 0], [0, 0, 1.0]], dtype=F64))
    std = torch.tensor([0.2, 9.0, 0.3], dtype=F64)
    y = torch.tensor([0.4, math.nan, -0.2], dtype=F64)
    by_mask = Observation(mask, y, noise_std=std)
    by_matrix = Observation(matrix, y[[0, 2]], noise_std=std[[0, 2]])
    by_cov = Observation(mask, y, noise_cov=torch.diag(std.square()))
    method = TwistedSMC(20, 4096, JacobianTwist())
    results = [sample_posterior(gaussian(), seen, method=method, seeds=[0]) for seen in (by_mask, by_matrix, by_cov)]
    for result in results[1:]:
        assert result.log_evidence is not None
        assert results[0].log_evidence is not None
        assert abs(float(result.log_evidence - results[0].log_evidence)) < 0.02
        torch.testing.assert_close(result.mean(), results[0].mean(), atol=0.03, rtol=0.0)


class Row(LinearOperator):
    """One number per event: its product with a vector, one vector per observation."""

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.register_buffer("weight", weight)
        self.count, self.event_shape, self.output_shape = len(weight), tuple(weight.shape[1:]), (1,)

    def apply(self, x0: Tensor) -> Tensor:
        return (x0 * self.weight).flatten(1).sum(1, keepdim=True)

    def adjoint(self, y: Tensor) -> Tensor:
        return y * self.weight

    def select(self, index: Tensor) -> Row:
        return Row(self.weight[index])


def test_an_operator_per_observation_is_the_one_of_its_own_observation() -> None:
    method = TwistedSMC(10, 64)
    seen = Observation(Row(A), Y.unsqueeze(1), noise_std=0.3)
    both = sample_posterior(gaussian(), seen, method=method, seeds=[3, 4])
    for i in range(2):
        single = Observation(Matrix(A[i : i + 1]), Y[i : i + 1], noise_std=0.3)
        torch.testing.assert_close(sample_posterior(gaussian(), single, method=method, seeds=[3 + i]).x[0], both.x[i])


def test_draws_of_equal_weight_keep_the_posterior() -> None:
    method = TwistedSMC(12, 4096, JacobianTwist())
    weighted = sample_posterior(gaussian(), observations(2), method=method, seeds=[0, 1])
    drawn = sample_posterior(gaussian(), observations(2), 8192, method, seeds=[0, 1])
    for samples in (drawn, weighted.draw(8192, seed=5)):
        assert samples.x.shape == (2, 8192, 3)
        torch.testing.assert_close(samples.log_weights.exp().sum(1), torch.ones(2, dtype=F64))
        torch.testing.assert_close(samples.mean(), weighted.mean(), atol=5e-3, rtol=0.0)  # systematic: error about 1/n
        assert not bool((samples.x[:, 1:] == samples.x[:, :-1]).all(-1).float().mean() > 0.1)  # in random order


@pytest.mark.parametrize("operator", [Mask(torch.tensor([True, False, True])), Matrix(torch.eye(3, dtype=F64)[[0, 2]])])
@pytest.mark.parametrize("twist", TWISTS, ids=["isotropic", "jacobian"])
def test_values_without_noise_are_kept_up_to_the_noise_of_the_last_state(operator: Any, twist: Any) -> None:
    y = torch.tensor([0.4, math.nan, -0.2], dtype=F64)
    y = (y if isinstance(operator, Mask) else y[[0, 2]]).expand(8, -1)
    samples = sample_posterior(
        gaussian(), Observation(operator, y, noise_std=0.0), 500, TwistedSMC(60, 2048, twist), seeds=range(8)
    )
    x, row = samples.x.flatten(0, 1), torch.eye(3, dtype=F64)[[0, 2]]
    expected, _, _ = given(MEAN, COV, row, torch.tensor([0.4, -0.2], dtype=F64), 1e-10 * torch.eye(2, dtype=F64))
    assert float((x[:, [0, 2]] - torch.tensor([0.4, -0.2])).std(0).max()) < 0.006
    # one run has a standard error of .016, and the chain of 60 steps a bias below .01
    assert abs(float(x[:, 1].mean() - expected[1])) < 0.01 + 3 * 0.016 / 8**0.5


@pytest.mark.parametrize(("n", "particles"), [(None, 1024), (7, 1024), (300, 1200)])
def test_by_default_there_are_four_particles_for_each_sample_and_at_least_1024(n: int | None, particles: int) -> None:
    seen, method = observations(1), TwistedSMC(2, threshold=0.0)
    assert method.states(n) == particles
    of_default, stated = (
        sample_posterior(gaussian(), seen, n, each, seeds=[0])
        for each in (method, replace(method, particles=particles))
    )
    assert torch.equal(of_default.x, stated.x)
    assert of_default.x.shape[1] == (n or particles)


def test_the_default_grid_is_that_of_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of noise needs other times than one of the data, which the grid reads from the model."""
    model = sd.ScoreModel(_OneProduct(), sd.VPSDE(), sd.Eps(), (3,))
    expected = chain_times(DenseEnds(noise_estimate=True), model.sde, 50)
    times: list[float] = []
    predict = model.predict
    monkeypatch.setattr(model, "predict", lambda x, tau, **cond: times.append(float(tau)) or predict(x, tau, **cond))
    seen = Observation(Mask(torch.ones(3, dtype=torch.bool)), torch.zeros(3), noise_std=0.5)
    sample_posterior(model, seen, method=TwistedSMC(50, 8), seeds=[0])
    assert times == pytest.approx(expected[:-1])
    assert times != pytest.approx(chain_times(DenseEnds(), model.sde, 50)[:-1])


class _OneProduct(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return x * self.weight


@pytest.mark.parametrize("twist", TWISTS, ids=["isotropic", "jacobian"])
def test_particles_need_no_tensor_values(twist: Any) -> None:
    with FakeTensorMode(), torch.device("meta"):
        model = sd.ScoreModel(_OneProduct(), sd.VPSDE(), sd.V(), (3,))
        seen = Observation(Matrix(torch.ones(2, 3)), torch.zeros(4, 2), noise_std=torch.full((2,), 0.1))
        samples = sample_posterior(model, seen, 7, TwistedSMC(5, 16, twist))
    assert samples.x.shape == (4, 7, 3)
    assert samples.nfe == 5 * (1 if isinstance(twist, IsotropicTwist) else 3)


def test_events_of_any_shape_and_float32_models() -> None:
    image = sd.Gaussian(torch.zeros(1, 2, 2), 0.5)
    seen = Observation(Mask(torch.tensor([[[True, False], [False, True]]])), torch.ones(1, 2, 2), noise_std=0.5)
    samples = sample_posterior(image, seen, method=TwistedSMC(20, 4096, grid=DenseEnds()), seeds=[0])
    assert samples.x.dtype == torch.float32
    assert samples.x.shape == (1, 4096, 1, 2, 2)
    expected = torch.tensor([[[2 / 3, 0.0], [0.0, 2 / 3]]])  # .5 / (.5 + .25)
    torch.testing.assert_close(samples.mean()[0], expected, atol=0.05, rtol=0.0)


def test_the_chain_has_the_stated_number_of_steps_and_ends_at_0() -> None:
    for grid in (UniformLogSNR(), DenseEnds(), sd.sampling.Chain()):
        for steps in (1, 2, 9):
            taus = chain_times(grid, sd.VPSDE(), steps)
            assert len(taus) == steps + 1
            assert taus[-1] == 0.0


class Square(Operator):
    """x², which is not linear."""

    event_shape = output_shape = (3,)

    def apply(self, x0: Tensor) -> Tensor:
        return x0.square()


def test_what_the_method_is_not_made_for_is_refused() -> None:
    def run(seen: Observation, method: Any = None, **options: Any) -> Any:
        return sample_posterior(gaussian(), seen, method=method, **options)

    with pytest.raises(TypeError, match="needs a linear operator, got Square"):
        run(Observation(Square(), MEAN, noise_std=0.1))
    with pytest.raises(ValueError, match="positive definite noise_cov"):
        run(Observation(Matrix(A), Y, noise_cov=torch.ones(2, 2)))
    with pytest.raises(ValueError, match=r"model's events, \(3,\), got \(2,\)"):
        run(Observation(Mask(torch.ones(2, dtype=torch.bool)), Y, noise_std=0.1))
    with pytest.raises(ValueError, match="at most 1 measured coordinates, got 2; use IsotropicTwist"):
        run(observations(1), TwistedSMC(twist=JacobianTwist(1)))
    with pytest.raises(ValueError, match="seeds must have one entry per sample, 2, got 3"):
        run(observations(2), seeds=range(3))
    with pytest.raises(ValueError, match="got both"):
        run(observations(1), seeds=[0], generator=torch.Generator())
    student = gaussian()
    student.jump_times = ()
    with pytest.raises(ValueError, match="got a few-step student; take its teacher"):
        sample_posterior(student, observations(1))
    for wrong, match in (
        ({"steps": 0}, "steps must be"),
        ({"particles": 1}, "at least 2, got 1"),
        ({"threshold": 1.5}, r"threshold must lie in \[0, 1\]"),
        ({"rev_var": "learned"}, "got 'learned'"),
        ({"rev_var": "betas"}, "no rev_var is named"),
    ):
        with pytest.raises(ValueError, match=match):
            replace(TwistedSMC(), **wrong)


class _Broken(nn.Module):
    """NaN for log-SNR above 0."""

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return torch.where(log_snr.unsqueeze(1) > 0, math.nan, x)


def test_a_network_that_returns_nan_is_named_with_its_time() -> None:
    model = sd.ScoreModel(_Broken(), sd.VPSDE(), sd.V(), (3,))
    seen = Observation(Mask(torch.ones(3, dtype=torch.bool)), torch.zeros(2, 3), noise_std=0.5)
    with pytest.raises(RuntimeError, match=r"at tau = 0\.2\d* it gave NaN or infinity for observations \[0, 1\]"):
        sample_posterior(model, seen, method=TwistedSMC(20, 8), seeds=[0, 1])
