"""The map of a table's columns to model units: densities that integrate to 1, exact round trips, train statistics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import scoresde.data
from scoresde.data import Description
from scoresde.data.tables.column_maps import CategoryColumn, NumberColumn, fit_category_column, fit_number_column
from scoresde.data.tables.encoding import TableEncoding
from scoresde.storage import spec

RNG = np.random.default_rng(0)
N = 2000
SKEWED = np.exp(1.5 * RNG.standard_normal(N))
SYMMETRIC = 1.7e9 + 86_400 * RNG.random(N)
COUNTS = RNG.poisson(2.0, N).astype(float)
PRICES = np.round(np.exp(RNG.normal(3, 1, N)), 2)
RAIN = np.where(RNG.random(N) < 0.7, 0.0, np.round(np.exp(RNG.standard_normal(N)), 6))
NUMBERS = {"skewed": (SKEWED, 0.0), "symmetric": (SYMMETRIC, 0.0), "counts": (COUNTS, 1.0), "prices": (PRICES, 0.01)}
NUMBERS |= {"rain": (RAIN, 1e-6)}


def described(*columns: NumberColumn | CategoryColumn) -> Description:
    return Description("t", (len(columns),), encoding=TableEncoding(columns))


def fitted(name: str) -> NumberColumn:
    return fit_number_column(*NUMBERS[name])


def normal_log_prob(x: Tensor) -> Tensor:
    return (-0.5 * x.square() - 0.5 * math.log(2 * math.pi)).sum(1)


def column(values: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(values, dtype=np.float64))[:, None]


# --- densities


@pytest.mark.parametrize("name", NUMBERS)
def test_log_det_is_that_of_the_autograd_derivative(name):
    values, step = NUMBERS[name]
    about = described(fitted(name))
    spread = 0.2 * (values.max() - values.min())
    y = column(np.linspace(values.min() - spread, values.max() + spread, 997) + math.pi * 1e-4).requires_grad_()
    x = about.to_model(y)
    (slope,) = torch.autograd.grad(x.sum(), y)
    expected = slope[:, 0].log() + (math.log(step) if step else 0.0)
    torch.testing.assert_close(about.log_det(x.detach()), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["skewed", "symmetric"])
def test_a_density_in_data_units_integrates_to_one(name):
    number = fitted(name)
    about = described(number)
    low, high = number.knots[0] - 12 / number.slopes[0], number.knots[-1] + 12 / number.slopes[1]
    edges = np.unique([low, high, *number.knots])  # the density is smooth between these
    node, weight = np.polynomial.legendre.leggauss(40)
    width = np.diff(edges)[:, None] / 2
    y = (edges[:-1, None] + width * (1 + node)).ravel()
    x = about.to_model(column(y))
    total = float((normal_log_prob(x) + about.log_det(x)).exp() @ torch.from_numpy((width * weight).ravel()))
    assert total == pytest.approx(1, abs=1e-6)


def test_the_probabilities_of_the_bins_sum_to_one():
    about = described(fitted("counts"))
    k = np.arange(-60.0, 200.0)
    node, weight = np.polynomial.legendre.leggauss(60)
    y = (k[:, None] + (1 + node) / 2).ravel()
    x = about.to_model(column(y))
    p = (normal_log_prob(x) + about.log_det(x)).exp().reshape(len(k), -1) @ torch.from_numpy(weight / 2)
    assert float(p.sum()) == pytest.approx(1, abs=1e-5)
    share = torch.tensor([float((v == COUNTS).mean()) for v in k.tolist()], dtype=torch.float64)
    assert (
        float((p - share).abs().max()) < 6e-3
    )  # half a standard error at each edge; normal scores: N(0, 1) has the marginal of the train part


def test_a_category_has_the_probability_of_its_cube(generator):
    codes = RNG.choice(3, N, p=[0.6, 0.3, 0.1])
    category = fit_category_column(codes, 3)
    about = described(category)
    x = about.to_model(about.dequantize(torch.full((20_000, 1), 1.0), generator))
    estimate = (normal_log_prob(x) + about.log_det(x)).exp()
    centers = (torch.tensor([0.0, 1.0, 0.0]) - torch.tensor(category.mean)) / category.scale
    half = 0.5 * category.side / category.scale
    exact = float((torch.special.ndtr(centers + half) - torch.special.ndtr(centers - half)).prod())
    assert float(estimate.mean()) == pytest.approx(exact, abs=4 * float(estimate.std()) / math.sqrt(20_000))
    assert float((x - centers).abs().max()) <= half + 1e-9


# --- round trips


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_come_back(name, dtype, generator):
    values, step = NUMBERS[name]
    about, y = described(fitted(name)), column(values)
    for x in (about.to_model(y), about.to_model(about.dequantize(y, generator))):
        back = about.to_data(x.to(dtype))
        if dtype == torch.float64 and step:
            assert torch.equal(back, y)
        else:
            scale = float(y.std()) if name == "symmetric" else float(y.abs().max())
            torch.testing.assert_close(back, y, rtol=1e-5, atol=2e-6 * scale + step)


def test_dequantized_values_stay_in_their_bins_and_fill_them(generator):
    about = described(fitted("prices"), fit_category_column(np.array([0, 1, 1]), 2))
    y = torch.tensor([[3.17, 1.0]], dtype=torch.float64).expand(4000, 2)
    z = about.dequantize(y, generator)
    u = torch.stack([(z[:, 0] - 3.17) / 0.01, z[:, 1] / 0.5 + 0.5, (z[:, 2] - 1) / 0.5 + 0.5])
    assert 0 <= float(u.min()) <= float(u.max()) < 1
    sorted_u = u.sort(1).values
    ideal = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    assert float((sorted_u - ideal).abs().max()) < 1.63 / math.sqrt(4000)  # Kolmogorov–Smirnov at 1 %
    assert torch.equal(about.to_data(about.to_model(z)), y)
    assert torch.equal(about.center(y)[0], torch.tensor([3.175, 0.0, 1.0], dtype=torch.float64))


def test_to_model_takes_rows_of_the_table_and_dequantized_ones():
    about = described(fitted("counts"), fit_category_column(np.array([0, 1, 2]), 3))
    y = torch.tensor([[2.0, 1.0], [0.0, 2.0]], dtype=torch.float64)
    assert about.is_quantized(y)
    assert torch.equal(about.to_model(y), about.to_model(about.center(y)))
    assert about.to_model(y.float()).dtype == torch.float32
    with pytest.raises(ValueError, match=r"must have shape \(B, 2\)|shape"):
        about.to_model(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="codes of categories must lie in 0"):
        about.to_model(torch.tensor([[0.0, 3.0]]))


def test_missing_values_stay_missing_in_all_entries_of_their_column(generator):
    about = described(fitted("counts"), fit_category_column(np.array([0, 1, 2]), 3), fitted("skewed"))
    y = torch.tensor([[math.nan, 1.0, 0.5], [2.0, math.nan, 0.5], [2.0, 1.0, math.nan]], dtype=torch.float64)
    for z in (about.dequantize(y, generator), about.center(y), about.to_model(y)):
        assert z.isnan().tolist() == [[True, *[False] * 4], [False, True, True, True, False], [*[False] * 4, True]]
    x = about.to_model(about.center(y))
    torch.testing.assert_close(about.to_data(x), y, equal_nan=True, rtol=1e-9, atol=0)
    assert about.encoding is not None
    whole = about.to_model(torch.tensor([[2.0, 1.0, 0.5]], dtype=torch.float64))
    parts = [described(c).log_det(x[:1]) for c, x in zip(about.encoding.columns, whole.split([1, 3, 1], 1))]
    expected = torch.cat([parts[1] + parts[2], parts[0] + parts[2], parts[0] + parts[1]])
    torch.testing.assert_close(about.log_det(x), expected)


# --- what the maps are


def test_samples_stay_in_the_range_of_the_train_part_and_on_its_grid():
    about = described(fitted("counts"), fitted("prices"), fitted("skewed"))
    x = 4 * torch.randn(5000, 3, generator=torch.Generator().manual_seed(1))
    y = about.to_data(x).numpy()
    assert [(v.min(), v.max()) for v in y.T] == [(v.min(), v.max()) for v in (COUNTS, PRICES, SKEWED)]
    assert np.array_equal(y[:, 0], np.rint(y[:, 0]))
    assert all(len(str(v).partition(".")[2]) <= 2 for v in y[:, 1].tolist())


@pytest.mark.parametrize("name", ["skewed", "counts", "prices", "rain"])
def test_skewed_and_tied_columns_become_normal_in_model_units(name, generator):
    values, _ = NUMBERS[name]
    about = described(fitted(name))
    x = about.to_model(about.dequantize(column(values), generator)).flatten().sort().values
    level = torch.special.ndtr(x)
    assert float((level - (torch.arange(N) + 0.5) / N).abs().max()) < 1.63 / math.sqrt(N)


def test_a_symmetric_column_is_standardized():
    number = fitted("symmetric")
    assert number.standardized
    x = described(number).to_model(column(SYMMETRIC))
    assert float(x.mean()) == pytest.approx(0, abs=1e-9)
    assert float(x.std(correction=0)) == pytest.approx(1, rel=1e-9)


def test_few_rows_and_few_knots_still_make_an_increasing_map():
    for values in (np.array([1.0, 2.0]), np.array([0.0, 0.0, 1e-12]), np.array([-1e300, 5.0, 1e300, 5.0])):
        number = fit_number_column(values, 0.0, most_knots=2)
        x = described(number).to_model(column(np.unique(values))).flatten()
        assert bool((x.diff() > 0).all())
    assert len(fit_number_column(SKEWED, 0.0, 8).knots) <= 8


def test_an_encoding_is_stored_as_text():
    about = described(fitted("rain"), fit_category_column(np.array([0, 1, 1]), 2))
    text = spec.to_text(about)
    assert spec.parse(text, spec.known_classes(scoresde.data), kind=Description) == about
    assert len(repr(about)) < 500


def test_values_that_a_column_cannot_have_are_refused_by_name():
    about = described(fitted("prices"), fit_category_column(np.array([0, 1, 1]), 2))
    about.validate(torch.tensor([[3.17, 1.0], [0.01, 0.0]], dtype=torch.float64))
    off = "column 0 must hold multiples of 0.01, got 3.171 at row 1"
    for row, rule in (([3.171, 0.0], off), ([1.0, 2.0], "column 1 must hold codes 0")):
        with pytest.raises(ValueError, match=rule):
            about.validate(torch.tensor([[1.0, 0.0], row], dtype=torch.float64))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NumberColumn(0, 1, (0.0, 1.0), (1.0, 0.0), (1, 1)), "knots and scores must increase"),
        (lambda: NumberColumn(0, 1, (0.0,), (0.0,), (0, 1)), "slopes must be two numbers > 0"),
        (lambda: CategoryColumn((0.5, 0.5), 1.0, side=1.0), r"a side in \(0, 1\)"),
        (lambda: TableEncoding(()), "an encoding needs columns"),
        (lambda: Description("t", (2,), encoding=described(fitted("rain")).encoding), "one column for each entry of"),
    ],
)
def test_settings_that_contradict_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
