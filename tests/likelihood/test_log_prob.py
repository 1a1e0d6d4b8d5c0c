"""Log-densities against closed forms, the error of trace estimates against their spread, and error messages."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from scoresde._core.elementwise import Scalar
from scoresde._core.noise import Noise
from scoresde._core.tensors import expand
from scoresde.analytic import Gaussian, GaussianMixture, KernelDensity
from scoresde.data import Description
from scoresde.likelihood import (
    AdaptiveSolver,
    BitsPerDim,
    ExactTrace,
    Hutchinson,
    Solver,
    Status,
    TorchDiffEq,
    Trace,
    UniformDequantization,
    bits_per_dim,
    log_prob,
)
from scoresde.likelihood.ode.jacobian import Jacobian, forward_forms, reverse_forms
from scoresde.likelihood.ode.torchdiffeq_solver import METHODS
from scoresde.likelihood.ode.trace import Divergence
from scoresde.model import Model, ScoreModel
from scoresde.nn import MLP, UNet
from scoresde.process import ou
from scoresde.process.parameterization import Eps, V
from scoresde.process.prediction import GaussianPrediction, Prediction
from scoresde.process.sde import SDE, VE, VPSDE, Flow, SubVP
from scoresde.sampling import ODE, sample

TIGHT: dict[str, Any] = {"solver": AdaptiveSolver(1e-8), "nodes": 80}
LOOSE: dict[str, Any] = {"solver": AdaptiveSolver(1.0)}


def rotated_gaussian(size: int = 4, sde: SDE | None = None) -> Gaussian:
    g = torch.Generator().manual_seed(3)
    axes = torch.linalg.qr(torch.randn(size, size, generator=g, dtype=torch.float64))[0]
    variances = torch.logspace(-2, math.log10(4.0), size, dtype=torch.float64)
    return Gaussian(torch.linspace(-1, 2, size, dtype=torch.float64), axes @ variances.diag() @ axes.T, sde)


def terminal_log_prob(model: Gaussian | GaussianMixture | KernelDensity) -> Callable[[Tensor], Tensor]:
    return lambda z: model.log_prob(z, model.sde.tau_max)


class Net(nn.Module):
    """A function of x as a network of the usual signature, with a weight that gives it a dtype."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        return self.weight * self.function(x)


def tanh_model(function: Callable[[Tensor], Tensor] = torch.tanh) -> ScoreModel:
    return ScoreModel(Net(function), VPSDE())


def perturb_weights(net: nn.Module) -> nn.Module:
    """Adds small numbers to all weights, so that the output is not the initial zero."""
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return net


# --- closed forms ----------------------------------------------------------------------------------------------------


def test_a_gaussian_has_the_exact_ode_map_and_log_density(generator: torch.Generator) -> None:
    model = rotated_gaussian()
    low, high = model.sde.tau_min, model.sde.tau_max
    x = model.sample(16, low, generator)
    out = log_prob(model, x, prior_log_prob=terminal_log_prob(model), **TIGHT)
    assert torch.allclose(out.log_prob, model.log_prob(x, low), rtol=0, atol=1e-6)
    assert model.axes is not None
    axes, mean, variances = model.axes[0], model.means[0], model.variances[0]
    spread = [(ou.alpha(tau) ** 2 * variances + ou.sigma(tau) ** 2).sqrt() for tau in (low, high)]
    exact = ou.alpha(high) * mean + ((x - ou.alpha(low) * mean) @ axes * (spread[1] / spread[0])) @ axes.T
    assert torch.allclose(out.latent, exact, rtol=0, atol=1e-6)
    assert out.log_prob.dtype == torch.float64
    assert torch.equal(out.stderr, torch.zeros(16, dtype=torch.float64))


def test_without_the_terminal_density_only_the_prior_mismatch_is_missing(generator: torch.Generator) -> None:
    model = rotated_gaussian()
    x = model.sample(8, model.sde.tau_min, generator)
    out = log_prob(model, x, **TIGHT)
    standard = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    mismatch = standard.log_prob(out.latent).sum(1) - terminal_log_prob(model)(out.latent)
    assert torch.allclose(out.log_prob - mismatch, model.log_prob(x, model.sde.tau_min), rtol=0, atol=1e-6)


@pytest.mark.parametrize("solver", [AdaptiveSolver(), *(TorchDiffEq(m) for m in METHODS)], ids=str)
def test_every_solver_computes_the_log_density_of_the_ring(solver: Solver, generator: torch.Generator) -> None:
    model = GaussianMixture.ring()
    x = model.sample(100, model.sde.tau_min, generator)
    out = log_prob(model, x, solver=solver, prior_log_prob=terminal_log_prob(model))
    assert (out.log_prob - model.log_prob(x, model.sde.tau_min)).abs().mean() < 1e-5


