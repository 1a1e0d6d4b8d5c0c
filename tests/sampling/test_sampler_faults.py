"""Errors of sampling: invalid arguments, and networks that return NaN, infinity or huge values."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from scoresde.analytic import Gaussian
from scoresde.guidance.clipping import Clipping
from scoresde.model import ScoreModel
from scoresde.nn import MLP, Vector
from scoresde.process import ou
from scoresde.process.parameterization import Eps, V
from scoresde.process.schedule import Cosine
from scoresde.process.sde import VPSDE, Flow
from scoresde.sampling import (
    DDIM,
    DDPM,
    ODE,
    Adams,
    Chain,
    EulerMaruyama,
    ExplicitGrid,
    ExponentialSDE,
    Grid,
    RungeKutta,
    Sampler,
    SolverError,
    Spaced,
    StepSampler,
    TorchSDE,
    UniformAngle,
    UniformU,
    calibrate,
    optimal_variance,
    sample,
)

STEPS: list[StepSampler] = [DDPM(9), EulerMaruyama(9), ExponentialSDE(9), DDIM(9), RungeKutta(9)]
ALL: list[Sampler] = [*STEPS, ODE(), TorchSDE(steps=9)]
MODEL = Gaussian(torch.tensor([0.7, -1.3], dtype=torch.float64), 0.25)


class Failing(nn.Module):
    """Returns finite values, and NaN for the rows ``bad`` where the signal-to-noise ratio is above 1."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))
        self.modes: list[bool] = []

    def forward(self, x: Tensor, log_snr: Tensor, bad: Tensor | None = None) -> Tensor:
        self.modes.append(self.training or self.inner[1].training)
        out = self.inner(x)
        if bad is None:
            return out
        return torch.where((bad & (log_snr > 0))[:, None], torch.nan, out)


def _failing() -> ScoreModel:
    return ScoreModel(Failing(), VPSDE(), V(), (2,))


# --- the network returns NaN ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ALL, ids=repr)
@pytest.mark.parametrize("source", ["seeds", "generator", "global"])
def test_nan_from_the_network_is_traced_to_its_call_time_and_samples(sampler: Sampler, source: str) -> None:
    settings: dict[str, Any] = {
        "seeds": {"seeds": range(5)},
        "generator": {"generator": torch.Generator().manual_seed(1)},
        "global": {},
    }[source]
    bad = torch.tensor([False, True, False, True, False])
    message = r"call (\d+), at tau = ([\d.e-]+), gave NaN or infinity for samples \[1, 3\] of a batch of 5"
    with pytest.raises(RuntimeError, match=message) as caught:
        sample(_failing(), 5, sampler, bad=bad, **settings)
    match = re.search(message, str(caught.value))
    assert match is not None
    call, tau = int(match[1]), float(match[2])
    assert ou.log_snr(tau) > 0
    if isinstance(sampler, StepSampler) and not isinstance(sampler, RungeKutta):
        taus = sampler.grid.times(VPSDE(), sampler.steps)
        assert call == next(i for i, each in enumerate(taus, 1) if ou.log_snr(each) > 0)
        assert tau == pytest.approx(taus[call - 1], rel=1e-5)


def test_nan_is_traced_in_any_batch_and_observers_are_called_once_per_step() -> None:
    reports: list[int] = []
    bad = torch.tensor([False, False, False, True])
    with pytest.raises(RuntimeError, match=r"samples \[1\] of a batch of 2"):
        sample(_failing(), 4, DDPM(5), bad=bad, batch_size=2, observe=lambda progress: reports.append(progress.done))
    assert reports == [1, 2, 3, 4, 5] * 2


def test_the_error_names_the_first_of_many_bad_samples() -> None:
    with pytest.raises(RuntimeError, match=r"samples \[0, 1, 2, 3, 4, 5, 6, 7, …\] of a batch of 20"):
        sample(_failing(), 20, DDIM(5), bad=torch.ones(20, dtype=torch.bool))


