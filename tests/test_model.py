"""`ScoreModel`: valid and invalid arguments, and the calls of the network; the checks of models and keywords."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import scoresde as sd
from scoresde.analytic import Gaussian
from scoresde.data import load_data
from scoresde.likelihood import log_prob
from scoresde.model import ScoreModel, check_model, evaluating
from scoresde.process import ou
from scoresde.process.parameterization import X0, Eps, PosteriorMean, Score, V, Velocity
from scoresde.process.prediction import GaussianPrediction
from scoresde.process.schedule import Cosine, FromBetas
from scoresde.process.sde import VPSDE, Flow
from scoresde.sampling import DDIM, sample


class Scale(nn.Module):
    """x times a learned number plus the log-SNR; records the type of x and the log-SNR of each call."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5))
        self.calls: list[tuple[torch.dtype, Tensor]] = []

    def forward(self, x: Tensor, log_snr: Tensor, **cond: object) -> Tensor:
        self.calls.append((x.dtype, log_snr))
        return self.factor * x + 0.01 * log_snr.to(x.dtype).reshape(-1, *[1] * (x.ndim - 1))


def _model(**settings: object) -> ScoreModel:
    return ScoreModel(Scale(), VPSDE(), **settings)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("event", [(), (3,), (2, 3), (1, 2, 3), (1, 2, 2, 3)])
def test_events_of_any_shape_and_batches_of_zero_and_one_work(event):
    for n in (0, 1, 4):
        x = torch.randn(n, *event)
        p = _model()(x, 0.3)
        assert p.v.shape == p.eps.shape == p.x0.shape == p.score.shape == (n, *event)
        assert torch.equal(p.out, 0.5 * x + 0.01 * torch.tensor(ou.log_snr(0.3)))


def test_all_notations_of_a_time_give_the_same_result():
    model, x = _model(), torch.randn(4, 3)
    expected = model(x, 1.0).eps
    for tau in (1, torch.tensor(1), torch.tensor(1.0), torch.ones(4), torch.ones(4, dtype=torch.float64)):
        assert torch.allclose(model(x, tau).eps, expected, rtol=1e-6)
    for kind in (np.float32, np.float64, np.int64):
        assert torch.equal(model(x, kind(1)).eps, model(x, 1).eps)
    results = [
        model(x, torch.full((4,), 0.5, dtype=kind)).eps for kind in (torch.float16, torch.float32, torch.float64)
    ]
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[1], results[2])


@pytest.mark.parametrize("bad", [0.0, -0.1, math.nan, 5.1, math.inf])
def test_a_time_that_is_zero_negative_nan_or_past_the_end_is_refused_in_every_form(bad):
    model, x = _model(), torch.zeros(2, 3)
    for tau in (bad, torch.tensor(bad), torch.tensor([0.5, bad]), torch.tensor([0.5, bad], dtype=torch.float64)):
        with pytest.raises(ValueError, match="tau must lie in"):
            model(x, tau)


@pytest.mark.parametrize("shape", [(8, 1), (3,), (1,)])
def test_times_of_an_invalid_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"tau must have shape .* pass one time per sample"):
        _model()(torch.zeros(8, 3), torch.full(shape, 0.5))


def test_states_of_an_invalid_shape_or_type_are_refused():
    model = _model(event_shape=(3,))
    for x in (torch.zeros(3), torch.zeros(2, 4), torch.zeros(2, 1, 3)):
        with pytest.raises(ValueError, match=r"x must have shape \(B, 3\), got .* give the batch first"):
            model(x, 0.5)
    with pytest.raises(ValueError, match=r"x must have shape \(B, \*D\), got \(\)"):
        _model()(torch.tensor(1.0), 0.5)
    with pytest.raises(TypeError, match=r"x must be a floating tensor, got torch.uint8; scale the data first"):
        model(torch.zeros(2, 3, dtype=torch.uint8), 0.5)


def test_a_state_on_another_device_is_refused_with_the_remedy():
    for model in (_model(), Gaussian(torch.zeros(3), 1.0)):
        with pytest.raises(ValueError, match=r"x is on meta, the model on cpu; move one: x.to\('cpu'\)"):
            model(torch.zeros(2, 3, device="meta"), 0.5)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32])
