"""Adapters against exact networks of other conventions: the model of each is the exact Gaussian model."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

import scoresde as sd
from scoresde.adapters import FromSigma, FromStep, FromTime, Given, unwrapped
from scoresde.model import gaussian_process
from scoresde.process import ou
from scoresde.process.parameterization import X0, Eps, Score, V, Velocity
from scoresde.process.schedule import Cosine, FromBetas, GeometricSigma, LinearBetas
from scoresde.process.sde import VE, VPSDE, Flow, SubVP

VARIANCE = 0.3
TAUS = (0.02, 0.3, 1.1, 2.5)


class Recorded(nn.Module):
    """Returns a function of its arguments, and keeps the last ones."""

    def __init__(self, function: Callable[[Tensor, Tensor], object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, times: Tensor, **cond: Tensor) -> object:
        self.x, self.times, self.cond = x, times, cond
        return self.function(x, times)


def _column(times: Tensor) -> Tensor:
    return times.double().unsqueeze(1)


def _assert_exact(model: sd.ScoreModel, generator: torch.Generator) -> None:
    """The model is that of normal data of variance `VARIANCE`, to the precision of float32 times."""
    exact = sd.Gaussian(torch.zeros(2), VARIANCE, gaussian_process(model))
    x = torch.randn(5, 2, dtype=torch.float64, generator=generator)
    for tau in (t for t in TAUS if model.sde.tau_min < t < model.sde.tau_max):
        torch.testing.assert_close(model(x, tau).score, exact(x, tau).score, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "clock", [LinearBetas(), FromBetas(tuple(Cosine().to_betas(1000)[:-1])), LinearBetas(steps=37)]
)
def test_every_knot_is_exactly_its_step(clock):
    count = len(clock.betas) if isinstance(clock, FromBetas) else clock.steps
    net = Recorded(lambda x, t: x)
    log_snr = torch.tensor([ou.log_snr(tau) for tau in clock.knots(count)[1:]], dtype=torch.float64).float()
    x = torch.zeros(count, 1)
    for offset in (-1.0, 0.0):
        for rounding in (False, True):
            FromStep(net, clock, count, offset, rounding)(x, log_snr)
            assert torch.equal(net.times.double(), torch.arange(1, count + 1).double() + offset)
            assert net.times.dtype == (torch.int64 if rounding else torch.float32)


def test_a_fraction_of_a_step_is_passed_or_rounded_and_rescaled():
    clock, net = LinearBetas(steps=10, last=0.5), Recorded(lambda x, t: x)
    log_snr = torch.tensor([ou.log_snr(clock.tau(0.53))], dtype=torch.float64).float()
    x = torch.zeros(1, 1)
    FromStep(net, clock, 10)(x, log_snr)
    assert net.times.item() == pytest.approx(4.3, abs=1e-5)
    FromStep(net, clock, 10, rounding=True)(x, log_snr)
    assert net.times.item() == 4
    FromStep(net, clock, 10, scale=100.0)(x, log_snr)
    assert net.times.item() == pytest.approx(430, abs=1e-3)
    with pytest.raises(ValueError, match=r"fractions, got scale=100.0 and rounding"):
        FromStep(net, clock, 10, rounding=True, scale=100.0)


def test_below_the_first_knot_the_network_receives_the_first_step():
    clock, net = LinearBetas(), Recorded(lambda x, t: x)
    FromStep(net, clock)(torch.zeros(1, 1), torch.tensor([ou.log_snr(1e-6)]))
    assert net.times.item() == 0


def test_a_network_of_the_step_is_exact_as_a_model(generator):
    clock = LinearBetas()
    bars = torch.tensor([ou.alpha_bar(tau) for tau in clock.knots(1000)], dtype=torch.float64)

    def eps(x: Tensor, t: Tensor) -> SimpleNamespace:
        low = t.double().floor().long() + 1
        bar = torch.lerp(bars[low], bars[(low + 1).clamp(max=1000)], t.double() % 1)
        return SimpleNamespace(sample=x * (_column((1 - bar).sqrt()) / _column(1 - bar + VARIANCE * bar)))

    process = VPSDE(clock, tau_min=clock.knots(1000)[1])
    _assert_exact(sd.ScoreModel(FromStep(Recorded(eps), clock), process, Eps(), (2,)), generator)


@pytest.mark.parametrize("scale", [1.0, 1000.0])
def test_a_network_of_the_straight_path_is_exact_as_a_model(scale, generator):
    def velocity(x: Tensor, t: Tensor) -> Tensor:
        u = _column(t) / scale
        gain = VARIANCE * (1 - u) / (VARIANCE * (1 - u) ** 2 + u**2)  # x_0 = gain · x
        return (x - (1 - u) * gain * x) / u - gain * x

    net = FromTime(Recorded(velocity), Flow(), scale)
    _assert_exact(sd.ScoreModel(net, Flow(), Velocity(), (2,)), generator)


@pytest.mark.parametrize(("process", "scale"), [(VPSDE(sd.LinearVP()), 999.0), (SubVP(), 1.0)])
def test_a_network_of_songs_time_is_exact_as_a_model(process, scale, generator):
    def score(x: Tensor, t: Tensor) -> Tensor:  # in the coordinates of the view, as the network sees them
        half = 0.25 * _column(t / scale) ** 2 * 19.9 + 0.5 * _column(t / scale) * 0.1
        decay = torch.exp(-2 * half)
        noise = (1 - decay) ** 2 if isinstance(process, SubVP) else 1 - decay
        return -x * noise.sqrt() / (noise + VARIANCE * decay)

    net = FromTime(Recorded(lambda x, t: -score(x, t)), process, scale)
    _assert_exact(sd.ScoreModel(net, process, Eps(), (2,)), generator)


_VE = VE(GeometricSigma(0.002, 80.0), tau_min=2e-6)


def _denoised(x: Tensor, sigma: Tensor) -> Tensor:
    return x * VARIANCE / (VARIANCE + _column(sigma) ** 2)


def _raw(x: Tensor, c_noise: Tensor, sigma_data: float = 0.5) -> Tensor:
    """EDM's F: D = c_skip x̃ + c_out F, with the exact D."""
    sigma = torch.exp(4 * _column(c_noise))
    total = sigma**2 + sigma_data**2
    state = x * total.sqrt()
    denoised = state * VARIANCE / (VARIANCE + sigma**2)
    return (denoised - sigma_data**2 / total * state) * total.sqrt() / (sigma * sigma_data)


