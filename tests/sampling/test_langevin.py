"""Tests of Langevin steps: their stationary distributions, independence of samples, and every view."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from linear_gaussian import GaussianData, run_sampler
from subclasses import concrete
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import scoresde.process.schedule
import scoresde.sampling
from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.process import ou
from scoresde.process.sde import VE, VPSDE, Flow, SubVP
from scoresde.sampling import (
    DDIM,
    DDPM,
    Adams,
    AnnealedLangevin,
    Chain,
    Corrector,
    ExponentialSDE,
    Heun,
    Langevin,
    OptimalVariance,
    PartialRefresh,
    PredictorCorrector,
    StepSampler,
    UniformAngle,
    UniformLogSNR,
    sample,
)
from scoresde.storage import spec

D = torch.float64
CLOCK = VPSDE(tau_min=1e-3)
DATA = [pytest.param(GaussianData(0.7, 0.5), id="variance .25"), pytest.param(GaussianData(-1.3, 2.0), id="variance 4")]
KINDS: list[StepSampler] = [
    *(PredictorCorrector(6, corrector=kind()) for kind in concrete(Corrector)),
    PredictorCorrector(6, Chain(), DDIM(), corrections=3, corrector=Langevin(0.1)),
    PredictorCorrector(6, predictor=ExponentialSDE(), corrections=2),
    AnnealedLangevin(6, repeats=3),
    AnnealedLangevin(6, Chain(), repeats=2),
]


# --- stationary distributions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("s", [0.02, 0.3, 1.5])
@pytest.mark.parametrize("step_size", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("data", DATA)
def test_annealed_langevin_at_one_level_has_the_variance_that_it_states(
    data: GaussianData, step_size: float, s: float
) -> None:
    mean, std = data.moments(s)
    part = ou.sigma(s) ** 2 / std**2
    repeats = math.ceil(20 / (step_size * part))
    end = run_sampler(AnnealedLangevin(1, repeats=repeats, step_size=step_size), CLOCK, data, [s + 0.2, s])
    assert end.variance == pytest.approx(std**2 / (1 - step_size * part / 4), rel=1e-7)
    assert end.mean == pytest.approx(mean, abs=1e-3)
    assert end.draws == repeats


def test_annealed_langevin_is_algorithm_1_of_the_paper_in_variance_exploding_coordinates() -> None:
    data, taus, x = GaussianData(0.7, 0.5), [1.5, 0.8, 0.3], torch.tensor([[0.4]], dtype=D)
    sampler = AnnealedLangevin(2, repeats=3, step_size=0.2)
    z = torch.randn(6, 1, 1, dtype=D, generator=torch.Generator().manual_seed(0))
    rho = [math.sqrt(math.expm1(2 * tau)) for tau in taus]
    epsilon, y = 0.2 * rho[-1] ** 2, x / ou.alpha(taus[0])
    for i, draw in enumerate(z):
        level = rho[1 + i // 3]
        a = epsilon * level**2 / rho[-1] ** 2
        score = -(y - data.mean) / (data.std**2 + level**2)
        y = y + 0.5 * a * score + math.sqrt(a) * draw
    model, draws, ours = Gaussian(torch.full((1,), 0.7, dtype=D), 0.25), iter(z), x
    for tau, s in zip(taus, taus[1:]):
        ours, _ = sampler.step(model, ours, tau, s, lambda: next(draws), None)
    torch.testing.assert_close(ours / ou.alpha(taus[-1]), y, rtol=1e-12, atol=0)


def _stationary_variance(corrector: Corrector, std: float, tau: float, shape: tuple[int, int], steps: int) -> float:
    """Variance after many steps from the exact distribution, relative to it; data N(0, std² I)."""
    alpha, sigma, g = ou.alpha(tau), ou.sigma(tau), torch.Generator().manual_seed(0)
    exact = alpha**2 * std**2 + sigma**2
    x = math.sqrt(exact) * torch.randn(shape, generator=g, dtype=D)
    for _ in range(steps):
        x = corrector.correct(x, x * (sigma / exact), sigma, torch.randn(shape, generator=g, dtype=D))
    return float(x.square().mean()) / exact


ERROR = 4.5 * math.sqrt(2 / 200_000)  # 4.5 standard errors of a variance


@pytest.mark.parametrize(("std", "tau"), [(0.0, 0.5), (0.5, 0.5), (0.5, 0.1), (1.0, 1.0), (2.0, 0.7)])
@pytest.mark.parametrize("shape", [(200_000, 1), (100_000, 2), (200, 1000)], ids=["1-D", "2-D", "1000-D"])
def test_a_partial_refresh_keeps_the_variance_of_gaussian_data_in_any_dimension(
    shape: tuple[int, int], std: float, tau: float
) -> None:
    assert _stationary_variance(PartialRefresh(0.8), std, tau, shape, 80) == pytest.approx(1.0, abs=ERROR)


@pytest.mark.parametrize(("std", "tau"), [(0.0, 0.5), (1.0, 1.0)])
def test_the_noise_of_a_plain_langevin_step_would_be_too_large(std: float, tau: float) -> None:
    # the same drift, noise 2 (1 - keep): the variance is 1 / (1 - (1 - keep) p / 2)
    part, exact = 0.2, ou.alpha(tau) ** 2 * std**2 + ou.sigma(tau) ** 2
    p = ou.sigma(tau) ** 2 / exact
    one = (1 - part * p) ** 2 + part * (2 - part * p) * p  # second moment after a step of PartialRefresh
    assert one == pytest.approx(1.0, abs=1e-14)
    assert (1 - part * p) ** 2 + 2 * part * p > 1.02


@pytest.mark.parametrize("snr", [0.16, 0.3])
@pytest.mark.parametrize(("std", "tau"), [(0.0, 0.5), (1.0, 1.0), (2.0, 0.7)])
def test_song_s_steps_widen_the_variance_by_snr_squared_in_many_dimensions(std: float, tau: float, snr: float) -> None:
    variance = _stationary_variance(Langevin(snr), std, tau, (200, 1000), 120)
    # the variance of the norms, of relative order 1 / d, adds less than .002
    assert variance == pytest.approx(1 + snr**2, abs=ERROR + 2e-3)


def test_song_s_steps_are_bounded_where_the_score_is_small() -> None:
    std, tau = 1.0, 0.005
    p = ou.sigma(tau) ** 2 / (ou.alpha(tau) ** 2 * std**2 + ou.sigma(tau) ** 2)
    assert p < 2 * 0.16**2
    assert _stationary_variance(Langevin(0.16), std, tau, (200, 1000), 400) == pytest.approx(1 / (1 - p / 2), abs=ERROR)


def test_song_s_step_is_algorithm_4_of_the_paper_in_variance_exploding_coordinates() -> None:
    tau, g = 0.7, torch.Generator().manual_seed(0)
    alpha, sigma = ou.alpha(tau), ou.sigma(tau)
    x, eps_hat, z = torch.randn(3, 5, 2, 20, dtype=D, generator=g)
    ours = Langevin(0.16).correct(x, eps_hat, sigma, z)
    y, score = x / alpha, -alpha * eps_hat / sigma
    norm = [v.flatten(1).norm(dim=1)[:, None, None] for v in (z, score)]
    step = 2 * (0.16 * norm[0] / norm[1]) ** 2
    torch.testing.assert_close(ours / alpha, y + step * score + (2 * step).sqrt() * z, rtol=1e-12, atol=1e-12)


def test_on_a_ring_the_default_corrector_keeps_the_width_of_clusters_and_song_s_does_not() -> None:
    sde = VPSDE(tau_min=float(VPSDE().schedule.tau(1e-3)))
    model = GaussianMixture.ring(sde=sde)

    def width(corrector: Corrector) -> float:
        x = sample(model, 4000, PredictorCorrector(50, predictor=DDIM(), corrector=corrector), seeds=None,
                   generator=torch.Generator().manual_seed(3)).x  # fmt: skip
        alpha = ou.alpha(sde.tau_min)
        rest = x - alpha * model.means[torch.cdist(x, alpha * model.means).argmin(1)]
        return float(rest.square().mean().sqrt()) / math.sqrt(alpha**2 * 0.01 / 0.51 + ou.sigma(sde.tau_min) ** 2)

    assert width(PartialRefresh()) == pytest.approx(1.0, abs=0.03)  # standard error .008
    assert width(Langevin()) > 1.4


# --- samplers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("predictor", [DDPM(), DDIM(), ExponentialSDE(), Heun(churn=3.0), Adams()], ids=repr)
def test_without_corrections_predictor_corrector_is_the_predictor(predictor: StepSampler) -> None:
    model = GaussianMixture.ring()
    configured = replace(predictor, steps=7, grid=UniformAngle())
    alone = sample(model, 5, configured, seeds=range(5))
    ours = PredictorCorrector(7, UniformAngle(), predictor, corrections=0)
    drawn = sample(model, 5, ours, seeds=range(5))
    assert torch.equal(drawn.x, alone.x)
    assert (drawn.nfe, ours.order, ours.start_order, ours.stochastic) == (
        alone.nfe, configured.order, configured.start_order, configured.stochastic,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("sampler", "calls"),
    [
        (PredictorCorrector(6), 12),
        (PredictorCorrector(6, Chain()), 11),
        (PredictorCorrector(6, Chain(), corrections=3), 21),
        (AnnealedLangevin(6, repeats=3), 18),
        (AnnealedLangevin(6, Chain(), repeats=3), 16),
    ],
    ids=repr,
)
def test_the_last_step_to_zero_is_that_of_the_predictor_or_the_data_estimate(sampler: StepSampler, calls: int) -> None:
    drawn = sample(GaussianMixture.ring(), 3, sampler, seeds=range(3))
    assert drawn.nfe == calls
    assert drawn.tau == (0.0 if sampler.grid == Chain() else GaussianMixture.ring().sde.tau_min)
    model, x = GaussianMixture.ring(), torch.ones(2, 2, dtype=D)
    end, _ = sampler.step(model, x, 0.3, 0.0, lambda: pytest.fail("noise in the step to 0"), None)
    torch.testing.assert_close(end, model(x, 0.3).x0, rtol=0, atol=1e-14)


@pytest.mark.parametrize("sampler", KINDS, ids=repr)
@pytest.mark.parametrize("sde", [VPSDE(), VE(), SubVP()], ids=lambda s: type(s).__name__)
def test_a_sample_does_not_depend_on_the_rest_of_its_batch(sampler: StepSampler, sde: Any) -> None:
    model, seeds = GaussianMixture.ring(sde=sde), [3, 1, 4, 15, 9]
    whole = sample(model, 5, sampler, seeds=seeds).x
    reversed_batch = sample(model, 5, sampler, seeds=seeds[::-1]).x.flip(0)
    split = sample(model, 5, sampler, seeds=seeds, batch_size=2).x
    alone = torch.cat([sample(model, 1, sampler, seeds=[seed]).x for seed in seeds])
    for other in (reversed_batch, split, alone):
        torch.testing.assert_close(other, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sampler", KINDS, ids=repr)
@pytest.mark.parametrize("shape", [(), (3,), (2, 5), (3, 4, 4), (1, 2, 3, 2)], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_events_of_any_rank_are_sampled_like_flat_events(
    sampler: StepSampler, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    size = math.prod(shape)
    flat = Gaussian(torch.linspace(-1, 1, size, dtype=dtype), 0.25)
    model = Gaussian(flat.means.reshape(shape), 0.25)
    drawn, expected = (sample(m, 4, sampler, seeds=range(4)).x for m in (model, flat))
    assert drawn.dtype == dtype
    assert drawn.shape == (4, *shape)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(drawn.reshape(4, size), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("sde", [VPSDE(), VE(), SubVP()], ids=lambda s: type(s).__name__)
def test_annealed_langevin_has_the_exact_mean_and_variance_in_every_view(sde: Any) -> None:
    sampler, data = AnnealedLangevin(30, repeats=4, step_size=0.3), GaussianData(0.7, 0.5)
    end = run_sampler(sampler, sde, data)
    model = Gaussian(torch.full((200,), 0.7, dtype=D), 0.25, sde)
    start = model.sample(1000, sde.tau_max, torch.Generator().manual_seed(1)) * float(sde.scale(sde.tau_max))
    x = sample(model, 1000, sampler, generator=torch.Generator().manual_seed(0), init=start).x
    scale, error = float(sde.scale(sde.tau_min)), math.sqrt(1 / 200_000)
    assert float(x.mean()) / scale == pytest.approx(end.mean, abs=4.5 * error * math.sqrt(end.variance))
    assert float(x.var()) / scale**2 == pytest.approx(end.variance, rel=4.5 * math.sqrt(2) * error)


@pytest.mark.parametrize("sde", [VPSDE(), VE(), SubVP()], ids=lambda s: type(s).__name__)
def test_with_the_optimal_variance_every_step_keeps_the_distribution_of_gaussian_data(sde: Any) -> None:
    data = OptimalVariance((0.0,), (0.2,))  # c² = .25
    model = Gaussian(torch.full((200,), 0.7, dtype=D), 0.25, sde)
    start = model.sample(1000, sde.tau_max, torch.Generator().manual_seed(1)) * float(sde.scale(sde.tau_max))
    sampler = PredictorCorrector(10, predictor=DDPM(rev_var=data), corrections=2)
    x = sample(model, 1000, sampler, generator=torch.Generator().manual_seed(0), init=start).x
    alpha, sigma = ou.alpha(sde.tau_min), ou.sigma(sde.tau_min)
    scale, exact, error = float(sde.scale(sde.tau_min)), alpha**2 * 0.25 + sigma**2, math.sqrt(1 / 200_000)
    assert float(x.mean()) / scale == pytest.approx(0.7 * alpha, abs=4.5 * error * math.sqrt(exact))
    assert float(x.var()) / scale**2 == pytest.approx(exact, rel=4.5 * math.sqrt(2) * error)


def test_correction_works_for_a_flow_that_starts_without_signal() -> None:
    model = Gaussian(torch.full((50,), 0.7, dtype=D), 0.25, Flow())
    x = sample(model, 400, PredictorCorrector(60, UniformAngle()), generator=torch.Generator().manual_seed(0)).x
    assert float(x.mean()) == pytest.approx(0.7, abs=0.02)
    with pytest.raises(ValueError, match=r"AnnealedLangevin needs a finite start, got tau = inf"):
        sample(model, 2, AnnealedLangevin(5, UniformAngle()))


@pytest.mark.parametrize("sampler", KINDS, ids=repr)
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_no_step_reads_tensor_values(sampler: StepSampler, device: str) -> None:
    with FakeTensorMode(), torch.device(device):
        model = ScoreModel(MLP((3,), width=8, depth=1), VPSDE(), None, (3,))
        assert sample(model, 4, sampler, device=device).x.shape == (4, 3)


@pytest.mark.parametrize("sampler", [*KINDS, PredictorCorrector(), AnnealedLangevin()], ids=repr)
def test_a_sampler_is_written_as_text_and_read_back(sampler: StepSampler) -> None:
    known = spec.known_classes(scoresde.sampling, scoresde.process.schedule)
    assert spec.parse(spec.to_text(sampler), known) == sampler


def test_the_step_is_bounded_and_finite_at_a_vanishing_score() -> None:
    x, z = torch.zeros(2, 3), torch.ones(2, 3)
    for corrector in (Langevin(), PartialRefresh()):
        step: Tensor = corrector.correct(x, torch.zeros(2, 3), 0.5, z)
        assert float(step.abs().max()) <= 0.5 * math.sqrt(2) + 1e-6


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: PredictorCorrector(10, predictor=DDPM(20)),
            ValueError,
            "must use the steps of PredictorCorrector, 10, got DDPM",
        ),
        (
            lambda: PredictorCorrector(10, predictor=DDPM(10, UniformAngle())),
            ValueError,
            "must use the grid of PredictorCorrector",
        ),
        (
            lambda: PredictorCorrector(corrections=-1),
            ValueError,
            "corrections must be an integer of at least 0, got -1",
        ),
        (
            lambda: PredictorCorrector(predictor=Adams()),
            ValueError,
            "states that corrections would change",
        ),
        (lambda: PredictorCorrector(corrections=True), ValueError, "corrections must be an integer of at least 0"),
        (lambda: PredictorCorrector(predictor="DDPM"), TypeError, "predictor must be a StepSampler, got 'DDPM'"),  # pyright: ignore[reportArgumentType]
        (lambda: PredictorCorrector(corrector=0.16), TypeError, r"corrector must be a Corrector, got 0\.16"),  # pyright: ignore[reportArgumentType]
        (lambda: Langevin(0.0), ValueError, r"snr must be a positive finite number, got 0\.0"),
        (lambda: PartialRefresh(1.0), ValueError, r"keep must lie in \[0, 1\), got 1\.0"),
        (lambda: AnnealedLangevin(repeats=0), ValueError, "repeats must be a positive integer, got 0"),
        (lambda: AnnealedLangevin(step_size=4.0), ValueError, r"step_size must lie in \(0, 4\), got 4\.0"),
    ],
)
def test_invalid_settings_are_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_the_predictor_may_repeat_the_steps_and_the_grid() -> None:
    whole = PredictorCorrector(10, UniformLogSNR(), DDPM(10, UniformLogSNR()))
    assert sample(GaussianMixture.ring(), 2, whole, seeds=[1, 2]).nfe == 20
