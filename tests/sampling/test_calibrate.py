"""Is a calibrated grid better on noises that it was not fitted to, never worse, and never used with other weights?"""

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

from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.process import ou
from scoresde.process.parameterization import V
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
    RungeKutta,
    StepSampler,
    UniformAngle,
    UniPC,
    Whitened,
    calibrate,
    sample,
)
from scoresde.sampling.calibration.calibrate import _with_hard
from scoresde.sampling.calibration.candidates import Candidate
from scoresde.sampling.calibration.evolution import evolve
from scoresde.sampling.calibration.noise_pool import NoiseBatch, NoisePool
from scoresde.sampling.calibration.rollouts import Rollouts
from scoresde.sampling.calibration.step_fractions import StepFractions
from scoresde.storage.checkpoint import load_calibration, save, save_calibration

D = torch.float64
RING = GaussianMixture.ring()
PLAIN = Adams(8)


def _root(steps: int, power: float = 2.0, sde: SDE = RING.sde) -> ExplicitGrid:
    """Even in a power of the angle."""
    shares = StepFractions.make(UniformAngle().times(sde, 2), sde.tau_min)
    return ExplicitGrid(tuple(shares.times(shares.power(power, steps))))


def _error(model: Any, sampler: StepSampler | Whitened, seed: int = 77, n: int = 512) -> float:
    """Against a finer walk than the calibration's own reference, from noises that it never saw."""
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=D)
    fine = Adams(400, _root(400), predictor_order=4, corrector_order=4)
    ends = [sample(model, x.shape, each, init=x).x for each in (sampler, fine)]
    return float((ends[0] - ends[1]).square().mean().sqrt())


def _times(found: Calibration) -> tuple[float, ...]:
    """Of the fitted grid."""
    way = found.sampler.sampler if isinstance(found.sampler, Whitened) else found.sampler
    assert isinstance(way.grid, ExplicitGrid)
    return way.grid.taus


# --- what it is for ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "share"), [(5, 0.5), (8, 0.5), (12, 0.4)])
def test_on_noises_never_seen_the_error_is_far_below_the_default_grids(steps: int, share: float) -> None:
    found = calibrate(RING, PLAIN, steps, noises=128, iterations=12)
    assert _error(RING, found.sampler) < share * _error(RING, found.original)


@pytest.mark.parametrize("sampler", [DDIM(6, UniformAngle()), UniPC(6), Heun(4), RungeKutta(3)], ids=repr)
def test_every_deterministic_family_gains(sampler: StepSampler) -> None:
    found = calibrate(RING, sampler, noises=64, iterations=6)
    assert found.error < 0.8 * found.original_error
    assert _error(RING, found.sampler) < 0.9 * _error(RING, sampler)


def test_the_errors_it_tells_are_those_of_its_samplers() -> None:
    found = calibrate(RING, PLAIN, noises=32, iterations=3)
    x = RING.sde.prior(torch.empty(64, 2, dtype=D), _noise(0), RING.sde.tau_max)
    fine = Adams(128, _root(128), predictor_order=4, corrector_order=4)
    ends, own, fitted = (sample(RING, x.shape, each, init=x).x for each in (fine, PLAIN, found.sampler))
    rms = [float((a - ends)[rows].square().mean().sqrt()) for a in (own, fitted) for rows in (slice(32), slice(32, 64))]
    assert rms[1:] == pytest.approx([found.original_error, found.fit_error, found.error], rel=1e-9)


def _noise(seed: int) -> Any:
    from scoresde._core.noise import Noise

    return Noise(torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("noises", "iterations"), [(1, 1), (1, 12), (2, 4)])
def test_on_the_noises_held_out_it_is_never_worse_however_few_it_was_fitted_to(noises: int, iterations: int) -> None:
    for seed in range(4):
        source = torch.Generator().manual_seed(seed)
        found = calibrate(RING, PLAIN, noises=noises, iterations=iterations, generator=source)
        assert found.error <= found.original_error