def test_a_network_of_narrow_type_receives_its_type_and_the_prediction_has_that_of_the_state(kind):
    model = _model()
    model.net.to(kind)
    x = torch.randn(4, 3, dtype=torch.float64)
    p = model(x, torch.full((4,), 1e-5))
    dtype, log_snr = model.net.calls[-1]  # pyright: ignore[reportIndexIssue]
    assert dtype == kind
    assert log_snr.dtype == torch.float32
    assert p.out.dtype == p.eps.dtype == p.score.dtype == torch.float64
    sigma = math.sqrt(
        -math.expm1(-2 * float(torch.tensor(1e-5)))
    )  # of the time rounded to float32, computed in float64
    assert torch.allclose(p.score, -p.eps / sigma, rtol=1e-12)
    assert torch.allclose(p.eps, ou.alpha(float(torch.tensor(1e-5))) * p.out + sigma * x, rtol=1e-12)


def test_the_network_receives_one_log_snr_per_sample_also_at_the_end_without_signal():
    net = Scale()
    ScoreModel(net, Flow())(torch.zeros(3, 2), torch.tensor([0.1, 2.0, 18.0]))
    assert net.calls[0][1].tolist() == pytest.approx([float(ou.log_snr(v)) for v in (0.1, 2.0, 18.0)], rel=1e-6)
    ScoreModel(net, Flow())(torch.zeros(3, 2), math.inf)
    assert net.calls[1][1].tolist() == [-math.inf] * 3


@pytest.mark.parametrize("parameterization", [Eps(), Score()])
@pytest.mark.parametrize("sde", [Flow(), VPSDE(Cosine(clip=1.0)), VPSDE(FromBetas((0.1, 1.0)))], ids=repr)
def test_noise_and_score_are_refused_on_a_clock_that_ends_without_signal(parameterization, sde):
    with pytest.raises(
        ValueError, match=r"does not determine x0 at the end of .* use V\(\) or X0\(\), or a clock that is"
    ):
        ScoreModel(Scale(), sde, parameterization)


@pytest.mark.parametrize("parameterization", [V(), X0(), Velocity()])
def test_v_x0_and_velocity_work_on_a_clock_that_ends_without_signal(parameterization):
    class Constant(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            return torch.full_like(x, 0.25)

    p = ScoreModel(Constant(), Flow(), parameterization)(torch.ones(2, 3), math.inf)
    for member in (p.eps, p.x0, p.score, p.v):
        assert bool(torch.isfinite(member).all())
    assert torch.allclose(p.eps, torch.ones(2, 3))
    assert torch.allclose(p.v, -p.x0)
    ScoreModel(Constant(), VPSDE(Cosine()), Eps())  # the clipped clock


def test_a_network_with_a_log_snr_range_below_that_of_tau_min_is_refused():
    net = Scale()
    net.log_snr_range = (-10.0, 8.0)  # pyright: ignore[reportArgumentType]
    with pytest.raises(
        ValueError, match=r"supports log-SNR up to 8.0, but tau_min = 1e-05 has 10.82; raise tau_min or"
    ):
        ScoreModel(net, VPSDE())
    ScoreModel(net, VPSDE(tau_min=2e-4))


def test_a_network_that_changes_the_shape_is_refused():
    class FirstColumn(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            return x[:, :1]

    with pytest.raises(ValueError, match=r"the network must return the shape of x, \(2, 3\), got \(2, 1\)"):
        ScoreModel(FirstColumn(), VPSDE())(torch.zeros(2, 3), 0.5)


def test_evaluation_mode_is_restored_for_each_module_also_after_an_exception():
    net = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5))
    net[1].eval()

    def stop() -> None:
        with evaluating(net):
            assert not any(m.training for m in net.modules())
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop()
    assert [m.training for m in net.modules()] == [True, True, False]


