"""Faults that involve several modules: times, shapes, types, devices, random state and misspelled names."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from scoresde._core import tensors
from scoresde._core.tensors import combine
from scoresde.analytic import Gaussian, GaussianMixture, KernelDensity
from scoresde.data import Description, load_data
from scoresde.data.toys import TOYS
from scoresde.likelihood import AdaptiveSolver, ExactTrace, Hutchinson, TorchDiffEq, bits_per_dim, log_prob
from scoresde.model import ScoreModel
from scoresde.objective.loss import Loss
from scoresde.objective.weighting import (
    EDM,
    ELBO,
    DiscreteVLB,
    LikelihoodWeighting,
    MinSNR,
    SigmoidWeighting,
    Simple,
    Weighting,
)
from scoresde.process.parameterization import X0, Eps, Parameterization, PosteriorMean, Score, V, Velocity
from scoresde.process.schedule import Cosine, LogLinear, Sigmoid
from scoresde.process.sde import VPSDE
from scoresde.sampling import DDIM, DDPM, ODE, EulerMaruyama, ExponentialSDE, RungeKutta, Sampler, TorchSDE, sample

D = torch.float64
EXACT = Gaussian(torch.tensor([0.7, -1.3], dtype=D), 0.25)
LOOSE: dict[str, Any] = {"solver": AdaptiveSolver(1.0)}


class TanhNet(nn.Module):
    """A network with one weight and an optional label; records the types of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.3))
        self.dtypes: set[torch.dtype] = set()

    def forward(self, x: Tensor, log_snr: Tensor, label: Tensor | None = None) -> Tensor:
        self.dtypes.add(x.dtype)
        return self.weight * torch.tanh(x)


def _model(**settings: Any) -> ScoreModel:
    return ScoreModel(TanhNet(), VPSDE(), V(), (2,), **settings)


def _quantized_model() -> ScoreModel:
    return ScoreModel(TanhNet(), VPSDE(), V(), data=Description("levels", (2,), bins=8))


# --- NaN in the parameters of an exact model (row 1) ------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_exact_models_refuse_data_that_are_not_finite_by_index(bad: float) -> None:
    x = torch.zeros(3, 2, dtype=D)
    x[2, 1] = bad
    with pytest.raises(ValueError, match=rf"means must be finite, got {bad} at index \(2, 1\)"):
        KernelDensity(x, 0.1)
    with pytest.raises(ValueError, match=rf"means must be finite, got {bad} at index \(0, 1\)"):
        Gaussian(x[2], 1.0)
    with pytest.raises(ValueError, match=rf"covs must be finite, got {bad} at index \(2, 1\)"):
        GaussianMixture(torch.ones(3), torch.zeros(3, 2), x)
    with pytest.raises(ValueError, match=r"weights must be 3 positive numbers|weights must be finite"):
        GaussianMixture(torch.tensor([1.0, bad, 1.0]), torch.zeros(3, 2), torch.ones(3))
    with pytest.raises(ValueError, match=rf"bandwidth must be a positive finite number, got {bad}"):
        KernelDensity(torch.zeros(3, 2), bad)
    with pytest.raises(ValueError, match=rf"x must be finite, got {bad} at index \(2, 1\)"):
        EXACT.log_prob(x)


# --- times: 0, out of range, and all notations (rows 3, 4, 5) ---------------------------------------------------------


def test_at_time_zero_a_weighting_has_its_limit_for_floats_and_tensors() -> None:
    sde = VPSDE()
    limits: dict[Weighting, float] = {
        ELBO(): math.inf,
        LikelihoodWeighting(): math.inf,
        EDM(): 0.0,
        SigmoidWeighting(bias=2.0): math.exp(2.0) * 0.05,  # dτ/du at 0 is beta_min / 2
        MinSNR(): 0.0,
        Simple(): 1.0,
    }
    for weighting, limit in limits.items():
        assert weighting(sde.marginal(0.0)) == pytest.approx(limit)
        of_tensor = weighting(sde.marginal(torch.zeros(2, dtype=D)))
        assert isinstance(of_tensor, Tensor)
        assert of_tensor.tolist() == pytest.approx([limit] * 2)
        if 0 < limit < math.inf:  # the value nearby confirms the limit
            assert weighting(sde.marginal(1e-9)) == pytest.approx(limit, rel=1e-5)
    for rev_var in ("beta", "beta_tilde"):
        with pytest.raises(
            ValueError, match=r"DiscreteVLB is defined at the knots k = 1 … K, got tau = 0; pass a later time"
        ):
            DiscreteVLB(rev_var)(sde.marginal(0.0, 0.0))