def test_where_no_grid_is_better_the_sampler_comes_back_as_it_was() -> None:
    still = Gaussian(torch.zeros(2, dtype=D), 1.0)  # v = 0: every walk is exact
    found = calibrate(still, PLAIN, noises=4)
    assert found.sampler == PLAIN
    assert found.error == found.original_error == 0.0


def test_a_grid_keeps_its_ends_and_falls_between_them() -> None:
    for own in (UniformAngle(), Chain()):
        found = calibrate(RING, replace(PLAIN, grid=own), noises=16, iterations=4)
        taus, before = _times(found), own.times(RING.sde, 8)
        assert (taus[0], taus[-1]) == (before[0], before[-1])
        assert taus[-2] > RING.sde.tau_min


def test_one_step_has_nothing_to_fit_and_works() -> None:
    found = calibrate(RING, PLAIN, 1, noises=4)
    assert found.sampler == replace(PLAIN, steps=1)
    assert found.error == found.original_error > 0


def test_a_clock_without_signal_at_its_end_is_calibrated_in_the_angle() -> None:
    ring = GaussianMixture.ring(sde=VPSDE(Cosine(clip=1.0), tau_min=1e-4))
    assert ring.sde.tau_max == math.inf
    found = calibrate(ring, PLAIN, noises=64)
    assert _times(found)[0] == math.inf
    assert found.error < 0.6 * found.original_error


@pytest.fixture(scope="module")
def far() -> GaussianMixture:
    """Six parts far apart in eight dimensions, most of whose variance lies in few of them."""
    draw = torch.Generator().manual_seed(2)
    means = torch.randn(6, 8, generator=draw, dtype=D)
    stds = torch.exp(torch.empty(6, 8, dtype=D).uniform_(math.log(0.03), 0.0, generator=draw))
    return GaussianMixture(torch.ones(6), means, stds**2, VPSDE(tau_min=1e-4))


def _far_error(law: GaussianMixture, sampler: StepSampler | Whitened) -> float:
    x = torch.randn(4096, 8, generator=torch.Generator().manual_seed(77), dtype=D)
    fine = Adams(400, _root(400, sde=law.sde), predictor_order=4, corrector_order=4)
    ends = [sample(law, x.shape, each, init=x) for each in (sampler, fine)]
    assert ends[0].nfe == 8
    return float((ends[0].x - ends[1].x).square().mean().sqrt())


@pytest.mark.slow
def test_without_mean_and_covariance_less_is_left_and_hard_noises_and_trials_take_more_of_it(
    far: GaussianMixture,
) -> None:
    plain = calibrate(far, PLAIN, noises=512, whiten=False)
    white = calibrate(far, PLAIN, noises=512)
    hard = calibrate(far, PLAIN, noises=512, pool=8, search=40)
    errors = [_far_error(far, each) for each in (PLAIN, plain.sampler, white.sampler, hard.sampler)]
    assert isinstance(white.sampler, Whitened)
    assert not isinstance(plain.sampler, Whitened)
    assert errors[1] < 0.9 * errors[0]
    assert errors[2] < 0.8 * errors[1]
    assert errors[3] < errors[2]


