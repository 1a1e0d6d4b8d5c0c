"""Metrics against closed forms and other libraries; their standard errors against the observed spread."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from scoresde.data import load_data
from scoresde.metrics import (
    Estimate,
    classifier_two_sample,
    copies,
    energy_distance,
    floor,
    frechet_distance,
    kernel_distance,
    mmd,
    nearest_neighbors,
    sliced_wasserstein,
)

METRICS: list[Callable[..., Estimate]] = [
    sliced_wasserstein,
    mmd,
    energy_distance,
    frechet_distance,
    kernel_distance,
    classifier_two_sample,
]


def normal(*shape: int, generator: torch.Generator, mean: float = 0.0, std: float = 1.0) -> torch.Tensor:
    return mean + std * torch.randn(*shape, generator=generator, dtype=torch.float64)


# --- sliced Wasserstein


def test_sliced_wasserstein_of_a_shifted_copy_is_the_shift_over_root_d(generator):
    x, shift = normal(200, 5, generator=generator), torch.tensor([1.0, -2, 0, 3, 1], dtype=torch.float64)
    estimate = sliced_wasserstein(x, x + shift, projections=4000, generator=generator)
    assert abs(estimate.value - shift.norm().item() / math.sqrt(5)) < 4 * estimate.stderr
    assert estimate.stderr < 0.03


@pytest.mark.parametrize("order", [1, 2])
def test_sliced_wasserstein_error_is_the_spread_over_directions(order, generator):
    x, y = normal(100, 4, generator=generator), normal(100, 4, generator=generator, std=2)
    runs = [sliced_wasserstein(x, y, projections=64, order=order, generator=generator) for _ in range(200)]
    spread = torch.tensor([run.value for run in runs]).std().item()
    stated = torch.tensor([run.stderr for run in runs]).mean().item()
    assert stated == pytest.approx(spread, rel=0.2)  # a standard deviation of 200 values is known to 5 %


def test_sliced_wasserstein_in_one_dimension_is_the_distance_of_the_quantile_functions(generator):
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    y = torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64)
    # quantiles on [0, 1/3], [1/3, 1/2], [1/2, 2/3], [2/3, 1]: gaps 0, 1, 0, 4
    assert sliced_wasserstein(x, y, order=1).value == pytest.approx(1 / 6 + 4 / 3)
    assert sliced_wasserstein(x, y, order=2).value == pytest.approx(math.sqrt(1 / 6 + 16 / 3))


@pytest.mark.parametrize(("n", "m"), [(40, 40), (40, 70), (61, 17)])
@pytest.mark.parametrize("order", [1, 2, 3])
def test_unequal_numbers_agree_with_optimal_transport_solved_by_pot(n, m, order, generator):
    import ot

    x, y = normal(n, 1, generator=generator), normal(m, 1, generator=generator, mean=0.5)
    expected = (
        np.asarray(ot.emd2_1d(x[:, 0].numpy(), y[:, 0].numpy(), metric="minkowski", p=order)).item()
        if order == 1
        else None
    )
    plan_cost = (x - y.T).abs().numpy() ** order
    cost = np.asarray(ot.emd2([], [], plan_cost)).item()
    assert expected is None or expected == pytest.approx(cost)
    assert sliced_wasserstein(x, y, order=order).value == pytest.approx(cost ** (1 / order), rel=1e-10)


# --- kernel distances


def test_mmd_has_the_closed_form_of_two_gaussians_on_average(generator):
    d, h, shift, std, runs, n, m = 3, 1.3, 0.7, 1.5, 300, 20, 30

    def kernel_mean(variance: float, squared_shift: float) -> float:  # E k of a normal difference
        width = h**2 + variance
        return (h**2 / width) ** (d / 2) * math.exp(-squared_shift / (2 * width))

    exact = kernel_mean(2, 0) + kernel_mean(2 * std**2, 0) - 2 * kernel_mean(1 + std**2, d * shift**2)
    values = [
        mmd(normal(n, d, generator=generator), normal(m, d, generator=generator, mean=shift, std=std), bandwidths=[h])
        for _ in range(runs)
    ]
    value = torch.tensor([v.value for v in values])
    assert abs(value.mean().item() - exact) < 4 * value.std().item() / math.sqrt(runs)
    assert value.std().item() / math.sqrt(runs) < 0.03 * exact
    assert torch.tensor([v.stderr for v in values]).mean().item() == pytest.approx(value.std().item(), rel=0.25)


def test_energy_distance_has_the_closed_form_of_two_gaussians_on_average(generator):
    shift, runs = 1.5, 300
    # E|N(m, s^2)| = s sqrt(2/pi) exp(-m^2 / 2 s^2) + m erf(m / (s sqrt 2)), here s^2 = 2
    across = 2 / math.sqrt(math.pi) * math.exp(-(shift**2) / 4) + shift * math.erf(shift / 2)
    exact = 2 * across - 4 / math.sqrt(math.pi)
    values = [
        energy_distance(normal(20, 1, generator=generator), normal(30, 1, generator=generator, mean=shift))
        for _ in range(runs)
    ]
    value = torch.tensor([v.value for v in values])
    assert abs(value.mean().item() - exact) < 4 * value.std().item() / math.sqrt(runs)
    assert torch.tensor([v.stderr for v in values]).mean().item() == pytest.approx(value.std().item(), rel=0.25)


@pytest.mark.parametrize("metric", [mmd, energy_distance])
def test_the_standard_error_is_the_jackknife_over_left_out_samples(metric, generator):
    x, y = normal(7, 2, generator=generator), normal(5, 2, generator=generator)
    arguments = {"bandwidths": [0.5, 1.0]} if metric is mmd else {}
    without_x = torch.tensor([metric(torch.cat([x[:i], x[i + 1 :]]), y, **arguments).value for i in range(7)])
    without_y = torch.tensor([metric(x, torch.cat([y[:i], y[i + 1 :]]), **arguments).value for i in range(5)])
    variance = 6 * without_x.var(correction=0) + 4 * without_y.var(correction=0)
    assert metric(x, y, **arguments).stderr == pytest.approx(math.sqrt(variance.item()), rel=1e-5)


@pytest.mark.parametrize("metric", [mmd, energy_distance])
def test_chunks_do_not_change_a_kernel_distance(metric, monkeypatch, generator):
    x, y = normal(23, 2, generator=generator), normal(31, 2, generator=generator)
    whole = metric(x, y)
    monkeypatch.setattr("scoresde.metrics.distances._ROWS", 5)
    parts = metric(x, y)
    assert (parts.value, parts.stderr) == pytest.approx((whole.value, whole.stderr), rel=1e-12)


@pytest.mark.parametrize("metric", [mmd, energy_distance])
def test_kernel_distances_do_not_lose_digits_far_from_the_origin(metric, generator):
    x, y = normal(30, 3, generator=generator), normal(30, 3, generator=generator)
    assert metric(x + 1e6, y + 1e6).value == pytest.approx(metric(x, y).value, rel=1e-6)


def test_the_default_bandwidths_come_from_the_second_set(generator):
    x, y = normal(30, 3, generator=generator, std=9), normal(40, 3, generator=generator)
    median = torch.pdist(y).median().item()
    assert mmd(x, y).value == mmd(x, y, bandwidths=[median / 4, median / 2]).value


def test_where_most_rows_repeat_the_bandwidths_come_from_distances_that_are_not_0(generator):
    x, y = normal(60, 2, generator=generator), normal(60, 2, generator=generator)
    x[:48], y[:48] = 0, 0
    within = torch.pdist(y)
    assert within.median() == 0
    median = within[within > 0].median().item()
    assert mmd(x, y).value == mmd(x, y, bandwidths=[median / 4, median / 2]).value
    assert mmd(x + 3, y).value > 10 * abs(mmd(x, y).value)


def test_equal_rows_have_an_mmd_in_closed_form():
    y = torch.ones(20, 3)
    assert mmd(y, y).value == 0
    shifted = y + torch.tensor([3.0, 0.0, 4.0])  # 5 apart: bandwidths 5/4 and 5/2
    assert mmd(shifted, y).value == pytest.approx(2 - 2 * (math.exp(-8) + math.exp(-2)) / 2)


@pytest.mark.parametrize("metric", [mmd, energy_distance, sliced_wasserstein, classifier_two_sample])
@pytest.mark.parametrize("constant", ["a column", "all", "most"])
def test_constants_and_ties_have_finite_distances(metric, constant, generator):
    x, y = normal(40, 2, generator=generator), normal(40, 2, generator=generator)
    for z in (x, y):
        z[: {"a column": 40, "all": 40, "most": 32}[constant], : 1 if constant == "a column" else 2] = 7.0
    result = metric(x, y)
    assert math.isfinite(result.value)
    assert math.isfinite(result.stderr)


# --- two-sample tests


def test_a_classifier_reaches_the_bayes_accuracy_of_two_gaussians(generator):
    from sklearn.linear_model import LogisticRegression

    x, y = normal(2000, 1, generator=generator), normal(2000, 1, generator=generator, mean=2.0)
    estimate = classifier_two_sample(x, y, classifier=LogisticRegression())
    bayes = 0.5 * (1 + math.erf(1 / math.sqrt(2)))
    assert abs(estimate.value - bayes) < 4 * estimate.stderr
    assert estimate.stderr == pytest.approx(math.sqrt(bayes * (1 - bayes) / 4000), rel=0.05)


def test_a_classifier_has_accuracy_one_half_for_equal_distributions(generator):
    estimate = classifier_two_sample(normal(300, 2, generator=generator), normal(900, 2, generator=generator))
    assert abs(estimate.value - 0.5) < 5 * estimate.stderr
    assert estimate.stderr == pytest.approx(0.5 / math.sqrt(600), rel=0.05)  # cut to 300 of each


def test_nearest_neighbors_are_those_of_brute_force(monkeypatch, generator):
    monkeypatch.setattr("scoresde.metrics.two_sample._ROWS", 4)
    x, reference = normal(11, 2, 3, generator=generator), normal(17, 2, 3, generator=generator)
    distances, indices = nearest_neighbors(x, reference)
    table = (x[:, None] - reference[None]).flatten(2).square().sum(2).sqrt()
    torch.testing.assert_close(distances, table.amin(1))
    assert torch.equal(indices, table.argmin(1))


def test_copies_are_detected_and_new_samples_are_not(generator):
    train, held_out = normal(500, 8, generator=generator), normal(200, 8, generator=generator)
    new = copies(normal(300, 8, generator=generator), train, held_out)
    assert new.median_ratio == pytest.approx(1, abs=0.1)
    assert abs(new.too_close - 0.01) < 4 * new.too_close_stderr
    half = torch.cat([train[:150], normal(150, 8, generator=generator)])
    assert copies(half, train, held_out).too_close == pytest.approx(0.5, abs=0.03)
    same = copies(train, train, held_out)
    assert (same.median_ratio, same.too_close) == (0.0, 1.0)
    noisy = copies(train + 0.01 * normal(500, 8, generator=generator), train, held_out)
    assert (noisy.too_close, noisy.median_ratio) == (1.0, pytest.approx(0.02, abs=0.02))


def test_the_floor_is_the_mean_over_draws_without_replacement():
    real, held_out = torch.arange(4.0)[:, None], torch.zeros(2, 1)
    estimate = floor(
        lambda x, y: Estimate((x - y).sum().item()), real, held_out, draws=4000, generator=torch.Generator()
    )
    spread = math.sqrt(2 * 5 / 3)  # the sum of 2 independent values with the sample variance of {0, 1, 2, 3}
    assert estimate.stderr == pytest.approx(spread, rel=0.05)
    assert abs(estimate.value - 3) < 4 * spread / math.sqrt(4000)


def test_the_floors_standard_error_is_the_spread_over_new_data_even_if_draws_overlap(generator):
    held_out = normal(150, 2, generator=generator)
    values = torch.tensor([energy_distance(normal(150, 2, generator=generator), held_out).value for _ in range(200)])
    for n in (165, 300):
        stderrs = [floor(energy_distance, normal(n, 2, generator=generator), held_out).stderr for _ in range(12)]
        assert sum(stderrs) / 12 == pytest.approx(values.std().item(), rel=0.35)
    assert math.isnan(floor(energy_distance, normal(150, 2, generator=generator), held_out).stderr)


# --- real data


def test_a_gaussian_with_the_covariance_of_the_digits_fails_and_held_out_digits_pass(generator):
    data = load_data("digits")
    train, test = (data.description.dequantize(part, generator) for part in (data.train, data.test))
    train, test = data.description.to_model(train), data.description.to_model(test)
    flat = train.flatten(1).double()
    root = torch.linalg.cholesky(torch.cov(flat.T))
    gaussian = (flat.mean(0) + normal(360, 64, generator=generator) @ root.T).reshape(360, 1, 8, 8)
    real = mmd(train[:360], test)
    assert abs(real.value) < 3 * real.stderr
    assert mmd(gaussian, test).value > 4 * real.stderr
    assert classifier_two_sample(train[:360], test).value < 0.58
    assert classifier_two_sample(gaussian, test).value > 0.7


# --- event shapes and faults


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (1, 4, 4), (2, 2, 2, 2)])
def test_metrics_do_not_depend_on_the_event_shape(metric, shape):
    generator = torch.Generator().manual_seed(0)
    x, y = normal(32, *shape, generator=generator), normal(29, *shape, generator=generator)
    flat = [z.reshape(len(z), math.prod(shape)) for z in (x, y)]
    torch.manual_seed(0)
    shaped = metric(x, y)
    torch.manual_seed(0)
    assert shaped.value == metric(*flat).value
    assert math.isfinite(shaped.value)


@pytest.mark.parametrize("metric", METRICS)
def test_too_few_samples_are_refused(metric):
    with pytest.raises(ValueError, match=r"this metric needs at least \d samples of each, got 9 and 1; draw more"):
        metric(torch.zeros(9, 2), torch.zeros(1, 2))


@pytest.mark.parametrize("metric", METRICS)
def test_nan_is_refused_by_index(metric):
    y = torch.ones(9, 2)
    y[4, 1] = math.nan
    with pytest.raises(ValueError, match=r"the second set must be finite, got nan at index \(4, 1\)"):
        metric(torch.ones(9, 2), y)


@pytest.mark.parametrize("metric", METRICS)
def test_events_of_two_shapes_are_refused(metric):
    with pytest.raises(ValueError, match=r"one event shape, got \(9, 1, 4\) and \(9, 4\)"):
        metric(torch.zeros(9, 1, 4), torch.zeros(9, 4))


@pytest.mark.parametrize("metric", [mmd, energy_distance, kernel_distance, frechet_distance, classifier_two_sample])
def test_metrics_without_random_directions_draw_no_random_numbers(metric, generator):
    x, y = normal(12, 2, generator=generator), normal(9, 2, generator=generator)
    before = torch.get_rng_state()
    metric(x, y)
    assert torch.equal(before, torch.get_rng_state())


def test_with_a_generator_the_global_random_state_does_not_change(generator):
    x, before = normal(9, 2, generator=generator), torch.get_rng_state()
    sliced_wasserstein(x, x, generator=generator)
    floor(mmd, x, x[:5], generator=generator)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda x: sliced_wasserstein(x, x, projections=1),
            "projections must be >= 2, and order finite and >= 1, got 1 and 2",
        ),
        (lambda x: sliced_wasserstein(x, x, order=0), "order finite and >= 1, got 512 and 0"),
        (lambda x: mmd(x, x, bandwidths=[0.0]), r"bandwidths must be finite and > 0, got \[0.0\]"),
        (lambda x: classifier_two_sample(x, x, folds=1), "folds must be an integer of at least 2, got 1"),
        (lambda x: copies(x, x, x), "a percentile needs at least 50 held-out events, got 9"),
        (
            lambda x: copies(x, x, x.repeat(9, 1)),
            "may repeat train events, got 100.0%",
        ),
        (lambda x: floor(mmd, x[:4], x), "no fewer real than held-out events, got 20, 4 and 9"),
    ],
)
def test_arguments_out_of_their_domain_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.arange(18.0).reshape(9, 2))


def test_the_copy_test_refuses_held_out_data_that_repeat_train_data(generator):
    train = torch.randint(0, 10, (1500, 4), generator=generator)
    held_out = torch.randint(0, 10, (200, 4), generator=generator)
    with pytest.raises(
        ValueError, match=r"at most one percent .* may repeat train events, got \d\d\.\d%; split the data again"
    ):
        copies(train[:200], train, held_out)


def test_a_classifier_uses_a_random_part_of_the_larger_set(generator):
    x, y = normal(100, 1, generator=generator), normal(1000, 1, generator=generator).sort(0).values
    assert abs(classifier_two_sample(x, y).value - 0.5) < 0.12


@pytest.mark.parametrize("metric", METRICS)
def test_arrays_and_lists_give_the_value_of_the_tensors(metric):
    x, y = torch.randn(20, 1, dtype=torch.float64), torch.randn(20, 1, dtype=torch.float64)
    torch.manual_seed(0)
    expected = metric(x, y)
    for convert in (Tensor.numpy, Tensor.tolist):
        torch.manual_seed(0)
        assert metric(convert(x), convert(y)).value == expected.value


@pytest.mark.parametrize("metric", METRICS)
def test_inputs_that_are_not_real_numbers_are_refused(metric):
    x = torch.randn(20, 1)
    with pytest.raises(TypeError, match="the first set must be a tensor or a NumPy array, got the path 'x.npy'; read"):
        metric("x.npy", x)
    with pytest.raises(TypeError, match="the second set must have values, got a tensor on the meta device"):
        metric(x, x.to("meta"))
    with pytest.raises(TypeError, match=r"both sets must be tensors of real numbers, got torch\.complex64"):
        metric(x, x + 0j)


@pytest.mark.parametrize("order", [0.5, math.inf, math.nan])
def test_an_order_below_one_or_infinite_is_refused(order, generator):
    x = normal(20, 2, generator=generator)
    with pytest.raises(ValueError, match=r"order (finite and >= 1|must be a number, got nan)"):
        sliced_wasserstein(x, x, order=order)
