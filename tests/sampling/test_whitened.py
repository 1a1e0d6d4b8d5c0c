"""Is the walk that leaves out a mean and a covariance the same walk, and is nothing left of it for Gaussian data?"""

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


def _law(sde: SDE | None = None, size: int = 4) -> GaussianMixture:
    covs = torch.stack([m @ m.mT * 0.1 + 0.05 * torch.eye(size, dtype=D) for m in _draw(3, size, size, seed=3)])
    return GaussianMixture(torch.tensor([1.0, 2.0, 3.0], dtype=D), _draw(3, size, seed=2), covs, sde)


# --- the change of coordinates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [4, 2, 0])
@pytest.mark.parametrize("tau", [0.01, 0.4, 3.0])
def test_the_velocity_in_y_is_the_derivative_of_y_along_the_flow_of_x(rank: int, tau: float) -> None:
    frame, law = WhitenedCoordinates(_moments(4, rank=rank), _draw(1, 4)), _law()
    y = _draw(3, 4, seed=9)
    left = frame.predict(law.predict, math.inf, y, tau).v
    x, phi, h = frame.leave(y, tau), ou.angle(tau), 1e-5

    def moved(by: float) -> Tensor:  # two terms of the flow: the third is even in the step, and drops out
        at = ou.tau_from_angle(phi + by)
        half = x + 0.5 * by * law.predict(x, tau).v
        return frame.enter(x + by * law.predict(half, ou.tau_from_angle(phi + 0.5 * by)).v, at)

    torch.testing.assert_close((moved(h) - moved(-h)) / (2 * h), left, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("rank", [6, 3, 0])
def test_leaving_undoes_entering_and_the_covariance_at_the_end_is_one(rank: int) -> None:
    moments = _moments(6, rank=rank)
    frame = WhitenedCoordinates(moments, _draw(1, 6))
    for tau in (1e-7, 0.3, 20.0, math.inf):
        x = _draw(5, 6)
        torch.testing.assert_close(frame.leave(frame.enter(x, tau), tau), x, rtol=1e-12, atol=1e-12)
        marginal = ou.alpha_bar(tau) * _covariance(moments) + ou.sigma(tau) ** 2 * torch.eye(6, dtype=D)
        unit = frame.leave(torch.eye(6, dtype=D), tau) - ou.alpha(tau) * moments.mean
        torch.testing.assert_close(unit @ unit, marginal, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rank", [4, 2])
@pytest.mark.parametrize("view", [VPSDE, VE, SubVP, Flow], ids=lambda view: view.__name__)
def test_gaussian_data_are_at_their_end_in_two_steps_and_one_call(view: type[SDE], rank: int) -> None:
    moments = _moments(4, rank=rank)
    law = Gaussian(moments.mean, _covariance(moments), view())
    start = min(law.sde.tau_max, 12.0)
    init = _draw(8, 4) * float(law.sde.scale(start))
    for way, calls in ((Adams(2, predictor_order=2), 1), (RungeKutta(2, method="euler"), 1), (RungeKutta(2), 7)):
        found = sample(law, (8, 4), Whitened(way, moments), init=init, start=start)
        fine = sample(law, (8, 4), ODE(rtol=1e-11, atol=1e-12), init=init, start=start)
        torch.testing.assert_close(found.x, fine.x, rtol=1e-6, atol=1e-7)
        assert found.nfe == calls


@pytest.mark.parametrize(
    ("way", "order"),
    [
        (Adams(predictor_order=2, corrector_order=0), 2),
        (Adams(predictor_order=2, corrector_order=3, variable="sigma"), 3),
        (UniPC(solver_order=2), 3),
        (DPMSolver(), 2),
    ],
    ids=["AB2", "AB2 + AM3 in sigma", "UniPC-2", "DPM-Solver-2"],
)
def test_with_whatever_moments_the_end_is_the_flows_and_the_order_the_samplers(way: StepSampler, order: int) -> None:
    law = _law(VPSDE(tau_min=0.02))
    start = 3.0
    x, moments = _draw(16, 4), _moments(4)
    exact = sample(law, (16, 4), ODE(rtol=1e-12, atol=1e-13), init=x, start=start).x
    frame, errors = WhitenedCoordinates(moments, x), []
    for steps in (64, 128):
        taus = UniformAngle().times(law.sde, steps, start)
        y, memory = frame.enter(x, start), None
        for tau, s in zip(taus, taus[1:]):  # with a network call at the start, which is not deep in the noise here
            y, memory = way.step(lambda y, tau: frame.predict(law.predict, math.inf, y, tau), y, tau, s, _none, memory)
        errors.append(float((frame.leave(y, taus[-1]) - exact).square().mean().sqrt()))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.35)


def _none() -> None:
    raise AssertionError("a deterministic sampler drew noise")


def test_a_clock_without_signal_at_its_end_begins_at_the_end_of_the_angle() -> None:
    law = _law(VPSDE(Cosine(clip=1.0), tau_min=1e-4))
    assert law.sde.tau_max == math.inf
    x = _draw(32, 4)
    fine = sample(law, (32, 4), ODE(rtol=1e-10, atol=1e-11), init=x).x
    moments = Moments.of(law.sample(20_000, generator=torch.Generator().manual_seed(1)))
    drawn = sample(law, (32, 4), Whitened(Adams(8), moments), init=x)
    plain = sample(law, (32, 4), Adams(8), init=x)
    assert drawn.nfe == plain.nfe - 1
    assert float((drawn.x - fine).square().mean()) < float((plain.x - fine).square().mean())


# --- moments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size"), [(50, 6), (5, 12), (2, 3)])
def test_moments_of_data_are_ledoit_and_wolfs(n: int, size: int) -> None:
    data = _draw(n, size) @ torch.diag(torch.linspace(0.1, 2.0, size, dtype=D)) + 3.0
    moments = Moments.of(data.reshape(n, size, 1))
    covariance, _ = ledoit_wolf(data.numpy())
    torch.testing.assert_close(_covariance(moments), torch.from_numpy(covariance), rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(moments.mean, data.mean(0)[:, None])


def test_the_field_of_gaussian_data_has_their_covariance_to_many_digits() -> None:
    truth = _moments(5)
    law = Gaussian(truth.mean.reshape(5, 1), _covariance(truth))
    generator = torch.Generator().manual_seed(0)
    data = law.sample(400, generator=generator)
    rough = Moments.of(data)
    found = rough.sharpened(law.predict, data, Noise(generator).normal)
    torch.testing.assert_close(_covariance(found), _covariance(truth), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found.mean.flatten(), truth.mean, rtol=1e-6, atol=1e-7)
    assert float((_covariance(rough) - _covariance(truth)).abs().max()) > 0.03


def test_a_field_that_is_wrong_is_held_within_three_standard_errors_of_the_sample() -> None:
    truth = _moments(5)
    wrong = Gaussian(truth.mean, 25.0 * _covariance(truth))
    generator = torch.Generator().manual_seed(0)
    data = Gaussian(truth.mean, _covariance(truth)).sample(450, generator=generator)
    found = Moments.of(data).sharpened(wrong.predict, data, Noise(generator).normal)
    seen = (data @ found.axes).var(0)
    torch.testing.assert_close(found.variances, 1.2 * seen)


# --- as any sampler ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 2, 2), (1, 2, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, D])
def test_events_of_any_rank_and_either_type_are_walked_and_batches_of_none(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    size = math.prod(shape)
    mean, var = torch.linspace(-1.0, 1.0, size, dtype=D), torch.linspace(0.1, 1.5, size, dtype=D)
    law = GaussianMixture(torch.ones(2), torch.stack([mean, -mean]).reshape(2, *shape), torch.stack([var, var]))
    data = law.sample(500, generator=torch.Generator().manual_seed(0))
    way = Whitened(Adams(12), Moments.of(data))
    x = _draw(4, *shape)
    exact = sample(law, x.shape, ODE(rtol=1e-9, atol=1e-10), init=x).x
    drawn = sample(law.to(dtype), x.shape, way, init=x.to(dtype), dtype=dtype).x
    assert drawn.dtype == dtype
    assert drawn.shape == x.shape
    torch.testing.assert_close(drawn.double(), exact, rtol=0, atol=0.05)
    assert sample(law.to(dtype), (0, *shape), way).x.shape == (0, *shape)


def test_a_sample_depends_on_its_own_seed_alone() -> None:
    law, way = _law(), Whitened(Adams(9), _moments(4))
    whole = sample(law, 6, way, seeds=range(6)).x
    torch.testing.assert_close(sample(law, 6, way, seeds=range(6), batch_size=4).x, whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(sample(law, 6, way, seeds=range(5, -1, -1)).x.flip(0), whole, rtol=0, atol=1e-12)


@pytest.mark.parametrize("way", [Adams(30), Heun(30), UniPC(30)], ids=["Adams", "Heun", "UniPC"])
def test_what_is_told_on_the_way_is_in_x_and_every_preview_has_its_call(way: StepSampler) -> None:
    law, moments, told = _law(), _moments(4), []

    def watch(now: Progress) -> bool:
        told.append(now)
        return len(told) == 20

    x = _draw(2, 4)
    drawn = sample(law, (2, 4), Whitened(way, moments), init=x, trajectory=True, previews=True, observe=watch)
    assert drawn.tau == told[-1].tau
    assert drawn.trajectory is not None
    assert drawn.previews is not None
    assert drawn.taus is not None
    assert len(drawn.trajectory) == len(drawn.previews) + 1 == len(drawn.taus)
    torch.testing.assert_close(drawn.trajectory[-1], drawn.x)
    torch.testing.assert_close(told[-1].x, drawn.x)
    torch.testing.assert_close(drawn.trajectory[0], x)
    ahead = sample(law, (2, 4), Adams(200), init=drawn.x, start=drawn.tau).x
    exact = sample(law, (2, 4), ODE(rtol=1e-9, atol=1e-9), init=x).x
    torch.testing.assert_close(ahead, exact, rtol=0, atol=0.15)
    assert drawn.nfe == {"Adams": 21, "Heun": 39, "UniPC": 21}[type(way).__name__]


def test_nothing_looks_at_values_on_the_way() -> None:
    model = ScoreModel(MLP((4,), width=8, depth=1), VPSDE(), V(), (4,)).to("meta")
    assert sample(model, 3, Whitened(Adams(5), _moments(4)), seeds=range(3), trajectory=True).x.shape == (3, 4)


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Whitened(ODE(), _moments(4)), TypeError, "Whitened needs a step sampler, got ODE"),  # pyright: ignore
        (lambda: Whitened(DDIM(eta=1.0), _moments(4)), ValueError, "Whitened needs a deterministic sampler"),
        (lambda: Whitened(AnnealedLangevin(), _moments(4)), ValueError, "Whitened needs a deterministic sampler"),
        (lambda: Whitened(Adams(1), _moments(4)), ValueError, "needs two steps or more"),
        (lambda: Whitened(Adams(4), _law()), TypeError, "moments must be a Moments"),  # pyright: ignore
        (lambda: Moments(_draw(3), _draw(4, 3), _draw(3).exp()), ValueError, r"axes must have shape \(3, r\)"),
        (lambda: Moments(_draw(3), _draw(3, 3), -_draw(3).exp()), ValueError, "variances must not be negative"),
        (lambda: Moments(_draw(3), _draw(3, 3), _draw(3).exp(), math.nan), ValueError, "must not be negative"),
        (lambda: Moments(_draw(3) * math.nan, _draw(3, 3), _draw(3).exp()), ValueError, "mean .*finite"),
        (lambda: Moments.of(_draw(1, 3)), ValueError, "needs two events or more, got 1"),
        (
            lambda: sample(_law(), 3, Whitened(Adams(4), _moments(4)), init=_draw(3, 4), start=1.0),
            ValueError,
            "alpha <= 0.1, got alpha = 0.368 at tau = 1",
        ),
        (lambda: sample(_law(), 3, Whitened(Adams(4), _moments(5))), ValueError, r"the moments' shape, \(5,\), got"),
    ],
)
def test_what_does_not_fit_is_refused(make: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        make()


def test_moments_are_equal_by_their_numbers_and_shown_in_a_word() -> None:
    assert _moments(4) == _moments(4) != _moments(4, seed=6)
    assert _moments(4) != "moments"
    assert Whitened(Adams(4), _moments(4)) == Whitened(Adams(4), _moments(4)) != Whitened(Adams(5), _moments(4))
    assert Whitened(Adams(4), _moments(4)) != Adams(4)
    assert repr(_moments(4, rank=2)) == "Moments(2 of 4 axes)"
    assert repr(Whitened(Adams(4), _moments(4))).startswith("Whitened(Adams(steps=4")