def test_hard_noises_join_those_that_came_first_and_the_weights_of_all_stand_for_the_pool() -> None:
    model = ScoreModel(Hard(), VPSDE(tau_min=1e-3), V(), event_shape=(2,))
    model.eval()
    x = torch.randn(72, 2, generator=torch.Generator().manual_seed(3), dtype=D)
    draws, rough = NoiseBatch(x, {"label": torch.linspace(-1.0, 1.0, 72)}), Candidate(model, PLAIN, PLAIN, None)

    def lead(some: NoiseBatch) -> Tensor:
        return 3.0 * some.x

    grids = [ExplicitGrid(tuple(rough.shares.times(rough.shares.power(p, 8)))) for p in (4 / 3, 5 / 3)]
    walks = [sample(model, x.shape, replace(PLAIN, grid=grid), init=x, label=draws.cond["label"]).x for grid in grids]
    apart = (walks[0] - walks[1]).square().mean(1)
    with torch.no_grad():
        found = _with_hard(NoisePool.alike(draws[:12], lead(draws[:12])), draws, 18, rough, lead)
    rows = torch.tensor([int((x == one).all(1).nonzero()) for one in found.draws.x])
    assert torch.equal(found.draws.cond["label"], draws.cond["label"][rows])
    assert torch.equal(found.ends, 3.0 * found.draws.x)
    assert rows[:12].tolist() == list(range(12))
    least = apart[rows[12:]].min()
    assert set(rows[12:].tolist()) == {i for i in range(12, 72) if apart[i] >= least}
    easy = apart[:12] < least
    assert 0 < easy.sum() < 12  # some of the first are as hard as those that were chosen, and stand for themselves
    stands = torch.where(easy, (72 - 6 - (~easy).sum()) / easy.sum(), 1.0)
    assert found.weights.tolist() == pytest.approx([*(stands * 18 / 72).tolist(), *[18 / 72] * 6])


def test_from_a_pool_the_errors_are_those_of_all_of_its_noises() -> None:
    found = calibrate(RING, PLAIN, noises=600, pool=3, iterations=3)
    x = RING.sde.prior(torch.empty(3600, 2, dtype=D), _noise(0), RING.sde.tau_max)
    fine, own = (sample(RING, x.shape, each, init=x).x for each in (Adams(128), PLAIN))
    assert found.original_error == pytest.approx(float((own - fine)[1800:].square().mean().sqrt()), rel=0.1)


