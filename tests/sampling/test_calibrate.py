"""Tests of calibration: smaller errors on held-out noises, never larger ones, and files tied to their weights."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from subclasses import concrete
from torch import Tensor, nn

from scoresde._core.progress import ProgressBar
from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.process import ou
from scoresde.process.parameterization import Eps, V
from scoresde.process.schedule import Cosine
from scoresde.process.sde import SDE, VPSDE
from scoresde.sampling import (
    DDIM,
    DEIS,
    ODE,
    Adams,
    AnnealedLangevin,
    Calibration,
    Chain,
    DPMSolver,
    ExplicitGrid,
    Heun,
    Moments,
    NonStationary,
    RungeKutta,
    SamplingContext,
    StepSampler,
    UniformAngle,
    UniPC,
    Whitened,
    calibrate,
    sample,
)
from scoresde.sampling.calibration.candidates import Candidate
from scoresde.sampling.calibration.far_noises import DRAWS, with_far_noises
from scoresde.sampling.calibration.fractions import StepFractions
from scoresde.sampling.calibration.noises import NoiseBatch, NoisePool
from scoresde.sampling.calibration.preparation import hardest, reference_steps
from scoresde.sampling.calibration.reference import solve_reference
from scoresde.sampling.calibration.robust_loss import RobustLoss
from scoresde.sampling.calibration.rollouts import Rollouts
from scoresde.sampling.calibration.rows import FittedRollouts
from scoresde.sampling.calibration.search import _damped_step, evolve
from scoresde.sampling.calibration.surrogate import Sketch, Surrogate
from scoresde.storage.checkpoint import load_calibration, save, save_calibration

D = torch.float64
RING = GaussianMixture.ring()
PLAIN = Adams(8)


def _calibrate(model: Any, sampler: StepSampler, steps: int | None = None, **settings: Any) -> Calibration:
    """`calibrate` with noises of seed 0."""
    return calibrate(model, sampler, steps, **{"generator": torch.Generator().manual_seed(0), **settings})


def _fractions(sde: SDE = RING.sde) -> StepFractions:
    return StepFractions.from_grid(UniformAngle().times(sde, 2), sde.tau_min)


def _power_grid(steps: int, power: float = 2.0, sde: SDE = RING.sde) -> ExplicitGrid:
    """Uniform in a power of the angle."""
    fractions = _fractions(sde)
    return ExplicitGrid(tuple(fractions.times(fractions.power_positions(power, steps))))


def _reference(steps: int) -> Adams:
    """The calibration's own reference for a sampler of so many steps."""
    fractions, fine = _fractions(), reference_steps(steps)
    grid = ExplicitGrid(tuple(fractions.times(fractions.mixed_positions(0.5, fine))))
    return Adams(fine, grid, predictor_order=3, corrector_order=3, prediction="v", variable="angle")


def _error(model: Any, sampler: StepSampler | Whitened, seed: int = 77, n: int = 512) -> float:
    """Error against a finer solution than the calibration's own reference, from noises that it did not use."""
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=D)
    fine = Adams(400, _power_grid(400), predictor_order=4, corrector_order=4)
    ends = [sample(model, x.shape, each, init=x).x for each in (sampler, fine)]
    return float((ends[0] - ends[1]).square().mean().sqrt())


def _times(calibration: Calibration) -> tuple[float, ...]:
    """Times of the fitted grid."""
    sampler = calibration.sampler
    steps = sampler.sampler if isinstance(sampler, Whitened) else sampler
    assert isinstance(steps.grid, ExplicitGrid)
    return steps.grid.taus


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "ratio"), [(5, 0.4), (8, 0.4), (12, 0.4)])
def test_on_new_noises_the_error_is_far_below_that_of_the_default_grid(steps: int, ratio: float) -> None:
    calibration = _calibrate(RING, PLAIN, steps, noises=96, iterations=5)
    assert _error(RING, calibration.sampler) < ratio * _error(RING, calibration.original)


@pytest.mark.parametrize("sampler", [DDIM(6, UniformAngle()), UniPC(6), Heun(4), RungeKutta(3)], ids=repr)
def test_calibration_lowers_the_error_of_every_deterministic_family(sampler: StepSampler) -> None:
    calibration = _calibrate(RING, sampler, noises=64, iterations=6)
    assert calibration.error < 0.8 * calibration.original_error
    assert _error(RING, calibration.sampler) < 0.9 * _error(RING, sampler)


def test_the_reported_errors_are_those_of_the_samplers() -> None:
    calibration = _calibrate(RING, PLAIN, noises=32)
    halves = RING.sde.prior(torch.empty(64, 2, dtype=D), _noise(0), RING.sde.tau_max).split(32)
    drawn = [with_far_noises(NoiseBatch(half, {}), 1.0) for half in halves]
    x, weights = torch.cat([noises.x for noises, _ in drawn]), torch.cat([weights for _, weights in drawn])
    ends, own, fitted = (sample(RING, x.shape, each, init=x).x for each in (_reference(8), PLAIN, calibration.sampler))
    squares = [
        ((a - ends).square().mean(1) * weights)[rows] for a in (own, fitted) for rows in (slice(32), slice(32, 64))
    ]
    rms = [float(each.mean().sqrt()) for each in squares]
    assert rms[1:] == pytest.approx([calibration.original_error, calibration.fit_error, calibration.error], rel=1e-7)