class GaussianV(Model):
    """N(mean, var) on the line, with v in closed form even where no signal is left."""

    def __init__(self, mean: float, var: float, sde: SDE) -> None:
        super().__init__()
        self.mean, self.var, self.sde, self.event_shape = mean, var, sde, ()

    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
        alpha, sigma = expand(ou.alpha(tau), x), expand(ou.sigma(tau), x)
        slope = alpha * sigma * (1 - self.var) / (alpha**2 * self.var + sigma**2)
        return GaussianPrediction(x, tau, slope * (x - alpha * self.mean) - sigma * self.mean, V())


def _kernel(sde: SDE) -> tuple[float, float]:
    """The (signal, noise) scales of each view at tau_min, as in the literature."""
    tau = sde.tau_min
    if isinstance(sde, VE):
        return 1.0, math.sqrt(math.expm1(2 * tau))
    if isinstance(sde, Flow):
        ratio = math.sqrt(math.expm1(2 * tau))
        return 1 / (1 + ratio), ratio / (1 + ratio)
    if isinstance(sde, SubVP):
        tau0 = math.asinh(0.5 * math.sqrt(math.expm1(2 * tau)))
        return math.exp(-tau0), -math.expm1(-2 * tau0)
    return math.exp(-tau), math.sqrt(-math.expm1(-2 * tau))