def test_threads_that_share_a_model_all_evaluate_it_and_the_last_restores_its_mode():
    net, ready, ended = nn.Dropout(0.5), threading.Barrier(2), threading.Event()
    seen: list[bool] = []

    def short() -> None:
        with evaluating(net):
            ready.wait(10)
        ended.set()

    def long() -> None:
        with evaluating(net):
            ready.wait(10)
            ended.wait(10)
            seen.append(net.training)

    threads = [threading.Thread(target=run) for run in (short, long)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [False]
    assert net.training


def test_a_block_within_another_leaves_the_mode_to_the_outer_one():
    net = nn.Sequential(nn.Dropout(0.5), nn.Dropout(0.5).eval())
    with evaluating(net):
        with evaluating(net[0]):
            pass
        assert not net[0].training
    assert [m.training for m in net.modules()] == [True, True, False]


@pytest.mark.parametrize(
    ("net", "sde", "parameterization", "name"),
    [
        (lambda x, log_snr: x, VPSDE(), V(), "net must be a Module, got function"),
        (nn.Identity(), Cosine(), V(), "sde must be a Process, got Cosine"),
        (nn.Identity(), VPSDE, V(), "sde must be a Process, got <class"),
        (nn.Identity(), VPSDE(), Eps, "parameterization must be a NetworkOutput, got <class"),
    ],
)
def test_an_argument_of_another_class_is_refused_by_name(net, sde, parameterization, name):
    with pytest.raises(TypeError, match=name):
        ScoreModel(net, sde, parameterization)


def test_a_network_that_returns_a_tuple_is_refused_with_the_remedy():
    class TupleOutput(nn.Module):
        def forward(self, x, log_snr):
            return (x,)

    with pytest.raises(TypeError, match=r"must return a tensor, got tuple .*FromStep.* \(out\[0\]"):
        ScoreModel(TupleOutput(), VPSDE())(torch.zeros(2, 3), 0.3)


@pytest.mark.parametrize(
    ("name", "adapter"),
    [("timesteps", "FromStep"), ("timestep", "FromStep"), ("sigma", "FromSigma"), ("time_cond", "FromTime")],
)
def test_a_network_that_takes_a_step_or_a_noise_level_is_refused_with_its_adapter(name, adapter):
    net = nn.Identity()
    net.forward = eval(f"lambda sample, {name}, y=None: sample")
    with pytest.raises(TypeError, match=rf"second argument is named {name}; wrap it .*{adapter}\(net"):
        ScoreModel(net, VPSDE())


class Stepped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor, timesteps: Tensor) -> Tensor:
        return self.layer(x)


WRAPPERS: list[Any] = [
    nn.DataParallel,
    lambda net: torch.compile(net, backend="eager"),
    lambda net: nn.DataParallel(torch.compile(net, backend="eager")),  # pyright: ignore[reportArgumentType]
]
wrappers = pytest.mark.parametrize("wrap", WRAPPERS, ids=["DataParallel", "compile", "both"])


@wrappers
def test_a_wrapper_of_torch_does_not_hide_what_a_network_takes(wrap):
    with pytest.raises(TypeError, match=r"got Stepped\.forward.* named timesteps; wrap it .*FromStep"):
        ScoreModel(wrap(Stepped()), VPSDE())


@wrappers
def test_a_wrapper_of_torch_does_not_hide_what_a_network_declares(wrap):
    net = sd.MLP((2,), width=8, depth=1, conditions={"label": sd.Classes(3)})
    model, label = ScoreModel(wrap(net), VPSDE()), torch.tensor([0, 2])
    assert model.event_shape == (2,)
    assert torch.equal(
        model.null_cond({"label": label})["label"], ScoreModel(net, VPSDE()).null_cond({"label": label})["label"]
    )
    with pytest.raises(TypeError, match=r"'lable' is neither an option .*did you mean label"):
        sample(model, 2, DDIM(2), lable=label)
    net.log_snr_range = (-20.0, 3.0)
    with pytest.raises(ValueError, match="the network supports log-SNR up to 3"):
        ScoreModel(wrap(net), VPSDE())