def test_a_final_denoising_that_fails_is_traced_too() -> None:
    class Last(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            return torch.where((log_snr > ou.log_snr(1.01e-5))[:, None], torch.nan, 0 * x)

    model = ScoreModel(Last(), VPSDE(), V(), (2,))
    assert sample(model, 2, EulerMaruyama(4)).x.isfinite().all()
    with pytest.raises(RuntimeError, match=r"call 5, at tau = 1e-05"):
        sample(model, 2, EulerMaruyama(4), denoise=True)


def test_samples_that_diverge_on_finite_outputs_are_an_error() -> None:
    class Huge(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            return x.sign() * 3e38

    with pytest.raises(RuntimeError, match=r"samples must be finite, but EulerMaruyama.* diverged.*more steps"):
        sample(ScoreModel(Huge(), VPSDE(), Eps(), (2,)), 2, EulerMaruyama(1), seeds=[1, 2])


def test_an_adaptive_solver_that_cannot_reach_the_end_is_an_error() -> None:
    class Blowing(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            return -10 * x * x

    model, init = ScoreModel(Blowing(), VPSDE(), V(), (2,)), torch.ones(1, 2, dtype=torch.float64)
    with pytest.raises(SolverError, match=r"did not reach tau_min: underflow in dt.*loosen rtol"):
        sample(model, 1, ODE(), init=init, start=5.0, dtype=torch.float64)
    with pytest.raises(SolverError, match=r"did not reach tau_min within max_nfe = 5 network evaluations; loosen rtol"):
        sample(MODEL, 1, ODE(max_nfe=5), seeds=[1])


def test_max_nfe_limits_the_network_evaluations_of_the_ode_exactly() -> None:
    whole = sample(MODEL, 1, ODE(), seeds=[1])
    assert torch.equal(sample(MODEL, 1, ODE(max_nfe=whole.nfe), seeds=[1]).x, whole.x)
    with pytest.raises(SolverError, match=rf"within max_nfe = {whole.nfe - 1} network evaluations"):
        sample(MODEL, 1, ODE(max_nfe=whole.nfe - 1), seeds=[1])


# --- modes of the network ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_evaluated_in_eval_mode_and_the_mode_of_every_submodule_is_restored(fails: bool) -> None:
    model = _failing()
    assert isinstance(model.net, Failing)
    model.train()
    model.net.inner[0].eval()
    before = [module.training for module in model.modules()]
    if fails:
        with pytest.raises(RuntimeError, match="NaN"):
            sample(model, 2, DDIM(5), bad=torch.tensor([True, True]))
    else:
        one, other = (sample(model, 2, DDIM(5), seeds=[1, 2]).x for _ in range(2))
        assert torch.equal(one, other)
        assert not one.requires_grad
    assert [module.training for module in model.modules()] == before
    assert model.net.modes
    assert not any(model.net.modes)


# --- steps, grids and starts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", [DDPM, DDIM, EulerMaruyama, ExponentialSDE, RungeKutta, TorchSDE])
@pytest.mark.parametrize("steps", [0, -3, 2.5, True, "10"])
def test_steps_must_be_a_positive_integer(cls: Any, steps: Any) -> None:
    with pytest.raises(ValueError, match=r"steps must be a positive integer, got " + re.escape(repr(steps))):
        cls(steps=steps)


@pytest.mark.parametrize(
    "sampler", [DDPM(1), DDIM(1), EulerMaruyama(1), ExponentialSDE(1), RungeKutta(1), TorchSDE(steps=1)]
)
def test_one_step_works(sampler: Sampler) -> None:
    assert sample(MODEL, 2, sampler, seeds=[1, 2]).x.isfinite().all()


@pytest.mark.parametrize("taus", [(3.0, 1.0, 1.0), (3.0, 1.0, 2.0), (3.0, 1.0, -0.1), (3.0, float("nan"), 0.1)])
def test_a_grid_must_fall_strictly(taus: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match=r"a grid must fall strictly and stay at or above 0.* at step \d of 2"):
        sample(MODEL, 2, DDIM(2, ExplicitGrid(taus)), start=3.0)


def test_an_explicit_grid_must_agree_with_steps_and_start() -> None:
    with pytest.raises(ValueError, match=r"has 2 steps, but 3 were asked for"):
        sample(MODEL, 2, DDIM(3, ExplicitGrid((3.0, 1.0, 0.1))), start=3.0)
    with pytest.raises(ValueError, match=r"must begin where sampling starts, .* begins at 3\.0; pass start=3\.0"):
        sample(MODEL, 2, DDIM(2, ExplicitGrid((3.0, 1.0, 0.1))))


@pytest.mark.parametrize("start", [0.0, -1.0, 1e-5, 6.0, float("nan"), float("inf")])
@pytest.mark.parametrize("sampler", [DDIM(3), ODE(), TorchSDE(steps=3)], ids=repr)
def test_a_start_must_lie_within_the_clock(sampler: Sampler, start: float) -> None:
    with pytest.raises(ValueError, match=r"start must lie in \(tau_min, tau_max\]"):
        sample(MODEL, 2, sampler, start=start)


@pytest.mark.parametrize("sampler", [EulerMaruyama(3, UniformU()), ExponentialSDE(3, UniformU())], ids=repr)
def test_the_reverse_sde_needs_a_finite_start(sampler: StepSampler) -> None:
    model = Gaussian(torch.zeros(2).double(), 0.25, Flow())
    with pytest.raises(ValueError, match=r"needs a finite start, got tau = inf.*clipped clock, or start="):
        sample(model, 2, sampler)
    with pytest.raises(ValueError, match=r"start with some signal left.*a clipped clock"):
        sample(model, 2, type(sampler)(3))
    assert sample(model, 2, sampler, start=4.0).x.isfinite().all()


def test_a_runge_kutta_stage_at_zero_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must end above 0 where 'rk4' evaluates the end of a step.*UniformAngle"):
        sample(MODEL, 2, RungeKutta(3, Chain()))
    assert sample(MODEL, 2, RungeKutta(3, Chain(), method="midpoint")).tau == 0.0


@pytest.mark.parametrize("sampler", [DDPM(9), DDIM(9), RungeKutta(9), ODE()], ids=repr)
@pytest.mark.parametrize("sde", [Flow(), VPSDE(Cosine(clip=1.0))], ids=lambda s: type(s.schedule).__name__)
def test_a_clock_that_ends_without_signal_is_sampled_through_v(sampler: Sampler, sde: Any) -> None:
    drawn = sample(Gaussian(torch.tensor([0.7, -1.3]).double(), 1e-6, sde), 2, sampler, seeds=[1, 2], denoise=True)
    torch.testing.assert_close(drawn.x, torch.tensor([[0.7, -1.3]] * 2).double(), rtol=0, atol=0.02)


# --- settings and arguments -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DDPM(rev_var="betas"), r"no rev_var is named 'betas'; did you mean beta\? Valid: beta, beta_tilde"),
        (lambda: RungeKutta(method="rk5"), r"no method is named 'rk5'; did you mean rk.\? Valid: euler, .*, rk4"),
        (lambda: ODE("rk4"), r"no method is named 'rk4'; Valid: adaptive_heun, bosh3, dopri5"),
        (lambda: ODE(rtol=0.0), r"rtol must be a positive finite number, got 0\.0"),
        (lambda: ODE(atol=-1e-5), r"atol must be a positive finite number, got -1e-05"),
        (lambda: ODE(max_nfe=0), r"max_nfe must be a positive integer, got 0"),
        (lambda: TorchSDE(method="milstein"), r"no method is named 'milstein'; Valid: euler, srk"),
    ],
)
def test_an_invalid_setting_is_answered_with_the_valid_ones(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seeds": [1, 2]}, r"seeds must have one entry per sample, 3, got 2"),
        ({"label": torch.zeros(2)}, r"label must have one entry per sample, 3, got 2"),
        ({"scale": torch.tensor(2.0)}, r"scale must have one entry per sample, 3, got a single number"),
        ({"init": torch.zeros(3, 1, 2)}, r"init must have the shape of the samples, \(3, 2\), got \(3, 1, 2\)"),
        ({"init": torch.tensor([[0.0, 1.0], [torch.nan, 0.0], [0.0, 0.0]])}, r"init must be finite.*\(1, 0\)"),
        ({"batch_size": 0}, r"batch_size must be a positive integer, got 0"),
        ({"batch_size": 1.5}, r"batch_size must be a positive integer, got 1\.5"),
        ({"seeds": [1, 2, 3], "generator": torch.Generator()}, r"from a generator or from seeds, got both"),
    ],
)
def test_arguments_of_the_wrong_size_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample(MODEL, 3, DDIM(2), **arguments)