def _noise(seed: int) -> Any:
    from scoresde._core.noise import Noise

    return Noise(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("noises", "iterations"), [(1, 1), (1, 12), (2, 4)])
def test_on_held_out_noises_the_error_never_grows_however_few_noises_are_fitted(noises: int, iterations: int) -> None:
    for seed in range(2):
        source = torch.Generator().manual_seed(seed)
        calibration = _calibrate(RING, PLAIN, noises=noises, iterations=iterations, generator=source)
        assert calibration.error <= calibration.original_error


def test_where_no_grid_is_better_the_original_sampler_is_returned() -> None:
    model = Gaussian(torch.zeros(2, dtype=D), 1.0)  # v = 0: every sampler is exact
    calibration = _calibrate(model, PLAIN, noises=4)
    assert calibration.sampler == PLAIN
    assert calibration.error == calibration.original_error == 0.0


def test_a_calibrated_grid_keeps_its_ends_and_decreases() -> None:
    for grid in (UniformAngle(), Chain()):
        calibration = _calibrate(RING, replace(PLAIN, grid=grid), noises=16, iterations=4)
        taus, before = _times(calibration), grid.times(RING.sde, 8)
        assert (taus[0], taus[-1]) == (before[0], before[-1])
        assert taus[-2] > RING.sde.tau_min


@pytest.mark.parametrize(("steps", "ratio"), [(1, 0.6), (2, 0.3)])
def test_one_and_two_calls_are_whitened_and_have_a_fraction_of_the_error(steps: int, ratio: float) -> None:
    calibration = _calibrate(RING, PLAIN, steps, noises=64)
    assert isinstance(calibration.sampler, Whitened)
    assert sample(RING, 1, calibration.sampler).nfe == steps
    assert _error(RING, calibration.sampler) < ratio * _error(RING, calibration.original)


def test_one_call_is_exact_for_normal_data() -> None:
    scales = torch.tensor([0.1, 0.5, 1.5, 2.0], dtype=D)
    model = Gaussian(torch.linspace(-1.0, 1.0, 4, dtype=D), scales**2, VPSDE(tau_min=1e-4))
    moments = Moments(model.means.reshape(4), torch.eye(4, dtype=D), scales**2)
    calibration = _calibrate(model, PLAIN, 1, noises=8, whiten=moments)
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(7), dtype=D)
    start, end = model.sde.tau_max, model.sde.tau_min
    std = [(ou.alpha_bar(tau) * scales**2 + ou.sigma(tau) ** 2).sqrt() for tau in (start, end)]
    exact = ou.alpha(end) * model.means.reshape(4) + std[1] / std[0] * (x - ou.alpha(start) * model.means.reshape(4))
    torch.testing.assert_close(sample(model, x.shape, calibration.sampler, init=x).x, exact, rtol=0, atol=2e-4)


def test_a_clock_without_signal_at_its_end_can_be_calibrated() -> None:
    ring = GaussianMixture.ring(sde=VPSDE(Cosine(clip=1.0), tau_min=1e-4))
    assert ring.sde.tau_max == math.inf
    calibration = _calibrate(ring, PLAIN, noises=64)
    assert _times(calibration)[0] == math.inf
    assert calibration.error < 0.7 * calibration.original_error


@pytest.fixture(scope="module")
def clusters() -> GaussianMixture:
    """Six components far apart in eight dimensions, with most of the variance of each in few dimensions."""
    draw = torch.Generator().manual_seed(2)
    means = torch.randn(6, 8, generator=draw, dtype=D)
    stds = torch.exp(torch.empty(6, 8, dtype=D).uniform_(math.log(0.03), 0.0, generator=draw))
    return GaussianMixture(torch.ones(6), means, stds**2, VPSDE(tau_min=1e-4))


def _clusters_error(model: GaussianMixture, sampler: StepSampler | Whitened) -> float:
    x = torch.randn(4096, 8, generator=torch.Generator().manual_seed(77), dtype=D)
    fine = Adams(400, _power_grid(400, sde=model.sde), predictor_order=4, corrector_order=4)
    ends = [sample(model, x.shape, each, init=x) for each in (sampler, fine)]
    assert ends[0].nfe == 8
    return float((ends[0].x - ends[1].x).square().mean().sqrt())


@pytest.mark.slow
def test_whitening_lowers_the_error_and_hard_noises_estimate_it(clusters: GaussianMixture) -> None:
    plain = _calibrate(clusters, PLAIN, noises=512, whiten=False)
    white = _calibrate(clusters, PLAIN, noises=512)
    hard = _calibrate(clusters, PLAIN, noises=512, pool=8, search=40)
    errors = [_clusters_error(clusters, each) for each in (PLAIN, plain.sampler, white.sampler, hard.sampler)]
    assert isinstance(white.sampler, Whitened)
    assert not isinstance(plain.sampler, Whitened)
    assert errors[1] < 0.9 * errors[0]
    assert max(errors[2:]) < 0.8 * errors[1]
    assert hard.error == pytest.approx(errors[3], rel=0.25)  # with random noises it is up to three times too small


