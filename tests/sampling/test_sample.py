"""The function `sample`: last times, network calls, trajectories, batches, seeds, views and event shapes."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scoresde.analytic import Gaussian, GaussianMixture
from scoresde.data import Description
from scoresde.model import ScoreModel
from scoresde.process import ou
from scoresde.process.parameterization import V
from scoresde.process.schedule import LinearBetas
from scoresde.process.sde import SDE, VE, VPSDE, Flow, SubVP
from scoresde.sampling import (
    DDIM,
    DDPM,
    ODE,
    Chain,
    EulerMaruyama,
    ExplicitGrid,
    ExponentialSDE,
    Grid,
    Progress,
    RungeKutta,
    Sampler,
    Samples,
    SamplingContext,
    StepSampler,
    TorchSDE,
    UniformAngle,
    UniformLogSNR,
    UniformTau,
    UniformU,
    sample,
)

STEPS: list[Sampler] = [DDPM(7), DDPM(7, rev_var="beta"), EulerMaruyama(7), ExponentialSDE(7), DDIM(7), RungeKutta(7)]
SOLVERS: list[Sampler] = [ODE(), TorchSDE(4), TorchSDE(4, "euler")]
ALL = STEPS + SOLVERS
PER_SAMPLE = [s for s in ALL if not isinstance(s, ODE)]
RING = GaussianMixture.ring()
NORMAL = Gaussian(torch.tensor([0.7, -1.3], dtype=torch.float64), torch.tensor([0.25, 4.0]))


class GaussianNet(nn.Module):
    """v of data N(mean, std²) in every entry, for any event shape; records its arguments."""

    def __init__(self, mean: float = 0.7, std: float = 0.5) -> None:
        super().__init__()
        self.mean, self.std = mean, std
        self.weight = nn.Parameter(torch.zeros(1))
        self.calls: list[tuple[Tensor, Tensor, dict[str, Any]]] = []

    def forward(self, x: Tensor, log_snr: Tensor, **cond: Tensor) -> Tensor:
        self.calls.append((x, log_snr, cond))
        tau = ou.tau_from_log_snr(log_snr).reshape(-1, *[1] * (x.ndim - 1)).to(x.dtype)
        alpha, sigma = ou.alpha(tau), ou.sigma(tau)
        residual = (x - alpha * self.mean) / (alpha**2 * self.std**2 + sigma**2)
        return alpha * sigma * (1 - self.std**2) * residual - sigma * self.mean + 0 * self.weight


def net_model(sde: SDE | None = None, event_shape: tuple[int, ...] | None = (2,), **settings: Any) -> ScoreModel:
    return ScoreModel(GaussianNet(**settings), VPSDE() if sde is None else sde, V(), event_shape)


def _numpy_state() -> str:
    return repr(np.random.get_state())  # noqa: NPY002


# --- last times and network calls -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sampler", "calls"),
    [
        (DDPM(7), 7),
        (DDIM(7), 7),
        (EulerMaruyama(7), 7),
        (ExponentialSDE(7), 7),
        (RungeKutta(7), 28),
        (RungeKutta(7, method="heun"), 14),
        (TorchSDE(7, "euler"), 7),
        (TorchSDE(7, "srk"), 28),
    ],
    ids=repr,
)
def test_network_calls_are_counted(sampler: Sampler, calls: int) -> None:
    model = net_model()
    assert sample(model, 3, sampler).nfe == calls
    assert isinstance(model.net, GaussianNet)
    assert len(model.net.calls) == calls


@pytest.mark.parametrize("sampler", ALL, ids=repr)
def test_a_final_denoising_is_one_more_call_and_only_above_zero(sampler: Sampler) -> None:
    plain = sample(NORMAL, 3, sampler, seeds=[1, 2, 3])
    denoised = sample(NORMAL, 3, sampler, seeds=[1, 2, 3], denoise=True)
    assert plain.tau == (0.0 if isinstance(sampler, (DDPM, DDIM)) else NORMAL.sde.tau_min)
    assert denoised.tau == 0.0
    assert denoised.nfe == plain.nfe + (plain.tau > 0)
    expected = plain.x if plain.tau == 0 else NORMAL(plain.x, plain.tau).x0
    torch.testing.assert_close(denoised.x, expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("steps", [1, 37, 999, 1000, 1001, 1500])
def test_the_chain_has_exactly_the_requested_number_of_distinct_steps(steps: int) -> None:
    taus = Chain().times(VPSDE(LinearBetas(steps=1000)), steps)
    assert len(set(taus)) == steps + 1
    assert taus == sorted(taus, reverse=True)
    assert taus[-1] == 0.0


def test_the_full_chain_visits_the_trained_knots() -> None:
    sde = VPSDE(LinearBetas(steps=1000))
    assert Chain().times(sde, 1000) == sde.schedule.knots(1000)[::-1]


@pytest.mark.parametrize("grid", [UniformU(), UniformTau(), UniformLogSNR(), UniformAngle()], ids=repr)
@pytest.mark.parametrize("sde", [VPSDE(), VE(), SubVP()], ids=lambda s: type(s).__name__)
def test_a_grid_is_even_in_its_own_coordinate_from_start_to_tau_min(grid: Grid, sde: SDE) -> None:
    taus = grid.times(sde, 9)
    coordinate = {
        UniformU: sde.schedule.u,
        UniformTau: float,
        UniformLogSNR: ou.log_snr,
        UniformAngle: ou.angle,
    }[type(grid)]
    assert (taus[0], taus[-1]) == (sde.tau_max, sde.tau_min)
    gaps = np.diff([float(coordinate(tau)) for tau in taus])
    assert gaps == pytest.approx(np.full(9, gaps.mean()), rel=1e-6)


# --- trajectories, observers and previews -----------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ALL, ids=repr)
@pytest.mark.parametrize("denoise", [False, True])
def test_a_trajectory_leads_from_the_start_to_the_samples(sampler: Sampler, denoise: bool) -> None:
    drawn = sample(NORMAL, 3, sampler, seeds=[1, 2, 3], trajectory=True, denoise=denoise)
    assert drawn.taus is not None
    assert drawn.trajectory is not None
    assert drawn.trajectory.shape == (len(drawn.taus), 3, 2)
    assert list(drawn.taus) == sorted(drawn.taus, reverse=True)
    assert (drawn.taus[0], drawn.taus[-1]) == (NORMAL.sde.tau_max, drawn.tau)
    assert torch.equal(drawn.trajectory[-1], drawn.x)
    assert torch.equal(drawn.x, sample(NORMAL, 3, sampler, seeds=[1, 2, 3], denoise=denoise).x)


def test_a_trajectory_holds_the_state_after_every_step() -> None:
    drawn, taus = sample(NORMAL, 3, DDIM(5), seeds=[1, 2, 3], trajectory=True), Chain().times(NORMAL.sde, 5)
    assert drawn.taus == tuple(taus)
    assert drawn.trajectory is not None
    for tau, s, x, end in zip(taus, taus[1:], drawn.trajectory, drawn.trajectory[1:]):
        prediction = NORMAL(x, tau)
        torch.testing.assert_close(end, ou.alpha(s) * prediction.x0 + ou.sigma(s) * prediction.eps)


@pytest.mark.parametrize("sampler", ALL, ids=repr)
def test_an_observer_is_called_after_every_step_and_at_the_end(sampler: Sampler) -> None:
    reports: list[Progress] = []
    drawn = sample(NORMAL, 3, sampler, seeds=[1, 2, 3], observe=reports.append)
    last = reports[-1]
    assert last.done == last.steps
    assert last.tau == drawn.tau
    assert torch.equal(last.x, drawn.x)
    assert [progress.done for progress in reports] == sorted(progress.done for progress in reports)
    if sampler in STEPS:
        assert [progress.done for progress in reports] == list(range(1, 8))


@pytest.mark.parametrize("sampler", [DDPM(7), EulerMaruyama(7), DDIM(7)], ids=repr)
@pytest.mark.parametrize("denoise", [False, True])
def test_a_preview_is_the_data_estimate_used_by_the_step_and_costs_no_call(sampler: StepSampler, denoise: bool) -> None:
    model, reports = net_model(VE()), []
    settings: dict[str, Any] = {"seeds": [1, 2, 3], "denoise": denoise, "dtype": torch.float64}
    drawn = sample(model, 3, sampler, previews=True, trajectory=True, observe=reports.append, **settings)
    assert drawn.taus is not None
    assert drawn.previews is not None
    assert drawn.trajectory is not None
    assert drawn.previews.shape == (len(drawn.taus) - 1, 3, 2)
    for tau, x, preview in zip(drawn.taus, drawn.trajectory, drawn.previews):
        expected = model(x / float(VE().scale(tau)), tau).x0
        torch.testing.assert_close(preview, expected, rtol=0, atol=1e-8)
    for progress, preview in zip(reports, drawn.previews):
        assert torch.equal(progress.x0, preview)
    alone = sample(model, 3, sampler, previews=True, **settings)
    assert alone.trajectory is None
    assert alone.taus == drawn.taus
    assert alone.previews is not None
    assert torch.equal(alone.previews, drawn.previews)
    plain = sample(model, 3, sampler, **settings)
    assert (plain.previews, plain.taus, plain.nfe) == (None, None, drawn.nfe)
    assert torch.equal(plain.x, drawn.x)


@pytest.mark.parametrize("sampler", ALL, ids=repr)
def test_every_sampler_gives_one_preview_per_step_and_batch(sampler: Sampler) -> None:
    n = 1 if isinstance(sampler, ODE) else 4
    drawn = sample(NORMAL, n, sampler, seeds=range(n), batch_size=3, previews=True)
    assert drawn.taus is not None
    assert drawn.previews is not None
    assert drawn.previews.shape == (len(drawn.taus) - 1, n, 2)
    assert not drawn.previews.isnan().any()


@pytest.mark.parametrize("sampler", [*STEPS, ODE()], ids=repr)
def test_a_true_return_value_of_an_observer_stops_sampling_at_that_time(sampler: Sampler) -> None:
    settings: dict[str, Any] = {"seeds": [1, 2, 3], "trajectory": True, "previews": True}
    whole = sample(NORMAL, 3, sampler, **settings)
    reports: list[Progress] = []

    def until_half(progress: Progress) -> bool:
        reports.append(progress)
        return progress.tau < 1.0

    half = sample(NORMAL, 3, sampler, observe=until_half, **settings)
    assert whole.taus is not None
    assert half.taus == whole.taus[: len(reports) + 1]
    assert half.tau == reports[-1].tau < 1.0
    assert all(progress.tau >= 1.0 for progress in reports[:-1])
    assert half.taus is not None
    assert whole.trajectory is not None
    assert half.trajectory is not None
    assert torch.equal(half.x, half.trajectory[-1])
    assert torch.equal(half.trajectory, whole.trajectory[: len(half.taus)])
    assert half.nfe < whole.nfe
    end = sample(NORMAL, 3, sampler, observe=until_half, denoise=True, **settings)
    assert (end.tau, end.nfe) == (0.0, half.nfe + 1)
    torch.testing.assert_close(end.x, NORMAL(half.x, half.tau).x0, rtol=0, atol=1e-14)


def test_every_batch_stops_at_its_own_step_and_all_steps_must_agree() -> None:
    model = net_model()
    drawn = sample(model, 5, DDIM(7), batch_size=2, observe=lambda progress: progress.done == 3)
    assert (drawn.x.shape, drawn.tau, drawn.nfe) == ((5, 2), Chain().times(VPSDE(), 7)[3], 3)
    ends = iter([3, 4, 4])
    until = {}
    with pytest.raises(
        ValueError, match=r"must end at the same tau, but batches were stopped at 0\.\d+, .*batch_size out"
    ):
        sample(
            model, 5, DDIM(7), batch_size=2, observe=lambda progress: progress.done == _of_batch(progress, until, ends)
        )


def _of_batch(progress: Progress, until: dict[str, int], ends: Any) -> int:
    """The step at which the current batch ends."""
    if progress.done == 1:
        until["step"] = next(ends)
    return until["step"]


def test_all_observers_are_called_for_the_last_step_and_the_progress_bar_is_filled(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sample(NORMAL, 4, DDPM(6), batch_size=2, progress=True, observe=lambda progress: progress.done == 2)
    assert "100%" in capsys.readouterr().out


def test_a_step_reported_before_any_network_call_is_refused() -> None:
    class Premature(Sampler):
        def run(self, x: Tensor, context: SamplingContext) -> tuple[Tensor, float]:
            assert context.observe is not None
            context.observe(1, 1, 0.1, x)
            return x, 0.1

    with pytest.raises(RuntimeError, match=r"a step must call the network, but .*Premature.* before any call"):
        sample(NORMAL, 2, Premature(), previews=True)


def test_a_progress_bar_is_shown_and_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    plain = sample(NORMAL, 4, DDPM(3), seeds=range(4), batch_size=3)
    assert capsys.readouterr().out == ""
    shown = sample(NORMAL, 4, DDPM(3), seeds=range(4), batch_size=3, progress=True)
    assert "100%" in capsys.readouterr().out
    assert torch.equal(plain.x, shown.x)


# --- batches and randomness -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", PER_SAMPLE, ids=repr)
def test_with_seeds_a_sample_does_not_depend_on_its_batch(sampler: Sampler) -> None:
    seeds = [5, 3, 11, 8, 2]
    whole = sample(RING, 5, sampler, seeds=seeds).x
    split = sample(RING, 5, sampler, seeds=seeds, batch_size=2).x
    reversed_seeds = sample(RING, 5, sampler, seeds=seeds[::-1]).x.flip(0)
    alone = sample(RING, 1, sampler, seeds=[11]).x
    for other in (split, reversed_seeds):
        torch.testing.assert_close(other, whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(alone[0], whole[2], rtol=0, atol=1e-12)
    assert len(whole.unique(dim=0)) == 5


def test_the_adaptive_ode_depends_on_its_batch_within_its_tolerance_only() -> None:
    whole = sample(RING, 5, ODE(rtol=1e-7, atol=1e-7), seeds=range(5)).x
    alone = sample(RING, 1, ODE(rtol=1e-7, atol=1e-7), seeds=[3]).x
    torch.testing.assert_close(alone[0], whole[3], rtol=0, atol=1e-4)


@pytest.mark.parametrize("sampler", ALL, ids=repr)
@pytest.mark.parametrize("source", ["generator", "seeds"])
def test_the_global_random_state_does_not_change(sampler: Sampler, source: str) -> None:
    before = torch.get_rng_state(), _numpy_state(), random.getstate()
    one, other = (
        sample(NORMAL, 3, sampler, generator=torch.Generator().manual_seed(1))
        if source == "generator"
        else sample(NORMAL, 3, sampler, seeds=[4, 5, 6])
        for _ in range(2)
    )
    assert torch.equal(one.x, other.x)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert _numpy_state() == before[1]
    assert random.getstate() == before[2]


def test_without_a_generator_samples_follow_the_global_seed_and_differ_from_call_to_call() -> None:
    torch.manual_seed(1)
    one, other = sample(NORMAL, 3, DDPM(2)).x, sample(NORMAL, 3, DDPM(2)).x
    torch.manual_seed(1)
    assert torch.equal(sample(NORMAL, 3, DDPM(2)).x, one)
    assert not torch.equal(one, other)


def test_conditioning_reaches_the_network_row_by_row() -> None:
    model = net_model()
    label = torch.arange(5)
    sample(model, 5, DDIM(2), batch_size=2, label=label)
    assert isinstance(model.net, GaussianNet)
    assert [call[2]["label"].tolist() for call in model.net.calls] == [[0, 1], [0, 1], [2, 3], [2, 3], [4], [4]]


@pytest.mark.parametrize("sampler", ALL, ids=repr)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 2, 3), (1, 2, 2, 3)], ids=str)
def test_samples_of_every_event_shape_are_those_of_a_vector_reshaped(sampler: Sampler, shape: tuple[int, ...]) -> None:
    drawn = sample(net_model(event_shape=shape), 2, sampler, seeds=[1, 2], denoise=True).x
    size = int(np.prod(shape))
    flat = sample(net_model(event_shape=(size,)), 2, sampler, seeds=[1, 2], denoise=True).x
    assert drawn.shape == (2, *shape)
    torch.testing.assert_close(drawn.reshape(2, size), flat)


@pytest.mark.parametrize("sampler", ALL, ids=repr)
@pytest.mark.parametrize("n", [0, 1])
def test_batches_of_zero_and_of_one_sample_keep_their_shape(sampler: Sampler, n: int) -> None:
    drawn = sample(net_model(event_shape=(1, 3)), n, sampler, seeds=range(n))
    assert drawn.x.shape == (n, 1, 3)
    assert (drawn.nfe > 0) == (n > 0)


def test_a_model_without_an_event_shape_takes_the_whole_shape() -> None:
    assert sample(net_model(event_shape=None), (2, 3, 4), DDIM(2)).x.shape == (2, 3, 4)
    with pytest.raises(ValueError, match=r"a model that knows its event shape, got n = 2 .* pass the whole"):
        sample(net_model(event_shape=None), 2, DDIM(2))


# --- types ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ALL, ids=repr)
def test_a_half_precision_network_is_sampled_in_the_requested_type(sampler: Sampler) -> None:
    model = net_model().to(torch.bfloat16)
    assert sample(model, 2, sampler, seeds=[1, 2]).x.dtype == torch.float32
    assert sample(model, 2, sampler, seeds=[1, 2], dtype=torch.float64).x.dtype == torch.float64
    assert isinstance(model.net, GaussianNet)
    assert {(x.dtype, log_snr.dtype) for x, log_snr, _ in model.net.calls} == {(torch.bfloat16, torch.float32)}


def test_samples_in_data_units_come_from_the_description_of_the_model() -> None:
    description = Description("levels", (2,), bins=17)
    model = ScoreModel(GaussianNet(), VPSDE(), V(), data=description)
    drawn = sample(model, 4, DDIM(5), seeds=range(4))
    assert drawn.x.shape == (4, 2)
    assert torch.equal(drawn.data, description.to_data(drawn.x))
    with pytest.raises(ValueError, match=r"data units need the data's description.*use \.x"):
        _ = Samples(drawn.x, 0.0, 5).data


# --- views and starts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", [*STEPS, *SOLVERS], ids=repr)
@pytest.mark.parametrize("view", [VE, SubVP, Flow])
def test_samples_of_a_view_are_those_of_vp_times_its_scale(sampler: Sampler, view: type[SDE]) -> None:
    if isinstance(sampler, (DDPM, DDIM)):  # the default grid depends on the clock, which differs
        sampler = type(sampler)(7, UniformAngle())
    mean = torch.tensor([0.7, -1.3], dtype=torch.float64)
    vp, other = Gaussian(mean, 0.3, VPSDE(tau_min=1e-3)), Gaussian(mean, 0.3, view(tau_min=1e-3))
    x = torch.randn(4, 2, dtype=torch.float64)
    ends = [
        sample(m, 4, sampler, seeds=range(4), start=3.0, init=m.sde.scale(3.0) * x).x / m.sde.scale(1e-3)
        for m in (vp, other)
    ]
    torch.testing.assert_close(ends[1], ends[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("sde", "std"), [(VPSDE(), 1.0), (VE(), 50.0), (SubVP(), 1.0), (Flow(), 1.0)], ids=lambda v: type(v).__name__
)
def test_a_view_starts_from_the_prior_of_the_literature(sde: SDE, std: float) -> None:
    start = sample(net_model(sde), 4, DDIM(3), seeds=range(4), trajectory=True, dtype=torch.float64).trajectory
    unit = sample(net_model(), 4, DDIM(3), seeds=range(4), trajectory=True, dtype=torch.float64).trajectory
    assert start is not None
    assert unit is not None
    torch.testing.assert_close(start[0], std * unit[0], rtol=1e-9, atol=0)


@pytest.mark.parametrize("sde", [VPSDE(), VE(), SubVP(), Flow()], ids=lambda s: type(s).__name__)
def test_a_start_below_the_end_is_unit_normal_in_x_and_warns_where_signal_is_left(sde: SDE) -> None:
    unit = sample(net_model(), 4, DDIM(3), seeds=range(4), trajectory=True).trajectory
    with pytest.warns(UserWarning, match=r"starts at tau = 0\.5, where alpha = 0\.607 .* start later, .* init="):
        early = sample(net_model(sde), 4, DDIM(3), seeds=range(4), start=0.5, trajectory=True)
    assert unit is not None
    assert early.trajectory is not None
    torch.testing.assert_close(early.trajectory[0], float(sde.scale(0.5)) * unit[0])
    assert early.taus is not None
    assert early.taus[0] == 0.5


def test_a_clock_that_ends_with_signal_left_warns_too() -> None:
    short = net_model(VPSDE(LinearBetas(steps=10)))
    with pytest.warns(UserWarning, match=r"where alpha = 0\.\d+ .* a clock that ends later"):
        sample(short, 2, DDIM(3))


def test_a_late_start_or_a_given_state_does_not_warn() -> None:
    sample(net_model(), 4, DDIM(3), start=2.5)
    init = torch.ones(4, 2)
    drawn = sample(net_model(VE()), 4, DDIM(3), start=0.5, init=init, trajectory=True)
    assert drawn.trajectory is not None
    torch.testing.assert_close(drawn.trajectory[0], init)


def test_an_explicit_grid_is_used_as_it_is() -> None:
    taus = (3.0, 1.0, 0.2)
    drawn = sample(NORMAL, 2, DDIM(2, ExplicitGrid(taus)), seeds=[1, 2], start=3.0, trajectory=True)
    assert drawn.taus == taus
    assert drawn.tau == 0.2