@pytest.mark.parametrize("shape", [-1, (-2, 2), ()])
def test_an_invalid_shape_is_refused(shape: Any) -> None:
    with pytest.raises(ValueError, match=r"shape must be \(n, \*D\) with n >= 0"):
        sample(MODEL, shape, DDIM(2))


def test_a_shape_other_than_that_of_the_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x must have shape \(B, 2\), got \(3, 4\)"):
        sample(MODEL, (3, 4), DDIM(2))


def test_a_model_on_another_device_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x is on meta, the model on cpu; move one"):
        sample(_failing(), 3, DDIM(2), device="meta")


def test_trajectories_with_different_times_are_not_joined() -> None:
    with pytest.raises(ValueError, match=r"same times in every batch; leave batch_size out"):
        sample(
            MODEL, 4, ODE(), init=torch.tensor([[0.1, 0], [0, 0], [9e3, 0], [0, 9e3]]), trajectory=True, batch_size=2
        )
    assert UniformAngle().times(MODEL.sde, 2)[0] == MODEL.sde.tau_max


@pytest.mark.parametrize("grid", [ExplicitGrid((0.5, 0.2, 0.05, 1e-4)), Spaced("leading", 10)], ids=repr)
def test_a_grid_with_another_start_is_refused_on_an_infinite_clock_too(grid: Grid) -> None:
    with pytest.raises(ValueError, match=r"a grid must begin where sampling starts, at tau = inf, but .* begins at"):
        sample(Gaussian(torch.tensor([3.0]), 0.25, Flow()), 2, DDIM(3, grid))