def test_the_hardest_noises_join_the_random_ones_and_the_weights_represent_the_pool() -> None:
    model = ScoreModel(RoundedNetwork(), VPSDE(tau_min=1e-3), V(), event_shape=(2,))
    model.eval()
    x = torch.randn(72, 2, generator=torch.Generator().manual_seed(3), dtype=D)
    noises, coarse = NoiseBatch(x, {"label": torch.linspace(-1.0, 1.0, 72)}), Candidate(model, PLAIN, PLAIN, None)
    fractions, label = coarse.fractions, noises.cond["label"]
    grids = [ExplicitGrid(tuple(fractions.times(fractions.power_positions(p, 8)))) for p in (4 / 3, 5 / 3)]
    ends = [sample(model, x.shape, replace(PLAIN, grid=grid), init=x, label=label).x for grid in grids]
    distance = (ends[0] - ends[1]).square().mean(1)
    with torch.no_grad():
        rows, easy = hardest(noises, 12, 18, coarse)
    smallest = distance[rows].min()
    assert set(rows.tolist()) == {i for i in range(12, 72) if distance[i] >= smallest}
    assert easy.tolist() == (distance[:12] < smallest).tolist()
    assert 0 < easy.sum() < 12  # some of the random noises are as hard as the chosen ones: their weight is that of one
    random = NoisePool.equally_weighted(noises[:12], 3.0 * x[:12])
    pool = random.with_hardest(noises[rows], 3.0 * x[rows], easy, 72)
    assert torch.equal(pool.noises.x, torch.cat([x[:12], x[rows]]))
    assert torch.equal(pool.noises.cond["label"], torch.cat([label[:12], label[rows]]))
    assert torch.equal(pool.targets, 3.0 * pool.noises.x)
    represented = torch.where(easy, (72 - 6 - (~easy).sum()) / easy.sum(), 1.0)
    assert pool.weights.tolist() == pytest.approx([*(represented * 18 / 72).tolist(), *[18 / 72] * 6])


def test_errors_with_a_pool_estimate_those_of_all_its_noises() -> None:
    calibration = _calibrate(RING, PLAIN, noises=600, pool=3, iterations=3)
    x = RING.sde.prior(torch.empty(3600, 2, dtype=D), _noise(0), RING.sde.tau_max)
    fine, own = (sample(RING, x.shape, each, init=x).x for each in (Adams(128), PLAIN))
    assert calibration.original_error == pytest.approx(float((own - fine)[1800:].square().mean().sqrt()), rel=0.1)


