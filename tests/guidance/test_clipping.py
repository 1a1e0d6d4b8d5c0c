"""Guided models: the wrapper is a consistent model, and its data estimate lies in the range."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from subclasses import concrete
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from scoresde._core.tensors import event_size
from scoresde.analytic import Gaussian
from scoresde.data import Description
from scoresde.guidance.clipping import Clipping, DynamicThresholding, Guided
from scoresde.likelihood import ExactTrace, log_prob
from scoresde.model import ScoreModel
from scoresde.nn import MLP
from scoresde.process import ou
from scoresde.process.parameterization import Eps, V
from scoresde.process.sde import SDE, VE, VPSDE, Flow, SubVP
from scoresde.sampling import DDIM, DDPM, DPMSolver, EulerMaruyama, ExponentialSDE, RungeKutta, sample

ALL: list[Any] = concrete(Guided)
TIMES = [0.02, 0.7, torch.tensor([0.02, 0.4, 1.1, 3.0])]


class LargeOutput(nn.Module):
    """A network whose output is far outside the range of the data; records the conditioning of each call."""

    def __init__(self, size: float = 30.0) -> None:
        super().__init__()
        self.size = size
        self.conditioning: list[dict[str, Any]] = []

    def forward(self, x: Tensor, log_snr: Tensor, **cond: Tensor) -> Tensor:
        self.conditioning.append(cond)
        return self.size * torch.sin(7.0 * x + torch.arange(float(event_size(x))).reshape(x.shape[1:]))


def large_output_model(sde: SDE | None = None, event_shape: tuple[int, ...] = (5,), **settings: Any) -> ScoreModel:
    return ScoreModel(LargeOutput(), VPSDE() if sde is None else sde, V(), event_shape, **settings)


# --- the wrapper is a model -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ALL)
def test_a_wrapped_model_keeps_process_event_shape_data_and_conditioning(kind: Any) -> None:
    inner = large_output_model(VE(), (2,), data=Description("levels", (2,), bins=17))
    model = kind(inner)
    assert (model.sde, model.event_shape, model.data) == (inner.sde, inner.event_shape, inner.data)
    label = torch.arange(3)
    drawn = sample(model, 3, DDIM(2), batch_size=2, label=label)
    assert torch.equal(drawn.data, Description("levels", (2,), bins=17).to_data(drawn.x))
    assert isinstance(inner.net, LargeOutput)
    assert [call["label"].tolist() for call in inner.net.conditioning] == [[0, 1], [0, 1], [2], [2]]
    with pytest.raises(ValueError, match=r"x must have shape \(B, 2\), got \(3, 4\)"):
        model(torch.zeros(3, 4), 0.5)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("tau", TIMES, ids=["early", "late", "each"])
def test_noise_v_and_score_follow_from_the_changed_data_estimate(kind: Any, tau: Any) -> None:
    x = torch.randn(4, 5, dtype=torch.float64)
    p = kind(large_output_model())(x, tau)
    assert p.x0.abs().max() <= 1
    column = tau.double()[:, None] if isinstance(tau, Tensor) else torch.tensor(tau, dtype=torch.float64)
    alpha, sigma = ou.alpha(column), ou.sigma(column)
    torch.testing.assert_close(alpha * p.x0 + sigma * p.eps, x, rtol=0, atol=1e-13)
    torch.testing.assert_close(p.v, alpha * p.eps - sigma * p.x0, rtol=0, atol=1e-11)
    torch.testing.assert_close(p.score, -p.eps / sigma, rtol=0, atol=1e-11)


@pytest.mark.parametrize("kind", ALL)
def test_a_learned_variance_is_passed_on(kind: Any) -> None:
    class TwoOutputs(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            return torch.stack([9.0 * x, torch.tanh(x)], -1)

    inner = ScoreModel(TwoOutputs(), VPSDE(), V(), (5,), learned_variance=True)
    x = torch.randn(4, 5)
    mix = kind(inner)(x, 0.5).mix
    assert mix is not None
    assert torch.equal(mix, 0.5 + 0.5 * torch.tanh(x))
    assert sample(kind(inner), 3, DDPM(4, rev_var="learned")).x.abs().max() <= 1
    assert kind(large_output_model())(x, 0.5).mix is None


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_sampling_a_wrapped_model_reads_no_tensor_values(kind: Any, device: str) -> None:
    with FakeTensorMode(), torch.device(device):
        model = kind(ScoreModel(MLP((3,), width=8, depth=1), VPSDE(), V(), (3,)))
        for sampler in (DDPM(3), DDIM(3), EulerMaruyama(3), ExponentialSDE(3), RungeKutta(3)):
            assert sample(model, 4, sampler, device=device, denoise=True).x.shape == (4, 3)


@pytest.mark.parametrize("kind", ALL)
def test_sampling_through_the_wrapper_uses_eval_mode_and_restores_the_mode(kind: Any) -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = net

        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            assert not self.training
            return self.inner(x)

    model = kind(ScoreModel(Net(), VPSDE(), V(), (2,))).train()
    sample(model, 2, DDIM(2))
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("event", [(), (3,), (2, 3), (1, 2, 3), (1, 2, 2, 3)], ids=str)
@pytest.mark.parametrize("n", [0, 1, 3])
def test_events_of_any_shape_and_batches_of_zero_and_one_work(kind: Any, event: tuple[int, ...], n: int) -> None:
    x = torch.randn(n, *event)
    p = kind(large_output_model(event_shape=event))(x, 0.5)
    assert p.x0.shape == p.eps.shape == x.shape
    assert not (p.x0.abs() > 1).any()


@pytest.mark.parametrize("kind", ALL)
def test_an_exact_model_of_data_in_the_range_does_not_change(kind: Any) -> None:
    point = torch.tensor([0.3, -0.9, 0.0], dtype=torch.float64)
    exact, x = Gaussian(point, 0.0), torch.randn(6, 3, dtype=torch.float64)
    for tau in (1e-3, 0.4, 2.0):
        one, other = exact(x, tau), kind(exact)(x, tau)
        torch.testing.assert_close(other.x0, point.expand(6, 3), rtol=0, atol=1e-12)
        torch.testing.assert_close(other.score, one.score, rtol=1e-9, atol=1e-9)
    drawn = sample(kind(exact), 4, DDPM(5), seeds=range(4)).x
    torch.testing.assert_close(drawn, point.expand(4, 3), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ALL)
def test_inside_the_range_gradients_and_likelihoods_are_those_of_the_wrapped_model(kind: Any) -> None:
    exact = Gaussian(torch.tensor([0.1, -0.2], dtype=torch.float64), 1e-4)
    x = torch.randn(3, 2, dtype=torch.float64)
    grads = []
    for model in (exact, kind(exact)):
        leaf = x.clone().requires_grad_()
        grads.append(torch.autograd.grad(model(leaf, 1.0).v.square().sum(), leaf)[0])
    torch.testing.assert_close(grads[1], grads[0], rtol=1e-9, atol=1e-12)
    data = exact.sample(3, generator=torch.Generator().manual_seed(1))
    one, other = (log_prob(model, data, trace=ExactTrace()).log_prob for model in (exact, kind(exact)))
    torch.testing.assert_close(other, one, rtol=1e-6, atol=1e-6)


# --- the range of the data estimate -----------------------------------------------------------------------------------


@pytest.mark.parametrize("sde", [VPSDE(), VE(), SubVP(), Flow()], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("sampler", [DDPM(9), DDIM(9)], ids=repr)
def test_samples_of_a_network_with_large_outputs_lie_in_the_range_in_every_view(sde: SDE, sampler: Any) -> None:
    unclipped = sample(large_output_model(sde), 8, sampler, seeds=range(8)).x
    clipped = sample(Clipping(large_output_model(sde), -0.5, 0.25), 8, sampler, seeds=range(8)).x
    assert unclipped.abs().max() > 5
    assert -0.5 - 1e-5 <= clipped.min() < -0.4
    assert 0.2 < clipped.max() <= 0.25 + 1e-5
    assert (
        sample(DynamicThresholding(large_output_model(sde), bound=0.5), 8, sampler, seeds=range(8)).x.abs().max()
        <= 0.5 + 1e-5
    )


def test_clipping_is_elementwise_and_the_gradient_of_clipped_elements_is_zero() -> None:
    model, x = large_output_model(), torch.randn(4, 5, dtype=torch.float64)
    raw = model(x, 0.4).x0
    assert torch.equal(Clipping(model, -2.0, 7.0)(x, 0.4).x0, raw.clamp(-2.0, 7.0))
    assert torch.equal(Clipping(model, -float("inf"), float("inf"))(x, 0.4).x0, raw)
    leaf = x.clone().requires_grad_()
    clipped = Clipping(model, -2.0, 7.0)(leaf, 0.4).x0
    (grad,) = torch.autograd.grad(clipped.sum(), leaf)
    outside = (raw < -2.0) | (raw > 7.0)
    assert outside.any()
    assert not outside.all()
    assert torch.equal(grad == 0, outside)


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.5, 0.995, 1.0])
def test_the_threshold_is_the_quantile_of_each_sample_and_at_least_the_bound(quantile: float) -> None:
    x0 = torch.randn(6, 3, 7, dtype=torch.float64) * torch.tensor([0.01, 0.1, 1, 3, 10, 100]).double().reshape(-1, 1, 1)
    model = DynamicThresholding(large_output_model(), quantile, bound=0.7)
    limit = torch.quantile(x0.abs().flatten(1), quantile, 1).clamp(min=0.7).reshape(-1, 1, 1)
    expected = torch.minimum(torch.maximum(x0, -limit), limit) * 0.7 / limit
    torch.testing.assert_close(model.steer(x0), expected, rtol=0, atol=1e-14)
    assert torch.equal(model.steer(x0)[:2], x0[:2])  # all elements are inside the bound


def test_the_threshold_of_a_sample_does_not_depend_on_the_batch() -> None:
    model, x0 = DynamicThresholding(large_output_model()), 5.0 * torch.randn(4, 30)
    thresholded, scaled = model.steer(x0), model.steer(x0 * torch.tensor([1.0, 50.0, 1.0, 50.0])[:, None])
    assert torch.equal(thresholded[0::2], scaled[0::2])
    torch.testing.assert_close(model.steer(x0[2:3]), thresholded[2:3], rtol=0, atol=0)
    drawn, alone = (
        sample(DynamicThresholding(large_output_model()), n, DDPM(5), seeds=list(range(7))[-n:]).x for n in (7, 3)
    )
    torch.testing.assert_close(drawn[-3:], alone, rtol=0, atol=1e-5)


WITH_EPS: list[Any] = [
    lambda m: Clipping(m, -0.5, 0.5, keep_eps=True),
    lambda m: DynamicThresholding(m, 0.9, 0.5, keep_eps=True),
]


@pytest.mark.parametrize("make", WITH_EPS)
@pytest.mark.parametrize("tau", TIMES)
def test_the_kept_noise_estimate_is_that_of_the_unclipped_model(make: Any, tau: Any) -> None:
    inner, x = large_output_model(), torch.randn(4, 5, dtype=torch.float64)
    model, plain = make(inner), inner(x, tau)
    kept = model(x, tau)
    assert torch.equal(kept.eps, plain.eps)
    assert torch.equal(kept.score, plain.score)
    assert torch.equal(kept.x0, model.steer(plain.x0))
    exact = tau.double().reshape(-1, 1) if isinstance(tau, Tensor) else tau
    alpha, sigma = ou.alpha(exact), ou.sigma(exact)
    torch.testing.assert_close(kept.v, alpha * plain.eps - sigma * kept.x0, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("make", WITH_EPS)
def test_ddim_uses_the_clipped_data_and_the_kept_noise_estimate(make: Any) -> None:
    """Song, Meng & Ermon 2021, eq. 12, in which the two estimates do not give x."""
    inner, x, noise = large_output_model(), torch.randn(4, 5).double(), torch.randn(4, 5).double()
    tau, s, eta = 1.1, 0.4, 0.7
    model, plain = make(inner), inner(x, tau)
    x0 = model.steer(plain.x0)
    bar, bar_s = math.exp(-2 * tau), math.exp(-2 * s)
    std = eta * math.sqrt((1 - bar_s) / (1 - bar) * (1 - bar / bar_s))
    expected = math.sqrt(bar_s) * x0 + math.sqrt(1 - bar_s) * plain.eps
    stepped, _ = DDIM().step(model.predict, x, tau, s, lambda: noise, None)
    torch.testing.assert_close(stepped, expected, rtol=0, atol=1e-12)
    expected = math.sqrt(bar_s) * x0 + math.sqrt(1 - bar_s - std**2) * plain.eps + std * noise
    stepped, _ = DDIM(eta=eta).step(model.predict, x, tau, s, lambda: noise, None)
    torch.testing.assert_close(stepped, expected, rtol=0, atol=1e-12)
    last, _ = DDIM().step(model.predict, x, tau, 0.0, lambda: noise, None)
    torch.testing.assert_close(last, x0, rtol=0, atol=1e-12)


def test_a_kept_noise_estimate_changes_nothing_in_ddpm_and_nothing_that_is_not_clipped() -> None:
    inner = large_output_model()
    clipped = [Clipping(inner, keep_eps=keep) for keep in (True, False)]
    kept, plain = (sample(m, 4, DDPM(9), seeds=range(4), dtype=torch.float64).x for m in clipped)
    torch.testing.assert_close(kept, plain, rtol=1e-9, atol=1e-9)
    wide = Clipping(inner, -math.inf, math.inf, keep_eps=True)
    free, unclipped = (sample(m, 4, DDIM(3), seeds=range(4), dtype=torch.float64).x for m in (wide, inner))
    torch.testing.assert_close(free, unclipped, rtol=1e-9, atol=1e-9)


def test_a_sampler_that_needs_one_output_is_told_that_two_estimates_are_none() -> None:
    with pytest.raises(
        ValueError, match=r"with keep_eps, eps is no combination of x and one output.*take DDIM or DDPM"
    ):
        sample(Clipping(large_output_model(), keep_eps=True), 2, DPMSolver(2), seeds=range(2))


def test_the_threshold_has_a_largest_value() -> None:
    x0 = torch.randn(6, 21, dtype=torch.float64) * torch.tensor([0.01, 0.1, 1, 3, 10, 100]).double().reshape(-1, 1)
    model = DynamicThresholding(large_output_model(), 0.9, largest=2.5)
    limit = torch.quantile(x0.abs(), 0.9, 1).clamp(1.0, 2.5).reshape(-1, 1)
    torch.testing.assert_close(model.steer(x0), torch.clamp(x0, -limit, limit) / limit, rtol=0, atol=1e-14)


def test_a_nan_is_not_hidden_by_clipping() -> None:
    class NaNOutput(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            return torch.full_like(x, torch.nan)

    for kind in ALL:
        with pytest.raises(RuntimeError, match=r"call 1, .* gave NaN or infinity for samples \[0, 1\]"):
            sample(kind(ScoreModel(NaNOutput(), VPSDE(), Eps(), (2,))), 2, DDIM(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: Clipping(m, 1.0, -1.0), r"low must lie below high, got low = 1\.0 and high = -1\.0"),
        (lambda m: Clipping(m, 0.0, float("nan")), r"low must lie below high"),
        (lambda m: DynamicThresholding(m, 99.5), r"quantile must lie in \[0, 1\], got 99\.5; 0\.995 is usual"),
        (lambda m: DynamicThresholding(m, largest=0.5), r"largest must be at least the bound, 1\.0, got 0\.5"),
        (lambda m: DynamicThresholding(m, bound=0.0), r"bound must be a positive finite number, got 0\.0"),
    ],
)
def test_invalid_settings_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(large_output_model())


def test_a_bare_network_is_refused() -> None:
    network: Any = LargeOutput()
    with pytest.raises(TypeError, match=r"model must be a Model, got LargeOutput; wrap a network: ScoreModel\(net"):
        Clipping(network)