@pytest.mark.parametrize("parameterization", [Eps(), X0(), Score(), V(), V(0.5), Velocity(), PosteriorMean()], ids=repr)
def test_a_target_refuses_time_zero_and_arguments_of_different_shapes(parameterization: Parameterization) -> None:
    x = torch.ones(3, 2, dtype=D)
    for tau in (0.0, torch.zeros(3), -0.1, math.nan, torch.tensor([0.1, math.nan, 0.2])):
        with pytest.raises(ValueError, match="tau must lie in"):
            parameterization.target(x, x, tau)
    for shape in ((3, 1), (3, 1, 2), (2,)):
        with pytest.raises(ValueError, match=r"eps must have the shape of x0, \(3, 2\)"):
            parameterization.target(x, torch.ones(shape, dtype=D), 0.5)


def test_a_distribution_with_a_variance_of_zero_has_no_density_at_time_zero() -> None:
    model, x = Gaussian(torch.zeros(2, dtype=D), torch.tensor([0.0, 1.0])), torch.zeros(3, 2, dtype=D)
    for tau in (0.0, torch.tensor([0.1, 0.0, 0.2])):
        with pytest.raises(
            ValueError, match="a distribution with a variance of 0 has no density at tau = 0; pass a later"
        ):
            model.log_prob(x, tau)
    assert model.log_prob(x, 0.1).isfinite().all()
    assert torch.equal(model.sample(4, 0.0)[:, 0], torch.zeros(4, dtype=D))


@pytest.mark.parametrize("bad", [-0.1, math.nan, 5.1, math.inf])
def test_exact_models_and_posteriors_refuse_times_outside_the_clock(bad: float) -> None:
    x = torch.zeros(2, 2, dtype=D)
    for tau in (bad, torch.tensor(bad), torch.tensor([0.5, bad])):
        with pytest.raises(ValueError, match=r"tau must lie in \[0, 5\.02"):
            EXACT.log_prob(x, tau)
        with pytest.raises(ValueError, match=r"tau must lie in \[0, 5\.02"):
            EXACT.sde.posterior(x, x, tau, 0.1)
        with pytest.raises(ValueError, match=r"s must lie in|s must be below tau"):
            EXACT.sde.posterior(x, x, 1.0, tau)
    with pytest.raises(ValueError, match=r"tau must lie in \[0, 5\.02"):
        EXACT.sample(2, bad)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, tau: EXACT(x, tau).score,
        EXACT.log_prob,
        lambda x, tau: EXACT.sde.perturb(x, tau, x.flip(0)),
        lambda x, tau: EXACT.sde.posterior(x, x.flip(0), tau, 0.25)[0],
        lambda x, tau: EXACT.sde.posterior(x, x.flip(0), 2.0, tau)[0],
        lambda x, tau: V().target(x, x.flip(0), tau),
        lambda x, tau: torch.as_tensor(combine(EXACT.sde.marginal(tau).alpha, x, EXACT.sde.marginal(tau).rate, x)),
        lambda x, tau: combine(EXACT.sde.schedule.u(tau), x, EXACT.sde.schedule.rate(tau), x),
    ],
    ids=["model", "log_prob", "perturb", "posterior", "posterior's s", "target", "marginal", "schedule"],
)
def test_all_notations_of_a_time_give_the_same_result_and_other_values_are_refused(
    function: Any, generator: torch.Generator
) -> None:
    x = torch.randn(3, 2, dtype=D, generator=generator)
    expected = function(x, 0.5)
    kinds = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
    for tau in [torch.full(shape, 0.5, dtype=kind) for kind in kinds for shape in ((), (3,))]:
        result = function(x, tau)
        assert result.dtype == D
        torch.testing.assert_close(result, expected, rtol=1e-14, atol=1e-14)
    half, expected = expected, function(x, 1.0)
    for tau in (1, torch.tensor(1), torch.ones(3, dtype=torch.int64)):
        torch.testing.assert_close(function(x, tau), expected, rtol=1e-14, atol=1e-14)
    for shape in ((3, 1), (2,), (1,), (1, 3)):
        with pytest.raises(ValueError, match=r"must have shape \(\) or \((B,|3,)\), got .* pass one time per sample"):
            function(x, torch.full(shape, 0.5))
    with pytest.raises(ValueError, match=r"must have shape \(\) or \((B|1),\), got"):
        function(x[:1], torch.full((3,), 0.5))
    for tau in (np.float32(0.5), np.float64(0.5)):
        torch.testing.assert_close(function(x, tau), half, rtol=1e-14, atol=1e-14)
    for tau in ("0.5", None, True):
        with pytest.raises(TypeError, match="must be a number or a tensor"):
            function(x, tau)