def test_the_evolution_strategy_never_raises_the_loss_and_depends_on_its_generator() -> None:
    x = torch.randn(32, 2, generator=torch.Generator().manual_seed(3), dtype=D)
    targets = sample(RING, x.shape, Adams(100), init=x).x
    rollouts = Rollouts(RING.predict, Adams(6, predictor_order=2), x, targets, lambda x: x, 1e-5, torch.ones(32))
    fractions = StepFractions.from_grid(UniformAngle().times(RING.sde, 6), RING.sde.tau_min)
    initial = fractions.times(fractions.power_positions(1.0, 6))
    grids = [evolve(rollouts.loss, fractions, initial, 15, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert grids[0] == grids[1] != grids[2]
    assert all(rollouts.loss(taus) < 0.5 * rollouts.loss(initial) for taus in grids)
    assert evolve(rollouts.loss, fractions, initial, 0, torch.Generator()) == pytest.approx(initial)


def test_orders_are_chosen_only_where_they_are_left_open() -> None:
    calibration = _calibrate(
        RING, Adams(8, predictor_order=3, corrector_order=3, variable="angle"), noises=32, iterations=3
    )
    assert isinstance(calibration.sampler, Whitened)
    sampler = calibration.sampler.sampler
    assert isinstance(sampler, Adams)
    assert (sampler.predictor_order, sampler.corrector_order, sampler.variable) == (3, 3, "angle")
    assert sampler.steps == 9


@pytest.mark.parametrize("sampler", [Adams(13), Adams(1), Adams(6, predictor_order=5), Heun(4), UniPC(7)], ids=repr)
def test_the_calibrated_sampler_makes_no_more_network_calls_than_the_original(sampler: StepSampler) -> None:
    calibration = _calibrate(RING, sampler, noises=32, iterations=2)
    calls = [sample(RING, 1, each).nfe for each in (calibration.original, calibration.sampler)]
    assert calls[0] - 1 <= calls[1] <= calls[0]


def test_moments_can_be_passed_and_few_noises_give_none(clusters: GaussianMixture) -> None:
    moments = Moments.of(clusters.sample(5000, generator=torch.Generator().manual_seed(0)))
    sampler = Adams(8, predictor_order=2, corrector_order=3, variable="sigma")
    calibration = _calibrate(clusters, sampler, noises=64, iterations=3, whiten=moments)
    assert isinstance(calibration.sampler, Whitened)
    assert calibration.sampler.moments == moments
    assert not isinstance(_calibrate(clusters, sampler, noises=8, iterations=3).sampler, Whitened)


def test_whitened_coordinates_are_used_only_where_they_are_better() -> None:
    moments = Moments(torch.zeros(2), torch.eye(2), torch.tensor([1e-3, 1e3]))  # unlike those of the ring
    assert not isinstance(_calibrate(RING, PLAIN, noises=16, iterations=3, whiten=moments).sampler, Whitened)


# --- noises of large norm ---------------------------------------------------------------------------------------------


class FarData(nn.Module):
    """The noise estimate of the ring, which extrapolates wrongly: from norms above 3.5 the data seem far outside."""

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        tau = ou.tau_from_log_snr(log_snr)
        alpha, sigma = ou.alpha(tau)[:, None], ou.sigma(tau)[:, None]
        norm = x.norm(dim=1, keepdim=True)
        distance = 120.0 * (norm - 3.5).relu() / (120.0 * alpha + sigma)
        return RING.predict(x, tau).eps - alpha / sigma * distance * x / norm


@pytest.mark.parametrize("steps", [5, 10])
def test_rare_starts_that_end_far_outside_are_kept(steps: int) -> None:
    model = ScoreModel(FarData(), VPSDE(tau_min=1e-3), Eps(), (2,))
    x = torch.randn(4096, 2, generator=torch.Generator().manual_seed(5), dtype=D)
    fine = sample(model, x.shape, Adams(150), init=x).x
    far = fine.norm(dim=1) > 10
    assert 2 <= far.sum() <= 20
    calibration = _calibrate(model, Adams(steps), dtype=D)
    ends = [sample(model, x.shape, each, init=x).x for each in (Adams(steps), calibration.sampler)]
    default, fitted = ((end - fine).square().mean(1) for end in ends)
    assert float(fitted.mean()) < 0.1**2 * float(default.mean())  # without far noises 0.3 and 2 times the default's
    assert float(fitted.median()) < 0.3**2 * float(default.median())


def test_far_noises_have_the_norms_of_the_tail_and_weights_for_the_prior() -> None:
    x = 3.0 * torch.randn(20, 2, generator=torch.Generator().manual_seed(8), dtype=D)
    label = torch.arange(20)
    noises, weights = with_far_noises(NoiseBatch(x, {"label": label}), 3.0)
    total, rows = 20 * DRAWS, [4, 9, 14, 19]
    norms = [3.0 * math.sqrt(-2.0 * math.log((k + 0.5) / total)) for k in range(4)]  # of two elements: exponential
    assert noises.x[rows].norm(dim=1).tolist() == pytest.approx(norms)
    others = [i for i in range(20) if i not in rows]
    assert torch.equal(noises.x[others], x[others])
    torch.testing.assert_close(noises.x / noises.x.norm(dim=1, keepdim=True), x / x.norm(dim=1, keepdim=True))
    assert torch.equal(noises.cond["label"], label)
    assert not (x[others].norm(dim=1) > norms[-1]).any()
    assert weights[rows].tolist() == pytest.approx([20 / total] * 4)
    assert weights[others].tolist() == pytest.approx([(total - 4) / 16 * 20 / total] * 16)
    x[0] *= 100.0  # a random noise in the tail has the weight of one draw too
    assert with_far_noises(NoiseBatch(x, {}), 3.0)[1][[0, 4]].tolist() == pytest.approx([20 / total] * 2)
    few = with_far_noises(NoiseBatch(x[:4], {}), 3.0)
    assert torch.equal(few[0].x, x[:4])
    assert few[1].tolist() == [1.0] * 4


def test_the_loss_of_a_far_target_is_not_that_of_a_lost_one() -> None:
    targets = torch.tensor([[-1.0], [1.0], [-1.0], [1.0], [40.0], [-40.0]], dtype=D)
    weights = torch.tensor([1.49, 1.49, 1.49, 1.49, 0.02, 0.02], dtype=D)
    robust = RobustLoss.of(targets, weights)
    variance = (5.96 + 0.04 * 1600) / 6
    assert robust.variance == pytest.approx(variance)
    assert robust.scales.tolist() == pytest.approx([variance] * 4 + [1600.0] * 2)
    squares = torch.tensor([0.0, 1e-8, 0.0, 0.0, 0.0, 1.0], dtype=D)
    expected = (1.49e-8 + 0.02 * 1600 * math.log1p(1 / 1600)) / 6 / variance
    assert robust.value(squares) == pytest.approx(expected, rel=1e-6)
    squares = torch.tensor([900.0, 0.0, 0.0, 0.0, 0.0, 0.0], dtype=D)  # lost: its influence is limited
    assert robust.value(squares) == pytest.approx(1.49 / 6 * math.log1p(900 / variance))
    assert float(robust.influence(squares)[0]) == pytest.approx(1.49 / (1 + 900 / variance))
    assert robust.root_mean_square(squares) == pytest.approx(math.sqrt(1.49 * 900 / 6))
    assert robust.value(squares / 0.0) == robust.root_mean_square(squares / 0.0) == math.inf


def test_the_reference_of_a_noise_estimate_is_exact_for_data_at_one_point() -> None:
    class PointMass(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            tau = ou.tau_from_log_snr(log_snr)
            return (x - 40.0 * ou.alpha(tau)[:, None]) / ou.sigma(tau)[:, None]

    sde = VPSDE(tau_min=1e-3)
    model = ScoreModel(PointMass(), sde, Eps(), (2,))
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(2), dtype=D)
    with torch.no_grad():
        ends = solve_reference(model, _fractions(sde), 40, NoiseBatch(x, {})).ends
    (a, s), (b, t) = [(ou.alpha(tau), ou.sigma(tau)) for tau in (sde.tau_max, sde.tau_min)]
    torch.testing.assert_close(ends, 40.0 * b + t / s * (x - 40.0 * a), rtol=1e-7, atol=0)


# --- cost, progress, several numbers of steps -------------------------------------------------------------------------


class CountedNetwork(nn.Module):
    """A smooth network that counts the samples that pass through it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.evaluations = nn.Parameter(torch.tensor(0.7)), 0

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        self.evaluations += len(x)
        time = log_snr.reshape(-1, *[1] * (x.ndim - 1))
        return self.weight * torch.tanh(x) * torch.tanh(time / 4)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28)])
@pytest.mark.parametrize("sampler", [Adams(10), DDIM(10), UniPC(10)], ids=lambda sampler: type(sampler).__name__)
def test_a_fit_at_ten_calls_costs_less_than_300_samples_at_50_calls(
    sampler: StepSampler, shape: tuple[int, ...]
) -> None:
    net = CountedNetwork()
    calibration = _calibrate(ScoreModel(net, VPSDE(tau_min=1e-4), V(), event_shape=shape), sampler)
    assert calibration.evaluations == net.evaluations <= 300 * 50
    assert calibration.error < 0.7 * calibration.original_error


def test_several_numbers_of_steps_share_the_reference_and_come_in_the_order_given() -> None:
    net = CountedNetwork()
    model = ScoreModel(net, VPSDE(tau_min=1e-4), V(), event_shape=(1, 8, 8))
    settings: dict[str, Any] = {"noises": 16, "iterations": 1}
    fits = calibrate(model, PLAIN, [6, 3], generator=torch.Generator().manual_seed(0), **settings)
    assert [fit.original for fit in fits] == [replace(PLAIN, steps=6), replace(PLAIN, steps=3)]
    assert net.evaluations == sum(fit.evaluations for fit in fits)
    reference = 2 * 16 * (reference_steps(6) + 1) + 16 * 21  # and coarse solutions for the moments
    first, second = fits[0].evaluations - reference, fits[1].evaluations
    assert 1.5 * second < first < 3.0 * second  # about the same number of rollouts, and no reference
    assert all(fit.error < 0.5 * fit.original_error for fit in fits)
    [single] = calibrate(model, PLAIN, [6], generator=torch.Generator().manual_seed(0), **settings)
    assert _calibrate(model, PLAIN, 6, **settings) == single


def test_progress_grows_with_the_evaluations_and_ends_at_one(monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[float] = []
    monkeypatch.setattr(ProgressBar, "update", lambda self, completed: shares.append(completed))
    net = CountedNetwork()
    model = ScoreModel(net, VPSDE(tau_min=1e-4), V(), event_shape=(1, 8, 8))
    for sampler in (PLAIN, DDIM(8)):
        shares.clear()
        _calibrate(model, sampler, noises=16)
        assert shares == sorted(shares)
        assert shares[-1] == 1.0
        assert shares[-2] > 0.7  # the plan is not far from what is made


def test_the_progress_bar_is_drawn_only_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    for progress in (False, True):
        _calibrate(RING, PLAIN, 2, noises=4, progress=progress)
        assert ("calibrating" in capsys.readouterr().out) == progress


# --- fitted weights ---------------------------------------------------------------------------------------------------


def test_fitted_weights_of_the_last_step_are_the_least_squares_solution() -> None:
    calibration = _calibrate(RING, PLAIN, 4, noises=64, iterations=1, whiten=False)
    x = RING.sde.prior(torch.empty(128, 2, dtype=D), _noise(0), RING.sde.tau_max)[:64]
    moments = _calibrate(RING, PLAIN, 4, noises=64, iterations=1)
    assert moments.error <= 2.0 * calibration.error
    fractions = _fractions()
    taus = fractions.times(fractions.power_positions(2.0, 4))
    targets = sample(RING, x.shape, _reference(4), init=x).x
    fitted = FittedRollouts(
        RING.predict,
        x,
        lambda y, _: y,
        lambda tau: targets if tau == taus[-1] else _state(x, tau),
        RobustLoss(torch.ones(64), torch.full((64,), 1e6), 1e6),
    )
    rows = fitted.rows(taus)
    sampler = NonStationary(4, ExplicitGrid(tuple(taus)), rows)
    velocities, states = [], [x]
    for i, tau in enumerate(taus[:-1]):
        velocities.append(RING.predict(states[-1], tau).v)
        states.append(rows[i][0] * x + sum(b * v for b, v in zip(rows[i][1:], velocities)))
    torch.testing.assert_close(sample(RING, x.shape, sampler, init=x).x, states[-1])
    design = torch.stack([x, *velocities], 2).flatten(0, 1)
    exact = torch.linalg.lstsq(design, targets.flatten()).solution
    assert float((states[-1] - targets).square().mean()) == pytest.approx(
        float((design @ exact - targets.flatten()).square().mean()), rel=1e-3
    )
    assert fitted.error(taus) == pytest.approx(float((states[-1] - targets).square().mean().sqrt()), rel=1e-9)


def _state(x: Tensor, tau: float) -> Tensor:
    """The solution from x at a time between, by a fine grid that passes it."""
    fractions = StepFractions(RING.sde.tau_max, tau, math.sqrt(ou.angle(tau)))
    grid = ExplicitGrid(tuple(fractions.times(fractions.power_positions(1.0, 60))))
    ends = Adams(60, grid, predictor_order=3, corrector_order=3)
    return ends.run(x, SamplingContext(RING.predict, RING.sde, _noise(0), RING.sde.tau_max))[0]


def test_without_weights_the_method_is_eulers_in_the_angle_and_wrong_weights_are_refused() -> None:
    x = torch.randn(8, 2, generator=torch.Generator().manual_seed(1), dtype=D)
    ends = [sample(RING, x.shape, each, init=x).x for each in (NonStationary(6), DDIM(6, UniformAngle()))]
    euler = Adams(6, UniformAngle(), predictor_order=1, corrector_order=0)
    torch.testing.assert_close(ends[0], sample(RING, x.shape, euler, init=x).x)
    rows = tuple((1.0, *[-0.1] * (i + 1)) for i in range(3))
    assert NonStationary(3, weights=rows).weights == rows
    with pytest.raises(ValueError, match=r"weights must be 4 rows of 2, 3, … numbers, .*got rows of \[2, 3, 4\]"):
        NonStationary(4, weights=rows)


def test_the_surrogate_is_exact_for_normal_data() -> None:
    """There v is affine with the derivative G, so rollouts of the surrogate are those of the model."""
    scales = torch.tensor([0.2, 0.7, 1.5], dtype=D)
    model = Gaussian(torch.linspace(-1.0, 1.0, 3, dtype=D), scales**2, VPSDE(tau_min=1e-4))
    moments = Moments(model.means.reshape(3), torch.eye(3, dtype=D), scales**2)
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(2), dtype=D)
    fractions = _fractions(model.sde)
    with torch.no_grad():
        solved = solve_reference(model, fractions, 200, NoiseBatch(x, {}))
    surrogate = Surrogate(solved, Sketch.of_axes(moments, 0))
    taus = fractions.times(fractions.power_positions(2.0, 5))
    for method in (Adams(5, predictor_order=2, corrector_order=3), DDIM(5), UniPC(5)):
        rollouts = surrogate.rollouts(method, (taus[0], taus[-1]), torch.ones(5), whiten=False)
        exact = sample(model, x.shape, replace(method, grid=ExplicitGrid(tuple(taus))), init=x).x
        torch.testing.assert_close(rollouts.end(taus), exact, rtol=0, atol=1e-4)


def test_a_jacobian_is_that_of_whole_rollouts_and_replays_the_known_calls() -> None:
    calls = [0]

    def predict(y: Tensor, tau: float) -> Any:
        calls[0] += 1
        return RING.predict(y, tau)

    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(3), dtype=D)
    method = Adams(5, predictor_order=2, corrector_order=3)
    rollouts = Rollouts(predict, method, x, torch.zeros(4, 2, dtype=D), lambda y: y, 1e-5, torch.ones(4))
    taus = list(_power_grid(5).taus)
    moves = [1e-6 * tau for tau in taus[1:-1]]
    moved = [tau + move for tau, move in zip(taus[1:-1], moves)]
    weight = rollouts.influence(taus)
    assert calls[0] == 5
    jacobian = rollouts.jacobian(taus, moved, moves, weight)
    assert calls[0] == 5 + 4 + 3 + 2 + 1  # the step before a moved time begins with a known call
    for i in range(4):
        whole = [*taus[: i + 1], moved[i], *taus[i + 2 :]]
        column = (rollouts.residual(whole, weight) - rollouts.residual(taus, weight)) / moves[i]
        torch.testing.assert_close(jacobian[:, i], column, rtol=1e-6, atol=1e-9)


# --- derivatives ------------------------------------------------------------------------------------------------------


def _deterministic() -> list[Any]:
    samplers: list[StepSampler] = [kind(steps=5) for kind in concrete(StepSampler)]
    samplers = [each for each in samplers if not each.stochastic and each.order is not None]
    samplers += [DPMSolver(5, solver_order=3), DPMSolver(5, solver_order=3, prediction="x0")]
    samplers += [
        Adams(5, prediction="eps", variable="rho"),
        Adams(5, prediction="x0", variable="tau"),
        DEIS(5, variable="rho"),
    ]
    samplers += [RungeKutta(5, method=name) for name in ("euler", "midpoint", "heun", "rk3")]
    return [pytest.param(each, id=f"{i}-{type(each).__name__}") for i, each in enumerate(samplers)]


@pytest.mark.parametrize("sampler", _deterministic())
def test_gradients_in_tensor_times_are_those_of_finite_differences(sampler: StepSampler) -> None:
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=D)
    taus: list[Any] = list(_power_grid(5).taus)

    def end(times: list[Any]) -> Any:
        state, memory = x, None
        for tau, s in zip(times, times[1:]):
            state, memory = sampler.step(RING.predict, state, tau, s, lambda: None, memory)
        return state.square().sum()

    def moved(i: int, by: float) -> float:
        return float(end([*taus[:i], taus[i] * (1 + by), *taus[i + 1 :]]))

    interior = torch.tensor(taus[1:-1], dtype=D, requires_grad=True)
    value = end([taus[0], *interior.unbind(), taus[-1]])
    assert value.item() == pytest.approx(moved(1, 0.0), rel=1e-9)
    (gradient,) = torch.autograd.grad(value, interior)
    differences = torch.tensor([(moved(i, 1e-6) - moved(i, -1e-6)) / (2e-6 * taus[i]) for i in range(1, 5)], dtype=D)
    assert torch.allclose(gradient, differences, rtol=1e-5, atol=1e-6 * float(differences.abs().max()))


def test_logits_and_times_are_inverse_and_the_jacobian_is_that_of_autograd() -> None:
    taus = list(_power_grid(6, 3.0).taus)
    fractions = StepFractions.from_grid(taus, 1e-5)
    logits = fractions.logits([math.sqrt(ou.angle(tau)) for tau in taus])
    assert fractions.times(fractions.positions(logits)) == pytest.approx(taus, rel=1e-9)
    assert [fractions.time(position) for position in fractions.power_positions(3.0, 6)] == pytest.approx(taus, rel=1e-9)

    def positions(logits: Tensor) -> Tensor:
        high = fractions.positions(logits.detach())[0]
        return high + (fractions.last_position - high) * torch.cumsum(torch.softmax(logits, 0), 0)[:-1]

    exact = torch.autograd.functional.jacobian(positions, logits)
    assert isinstance(exact, Tensor)
    assert torch.allclose(fractions.jacobian(logits), exact, atol=1e-14)


# --- networks ---------------------------------------------------------------------------------------------------------


class RoundedNetwork(nn.Module):
    """A network without a useful gradient that refuses train mode and records the sizes of its label batches."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.7))
        self.label_sizes: set[int] = set()

    def forward(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        assert not self.training
        if label is not None:
            self.label_sizes.add(len(label))
            x = x + label[:, None]
        return self.weight * torch.round(x.detach() * 512) / 512 * torch.tanh(log_snr[:, None] / 4)


def test_calibration_of_a_float32_network_leaves_the_network_unchanged() -> None:
    torch.manual_seed(0)
    model = ScoreModel(MLP((2,), width=16, depth=1), VPSDE(tau_min=1e-3), V(), (2,))
    model.train()
    model.net.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rng_state = torch.random.get_rng_state()
    calibration = _calibrate(model, PLAIN, 4, noises=16, iterations=5)
    assert calibration.error <= calibration.original_error
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(not p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), rng_state)


def test_calibration_needs_no_network_gradient_and_passes_conditioning_by_noise() -> None:
    net = RoundedNetwork()
    model = ScoreModel(net, VPSDE(tau_min=1e-3), V(), event_shape=(3,))
    label = torch.linspace(-1.0, 1.0, 24)
    with torch.inference_mode():
        calibration = _calibrate(model, PLAIN, 4, noises=12, iterations=3, label=label)
    assert calibration.error <= calibration.original_error
    assert net.label_sizes == {12}
    calibration = _calibrate(model, PLAIN, 4, noises=100, iterations=2, pool=3, search=2, label=label.repeat(25))
    assert calibration.error <= calibration.original_error
    assert net.label_sizes == {12, 20, 80, 100}
    assert not any(p.grad_fn for p in model.parameters())


def test_batch_size_bounds_every_network_call_and_does_not_change_the_result() -> None:
    net = RoundedNetwork().double()  # where no rounding error moves a state past a step of the rounded network
    model = ScoreModel(net, VPSDE(tau_min=1e-3), V(), event_shape=(3,))
    settings: dict[str, Any] = {
        "noises": 80,
        "iterations": 2,
        "pool": 2,
        "label": torch.linspace(-1.0, 1.0, 320, dtype=D),
    }
    whole = _calibrate(model, PLAIN, 4, **settings)
    net.label_sizes.clear()
    parts = _calibrate(model, PLAIN, 4, batch_size=7, **settings)
    assert max(net.label_sizes) == 7
    assert (parts.error, parts.original_error) == pytest.approx((whole.error, whole.original_error), rel=1e-6)
    assert _times(parts) == pytest.approx(_times(whole), rel=1e-6)


def test_the_same_generator_state_gives_the_same_grid() -> None:
    first, second = (_calibrate(RING, PLAIN, 3, noises=8, iterations=3) for _ in range(2))
    assert first == second


def test_without_a_generator_the_noises_follow_the_global_seed() -> None:
    errors = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        errors.append(calibrate(RING, PLAIN, 3, noises=8, iterations=1).original_error)
    assert errors[0] == errors[1] != errors[2]


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "settings", "error", "message"),
    [
        (ODE(), {}, TypeError, "calibrate needs a step sampler, got ODE"),
        (DDIM(eta=0.5), {}, ValueError, "calibrate needs a deterministic sampler"),
        (AnnealedLangevin(), {}, ValueError, "calibrate needs a deterministic sampler"),
        (PLAIN, {"noises": 0}, ValueError, "noises must be a positive integer, got 0"),
        (PLAIN, {"iterations": True}, ValueError, "iterations must be a positive integer, got True"),
        (PLAIN, {"batch_size": 0}, ValueError, "batch_size must be a positive integer, got 0"),
        (PLAIN, {"pool": 0}, ValueError, "pool must be a positive integer, got 0"),
        (PLAIN, {"steps": []}, ValueError, "steps must be one number or several, each given once"),
        (PLAIN, {"steps": [5, 5]}, ValueError, "steps must be one number or several, each given once"),
        (PLAIN, {"search": -1}, ValueError, "search must be an integer of at least 0, got -1"),
        (PLAIN, {"whiten": Moments(torch.zeros(3), torch.eye(3), torch.ones(3))}, ValueError, "the moments' shape"),
        (PLAIN, {"steps": 0}, ValueError, "steps must be a positive integer, got 0"),
        (PLAIN, {"noise": 3}, TypeError, "did you mean noises"),
    ],
)
def test_invalid_arguments_are_refused(sampler: Any, settings: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        calibrate(RING, sampler, **settings)


def test_unknown_shapes_wrong_conditioning_and_an_infinite_reference_are_refused() -> None:
    net = RoundedNetwork()
    model = ScoreModel(net, VPSDE(tau_min=1e-3), V())
    with pytest.raises(ValueError, match="calibrate needs the shape of an event"):
        _calibrate(model, PLAIN)
    with pytest.raises(ValueError, match=r"label must have one entry per noise \(2 \* pool \* noises\), 4, got 3"):
        _calibrate(model, PLAIN, shape=(3,), noises=2, label=torch.zeros(3))
    with torch.no_grad():
        net.weight.fill_(math.nan)
    with pytest.raises(RuntimeError, match="the reference, Adams.* must end in finite numbers"):
        _calibrate(model, PLAIN, shape=(3,), noises=2)


# --- files beside the checkpoint --------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, ScoreModel]:
    model = ScoreModel(MLP((2,), width=8, depth=1), VPSDE(tau_min=1e-3), V(), (2,))
    save(model, tmp_path, ema=ScoreModel(MLP((2,), width=8, depth=1), VPSDE(tau_min=1e-3)))
    return tmp_path, model


def test_a_calibration_is_loaded_as_it_was_saved(saved: tuple[Path, ScoreModel]) -> None:
    run, model = saved
    first, second = (_calibrate(model, PLAIN, steps, noises=4, iterations=2) for steps in (3, 4))
    same = replace(second, sampler=second.original)
    white = _calibrate(model, PLAIN, 5, noises=16, iterations=1, whiten=True)
    if not isinstance(white.sampler, Whitened):  # whitening need not help an untrained network
        white = replace(white, sampler=Whitened(Adams(6), Moments.of(torch.randn(9, 2))))
    for each in (white, first, second, same):
        file = save_calibration(run, each)
    assert load_calibration(run, white.original) == white
    assert load_calibration(run, first.original) == first
    assert load_calibration(run, second.original) == same
    assert file == run / "calibrated.json"
    assert len(json.loads(file.read_text())["calibrations"]) == 3
    (moments,) = run.glob("calibrated-*")
    save_calibration(run, replace(white, sampler=Whitened(Adams(6), Moments.of(torch.randn(9, 2)))))
    assert moments not in list(run.glob("calibrated-*"))  # the file no longer names it
    (moments,) = run.glob("calibrated-*")
    (moments / "moments.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(RuntimeError, match="must be as it was saved"):
        load_calibration(run, white.original)
    shutil.rmtree(moments)
    with pytest.raises(FileNotFoundError, match="there must be a checkpoint at .*calibrated-"):
        load_calibration(run, white.original)
    assert not list(run.glob(".calibrated.json"))


def test_a_calibration_of_other_weights_is_refused(saved: tuple[Path, ScoreModel]) -> None:
    run, model = saved
    calibration = _calibrate(model, PLAIN, 3, noises=4, iterations=2)
    save_calibration(run, calibration)
    with pytest.raises(ValueError, match=r"with the weights that it was fitted to, .*\(averaged.*got .*\(raw weights"):
        load_calibration(run, calibration.original, raw=True)
    first = run / "checkpoint-000001"
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    save(model, run, ema=model)
    with pytest.raises(ValueError, match=r"checkpoint-000001 .*, got checkpoint-000002 .*; calibrate it"):
        load_calibration(run, calibration.original)
    assert load_calibration(first, calibration.original) == calibration
    save_calibration(run, calibration)
    assert load_calibration(run, calibration.original) == load_calibration(first, calibration.original) == calibration


def test_a_missing_calibration_is_refused_with_a_list_of_those_saved(saved: tuple[Path, ScoreModel]) -> None:
    run, model = saved
    with pytest.raises(FileNotFoundError, match="there must be calibrations in .*calibrated.json"):
        load_calibration(run, PLAIN)
    save_calibration(run, _calibrate(model, PLAIN, 3, noises=4, iterations=2))
    with pytest.raises(ValueError, match=r"no calibration of Adams\(steps=9, .*it has: Adams\(steps=3, "):
        load_calibration(run, replace(PLAIN, steps=9))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "other"}', '{"calibrations": [{}]}'])
def test_a_file_without_calibrations_is_refused_and_left_unchanged(text: str, saved: tuple[Path, ScoreModel]) -> None:
    run, model = saved
    (run / "calibrated.json").write_text(text)
    calibration = _calibrate(model, PLAIN, 2, noises=2, iterations=1)
    for attempt in (lambda: load_calibration(run, PLAIN), lambda: save_calibration(run, calibration)):
        with pytest.raises(ValueError, match="must hold calibrations as save_calibration writes them"):
            attempt()
    assert (run / "calibrated.json").read_text() == text


def test_a_failed_save_leaves_the_earlier_file(saved: tuple[Path, ScoreModel], monkeypatch: Any) -> None:
    run, model = saved
    calibration = _calibrate(model, PLAIN, 3, noises=4, iterations=2)
    before = save_calibration(run, calibration).read_text()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="a calibration must be writable to .*No space left"):
        save_calibration(run, dataclasses.replace(calibration, noises=5))
    assert (run / "calibrated.json").read_text() == before


@pytest.mark.parametrize("damping", [1e-2, 1e-16, 1e-300, 0.0])
def test_a_descent_that_hardly_damps_its_steps_still_solves_for_logits_whose_equal_changes_change_nothing(damping):
    times = torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]]).double()  # of no effect along (1, 1, 1)
    residual = torch.tensor([0.3, -0.1]).double()
    step = _damped_step(residual, times, damping)
    expected = torch.linalg.lstsq(times, -residual.unsqueeze(1)).solution.squeeze(1)  # of least norm
    torch.testing.assert_close(step, expected, rtol=0.1 if damping > 1e-3 else 1e-6, atol=1e-7)