@pytest.mark.parametrize("wrong", [0.5, UniformAngle])
def test_a_value_that_is_not_a_grid_is_refused_when_the_sampler_is_made(wrong: Any) -> None:
    with pytest.raises(TypeError, match="grid must be a Grid, got .*; pass an object, not its class or name"):
        DDIM(50, wrong)
    with pytest.raises(TypeError, match="grid must be a Grid"):
        Adams(20, wrong)


@pytest.mark.parametrize("taus", [(), (1.0,)])
def test_an_explicit_grid_has_a_start_and_an_end(taus: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="taus must be two times or more"):
        ExplicitGrid(taus)


def test_a_bare_network_is_refused_with_the_remedy() -> None:
    network: Any = nn.Linear(2, 2)
    for call in (
        lambda: sample(network, 2, DDIM(3)),
        lambda: calibrate(network, Adams(5)),
        lambda: optimal_variance(network, torch.zeros(2, 2)),
    ):
        with pytest.raises(TypeError, match=r"model must be a Model, got Linear; wrap a network: ScoreModel\(net"):
            call()


def test_an_integer_state_is_refused_and_a_numpy_number_of_samples_accepted() -> None:
    with pytest.raises(TypeError, match=r"dtype must be a floating type, got torch\.int64"):
        sample(MODEL, 2, DDIM(3), dtype=torch.long)
    count: Any = np.int64(3)
    assert sample(MODEL, count, DDIM(3)).x.shape == (3, 2)


def test_calibrate_refuses_a_shape_other_than_that_of_the_model() -> None:
    with pytest.raises(ValueError, match=r"x must have shape \(B, 2\), got \(400, 3\)"):
        calibrate(MODEL, Adams(5), shape=(3,))


@pytest.mark.parametrize("wrap", [lambda model: model, Clipping, lambda model: Clipping(Clipping(model))])
def test_an_unknown_keyword_is_refused_through_a_wrapper_too(wrap: Any) -> None:
    class Labeled(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor, label: Tensor) -> Tensor:
            return x * label[:, None]

    model = wrap(ScoreModel(Labeled(), VPSDE(), V(), (2,)))
    with pytest.raises(TypeError, match="'lable' is neither an option nor read by the network"):
        sample(model, 3, DDIM(3), lable=torch.zeros(3))
    assert sample(model, 3, DDIM(3), label=torch.zeros(3)).x.isfinite().all()
    with pytest.raises(TypeError, match="'lable' is neither an option"):
        optimal_variance(model, torch.zeros(3, 2), lable=torch.zeros(3))
    with pytest.raises(ValueError, match="label must have one entry per sample, 6, got 60"):
        optimal_variance(model, torch.zeros(6, 2), points=2, label=torch.zeros(60))
    with pytest.raises(TypeError, match=r"x0 must be a floating tensor, got torch\.uint8"):
        optimal_variance(model, torch.zeros(6, 2, dtype=torch.uint8), label=torch.zeros(6))


def test_an_assertion_of_the_network_is_not_reported_as_a_solver_error() -> None:
    class Strict(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            assert log_snr[0] < 2, "never trained there"
            return 0.1 * x

    with pytest.raises(AssertionError, match="never trained there"):
        sample(ScoreModel(Strict(), VPSDE(), V(), (2,)), 2, ODE())


def test_a_condition_that_is_nan_is_named_and_not_the_network() -> None:
    net = MLP((2,), width=8, depth=1, conditions={"v": Vector(2)})
    model = ScoreModel(net, VPSDE(), event_shape=(2,))
    torch.nn.init.normal_(net.linear_out.weight)
    v = torch.tensor([[1.0, 2.0], [1.0, torch.nan], [torch.nan, torch.nan]])  # the last one is null
    with pytest.raises(ValueError, match=r"condition 'v' must be finite, .* got NaN for samples \[1\]"):
        sample(model, 3, DDIM(3), v=v)
    assert sample(model, 2, DDIM(3), v=v[[0, 2]]).x.isfinite().all()
    v[1, 1] = -torch.inf
    with pytest.raises(ValueError, match=r"condition 'v' must be finite, .* got -inf for samples \[1\]"):
        sample(model, 3, DDIM(3), v=v)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (lambda x, memory: x, r"got a state of shape \(2, 2\) without a memory from Own"),
        (lambda x, memory: (x[0], memory), r"got a state of shape \(2,\) from Own"),
        (lambda x, memory: None, r"got NoneType without a memory from Own"),
    ],
    ids=["state", "row", "None"],
)
def test_a_step_that_returns_something_else_than_state_and_memory_is_refused(result, text):
    class Own(StepSampler):
        order = 1  # pyright: ignore[reportAssignmentType]

        def step(self, predict, x, tau, s, noise, memory):
            return result(x, memory)

    with pytest.raises(TypeError, match=rf"step must return \(x, memory\), with x of shape \(2, 2\), {text}"):
        sample(MODEL, 2, Own(3))