@pytest.mark.parametrize("sde", [VPSDE(), VE(), SubVP(), Flow()], ids=lambda sde: type(sde).__name__)
def test_the_log_density_of_a_view_is_that_of_its_own_kernel(sde: SDE) -> None:
    mean, var = 0.7, 0.3
    model = GaussianV(mean, var, sde)
    x = torch.linspace(-1, 2, 7, dtype=torch.float64)
    exact_end = Gaussian(torch.tensor(mean, dtype=torch.float64), var, sde)
    out = log_prob(model, x, prior_log_prob=lambda z: exact_end.log_prob(z, min(sde.tau_max, 30.0)), **TIGHT)
    signal, noise = _kernel(sde)
    exact = torch.distributions.Normal(
        torch.tensor(signal * mean, dtype=torch.float64), math.sqrt(signal**2 * var + noise**2)
    ).log_prob(x)
    assert torch.allclose(out.log_prob, exact, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sde", [VPSDE(), VE()], ids=["VPSDE", "VE"])
def test_the_latent_maps_back_to_the_data(sde: SDE, generator: torch.Generator) -> None:
    model = GaussianMixture.ring(sde=sde)
    x = model.sample(20, 0.0, generator)
    z = log_prob(model, x, **TIGHT).latent
    back = sample(model, z.shape, ODE(rtol=1e-8, atol=1e-8), init=z, start=sde.tau_max)
    assert (back.x - x).abs().max() < 1e-5


def test_standard_normal_data_keep_their_log_density(generator: torch.Generator) -> None:
    model = Gaussian(torch.zeros(3, dtype=torch.float64), 1.0)
    x = torch.randn(5, 3, dtype=torch.float64, generator=generator)
    out = log_prob(model, x, trace=Hutchinson(1), generator=generator)
    assert torch.allclose(out.log_prob, model.log_prob(x), rtol=0, atol=1e-9)
    assert torch.allclose(out.latent, x, rtol=0, atol=1e-9)


# --- the trace -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rotated(Trace):
    """The sum over randomly rotated unit vectors, which is the divergence too."""

    mode: str = "reverse"

    def divergence(self, jacobian: Jacobian, noise: Noise) -> Divergence:
        rows, count, size = jacobian.nodes.x.shape
        axes = torch.linalg.qr(noise.normal(jacobian.nodes.x.new_empty(size, size)))[0]
        forms = jacobian.at(torch.arange(rows * count), axes.T.unsqueeze(1).expand(size, rows * count, size))
        value = forms.sum(0).reshape(rows, count)
        return Divergence(value, torch.zeros_like(value), torch.full_like(value, math.inf))


def test_the_exact_trace_is_the_sum_over_any_orthogonal_directions(generator: torch.Generator) -> None:
    model = rotated_gaussian(6)
    x = model.sample(5, 0.0, generator)
    exact, rotated = log_prob(model, x), log_prob(model, x, trace=Rotated(), generator=generator)
    assert torch.allclose(exact.log_prob, rotated.log_prob, rtol=0, atol=1e-9)
    assert exact.products.tolist() == [6 * 40] * 5


@pytest.mark.parametrize("shape", [(), (3,), (2, 2, 2)])
def test_products_of_both_modes_equal_those_of_the_full_jacobian(
    shape: tuple[int, ...], generator: torch.Generator
) -> None:
    x = torch.randn(4, *shape, generator=generator, dtype=torch.float64)
    e = torch.randn(3, 4, *shape, generator=generator, dtype=torch.float64)

    def velocity(x: Tensor) -> Tensor:
        return torch.sin(x) * x.reshape(len(x), -1).sum(1).reshape(-1, *(1 for _ in shape))

    v, forms = forward_forms(velocity, x, e)
    jacobian = torch.autograd.functional.jacobian(velocity, x)
    assert isinstance(jacobian, Tensor)
    flat = jacobian.reshape(4, x[0].numel(), 4, x[0].numel())
    full = torch.stack([flat[i, :, i] for i in range(4)])
    directions = e.reshape(3, 4, -1)
    assert torch.allclose(v, velocity(x))
    assert torch.allclose(forms, torch.einsum("pbi,bij,pbj->pb", directions, full, directions))
    assert torch.allclose(reverse_forms(velocity, x, e)[1], forms)


def test_forward_products_in_chunks_equal_reverse_products(
    generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = rotated_gaussian(6)
    x = model.sample(5, 0.0, generator)
    whole = log_prob(model, x).log_prob
    monkeypatch.setattr("scoresde.likelihood.ode.jacobian._FORWARD_VALUES", 61)
    assert torch.allclose(log_prob(model, x, trace=ExactTrace(mode="forward")).log_prob, whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("kind", ["rademacher", "orthogonal", "gaussian"])
@pytest.mark.parametrize("probes", [2, 6])
def test_hutchinson_is_unbiased_and_its_standard_error_is_its_spread(
    kind: str, probes: int, generator: torch.Generator
) -> None:
    model = rotated_gaussian(8)
    x = model.sample(1, model.sde.tau_min, generator).expand(400, 8)
    trace = Hutchinson(probes, kind)
    out = log_prob(model, x, trace=trace, generator=generator, prior_log_prob=terminal_log_prob(model), nodes=24)
    error = out.log_prob - model.log_prob(x, model.sde.tau_min)
    spread = error.std()
    assert spread > 0.05
    assert error.mean().abs() < 4 * spread / math.sqrt(400)
    assert out.stderr.square().mean().sqrt() == pytest.approx(float(spread), rel=0.15)
    assert out.products.tolist() == [24 * probes] * 400


def test_as_many_orthogonal_probes_as_dimensions_are_exact(generator: torch.Generator) -> None:
    model = rotated_gaussian(5)
    x = model.sample(3, model.sde.tau_min, generator)
    out = log_prob(model, x, trace=Hutchinson(5, "orthogonal"), generator=generator)
    assert torch.allclose(out.log_prob, log_prob(model, x).log_prob, rtol=0, atol=1e-9)
    assert out.stderr.abs().max() == 0


def test_one_probe_has_an_unknown_error(generator: torch.Generator) -> None:
    out = log_prob(rotated_gaussian(), torch.ones(2, 4), trace=Hutchinson(1), generator=generator, **LOOSE)
    assert out.stderr.isnan().all()


def test_the_same_seed_twice_gives_the_same_value(generator: torch.Generator) -> None:
    model = rotated_gaussian()
    x = model.sample(4, 0.0, generator)
    first, second = (
        log_prob(model, x, trace=Hutchinson(2), generator=torch.Generator().manual_seed(5), **LOOSE) for _ in range(2)
    )
    assert torch.equal(first.log_prob, second.log_prob)


def test_with_seeds_a_samples_probes_do_not_depend_on_its_batch(generator: torch.Generator) -> None:
    model = rotated_gaussian()
    x = model.sample(5, 0.0, generator)
    settings: dict[str, Any] = {"trace": Hutchinson(4)}
    whole = log_prob(model, x, seeds=[1, 2, 3, 4, 5], **settings)
    split = log_prob(model, x, seeds=[1, 2, 3, 4, 5], batch_size=2, **settings)
    turned = log_prob(model, x.flip(0), seeds=[5, 4, 3, 2, 1], **settings)
    assert torch.allclose(whole.log_prob, split.log_prob, rtol=0, atol=1e-9)
    assert torch.allclose(whole.log_prob, turned.log_prob.flip(0), rtol=0, atol=1e-9)


def test_the_default_trace_is_exact_up_to_16_dimensions(generator: torch.Generator) -> None:
    small = log_prob(Gaussian(torch.zeros(16), 0.5), torch.zeros(2, 16), generator=generator, **LOOSE)
    large = log_prob(Gaussian(torch.zeros(17), 0.5), torch.zeros(2, 17), generator=generator, **LOOSE)
    assert (small.products.tolist(), large.products.tolist()) == ([16 * 40] * 2, [4 * 40] * 2)


# --- integer values --------------------------------------------------------------------------------------------------


def flat_density(bins: int) -> tuple[KernelDensity, float]:
    """A sum of equally spaced kernels, which is constant on [-1, 1] to 1e-9, and its height at tau_min."""
    spacing = 0.1
    centers = spacing * (torch.arange(-18, 18, dtype=torch.float64) + 0.5)
    model = KernelDensity(centers, 1.1 * spacing)
    model.data = Description("flat", (), bins=bins)
    return model, math.exp(model.sde.tau_min) / (36 * spacing)


@pytest.mark.parametrize("bins", [2, 17, 256])
def test_values_of_uniform_data_cost_log2_bins(bins: int, generator: torch.Generator) -> None:
    model, height = flat_density(bins)
    values = torch.tensor([0, bins // 2, bins - 1])
    out = bits_per_dim(model, values, generator=generator, prior_log_prob=terminal_log_prob(model), **TIGHT)
    inside = torch.full((3,), math.log2(bins) - math.log2(2 * height), dtype=torch.float64)
    assert torch.allclose(out.bits, inside, rtol=0, atol=1e-5)
    assert torch.allclose(out.nats, out.bits * math.log(2))


def test_the_dequantized_bits_have_the_gaussians_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    mean, std, bins = 0.2, 0.4, 8
    model = Gaussian(torch.tensor(mean, dtype=torch.float64), std**2)
    model.data = Description("line", (), bins=bins)
    values = torch.arange(bins).repeat(50)
    out = bits_per_dim(model, values, draws=8, generator=generator, prior_log_prob=terminal_log_prob(model))
    tau = model.sde.tau_min
    center, spread = math.exp(-tau) * mean, math.sqrt(math.exp(-2 * tau) * std**2 - math.expm1(-2 * tau))
    edges = (2 * torch.arange(bins + 1, dtype=torch.float64) / bins - 1 - center) / spread
    squares = (edges[1:] ** 2 + edges[1:] * edges[:-1] + edges[:-1] ** 2) / 3  # mean of a square over the bin
    bound = (0.5 * squares + math.log(spread * bins / 2) + 0.5 * math.log(2 * math.pi)) / math.log(2)
    error = (out.bits - bound.repeat(50)).reshape(50, bins)
    assert (error.mean(0).abs() < 4 * error.std(0) / math.sqrt(50) + 1e-5).all()
    exact = -(torch.special.ndtr(edges[1:]) - torch.special.ndtr(edges[:-1])).log2()
    assert (bound > exact + 5e-4).all()
    importance_weighted = out.importance_weighted.reshape(50, bins)
    assert (out.importance_weighted <= out.bits + 1e-12).all()
    assert (
        (importance_weighted.mean(0) - exact).abs()
        < 0.25 * (bound - exact) + 4 * importance_weighted.std(0) / math.sqrt(50)
    ).all()
    assert out.stderr == pytest.approx(float(out.bits.std()) / 20)
    assert out.mean_probe_stderr == 0


def test_the_probe_error_of_the_mean_is_its_spread_over_new_probes(generator: torch.Generator) -> None:
    model = rotated_gaussian(3)
    model.data = Description("cube", (3,), bins=17)
    values = torch.full((200, 3), 9)

    class FixedOffsets(UniformDequantization):
        def __init__(self) -> None:
            object.__setattr__(self, "u", torch.Generator().manual_seed(1))

        def draw(self, values: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
            return super().draw(values, Noise(vars(self)["u"]))

    def scored(trace: Trace) -> BitsPerDim:
        return bits_per_dim(
            model, values, draws=4, dequantization=FixedOffsets(), trace=trace, generator=generator, **LOOSE
        )

    estimates = [scored(Hutchinson(2)) for _ in range(8)]
    spread = torch.tensor([estimate.mean for estimate in estimates]).std()
    assert 0.5 < float(spread) / estimates[0].mean_probe_stderr < 1.8
    exact = scored(ExactTrace())
    covered = [
        (low <= exact.bits) & (exact.bits <= high) for low, high in (estimate.interval() for estimate in estimates)
    ]
    assert 0.93 < float(torch.stack(covered).double().mean()) < 0.99
    assert bool((estimates[0].products == 4 * 2 * 40).all())
    assert bool((exact.products == 4 * 3 * 40).all())


def test_uniform_dequantization_stays_in_the_bin(generator: torch.Generator) -> None:
    k = torch.full((1000, 2), 255, dtype=torch.uint8)
    y, log_q = UniformDequantization().draw(k, Noise(generator))
    assert bool(((y >= 255) & (y < 256)).all())
    assert torch.equal(log_q, torch.zeros(1000, dtype=torch.float64))


def test_bits_require_bins_and_scale() -> None:
    model = rotated_gaussian()
    with pytest.raises(ValueError, match="with their bins and scale, got a model without a description"):
        bits_per_dim(model, torch.zeros(2, 4, dtype=torch.long))
    model.data = Description("table", (4,))
    with pytest.raises(ValueError, match="got 'table' with bins=None"):
        bits_per_dim(model, torch.zeros(2, 4))


@pytest.mark.parametrize("bad", [-1, 8])
def test_values_outside_their_range_are_refused(bad: int) -> None:
    model = rotated_gaussian()
    model.data = Description("table", (4,), bins=8)
    values = torch.zeros(2, 4, dtype=torch.long)
    values[1, 2] = bad
    with pytest.raises(ValueError, match=rf"data must lie in \[0, 8\), got {bad} at index \(1, 2\)"):
        bits_per_dim(model, values)


def test_values_must_be_integers_and_draws_positive() -> None:
    model = rotated_gaussian()
    model.data = Description("table", (4,), bins=8)
    with pytest.raises(ValueError, match="integer values"):
        bits_per_dim(model, torch.zeros(2, 4))
    with pytest.raises(ValueError, match="draws must be a positive integer, got 0"):
        bits_per_dim(model, torch.zeros(2, 4, dtype=torch.long), draws=0)


def test_an_empty_batch_gives_no_bits() -> None:
    model = rotated_gaussian()
    model.data = Description("table", (4,), bins=8)
    out = bits_per_dim(model, torch.zeros(0, 4, dtype=torch.long), draws=2)
    assert out.bits.shape == out.probe_stderr.shape == (0,)
    assert out.per_draw.shape == (2, 0)


# --- shapes and types ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (1, 2, 3), (1, 2, 2, 2)])
def test_every_event_shape_gives_the_closed_form(shape: tuple[int, ...], generator: torch.Generator) -> None:
    model = Gaussian(torch.full(shape, 0.5, dtype=torch.float64), 0.2)
    x = model.sample(3, 0.0, generator)
    out = log_prob(model, x, prior_log_prob=terminal_log_prob(model))
    assert torch.allclose(out.log_prob, model.log_prob(x, model.sde.tau_min), rtol=0, atol=1e-3)
    assert out.latent.shape == x.shape


@pytest.mark.parametrize("trace", [ExactTrace(), Hutchinson(2)])
def test_batches_of_zero_samples_and_of_one(trace: Trace, generator: torch.Generator) -> None:
    model = rotated_gaussian()
    empty = log_prob(model, torch.zeros(0, 4), trace=trace, generator=generator)
    assert empty.log_prob.shape == empty.stderr.shape == (0,)
    assert empty.latent.shape == (0, 4)
    assert empty.nfe.shape == empty.interval()[0].shape == (0,)
    assert log_prob(model, torch.zeros(1, 4), trace=trace, generator=generator, **LOOSE).log_prob.shape == (1,)


def test_float32_and_float64_networks_agree(generator: torch.Generator) -> None:
    net = perturb_weights(MLP((3,), width=16, depth=2, embedding_width=8))
    x = torch.randn(6, 3, generator=generator)
    single = log_prob(ScoreModel(net, VPSDE()), x)
    double = log_prob(ScoreModel(net.double(), VPSDE()), x.double())
    assert single.log_prob.dtype == torch.float64
    assert single.latent.dtype == torch.float32
    assert double.latent.dtype == torch.float64
    assert torch.allclose(single.log_prob, double.log_prob, rtol=0, atol=1e-4)


def test_a_bfloat16_network_gives_a_float64_density(generator: torch.Generator) -> None:
    x = torch.randn(6, 3, generator=generator)
    full, half = tanh_model(), tanh_model()
    half.net.to(torch.bfloat16)
    settings: dict[str, Any] = {"solver": AdaptiveSolver(0.1, max_nfe=2000)}
    narrow = log_prob(half, x, **settings)
    assert narrow.log_prob.dtype == torch.float64
    assert torch.allclose(narrow.log_prob, log_prob(full, x, **settings).log_prob, rtol=0, atol=0.1)


def test_batches_and_the_progress_bar_do_not_change_the_value(
    generator: torch.Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    model = rotated_gaussian()
    x = model.sample(5, 0.0, generator)
    whole, split = log_prob(model, x), log_prob(model, x, batch_size=2, progress=True)
    assert torch.allclose(whole.log_prob, split.log_prob, rtol=0, atol=1e-9)
    assert "likelihood" in capsys.readouterr().out


def test_conditioning_follows_its_sample_through_the_batches(generator: torch.Generator) -> None:
    class Shifted(nn.Module):
        def forward(self, x: Tensor, log_snr: Tensor, cond: Tensor) -> Tensor:
            return 0.3 * (x - cond.reshape(-1, 1))

    model = ScoreModel(Shifted(), VPSDE())
    x, cond = torch.randn(5, 2, generator=generator), torch.arange(5.0)
    whole = log_prob(model, x, cond=cond, **TIGHT)
    split = log_prob(model, x, cond=cond, batch_size=2, **TIGHT)
    assert torch.allclose(whole.log_prob, split.log_prob, rtol=0, atol=1e-6)
    assert whole.latent[:, 0].diff().abs().min() > 0.1
    with pytest.raises(ValueError, match="cond must have one entry per sample, 5, got 4"):
        log_prob(model, x, cond=cond[:4])


# --- faults ----------------------------------------------------------------------------------------------------------


def test_nan_in_x_is_refused_naming_the_index() -> None:
    x = torch.zeros(3, 4)
    x[2, 1] = math.nan
    with pytest.raises(ValueError, match=r"x must be finite, got nan at index \(2, 1\)"):
        log_prob(rotated_gaussian(), x)


def test_x_of_a_wrong_shape_or_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x must have shape \(B, 4\), got \(2, 1, 4\)"):
        log_prob(rotated_gaussian(), torch.zeros(2, 1, 4))
    with pytest.raises(TypeError, match="floating"):
        log_prob(rotated_gaussian(), torch.zeros(2, 4, dtype=torch.long))


def test_nan_from_the_network_names_tau_and_the_samples() -> None:
    def nan_beyond_3(x: Tensor) -> Tensor:
        return torch.where(x.abs().amax(1, keepdim=True) > 3.0, math.nan, 1.0) * x

    x = torch.tensor([[0.1, 0.2], [0.3, 0.1], [2.95, 0.0], [0.0, 0.1]])
    with pytest.raises(RuntimeError, match=r"NaN or infinite at tau = [\d.]+ for the samples \[2\]"):
        log_prob(tanh_model(nan_beyond_3), x)
    with pytest.raises(RuntimeError, match=r"for the samples \[2\]"):
        log_prob(tanh_model(nan_beyond_3), x, batch_size=2)


def _under_no_grad(x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.tanh(x)


@pytest.mark.parametrize("function", [lambda x: torch.tanh(x.detach()), _under_no_grad, torch.zeros_like])
@pytest.mark.parametrize("parameterization", [Eps(), V()])
def test_a_network_without_a_derivative_is_an_error_not_a_zero_divergence(
    function: Callable[[Tensor], Tensor], parameterization: Eps | V
) -> None:
    model = ScoreModel(Net(function), VPSDE(), parameterization)
    with pytest.raises(RuntimeError, match="differentiable in x"):
        log_prob(model, torch.zeros(2, 3))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("trace", [ExactTrace(), Hutchinson(2)])
def test_log_prob_runs_under_no_grad_and_in_inference_mode(mode: type, trace: Trace) -> None:
    model, x = tanh_model(), torch.ones(3, 2)
    outside = log_prob(model, x, trace=trace, seeds=[1, 2, 3])
    with mode():
        inside = log_prob(model, torch.ones(3, 2), trace=trace, seeds=[1, 2, 3])
        made_inside = log_prob(tanh_model(), torch.ones(3, 2), trace=trace, seeds=[1, 2, 3])
    assert torch.equal(outside.log_prob, inside.log_prob)
    assert torch.equal(outside.log_prob, made_inside.log_prob)
    assert not outside.log_prob.requires_grad


def test_weights_made_in_inference_mode_do_not_hide_a_missing_derivative() -> None:
    with torch.inference_mode(), pytest.raises(RuntimeError, match="differentiable in x"):
        log_prob(tanh_model(lambda x: torch.tanh(x.detach())), torch.zeros(2, 3))


def test_an_operation_without_forward_mode_falls_back_to_reverse_mode() -> None:
    class Tanh(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            y = torch.tanh(x)
            ctx.save_for_backward(y)
            return y

        @staticmethod
        def backward(ctx, grad):
            return grad * (1 - ctx.saved_tensors[0] ** 2)

    x = torch.tensor([[0.5, -1.0], [0.1, 2.0]])
    model = tanh_model(lambda x: Tanh.apply(x))
    with pytest.warns(RuntimeWarning, match="no forward-mode products through this network"), torch.inference_mode():
        out = log_prob(model, x, trace=ExactTrace(mode="forward"))
    assert torch.allclose(out.log_prob, log_prob(tanh_model(), x).log_prob, rtol=0, atol=1e-6)


def test_attention_has_products_of_both_modes(generator: torch.Generator) -> None:
    net = perturb_weights(UNet((1, 8, 8), channels=8, multipliers=(1, 2), blocks=1, heads=1, groups=4, attention=(0,)))
    model = ScoreModel(net, VPSDE())
    x = torch.randn(2, 1, 8, 8, generator=generator)
    e = torch.randn(2, 2, 1, 8, 8, generator=generator)
    forward, reverse = (forms(lambda x: model(x, 0.5).v, x, e)[1] for forms in (forward_forms, reverse_forms))
    assert reverse.abs().max() > 0.1
    assert torch.allclose(forward, reverse, rtol=1e-3, atol=1e-3)


def test_dropout_is_off_and_every_mode_is_restored_even_after_an_error() -> None:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.drop, self.linear = nn.Dropout(0.5), nn.Linear(2, 2)

        def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
            assert not self.training
            return self.linear(self.drop(x))

    model = ScoreModel(Dropped(), VPSDE()).train()
    model.net.linear.eval()  # type: ignore[union-attr]
    modes = [m.training for m in model.modules()]
    x = torch.ones(2, 2)
    assert torch.equal(log_prob(model, x).log_prob, log_prob(model, x).log_prob)
    assert [m.training for m in model.modules()] == modes
    with pytest.raises(RuntimeError, match="max_nfe"):
        log_prob(model, x, solver=AdaptiveSolver(max_nfe=3), strict=True)
    assert [m.training for m in model.modules()] == modes


def test_a_generator_leaves_the_global_random_state_alone(generator: torch.Generator) -> None:
    before = torch.get_rng_state()
    model = rotated_gaussian()
    model.data = Description("table", (4,), bins=8)
    log_prob(model, torch.zeros(2, 4), trace=Hutchinson(2), generator=generator, **LOOSE)
    bits_per_dim(model, torch.zeros(2, 4, dtype=torch.long), trace=Hutchinson(2), generator=generator, **LOOSE)
    log_prob(model, torch.zeros(2, 4), trace=Hutchinson(2), seeds=[1, 2], **LOOSE)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("probes", [0, -1, 1.5, True])
def test_a_number_of_probes_that_is_not_a_positive_integer_is_refused(probes: int) -> None:
    with pytest.raises(ValueError, match="probes must be a positive integer"):
        Hutchinson(probes)


def test_an_exact_trace_in_too_many_dimensions_is_refused_with_its_cost_and_a_remedy() -> None:
    model = Gaussian(torch.zeros(300), 0.5)
    with pytest.raises(ValueError, match=r"here 300, and is refused above limit=256; use Hutchinson\(probes=4\)"):
        log_prob(model, torch.zeros(2, 300), trace=ExactTrace())
    model = Gaussian(torch.zeros(3), 0.5)
    with pytest.raises(ValueError, match=r"accept it by ExactTrace\(limit=3\)"):
        log_prob(model, torch.zeros(2, 3), trace=ExactTrace(limit=2))
    assert log_prob(model, torch.zeros(2, 3), trace=ExactTrace(limit=3), **LOOSE).products.min() > 0


def test_settings_out_of_their_domain_are_refused() -> None:
    model, x = rotated_gaussian(), torch.zeros(2, 4)
    with pytest.raises(ValueError, match=r"unknown method 'dopri'; did you mean dopri\d"):
        TorchDiffEq("dopri")
    with pytest.raises(ValueError, match="rtol must be a positive finite number, got 0"):
        TorchDiffEq(rtol=0)
    with pytest.raises(ValueError, match="tol must be a positive finite number, got nan"):
        AdaptiveSolver(math.nan)
    with pytest.raises(ValueError, match="max_nfe must be a positive integer, got 0"):
        AdaptiveSolver(max_nfe=0)
    with pytest.raises(ValueError, match="nodes must be an integer of at least 8, got 4"):
        log_prob(model, x, nodes=4)
    with pytest.raises(TypeError, match="solver must be a Solver, got 'dopri5'"):
        log_prob(model, x, solver="dopri5")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="probes come in pairs, got 3"):
        Hutchinson(3)
    with pytest.raises(ValueError, match="stderr must be a positive finite number, got 0"):
        Hutchinson(2, stderr=0)
    with pytest.raises(ValueError, match="a standard error needs two probes per node, got probes=1"):
        Hutchinson(1, stderr=0.1)
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\), got 95"):
        log_prob(model, x, **LOOSE).interval(95)
    with pytest.raises(ValueError, match="unknown kind 'normal'; .*Valid: gaussian, orthogonal, rademacher"):
        Hutchinson(4, "normal")
    with pytest.raises(ValueError, match="batch_size must be a positive integer, got 0"):
        log_prob(model, x, batch_size=0)
    with pytest.raises(ValueError, match="seeds must have one entry per sample, 2, got 3"):
        log_prob(model, x, seeds=[1, 2, 3])
    with pytest.raises(ValueError, match=r"prior_log_prob must return shape \(2,\), one per sample, got \(2, 4\)"):
        log_prob(model, x, prior_log_prob=lambda z: z)


@pytest.mark.parametrize("solver", [AdaptiveSolver(1e-4, max_nfe=20), TorchDiffEq(max_nfe=20)], ids=str)
def test_a_sample_that_does_not_arrive_has_a_status_and_its_partial_result(solver: Solver) -> None:
    model, x = GaussianMixture.ring(), torch.zeros(2, 2)
    out = log_prob(model, x, solver=solver)
    assert out.status.tolist() == [Status.MAX_NFE] * 2
    assert out.log_prob.isnan().all()
    assert not out.arrived.any()
    assert (out.reached > model.sde.tau_min).all()
    assert (out.reached < model.sde.tau_max).all()
    with pytest.raises(RuntimeError, match=r"\[0, 1\] did not: MAX_NFE at tau = \d.*raise max_nfe"):
        log_prob(model, x, solver=solver, strict=True)


@pytest.mark.parametrize("row", [0, 2, 4])
@pytest.mark.parametrize("max_nfe", [7, 13])
def test_a_sample_without_an_accepted_step_has_a_status(row: int, max_nfe: int) -> None:
    model = GaussianMixture.ring()
    x = model.sample(5, model.sde.tau_min, torch.Generator().manual_seed(0))
    x[row] = 1e15  # where rounding exceeds the admitted error of any step
    out = log_prob(model, x, solver=AdaptiveSolver(max_nfe=max_nfe))
    assert out.status.tolist() == [Status.MAX_NFE] * 5
    unmoved = torch.isclose(out.reached, torch.tensor(model.sde.tau_min, dtype=out.reached.dtype))
    assert unmoved.tolist() == [i == row for i in range(5)]
    assert out.log_prob.isnan().all()


def test_a_batch_without_an_accepted_step_ends_where_it_started() -> None:
    model = GaussianMixture.ring()
    out = log_prob(model, torch.ones(2, 2), solver=TorchDiffEq(max_nfe=3))
    assert out.status.tolist() == [Status.MAX_NFE] * 2
    assert torch.allclose(out.reached, torch.tensor(model.sde.tau_min, dtype=out.reached.dtype))


def diverges(x: Tensor) -> Tensor:
    return 20 * x**3  # reaches infinity before the end


def test_a_sample_whose_step_underflows_has_that_status_and_leaves_its_neighbors_alone() -> None:
    model = tanh_model(diverges)
    alone = log_prob(model, torch.full((1, 1), 1e-3))
    out = log_prob(model, torch.tensor([[1.0], [1e-3]]))
    assert out.status.tolist() == [Status.UNDERFLOW, Status.ARRIVED]
    assert torch.equal(out.log_prob[1:], alone.log_prob)
    assert torch.equal(out.nfe[1:], alone.nfe)
    with pytest.raises(RuntimeError, match=r"\[0\] did not: UNDERFLOW at tau = .* loosen the tolerance"):
        log_prob(model, torch.ones(1, 1), strict=True)
    coupled = log_prob(model, torch.tensor([[1.0], [1e-3]]), solver=TorchDiffEq())
    assert coupled.status.tolist() == [Status.UNDERFLOW] * 2


@pytest.mark.cuda
@pytest.mark.parametrize("trace", [ExactTrace(), ExactTrace(mode="forward"), Hutchinson(2)])
def test_cpu_and_gpu_agree(trace: Trace) -> None:
    model = tanh_model()
    x = torch.tensor([[0.5, -1.0], [0.1, 2.0]])
    settings: dict[str, Any] = {"trace": trace, "batch_size": 1}
    cpu = log_prob(model, x, generator=torch.Generator().manual_seed(0), **settings)
    gpu = log_prob(model.cuda(), x.cuda(), generator=torch.Generator().manual_seed(0), **settings)
    assert gpu.log_prob.device.type == "cuda"
    assert torch.allclose(gpu.log_prob.cpu(), cpu.log_prob, rtol=0, atol=1e-4)