def test_trials_never_end_above_where_they_began_and_are_the_generators() -> None:
    x = torch.randn(32, 2, generator=torch.Generator().manual_seed(3), dtype=D)
    ends = sample(RING, x.shape, Adams(100), init=x).x
    walks = Rollouts(RING.predict, Adams(6, predictor_order=2), x, ends, lambda last: last, 1e-5, torch.ones(32))
    shares = StepFractions.make(UniformAngle().times(RING.sde, 6), RING.sde.tau_min)
    begin = shares.times(shares.power(1.0, 6))
    found = [evolve(walks, shares, begin, 15, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert all(walks.loss(taus) < 0.5 * walks.loss(begin) for taus in found)
    assert evolve(walks, shares, begin, 0, torch.Generator()) == pytest.approx(begin)


def test_orders_are_settled_only_where_they_are_left_open() -> None:
    found = calibrate(RING, Adams(8, predictor_order=3, corrector_order=3), noises=32, iterations=3)
    assert isinstance(found.sampler, Whitened)
    way = found.sampler.sampler
    assert isinstance(way, Adams)
    assert (way.predictor_order, way.corrector_order, way.variable) == (3, 3, "angle")
    assert way.steps == 9


@pytest.mark.parametrize("sampler", [Adams(13), Adams(6, predictor_order=5), Heun(4), UniPC(7)], ids=repr)
def test_what_was_fitted_makes_no_more_network_calls_than_what_was_given(sampler: StepSampler) -> None:
    found = calibrate(RING, sampler, noises=32, iterations=2)
    calls = [sample(RING, 1, each).nfe for each in (found.original, found.sampler)]
    assert calls[0] - 1 <= calls[1] <= calls[0]


def test_moments_may_be_given_and_with_few_noises_none_are_taken(far: GaussianMixture) -> None:
    moments = Moments.of(far.sample(5000, generator=torch.Generator().manual_seed(0)))
    way = Adams(8, predictor_order=2, corrector_order=3, variable="sigma")
    given = calibrate(far, way, noises=64, iterations=3, whiten=moments)
    assert isinstance(given.sampler, Whitened)
    assert given.sampler.moments == moments
    assert not isinstance(calibrate(far, way, noises=8, iterations=3).sampler, Whitened)


def test_the_walk_is_whitened_only_where_that_is_better() -> None:
    moments = Moments(torch.zeros(2), torch.eye(2), torch.tensor([1e-3, 1e3]))  # far from the ring's
    assert not isinstance(calibrate(RING, PLAIN, noises=16, iterations=3, whiten=moments).sampler, Whitened)


# --- how --------------------------------------------------------------------------------------------------------------


def _deterministic() -> list[Any]:
    made: list[StepSampler] = [kind(steps=5) for kind in concrete(StepSampler)]
    made = [each for each in made if not each.stochastic and each.order is not None]
    made += [DPMSolver(5, solver_order=3), DPMSolver(5, solver_order=3, prediction="x0")]
    made += [
        Adams(5, prediction="eps", variable="rho"),
        Adams(5, prediction="x0", variable="tau"),
        DEIS(5, variable="rho"),
    ]
    made += [RungeKutta(5, method=name) for name in ("euler", "midpoint", "heun", "rk3")]
    return [pytest.param(each, id=f"{i}-{type(each).__name__}") for i, each in enumerate(made)]


@pytest.mark.parametrize("sampler", _deterministic())
def test_knots_that_are_tensors_have_the_gradient_of_finite_differences(sampler: StepSampler) -> None:
    x = torch.randn(3, 2, generator=torch.Generator().manual_seed(1), dtype=D)
    taus: list[Any] = list(_root(5).taus)

    def end(times: list[Any]) -> Any:
        state, memory = x, None
        for tau, s in zip(times, times[1:]):
            state, memory = sampler.step(RING.predict, state, tau, s, lambda: None, memory)
        return state.square().sum()

    def moved(i: int, by: float) -> float:
        return float(end([*taus[:i], taus[i] * (1 + by), *taus[i + 1 :]]))

    knots = torch.tensor(taus[1:-1], dtype=D, requires_grad=True)
    value = end([taus[0], *knots.unbind(), taus[-1]])
    assert value.item() == pytest.approx(moved(1, 0.0), rel=1e-9)
    (slope,) = torch.autograd.grad(value, knots)
    differences = torch.tensor([(moved(i, 1e-6) - moved(i, -1e-6)) / (2e-6 * taus[i]) for i in range(1, 5)], dtype=D)
    assert torch.allclose(slope, differences, rtol=1e-5, atol=1e-6 * float(differences.abs().max()))


def test_shares_and_times_are_each_others_inverse_and_their_slopes_are_right() -> None:
    own = list(_root(6, 3.0).taus)
    shares = StepFractions.make(own, 1e-5)
    theta = shares.theta([math.sqrt(ou.angle(tau)) for tau in own])
    assert shares.times(shares.places(theta)) == pytest.approx(own, rel=1e-9)
    assert [shares.time(place) for place in shares.power(3.0, 6)] == pytest.approx(own, rel=1e-9)

    def places(theta: Tensor) -> Tensor:
        high = shares.places(theta.detach())[0]
        return high + (shares.low - high) * torch.cumsum(torch.softmax(theta, 0), 0)[:-1]

    exact = torch.autograd.functional.jacobian(places, theta)
    assert isinstance(exact, Tensor)
    assert torch.allclose(shares.slopes(theta), exact, atol=1e-14)


# --- networks ---------------------------------------------------------------------------------------------------------


class Hard(nn.Module):
    """A network without a gradient, in train mode not a function, that notes what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.7))
        self.labels: set[int] = set()

    def forward(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        assert not self.training
        if label is not None:
            self.labels.add(len(label))
            x = x + label[:, None]
        return self.weight * torch.round(x.detach() * 512) / 512 * torch.tanh(log_snr[:, None] / 4)


def test_a_float32_network_is_calibrated_and_left_as_it_was() -> None:
    torch.manual_seed(0)
    model = ScoreModel(MLP((2,), width=16, depth=1), VPSDE(tau_min=1e-3), V(), (2,))
    model.train()
    model.net.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    noise = torch.random.get_rng_state()
    found = calibrate(model, PLAIN, 4, noises=16, iterations=5)
    assert found.error <= found.original_error
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(not p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), noise)


def test_the_networks_gradient_is_never_asked_for_and_conditioning_arrives_by_noise() -> None:
    net = Hard()
    model = ScoreModel(net, VPSDE(tau_min=1e-3), V(), event_shape=(3,))
    label = torch.linspace(-1.0, 1.0, 24)
    with torch.inference_mode():
        found = calibrate(model, PLAIN, 4, noises=12, iterations=3, label=label)
    assert found.error <= found.original_error
    assert net.labels == {12}
    found = calibrate(model, PLAIN, 4, noises=100, iterations=2, pool=3, search=2, label=label.repeat(25))
    assert found.error <= found.original_error
    assert net.labels == {12, 20, 80, 100}
    assert not any(p.grad_fn for p in model.parameters())


def test_a_batch_size_bounds_every_network_call_and_changes_nothing_else() -> None:
    net = Hard()
    model = ScoreModel(net, VPSDE(tau_min=1e-3), V(), event_shape=(3,))
    settings: dict[str, Any] = {"noises": 80, "iterations": 2, "pool": 2, "label": torch.linspace(-1.0, 1.0, 320)}
    whole = calibrate(model, PLAIN, 4, **settings)
    net.labels.clear()
    parts = calibrate(model, PLAIN, 4, batch_size=7, **settings)
    assert max(net.labels) == 7
    assert (parts.error, parts.original_error) == pytest.approx((whole.error, whole.original_error), rel=1e-3)
    assert _times(parts) == pytest.approx(_times(whole), rel=1e-3)


def test_the_same_seed_finds_the_same_grid() -> None:
    assert calibrate(RING, PLAIN, noises=8, iterations=3) == calibrate(RING, PLAIN, noises=8, iterations=3)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "settings", "error", "says"),
    [
        (ODE(), {}, TypeError, "calibrate needs a step sampler, got ODE"),
        (DDIM(eta=0.5), {}, ValueError, "calibrate needs a deterministic sampler"),
        (AnnealedLangevin(), {}, ValueError, "calibrate needs a deterministic sampler"),
        (PLAIN, {"noises": 0}, ValueError, "noises must be a positive integer, got 0"),
        (PLAIN, {"iterations": True}, ValueError, "iterations must be a positive integer, got True"),
        (PLAIN, {"batch_size": 0}, ValueError, "batch_size must be a positive integer, got 0"),
        (PLAIN, {"pool": 0}, ValueError, "pool must be a positive integer, got 0"),
        (PLAIN, {"starts": 1.0}, ValueError, "starts must be a positive integer, got 1.0"),
        (PLAIN, {"search": -1}, ValueError, "search must be a number of rounds, 0 for none, got -1"),
        (PLAIN, {"whiten": Moments(torch.zeros(3), torch.eye(3), torch.ones(3))}, ValueError, "the moments' shape"),
        (PLAIN, {"steps": 0}, ValueError, "steps must be a positive integer, got 0"),
        (PLAIN, {"noise": 3}, TypeError, "did you mean noises"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(sampler: Any, settings: Any, error: Any, says: str) -> None:
    with pytest.raises(error, match=says):
        calibrate(RING, sampler, **settings)


def test_a_model_must_say_its_shape_its_conditioning_fit_and_its_reference_be_finite() -> None:
    net = Hard()
    model = ScoreModel(net, VPSDE(tau_min=1e-3), V())
    with pytest.raises(ValueError, match="calibrate needs the shape of an event"):
        calibrate(model, PLAIN)
    with pytest.raises(ValueError, match=r"label must have one entry per noise \(2 \* pool \* noises\), 4, got 3"):
        calibrate(model, PLAIN, shape=(3,), noises=2, label=torch.zeros(3))
    with torch.no_grad():
        net.weight.fill_(math.nan)
    with pytest.raises(RuntimeError, match="the reference, Adams.* must end in finite numbers"):
        calibrate(model, PLAIN, shape=(3,), noises=2)


# --- beside the checkpoint --------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> tuple[Path, ScoreModel]:
    model = ScoreModel(MLP((2,), width=8, depth=1), VPSDE(tau_min=1e-3), V(), (2,))
    save(model, tmp_path, ema=ScoreModel(MLP((2,), width=8, depth=1), VPSDE(tau_min=1e-3)))
    return tmp_path, model


def test_a_calibration_is_read_back_as_it_was_saved(kept: tuple[Path, ScoreModel]) -> None:
    run, model = kept
    first, second = (calibrate(model, PLAIN, steps, noises=4, iterations=2) for steps in (3, 4))
    same = replace(second, sampler=second.original)
    white = calibrate(model, PLAIN, 5, noises=16, iterations=1, whiten=True)
    if not isinstance(white.sampler, Whitened):  # of an untrained network hardly anything is left to gain
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
    assert moments not in list(run.glob("calibrated-*"))  # no longer named
    (moments,) = run.glob("calibrated-*")
    (moments / "moments.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(RuntimeError, match="must be as it was saved"):
        load_calibration(run, white.original)
    shutil.rmtree(moments)
    with pytest.raises(FileNotFoundError, match="there must be a checkpoint at .*calibrated-"):
        load_calibration(run, white.original)
    assert not list(run.glob(".calibrated.json"))


def test_a_grid_is_refused_for_other_weights_than_those_it_was_fitted_to(kept: tuple[Path, ScoreModel]) -> None:
    run, model = kept
    found = calibrate(model, PLAIN, 3, noises=4, iterations=2)
    save_calibration(run, found)
    with pytest.raises(
        ValueError, match=r"with the weights that it was fitted to, .*\(averaged.*got .*\(weights as tr"
    ):
        load_calibration(run, found.original, raw=True)
    first = run / "checkpoint-000001"
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    save(model, run, ema=model)
    with pytest.raises(ValueError, match=r"checkpoint-000001 .*, got checkpoint-000002 .*; calibrate it"):
        load_calibration(run, found.original)
    assert load_calibration(first, found.original) == found
    save_calibration(run, found)
    assert load_calibration(run, found.original) == load_calibration(first, found.original) == found


def test_what_was_never_calibrated_is_told_with_what_was(kept: tuple[Path, ScoreModel]) -> None:
    run, model = kept
    with pytest.raises(FileNotFoundError, match="there must be calibrations in .*calibrated.json"):
        load_calibration(run, PLAIN)
    save_calibration(run, calibrate(model, PLAIN, 3, noises=4, iterations=2))
    with pytest.raises(ValueError, match=r"no calibration of Adams\(steps=9, .*there are: Adams\(steps=3, "):
        load_calibration(run, replace(PLAIN, steps=9))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "other"}', '{"calibrations": [{}]}'])
def test_a_file_that_holds_no_calibrations_is_refused_and_left_alone(text: str, kept: tuple[Path, ScoreModel]) -> None:
    run, model = kept
    (run / "calibrated.json").write_text(text)
    found = calibrate(model, PLAIN, 2, noises=2, iterations=1)
    for attempt in (lambda: load_calibration(run, PLAIN), lambda: save_calibration(run, found)):
        with pytest.raises(ValueError, match="must hold calibrations as save_calibration writes them"):
            attempt()
    assert (run / "calibrated.json").read_text() == text


def test_a_save_that_fails_leaves_the_earlier_file(kept: tuple[Path, ScoreModel], monkeypatch: Any) -> None:
    run, model = kept
    found = calibrate(model, PLAIN, 3, noises=4, iterations=2)
    before = save_calibration(run, found).read_text()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="a calibration must be writable to .*No space left"):
        save_calibration(run, dataclasses.replace(found, noises=5))
    assert (run / "calibrated.json").read_text() == before