@pytest.mark.parametrize(
    ("adapter", "output"),
    [
        (FromSigma(Recorded(_denoised)), X0()),
        (FromSigma(Recorded(lambda x, v: _denoised(x, v.double().exp())), level="log"), X0()),
        (FromSigma(Recorded(lambda x, v: _denoised(x, (v.double() * math.pi / 2).tan())), level="angle"), X0()),
        (FromSigma(Recorded(_raw), 0.5, "quarter log", "negative"), V(sigma_data=0.5)),
        (FromSigma(Recorded(lambda x, s: -x / (VARIANCE + _column(s) ** 2)), output_form="score"), Eps()),
    ],
)
def test_a_network_of_the_noise_level_is_exact_as_a_model(adapter, output, generator):
    _assert_exact(sd.ScoreModel(adapter, _VE, output, (2,)), generator)


def test_conditions_reach_the_foreign_network_by_name():
    net = Recorded(lambda x, t: (x, "state"))
    labels = torch.tensor([3, 4])
    adapter = FromSigma(net)
    sd.ScoreModel(adapter, _VE, Score(), (2,))(torch.zeros(2, 2), 0.1, labels=labels)
    assert net.cond["labels"] is labels


@pytest.mark.parametrize("out", [SimpleNamespace(sample="text"), (), {"out": torch.zeros(1)}, None])
def test_an_output_without_a_tensor_is_refused(out):
    with pytest.raises(TypeError, match="must return a tensor, a tuple whose first entry is one, or an object with"):
        unwrapped(out)


def test_the_stand_in_for_a_network_says_what_to_pass():
    with pytest.raises(RuntimeError, match=r"class OldNet.*load\(path, net=OldNet\(…\)\)"):
        Given("OldNet")(torch.zeros(1))


@pytest.mark.parametrize(
    ("settings", "text"), [({"level": "sgima"}, "did you mean .?sigma"), ({"output_form": "negativ"}, "negative")]
)
def test_an_unknown_convention_is_refused_with_the_nearest(settings, text):
    with pytest.raises(ValueError, match=text):
        FromSigma(nn.Identity(), **settings)


@pytest.mark.parametrize("narrow", [torch.float32, torch.bfloat16])
def test_adapters_run_without_values(narrow):
    clock = LinearBetas()
    adapters = [
        FromStep(Recorded(lambda x, t: x), clock, rounding=True),
        FromTime(Recorded(lambda x, t: x), Flow()),
        FromSigma(Recorded(lambda x, t: x), 0.5, "quarter log", "score"),
    ]
    with FakeTensorMode():
        for adapter in adapters:
            out = adapter(torch.zeros(3, 2, dtype=narrow), torch.zeros(3))
            assert (out.shape, out.dtype) == ((3, 2), narrow)


@pytest.mark.parametrize(
    ("clock", "steps"),
    [(FromBetas((0.1, 0.2, 0.3)), 3), (LinearBetas(steps=250), 250), (Cosine(), 1000), (sd.LinearVP(), 1000)],
    ids=["FromBetas", "LinearBetas", "Cosine", "LinearVP"],
)
def test_without_a_length_the_chain_is_that_of_the_clock(clock, steps):
    net = Recorded(lambda x, t: x)
    adapter = FromStep(net, clock)
    assert adapter.steps == steps
    adapter(torch.zeros(1, 1), torch.tensor([ou.log_snr(clock.tau_max)]))
    assert net.times.item() == steps - 1


def test_an_adapter_of_the_time_goes_around_no_other():
    inner = FromStep(nn.Identity(), LinearBetas())
    for wrap in (lambda: FromStep(inner, LinearBetas()), lambda: FromSigma(inner)):
        with pytest.raises(TypeError, match=r"got FromStep, an adapter that takes log-SNR; leave one"):
            wrap()
    FromStep(sd.adapters.Label(Recorded(lambda x, t: x), 3), LinearBetas())  # it takes the step
