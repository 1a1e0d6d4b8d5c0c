"""Tests of whitened coordinates and moments: the same probability flow, and exact sampling of Gaussian data."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from scoresde._core.noise import Noise
from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.process import ou
from scoresde.process.parameterization import V
from scoresde.process.schedule import Cosine
from scoresde.process.sde import SDE, VE, VPSDE, Flow, SubVP
from scoresde.sampling import (
    DDIM,
    ODE,
    Adams,
    AnnealedLangevin,
    DPMSolver,
    Heun,
    Moments,
    Progress,
    RungeKutta,
    StepSampler,
    UniformAngle,
    UniPC,
    Whitened,
    sample,
)
from scoresde.sampling.whitened import WhitenedCoordinates

D = torch.float64


def _draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=D)


def _moments(size: int, seed: int = 5, rank: int | None = None) -> Moments:
    axes = torch.linalg.qr(_draw(size, size, seed=seed)).Q[:, :rank]
    return Moments(_draw(size, seed=seed + 1), axes, _draw(axes.shape[1], seed=seed + 2).exp(), 0.6)


def _covariance(moments: Moments) -> Tensor:
    along = moments.axes @ torch.diag(moments.variances - moments.rest) @ moments.axes.mT
    return along + moments.rest * torch.eye(len(along), dtype=D)


def _mixture(sde: SDE | None = None, size: int = 4) -> GaussianMixture:
    covs = torch.stack([m @ m.mT * 0.1 + 0.05 * torch.eye(size, dtype=D) for m in _draw(3, size, size, seed=3)])
    return GaussianMixture(torch.tensor([1.0, 2.0, 3.0], dtype=D), _draw(3, size, seed=2), covs, sde)


# --- the change of coordinates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [4, 2, 0])
@pytest.mark.parametrize("tau", [0.01, 0.4, 3.0])
def test_the_velocity_in_y_is_the_derivative_of_y_along_the_flow_in_x(rank: int, tau: float) -> None:
    coordinates, model = WhitenedCoordinates(_moments(4, rank=rank), _draw(1, 4)), _mixture()
    y = _draw(3, 4, seed=9)
    derivative = coordinates.predict(model.predict, math.inf, y, tau).v
    x, phi, h = coordinates.unwhiten(y, tau), ou.angle(tau), 1e-5

    def moved(by: float) -> Tensor:  # two terms of the flow: the third is even in the step, and drops out
        at = ou.tau_from_angle(phi + by)
        half = x + 0.5 * by * model.predict(x, tau).v
        return coordinates.whiten(x + by * model.predict(half, ou.tau_from_angle(phi + 0.5 * by)).v, at)

    torch.testing.assert_close((moved(h) - moved(-h)) / (2 * h), derivative, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rank", [6, 3, 0])
def test_unwhitening_inverts_whitening_and_y_has_unit_covariance(rank: int) -> None:
    moments = _moments(6, rank=rank)
    coordinates = WhitenedCoordinates(moments, _draw(1, 6))
    for tau in (1e-7, 0.3, 20.0, math.inf):
        x = _draw(5, 6)
        torch.testing.assert_close(coordinates.unwhiten(coordinates.whiten(x, tau), tau), x, rtol=1e-12, atol=1e-12)
        marginal = ou.alpha_bar(tau) * _covariance(moments) + ou.sigma(tau) ** 2 * torch.eye(6, dtype=D)
        unit = coordinates.unwhiten(torch.eye(6, dtype=D), tau) - ou.alpha(tau) * moments.mean
        torch.testing.assert_close(unit @ unit, marginal, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rank", [4, 2])
@pytest.mark.parametrize("view", [VPSDE, VE, SubVP, Flow], ids=lambda view: view.__name__)
def test_gaussian_data_are_exact_with_two_steps_and_one_call(view: type[SDE], rank: int) -> None:
    moments = _moments(4, rank=rank)
    model = Gaussian(moments.mean, _covariance(moments), view())
    start = min(model.sde.tau_max, 12.0)
    init = _draw(8, 4) * float(model.sde.scale(start))
    for sampler, calls in ((Adams(2, predictor_order=2), 1), (RungeKutta(2, method="euler"), 1), (RungeKutta(2), 7)):
        result = sample(model, (8, 4), Whitened(sampler, moments), init=init, start=start)
        fine = sample(model, (8, 4), ODE(rtol=1e-11, atol=1e-12), init=init, start=start)
        torch.testing.assert_close(result.x, fine.x, rtol=1e-6, atol=1e-7)
        assert result.nfe == calls


@pytest.mark.parametrize(
    ("sampler", "order"),
    [
        (Adams(predictor_order=2, corrector_order=0), 2),
        (Adams(predictor_order=2, corrector_order=3, prediction="v", variable="sigma"), 3),
        (Adams(predictor_order=2, corrector_order=3, prediction="alpha_v"), 3),
        (UniPC(solver_order=2), 3),
        (DPMSolver(), 2),
    ],
    ids=["AB2", "AB2 + AM3 in sigma", "AB2 + AM3 of alpha_v", "UniPC-2", "DPM-Solver-2"],
)
def test_with_any_moments_sampling_converges_at_the_order_of_the_sampler(sampler: StepSampler, order: int) -> None:
    model = _mixture(VPSDE(tau_min=0.02))
    start = 3.0
    x, moments = _draw(16, 4), _moments(4)
    exact = sample(model, (16, 4), ODE(rtol=1e-12, atol=1e-13), init=x, start=start).x
    coordinates, errors = WhitenedCoordinates(moments, x), []
    for steps in (64, 128):
        taus = UniformAngle().times(model.sde, steps, start)
        y, memory = coordinates.whiten(x, start), None
        for tau, s in zip(taus, taus[1:]):  # with a network call at the start, because alpha is not small there
            y, memory = sampler.step(
                lambda y, tau: coordinates.predict(model.predict, math.inf, y, tau), y, tau, s, _refuse_noise, memory
            )
        errors.append(float((coordinates.unwhiten(y, taus[-1]) - exact).square().mean().sqrt()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35)


def _refuse_noise() -> None:
    raise AssertionError("a deterministic sampler drew noise")


def test_whitened_sampling_starts_from_infinite_tau() -> None:
    model = _mixture(VPSDE(Cosine(clip=1.0), tau_min=1e-4))
    assert model.sde.tau_max == math.inf
    x = _draw(32, 4)
    fine = sample(model, (32, 4), ODE(rtol=1e-10, atol=1e-11), init=x).x
    moments = Moments.of(model.sample(20_000, generator=torch.Generator().manual_seed(1)))
    samples = sample(model, (32, 4), Whitened(Adams(8), moments), init=x)
    plain = sample(model, (32, 4), Adams(8), init=x)
    assert samples.nfe == plain.nfe - 1
    assert float((samples.x - fine).square().mean()) < float((plain.x - fine).square().mean())


# --- moments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size"), [(50, 6), (5, 12), (2, 3)])
def test_moments_of_data_are_those_of_ledoit_and_wolf(n: int, size: int) -> None:
    data = _draw(n, size) @ torch.diag(torch.linspace(0.1, 2.0, size, dtype=D)) + 3.0
    moments = Moments.of(data.reshape(n, size, 1))
    covariance, _ = ledoit_wolf(data.numpy())
    torch.testing.assert_close(_covariance(moments), torch.from_numpy(covariance), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(moments.mean, data.mean(0)[:, None])


def test_sharpened_moments_of_gaussian_data_are_exact_to_many_digits() -> None:
    truth = _moments(5)
    model = Gaussian(truth.mean.reshape(5, 1), _covariance(truth))
    generator = torch.Generator().manual_seed(0)
    data = model.sample(400, generator=generator)
    rough = Moments.of(data)
    result = rough.sharpened(model.predict, data, Noise(generator).normal)
    torch.testing.assert_close(_covariance(result), _covariance(truth), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(result.mean.flatten(), truth.mean, rtol=1e-6, atol=1e-7)
    assert float((_covariance(rough) - _covariance(truth)).abs().max()) > 0.03


def test_sharpened_variances_stay_within_three_standard_errors_of_the_sample() -> None:
    truth = _moments(5)
    wrong_model = Gaussian(truth.mean, 25.0 * _covariance(truth))
    generator = torch.Generator().manual_seed(0)
    data = Gaussian(truth.mean, _covariance(truth)).sample(450, generator=generator)
    result = Moments.of(data).sharpened(wrong_model.predict, data, Noise(generator).normal)
    sample_variances = (data @ result.axes).var(0)
    torch.testing.assert_close(result.variances, 1.2 * sample_variances)


# --- the contract of samplers -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 2, 2), (1, 2, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_events_of_any_rank_and_type_and_empty_batches_can_be_sampled(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    size = math.prod(shape)
    mean, var = torch.linspace(-1.0, 1.0, size, dtype=D), torch.linspace(0.1, 1.5, size, dtype=D)
    model = GaussianMixture(torch.ones(2), torch.stack([mean, -mean]).reshape(2, *shape), torch.stack([var, var]))
    data = model.sample(500, generator=torch.Generator().manual_seed(0))
    sampler = Whitened(Adams(12), Moments.of(data))
    x = _draw(4, *shape)
    exact = sample(model, x.shape, ODE(rtol=1e-9, atol=1e-10), init=x).x
    samples = sample(model.to(dtype), x.shape, sampler, init=x.to(dtype), dtype=dtype).x
    assert samples.dtype == dtype
    assert samples.shape == x.shape
    torch.testing.assert_close(samples.double(), exact, rtol=0, atol=0.05)
    assert sample(model.to(dtype), (0, *shape), sampler).x.shape == (0, *shape)


def test_a_sample_depends_on_its_seed_alone() -> None:
    model, sampler = _mixture(), Whitened(Adams(9), _moments(4))
    whole = sample(model, 6, sampler, seeds=range(6)).x
    torch.testing.assert_close(sample(model, 6, sampler, seeds=range(6), batch_size=4).x, whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(sample(model, 6, sampler, seeds=range(5, -1, -1)).x.flip(0), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", [Adams(30), Heun(30), UniPC(30)], ids=["Adams", "Heun", "UniPC"])
def test_observers_receive_states_in_x_and_every_preview_has_a_network_call(sampler: StepSampler) -> None:
    model, moments, reports = _mixture(), _moments(4), []

    def stop_at_20(progress: Progress) -> bool:
        reports.append(progress)
        return len(reports) == 20

    x = _draw(2, 4)
    samples = sample(
        model, (2, 4), Whitened(sampler, moments), init=x, trajectory=True, previews=True, observe=stop_at_20
    )
    assert samples.tau == reports[-1].tau
    assert samples.trajectory is not None
    assert samples.previews is not None
    assert samples.taus is not None
    assert len(samples.trajectory) == len(samples.previews) + 1 == len(samples.taus)
    torch.testing.assert_close(samples.trajectory[-1], samples.x)
    torch.testing.assert_close(reports[-1].x, samples.x)
    torch.testing.assert_close(samples.trajectory[0], x)
    continued = sample(model, (2, 4), Adams(200), init=samples.x, start=samples.tau).x
    exact = sample(model, (2, 4), ODE(rtol=1e-9, atol=1e-9), init=x).x
    torch.testing.assert_close(continued, exact, rtol=0, atol=0.15)
    assert samples.nfe == {"Adams": 20, "Heun": 39, "UniPC": 21}[type(sampler).__name__]


def test_no_step_reads_tensor_values() -> None:
    model = ScoreModel(MLP((4,), width=8, depth=1), VPSDE(), V(), (4,)).to("meta")
    assert sample(model, 3, Whitened(Adams(5), _moments(4)), seeds=range(3), trajectory=True).x.shape == (3, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Whitened(ODE(), _moments(4)), TypeError, "Whitened needs a step sampler, got ODE"),  # pyright: ignore
        (lambda: Whitened(DDIM(eta=1.0), _moments(4)), ValueError, "Whitened needs a deterministic sampler"),
        (lambda: Whitened(AnnealedLangevin(), _moments(4)), ValueError, "Whitened needs a deterministic sampler"),
        (lambda: Whitened(Adams(1), _moments(4)), ValueError, "needs two steps or more"),
        (lambda: Whitened(Adams(4), _mixture()), TypeError, "moments must be a Moments"),  # pyright: ignore
        (lambda: Moments(_draw(3), _draw(4, 3), _draw(3).exp()), ValueError, r"axes must have shape \(3, r\)"),
        (lambda: Moments(_draw(3), _draw(3, 3), -_draw(3).exp()), ValueError, "variances must not be negative"),
        (lambda: Moments(_draw(3), _draw(3, 3), _draw(3).exp(), math.nan), ValueError, "must not be negative"),
        (lambda: Moments(_draw(3) * math.nan, _draw(3, 3), _draw(3).exp()), ValueError, "mean .*finite"),
        (lambda: Moments.of(_draw(1, 3)), ValueError, "needs two events or more, got 1"),
        (
            lambda: sample(_mixture(), 3, Whitened(Adams(4), _moments(4)), init=_draw(3, 4), start=1.0),
            ValueError,
            "alpha <= 0.1, got alpha = 0.368 at tau = 1",
        ),
        (
            lambda: sample(_mixture(), 3, Whitened(Adams(4), _moments(5))),
            ValueError,
            r"the moments' shape, \(5,\), got",
        ),
    ],
)
def test_invalid_arguments_are_refused(call: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_moments_are_equal_by_value_and_have_a_short_repr() -> None:
    assert _moments(4) == _moments(4) != _moments(4, seed=6)
    assert _moments(4) != "moments"
    assert Whitened(Adams(4), _moments(4)) == Whitened(Adams(4), _moments(4)) != Whitened(Adams(5), _moments(4))
    assert Whitened(Adams(4), _moments(4)) != Adams(4)
    assert repr(_moments(4, rank=2)) == "Moments(2 of 4 axes)"
    assert repr(Whitened(Adams(4), _moments(4))).startswith("Whitened(Adams(steps=4")


def test_two_events_have_moments_however_the_shrinkage_is_rounded() -> None:
    for seed in range(100):
        pair = torch.randn(2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        moments = Moments.of(pair)
        assert moments.rest >= 0
        torch.testing.assert_close(moments.mean, pair.mean(0))