# --- shapes and types (rows 6, 8) -------------------------------------------------------------------------------------


def test_a_posterior_refuses_data_of_another_shape_and_does_not_broadcast() -> None:
    x = torch.zeros(3, 2)
    for shape in ((3, 1), (3, 1, 2), (2,)):
        with pytest.raises(ValueError, match=r"x0 must have the shape of x, \(3, 2\), got"):
            VPSDE().posterior(x, torch.zeros(shape), 1.0, 0.5)


def test_a_float64_state_stays_float64_with_a_network_of_narrow_type() -> None:
    for kind in (torch.float32, torch.bfloat16):
        model = _model().to(kind)
        for init, expected in ((D, D), (torch.float32, torch.float32), (torch.bfloat16, torch.float32)):
            drawn = sample(model, 3, DDIM(2), init=torch.ones(3, 2, dtype=init))
            assert drawn.x.dtype == expected
        assert sample(model, 3, DDIM(2), init=torch.ones(3, 2, dtype=D), dtype=torch.float32).x.dtype == torch.float32
        assert model.net.dtypes == {kind}


# --- a device without float64 (row 9), simulated on the CPU -----------------------------------------------------------


class _Float64(TorchDispatchMode):
    """Records every operation that returns a float64 tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[Any] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        values = out if isinstance(out, (tuple, list)) else [out]
        self.operations += [func for value in values if isinstance(value, Tensor) and value.dtype == D]
        return out


@pytest.mark.parametrize(
    "sampler",
    [
        DDPM(4),
        DDIM(4),
        EulerMaruyama(4),
        ExponentialSDE(4),
        RungeKutta(4),
        ODE(),
        TorchSDE(4, "euler"),
        TorchSDE(4, "srk"),
    ],
    ids=repr,
)
def test_no_sampler_creates_a_float64_tensor_on_a_device_without_float64(
    sampler: Sampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_float64 = sample(_model(), 3, sampler, seeds=[1, 2, 3]).x
    monkeypatch.setattr(tensors, "has_float64", lambda device: False)
    with _Float64() as recorder:
        without = sample(_model(), 3, sampler, seeds=[1, 2, 3]).x
    assert recorder.operations == []
    torch.testing.assert_close(without, with_float64, rtol=0, atol=2e-3)


@pytest.mark.parametrize("trace", [ExactTrace(), Hutchinson(2), ExactTrace(mode="forward")], ids=repr)
def test_a_likelihood_without_float64_is_solved_in_float32_and_summed_in_float64(
    trace: ExactTrace | Hutchinson, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = _model(), torch.tensor([[0.5, -1.0], [0.1, 2.0]])
    assert isinstance(model.net, TanhNet)
    with_float64 = log_prob(model, x, trace=trace, seeds=[1, 2]).log_prob
    monkeypatch.setattr(tensors, "has_float64", lambda device: False)
    model.net.dtypes.clear()
    without = log_prob(model, x, trace=trace, seeds=[1, 2]).log_prob
    assert model.net.dtypes == {torch.float32}
    assert without.dtype == D
    torch.testing.assert_close(without, with_float64, rtol=0, atol=1e-2)


# --- invalid clocks (rows 11, 15) -------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [0, -1, 2.5, True, "10"])
def test_a_cosine_with_a_number_of_steps_that_is_not_a_positive_integer_is_refused(steps: Any) -> None:
    with pytest.raises(ValueError, match=r"steps must be a positive integer, got"):
        Cosine(steps=steps)


def test_a_clock_without_finite_ends_or_with_a_step_of_zero_is_refused() -> None:
    for make in (lambda: LogLinear(log_snr_max=math.inf), lambda: Sigmoid(start=-math.inf)):
        with pytest.raises(ValueError, match="both finite"):
            make()
    with pytest.raises(ValueError, match=r"every step must advance the clock, but .* does not advance at k = 1 of 10"):
        Sigmoid(temperature=1e-3).to_betas(10)  # alpha_bar is 1 after the first step


# --- random state and gradient modes of the caller (rows 26, 28) ------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", *sorted(TOYS)])
def test_loading_data_does_not_change_any_global_random_state(name: str) -> None:
    def state() -> tuple[Any, ...]:
        return torch.get_rng_state().tolist(), repr(np.random.get_state()), random.getstate()  # noqa: NPY002

    load_data(name)  # the first import of scikit-learn draws from the generator of Python
    before = state()
    load_data(name, seed=3)
    assert state() == before


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("trace", [ExactTrace(), Hutchinson(2)])
def test_bits_are_the_same_without_gradients_and_in_inference_mode(mode: Any, trace: ExactTrace | Hutchinson) -> None:
    values = torch.tensor([[0, 7], [3, 4]])
    expected = bits_per_dim(_quantized_model(), values, trace=trace, seeds=[1, 2], **LOOSE)
    with mode():
        result = bits_per_dim(_quantized_model(), values.clone(), trace=trace, seeds=[1, 2], **LOOSE)
    # tensors created in inference mode need forward-mode derivatives, which round differently
    torch.testing.assert_close(result.bits, expected.bits, rtol=1e-6, atol=0)


# --- unknown options (row 43) -----------------------------------------------------------------------------------------


def _misspelled(**options: Any) -> dict[str, Any]:
    return options


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda m, x: sample(m, 3, DDIM(2), **_misspelled(seed=0)),
            r"'seed' is neither an option .* did you mean seeds\? Options: gen",
        ),
        (lambda m, x: sample(m, 3, DDIM(2), **_misspelled(batchsize=2)), r"did you mean batch_size\?"),
        (lambda m, x: log_prob(m, x, node=40), r"'node' is neither an option .* did you mean nodes\?"),
        (lambda m, x: log_prob(m, x, solvers=9), r"did you mean solver\?"),
        (lambda m, x: bits_per_dim(m, x.long(), draw=3), r"'draw' is neither .* did you mean draws\?"),
    ],
)
@pytest.mark.parametrize("model", [_quantized_model(), EXACT], ids=["network", "exact"])
def test_a_misspelled_option_is_refused_with_the_nearest_name_and_not_taken_as_conditioning(
    call: Any, text: str, model: Any
) -> None:
    with pytest.raises(TypeError, match=text):
        call(model, torch.zeros(3, 2))


def test_conditioning_that_the_network_does_not_read_is_refused_and_the_rest_must_be_tensors() -> None:
    labels, x = torch.zeros(3), torch.zeros(3, 2, dtype=D)
    with pytest.raises(TypeError, match=r"'labels' is neither an option nor read by the network; Options: generator"):
        sample(_model(), 3, DDIM(2), labels=labels)
    with pytest.raises(TypeError, match="an exact model reads no conditioning, got labels; leave it out"):
        sample(EXACT, 3, DDIM(2), labels=labels)
    with pytest.raises(TypeError, match="an exact model reads no conditioning, got genrator"):
        Loss()(EXACT, x, genrator=torch.Generator())
    with pytest.raises(TypeError, match="label must be a tensor with one entry per sample, got 3; pass torch.full"):
        sample(_model(), 3, DDIM(2), label=3)  # pyright: ignore[reportArgumentType]
    assert sample(_model(), 3, DDIM(2), label=labels).x.shape == (3, 2)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (
            lambda: sample(EXACT, 3, "DDPM(steps=3)"),  # pyright: ignore[reportArgumentType]
            r"sampler must be a Sampler, got 'DDPM\(steps=3\)'; pass an object",
        ),
        (lambda: sample(EXACT, 3, DDPM), r"sampler must be a Sampler, got <class .*DDPM'>"),  # pyright: ignore[reportArgumentType]
        (
            lambda: log_prob(EXACT, torch.zeros(3, 2), trace="ExactTrace()"),  # pyright: ignore[reportArgumentType]
            r"trace must be a Trace, got 'ExactTrace\(\)'",
        ),
        (lambda: Loss("MinSNR()"), r"weighting must be a Weighting, got 'MinSNR\(\)'; pass an object"),  # pyright: ignore[reportArgumentType]
        (lambda: Loss(MinSNR), r"weighting must be a Weighting, got <class"),  # pyright: ignore[reportArgumentType]
        (lambda: Loss(timesteps="DiscreteTimesteps"), r"timesteps must be a Timesteps, got 'DiscreteTimesteps'"),  # pyright: ignore[reportArgumentType]
    ],
)
def test_a_name_or_a_class_in_place_of_an_object_is_refused(call: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        call()


def test_an_unknown_name_of_a_mode_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"unknown method 'dopry5'; did you mean dopri5\? Valid: adaptive_heun"):
        TorchDiffEq("dopry5")
    with pytest.raises(ValueError, match=r"unknown mode 'revers'; did you mean reverse\?"):
        ExactTrace(mode="revers")
    with pytest.raises(ValueError, match=r"unknown kind 'gausian'; did you mean gaussian\?"):
        Hutchinson(kind="gausian")
    with pytest.raises(ValueError, match=r"no method is named 'euller'; did you mean euler\?"):
        TorchSDE(method="euller")