@pytest.mark.parametrize(
    ("convert", "text"),
    [
        (lambda out: out.to(torch.complex64), r"got torch\.complex64 from Changed; return its real part"),
        (lambda out: out.long(), r"got torch\.int64 from Changed; return what is before rounding"),
        (lambda out: out > 0, r"got torch\.bool from Changed"),
    ],
    ids=["complex", "integers", "bools"],
)
def test_an_output_that_is_not_of_real_floating_numbers_is_refused(convert, text):
    class Changed(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            return convert(x)

    with pytest.raises(TypeError, match=f"must return real floating numbers, {text}"):
        ScoreModel(Changed(), VPSDE())(torch.ones(2, 3), 0.3)


def test_a_model_in_place_of_a_network_is_refused():
    with pytest.raises(TypeError, match="net must be a network, got the model ScoreModel; pass its network"):
        ScoreModel(_model(), VPSDE())


def test_a_network_whose_second_argument_is_named_for_a_time_meets_a_warning():
    class Timed(nn.Module):
        def forward(self, x: Tensor, t: Tensor) -> Tensor:
            return x

    with pytest.warns(UserWarning, match=r"receive log-SNR .* as t\. Name the argument log_snr .* FromTime"):
        ScoreModel(Timed(), VPSDE())


def test_a_network_that_needs_integers_is_refused_with_its_adapter():
    class Embedded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(1000, 2)

        def forward(self, x: Tensor, code: Tensor) -> Tensor:
            return x + self.table(code)

    with pytest.raises(TypeError, match=r"Embedded needs integers .*FromStep\(net, clock, steps=1000, rounding=True\)"):
        ScoreModel(Embedded(), VPSDE())(torch.zeros(3, 2), 0.3)


def test_the_event_shape_is_that_which_the_network_states():
    assert ScoreModel(sd.MLP((3,), width=4, depth=1), VPSDE()).event_shape == (3,)
    assert ScoreModel(nn.Identity(), VPSDE()).event_shape is None
    assert ScoreModel(nn.Identity(), VPSDE(), event_shape=()).event_shape == ()


def test_an_event_shape_other_than_that_of_the_data_is_refused():
    data = load_data("digits").description
    with pytest.raises(ValueError, match=r"event_shape must be that of the data, \(1, 8, 8\), got \(3, 8, 8\)"):
        ScoreModel(nn.Identity(), VPSDE(), event_shape=(3, 8, 8), data=data)


def test_a_posterior_mean_on_another_clock_is_refused():
    with pytest.raises(
        ValueError, match=r"clock of the process, Cosine\(.*\), got LinearBetas\(.*; write PosteriorMean\(schedule=…\)"
    ):
        ScoreModel(nn.Identity(), VPSDE(Cosine()), PosteriorMean())


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (nn.Linear(2, 2), r"got Linear; wrap a network: ScoreModel\(net, VPSDE\(\)\)\."),
        ("runs/digits", r"got the path 'runs/digits'; load it first: sd\.load\(path\)\."),
        (Path("runs") / "digits", r"got the path 'runs.digits'; load it first: sd\.load\(path\)\."),
        (
            ScoreModel,
            r"got the class ScoreModel; pass an object such as ScoreModel\(net, VPSDE\(\)\) or sd\.load\(path\)",
        ),
        (nn.DataParallel(_model()), r"got DataParallel; it wraps a Model\. Pass that one, e\.g\. model\.module"),
        (None, r"got NoneType; pass an object such as ScoreModel\(net, VPSDE\(\)\) or sd\.load\(path\)"),
    ],
    ids=["network", "text", "path", "class", "wrapper", "None"],
)
def test_a_value_that_is_not_a_model_is_refused_with_the_call_that_makes_one(model, text):
    for call in (
        lambda: check_model(model),
        lambda: sample(model, 3, DDIM(2)),
        lambda: log_prob(model, torch.zeros(3, 2)),
    ):
        with pytest.raises(TypeError, match=f"model must be a Model, {text}"):
            call()


def test_a_model_passes_the_check_and_sd_load_exists():
    check_model(_model())
    assert callable(sd.load)


@pytest.mark.parametrize(
    ("predict", "error", "text"),
    [
        (lambda x, tau: 0 * x, TypeError, r"Own\.predict must return a Prediction, got Tensor; return GaussianPred"),
        (lambda x, tau: None, TypeError, r"Own\.predict must return a Prediction, got NoneType"),
        (
            lambda x, tau: GaussianPrediction(x, tau, x[:1], V()),
            ValueError,
            r"must return out in the shape of x, \(3, 2\), got \(1, 2\); return one output per sample",
        ),
    ],
    ids=["tensor", "None", "one row"],
)
def test_what_an_own_model_predicts_is_checked(predict, error, text):
    class Own(sd.Model):
        sde = VPSDE()

        def predict(self, x, tau, **cond):
            return predict(x, tau)

    for call in (lambda: Own()(torch.zeros(3, 2), 0.3), lambda: sample(Own(), (3, 2), DDIM(2))):
        with pytest.raises(error, match=text):
            call()
