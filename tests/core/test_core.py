"""Elementwise functions, times, broadcasting, event sums, argument checks and noise of `scoresde._core`."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from scoresde._core import elementwise as ew
from scoresde._core.checks import check_finite
from scoresde._core.noise import Noise
from scoresde._core.tensors import as_time, combine, constant, expand, sum_event

FUNCTIONS = {
    "exp": (ew.exp, math.exp),
    "expm1": (ew.expm1, math.exp),
    "log": (ew.log, lambda v: 1 / v),
    "log1p": (ew.log1p, lambda v: 1 / (1 + v)),
    "sqrt": (ew.sqrt, lambda v: 0.5 / math.sqrt(v)),
    "sin": (ew.sin, math.cos),
    "tan": (ew.tan, lambda v: 1 / math.cos(v) ** 2),
    "sinh": (ew.sinh, math.cosh),
    "asinh": (ew.asinh, lambda v: 1 / math.sqrt(v * v + 1)),
    "softplus": (ew.softplus, lambda v: 1 / (1 + math.exp(-v))),
    "sigmoid": (ew.sigmoid, lambda v: 0.25 / math.cosh(v / 2) ** 2),
}
EXTREMES = [
    0.0,
    1e-300,
    1e-12,
    0.3,
    1.0,
    25.0,
    39.9,
    40.1,
    750.0,
    math.inf,
    -1.0,
    -1e-12,
    -39.9,
    -700.0,
    -math.inf,
    math.nan,
]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_float_and_a_tensor_give_the_same_value_also_at_extreme_arguments(name):
    function = FUNCTIONS[name][0]
    for v in EXTREMES:
        if math.isinf(v) and name in ("sin", "tan"):
            continue
        of_tensor = function(torch.tensor(v, dtype=torch.float64)).item()
        assert function(v) == pytest.approx(of_tensor, rel=1e-14, abs=0, nan_ok=True), v


@pytest.mark.parametrize("name", FUNCTIONS)
def test_autograd_through_a_0d_tensor_gives_the_known_derivative(name):
    function, derivative = FUNCTIONS[name]
    for v in (1e-9, 0.3, 1.0, 2.5, 30.0):
        x = torch.tensor(v, dtype=torch.float64, requires_grad=True)
        (grad,) = torch.autograd.grad(function(x), x)
        assert grad.item() == pytest.approx(derivative(v), rel=1e-13)


def test_the_derivative_of_softplus_at_zero_is_one_half():
    x = torch.zeros((), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(ew.softplus(x), x)[0].item() == 0.5


def test_clamp_and_where_pass_the_gradient_of_the_branch_that_is_taken():
    for v, inside in ((0.3, 1.0), (1.0, 1.0), (1.7, 0.0), (-0.1, 0.0)):
        x = torch.tensor(v, dtype=torch.float64, requires_grad=True)
        out = ew.clamp(x, 0.0, 1.0)
        assert isinstance(out, Tensor)
        assert out.shape == ()
        assert out.item() == ew.clamp(v, 0.0, 1.0) == min(max(v, 0.0), 1.0)
        assert torch.autograd.grad(out, x)[0].item() == inside
    for v in (0.2, 0.8):
        x = torch.tensor(v, dtype=torch.float64, requires_grad=True)
        out = ew.where(x < 0.5, x * x, 3.0 * x)
        assert isinstance(out, Tensor)
        assert out.item() == ew.where(v < 0.5, v * v, 3.0 * v)
        assert torch.autograd.grad(out, x)[0].item() == pytest.approx(2 * v if v < 0.5 else 3.0)


def test_dividing_floats_by_zero_follows_ieee_754():
    for a, b in ((1.0, 0.0), (-1.0, 0.0), (1.0, -0.0), (0.0, 0.0), (math.nan, 0.0), (1.0, 4.0)):
        of_tensor = torch.tensor(a, dtype=torch.float64) / torch.tensor(b, dtype=torch.float64)
        assert ew.div(a, b) == pytest.approx(of_tensor.item(), nan_ok=True)


def test_a_time_has_the_same_value_in_every_type_and_shape():
    notations = [0.5, torch.tensor(0.5), torch.tensor(0.5, dtype=torch.float64), torch.full((3,), 0.5)]
    notations += [torch.tensor(0.5, dtype=kind) for kind in (torch.float16, torch.bfloat16)]
    for value in notations:
        out = as_time(value)
        assert not isinstance(out, Tensor) or out.dtype == torch.float64
        assert float(torch.as_tensor(out).flatten()[0]) == 0.5
    assert as_time(2) == 2.0
    of_integers = as_time(torch.tensor([1, 2]))
    assert isinstance(of_integers, Tensor)
    assert of_integers.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("bad", [-0.1, math.nan, 1.5, math.inf])
def test_a_time_that_is_negative_nan_or_past_the_end_is_refused(bad):
    with pytest.raises(ValueError, match=r"tau must lie in \[0, 1\], got"):
        as_time(bad, high=1.0)
    with pytest.raises(ValueError, match=r"tau must lie in \[0, 1\], got"):
        as_time(torch.tensor([0.5, bad]), high=1.0)


def test_a_time_of_an_invalid_type_is_refused():
    with pytest.raises(ValueError, match=r"must have shape \(\) or \(B,\), got \(8, 1\); pass one time per sample"):
        as_time(torch.zeros(8, 1))
    for bad in ("0.5", None, True):
        with pytest.raises(TypeError, match="must be a number or a tensor"):
            as_time(bad)  # pyright: ignore[reportArgumentType]
    for kind in (torch.bool, torch.complex64):
        with pytest.raises(TypeError, match="must be a real tensor"):
            as_time(torch.ones(2, dtype=kind))


@pytest.mark.parametrize("event", [(), (5,), (2, 5), (2, 3, 4), (1, 2, 3, 4)])
def test_one_time_per_sample_multiplies_events_of_any_shape(event):
    x, c = torch.randn(8, *event), torch.arange(8.0)
    scaled = combine(c, x, 0.0, x)
    for i in range(8):
        assert torch.equal(scaled[i], float(i) * x[i])
    assert combine(c[:0], x[:0], 1.0, x[:0]).shape == (0, *event)


@pytest.mark.parametrize("shape", [(8, 1), (3,), (1,), (8, 3)])
def test_coefficients_of_an_invalid_shape_are_refused_and_not_broadcast(shape):
    with pytest.raises(ValueError, match=r"tau must have shape \(\) or \(8,\), got"):
        expand(torch.ones(shape), torch.ones(8, 3))


def test_coefficients_are_cast_last():
    c = torch.tensor([1 / 3], dtype=torch.float64)
    out = expand(c, torch.ones(1, 2, dtype=torch.float32))
    assert isinstance(out, Tensor)
    assert out.dtype == torch.float32
    assert out.item() == c.float().item()


def test_a_term_with_factor_zero_is_not_computed():
    infinite, y = torch.full((2,), math.inf), torch.ones(2)
    assert combine(0.0, infinite, 1.0, y) is y
    assert combine(1.0, y, 0.0, infinite) is y


def test_event_sums_are_taken_in_float64():
    x = torch.tensor([[1e8, 1.0, -1e8]], dtype=torch.float32)
    assert sum_event(x).item() == 1.0
    assert sum_event(x).dtype == torch.float64
    assert sum_event(torch.ones(3)).tolist() == [1.0, 1.0, 1.0]
    assert sum_event(torch.ones(0, 2, 3)).shape == (0,)


def test_the_error_about_a_value_that_is_not_finite_has_its_index():
    x = torch.ones(4, 2)
    check_finite(x)
    x[2, 1] = math.nan
    x[3, 0] = math.inf
    with pytest.raises(ValueError, match=r"x must be finite, got nan at index \(2, 1\) \(2 of 4 samples"):
        check_finite(x)
    check_finite(torch.zeros(0, 2))


def test_with_seeds_a_sample_does_not_depend_on_its_batch():
    like, seeds = torch.empty(4, 3), [5, 6, 7, 8]
    noise, order = Noise(seeds=seeds), [2, 0, 3, 1]
    normal, uniform = noise.normal(like), noise.uniform(like)
    subset = Noise(seeds=[seeds[i] for i in order[:3]])
    assert torch.equal(subset.normal(like[:3]), normal[order[:3]])
    assert torch.equal(subset.uniform(like[:3]), uniform[order[:3]])


def test_a_generator_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    noise = Noise(torch.Generator().manual_seed(1))
    for draw in (noise.normal, noise.uniform, noise.rademacher):
        draw(torch.empty(3))
    Noise(seeds=[1, 2]).normal(torch.empty(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_signs_are_plus_and_minus_one_equally_often(generator):
    signs = Noise(generator).rademacher(torch.empty(10_000, dtype=torch.float64))
    assert set(signs.tolist()) == {-1.0, 1.0}
    assert abs(signs.mean().item()) < 4 / math.sqrt(10_000)


def test_noise_refuses_two_sources_and_a_number_of_seeds_other_than_the_batch_size():
    with pytest.raises(ValueError, match="got both; pass one"):
        Noise(torch.Generator(), seeds=[1])
    with pytest.raises(ValueError, match="one entry per sample: 3 samples, got 2 seeds"):
        Noise(seeds=[1, 2]).normal(torch.empty(3))


def test_a_constant_table_for_a_fake_tensor_is_not_cached():
    values = (0.25, 0.5, 0.8125)
    with FakeTensorMode():
        assert isinstance(constant(values, torch.empty(2)), FakeTensor)
    table = constant(values, torch.empty(2))
    assert table.tolist() == list(values)
    assert constant(values, torch.empty(2)) is table
