"""Metrics of image features against closed forms, brute force, and toy data with known values."""

from __future__ import annotations

import math

import pytest
import scipy.linalg
import torch

from scoresde.metrics import density_coverage, frechet_distance, frechet_infinity, kernel_distance, precision_recall


def normal(*shape: int, generator: torch.Generator, mean: float = 0.0, std: float = 1.0) -> torch.Tensor:
    return mean + std * torch.randn(*shape, generator=generator, dtype=torch.float64)


def with_moments(n: int, mean: torch.Tensor, cov: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """n rows with the given sample mean and covariance, up to rounding."""
    white = normal(n, len(mean), generator=generator)
    white = white - white.mean(0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(torch.cov(white.T)), white.T, upper=False).T
    return mean + white @ torch.linalg.cholesky(cov).T


# --- Fréchet


def test_frechet_of_gaussians_with_common_axes_is_the_closed_form(generator):
    mean, a, b = torch.tensor([1.0, -2, 0.5]).double(), torch.tensor([4.0, 1, 9]), torch.tensor([1.0, 0.25, 16])
    rotation = torch.linalg.qr(normal(3, 3, generator=generator)).Q
    x = with_moments(40, mean, rotation @ torch.diag(a.double()) @ rotation.T, generator)
    y = with_moments(50, 0 * mean, rotation @ torch.diag(b.double()) @ rotation.T, generator)
    expected = (
        1 + 4 + 0.25 + (2 - 1) ** 2 + (1 - 0.5) ** 2 + (3 - 4) ** 2
    )  # |mean|^2, then differences of the standard deviations
    assert frechet_distance(x, y).value == pytest.approx(expected, rel=1e-12)


def test_frechet_agrees_with_scipys_root_of_the_product(generator):
    x = normal(90, 12, generator=generator) @ normal(12, 12, generator=generator)
    y = normal(70, 12, generator=generator, mean=0.3) @ normal(12, 12, generator=generator)
    a, b = torch.cov(x.T).numpy(), torch.cov(y.T).numpy()
    root = torch.as_tensor(scipy.linalg.sqrtm(a @ b))
    expected = (x.mean(0) - y.mean(0)).square().sum().item() + (a + b).trace() - 2 * root.real.trace().item()
    assert frechet_distance(x, y).value == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_agrees_with_the_eigenvalues_of_the_product(generator):
    x = normal(50, 4, generator=generator) @ normal(4, 4, generator=generator)
    y = normal(60, 4, generator=generator, mean=0.3) @ normal(4, 4, generator=generator)
    a, b = torch.cov(x.T), torch.cov(y.T)
    cross = torch.linalg.eigvals(a @ b).real.sqrt().sum()  # eigenvalues of the product are squares of those of its root
    expected = (x.mean(0) - y.mean(0)).square().sum() + a.trace() + b.trace() - 2 * cross
    assert frechet_distance(x, y).value == pytest.approx(expected.item(), rel=1e-10)


def test_singular_covariances_are_handled_exactly(generator):
    line = normal(20, 1, generator=generator) * torch.tensor([3.0, 4.0, 0.0], dtype=torch.float64)
    variance = line[:, 0].var().item() / 9
    assert frechet_distance(line, 2 * line - line.mean(0)).value == pytest.approx(25 * variance, rel=1e-10)
    constant = torch.cat([line, torch.ones(20, 4)], dim=1)  # features that never change
    assert frechet_distance(constant, constant).value == pytest.approx(0, abs=1e-10)


def test_more_dimensions_than_samples_are_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"needs more samples than dimensions, got 8 for 8: such covariances are sing"):
        frechet_distance(torch.rand(8, 8), torch.rand(20, 8))
    assert math.isfinite(frechet_distance(torch.rand(9, 8), torch.rand(20, 8)).value)
    with pytest.raises(
        ValueError, match=r"more samples than dimensions in each half, got 8 for 8.* or kernel_distance"
    ):
        frechet_infinity(torch.rand(17, 8), torch.rand(40, 8))


def test_frechet_infinity_removes_the_bias_of_few_samples(generator):
    n, d, runs, shift = 160, 20, 40, 0.5
    exact = d * shift**2 + d * (1.5 - 1) ** 2
    pairs = [
        (normal(n, d, generator=generator), normal(n, d, generator=generator, mean=shift, std=1.5)) for _ in range(runs)
    ]
    few = torch.tensor([frechet_distance(x, y).value for x, y in pairs])
    corrected = torch.tensor([frechet_infinity(x, y, halvings=4, generator=generator).value for x, y in pairs])
    error = corrected.std().item() / math.sqrt(runs)
    assert few.mean().item() - exact > 10 * error  # the bias
    assert abs(corrected.mean().item() - exact) < 3 * error + 0.1 * (few.mean().item() - exact)


def test_frechet_infinity_of_equal_distributions_is_about_zero(generator):
    runs, sets = 40, [normal(160, 20, generator=generator) for _ in range(80)]
    few = torch.tensor([frechet_distance(x, y).value for x, y in zip(sets[:runs], sets[runs:])])
    corrected = torch.tensor(
        [frechet_infinity(x, y, halvings=4, generator=generator).value for x, y in zip(sets[:runs], sets[runs:])]
    )
    assert few.mean().item() > 1
    assert abs(corrected.mean().item()) < 0.15 * few.mean().item()


# --- the kernel of features


def brute_kernel(x: torch.Tensor, y: torch.Tensor) -> float:
    def k(a: torch.Tensor, b: torch.Tensor) -> float:
        return (sum(u * v for u, v in zip(a.tolist(), b.tolist())) / len(a) + 1) ** 3

    n, m = len(x), len(y)
    within_x = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    within_y = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return within_x + within_y - 2 * sum(k(a, b) for a in x for b in y) / (n * m)


def test_the_kernel_distance_is_the_double_sum(monkeypatch, generator):
    monkeypatch.setattr("scoresde.metrics.distances._ROWS", 4)
    x, y = normal(9, 5, generator=generator), normal(7, 5, generator=generator, mean=0.4)
    assert kernel_distance(x, y).value == pytest.approx(brute_kernel(x, y), rel=1e-12)


def test_the_kernel_distance_is_unbiased_and_its_error_is_its_spread(generator):
    # x ~ N(0, 1), y ~ N(s, 1) in one dimension: moments of (ab + 1)^3 by independence
    s, runs = 0.5, 400
    powers = {0.0: (0, 1, 0), s: (s, 1 + s * s, s**3 + 3 * s)}

    def mean_kernel(p: float, q: float) -> float:
        a, b = powers[p], powers[q]
        return 1 + 3 * a[0] * b[0] + 3 * a[1] * b[1] + a[2] * b[2]

    exact = mean_kernel(0, 0) + mean_kernel(s, s) - 2 * mean_kernel(0, s)
    estimates = [
        kernel_distance(normal(30, 1, generator=generator), normal(40, 1, generator=generator, mean=s))
        for _ in range(runs)
    ]
    value = torch.tensor([e.value for e in estimates])
    assert abs(value.mean().item() - exact) < 4 * value.std().item() / math.sqrt(runs)
    assert torch.tensor([e.stderr for e in estimates]).mean().item() == pytest.approx(value.std().item(), rel=0.3)


def test_subsets_average_to_the_distance_of_all_samples_with_the_error_of_one_subset(generator):
    x, y = normal(60, 3, generator=generator), normal(80, 3, generator=generator, mean=0.5)
    whole = kernel_distance(x, y)
    parts = kernel_distance(x, y, size=20, subsets=400, generator=generator)
    assert abs(parts.value - whole.value) < 4 * parts.stderr / math.sqrt(400)
    one = [kernel_distance(x, y, size=20, subsets=2, generator=generator).value for _ in range(200)]
    assert torch.tensor(one).std().item() * math.sqrt(2) == pytest.approx(parts.stderr, rel=0.2)


@pytest.mark.parametrize(("size", "subsets"), [(3, 10), (10, 10), (5, 1)])
def test_subsets_out_of_range_are_refused(size, subsets):
    with pytest.raises(ValueError, match=r"subsets must be >= 2 and size in 4 … 9, the size of the smaller set"):
        kernel_distance(torch.rand(9, 2), torch.rand(12, 2), size=size, subsets=subsets)


# --- precision, recall, density, coverage


def brute_shares(x: torch.Tensor, y: torch.Tensor, k: int) -> tuple[float, float, float, float]:
    def distance(a: torch.Tensor, b: torch.Tensor) -> float:
        return math.dist(a.tolist(), b.tolist())

    def radius(z: torch.Tensor, i: int) -> float:
        return sorted(distance(z[i], z[j]) for j in range(len(z)) if j != i)[k - 1]

    of_x, of_y = [radius(x, i) for i in range(len(x))], [radius(y, i) for i in range(len(y))]
    inside = [[distance(a, b) <= r for b, r in zip(y, of_y)] for a in x]
    recalled = [any(distance(a, b) <= r for a, r in zip(x, of_x)) for b in y]
    precision = sum(any(row) for row in inside) / len(x)
    density = sum(sum(row) for row in inside) / (k * len(x))
    coverage = sum(any(row[i] for row in inside) for i in range(len(y))) / len(y)
    return precision, sum(recalled) / len(y), density, coverage


@pytest.mark.parametrize("k", [1, 3, 5])
@pytest.mark.parametrize("shift", [0.0, 1e5])
def test_shares_are_those_of_brute_force(k, shift, monkeypatch, generator):
    monkeypatch.setattr("scoresde.metrics.neighbors._ROWS", 7)
    x, y = normal(30, 4, generator=generator, std=2), normal(24, 4, generator=generator, mean=0.6)
    near, dense = precision_recall(x + shift, y + shift, k=k), density_coverage(x + shift, y + shift, k=k)
    values = near.precision.value, near.recall.value, dense.density.value, dense.coverage.value
    assert values == pytest.approx(brute_shares(x, y, k), rel=1e-12)
    assert any(0 < value < 1 for value in values)
    assert near.precision.stderr == pytest.approx(math.sqrt(values[0] * (1 - values[0]) / 30))


@pytest.mark.parametrize("d", [3, 640])
def test_identical_sets_have_all_four_at_one(d, monkeypatch, generator):
    monkeypatch.setattr("scoresde.metrics.neighbors._ROWS", 33)  # the last block of one row
    y = 3 * normal(100, d, generator=generator) + 40
    x = y[torch.randperm(100, generator=generator)]  # another order rounds distances differently
    near, dense = precision_recall(x, y), density_coverage(x, y)
    assert (near.precision.value, near.recall.value) == (1, 1)
    assert (dense.density.value, dense.coverage.value) == (1, 1)  # open balls: k samples in each


@pytest.mark.parametrize("d", [3, 640])
def test_a_copy_of_an_event_lies_on_the_edge_of_the_balls_of_its_neighbors(d, monkeypatch, generator):
    monkeypatch.setattr("scoresde.metrics.neighbors._ROWS", 33)  # the last block of one row
    y = 3 * normal(100, d, generator=generator) + 40
    copies = y[torch.randperm(100, generator=generator)[:1]].repeat(100, 1)
    edge = int(
        (
            torch.cdist(y, y, compute_mode="donot_use_mm_for_euclid_dist").argsort(1)[:, 1:4]
            == ((y == copies[0]).all(1).nonzero().item())
        ).sum()
    )  # events that have it among their nearest three
    assert precision_recall(copies, y).recall.value == 0.01  # balls without extent hold their center
    assert density_coverage(copies, y, k=4).density.value == pytest.approx((edge + 1) / 4)


@pytest.mark.parametrize("spacing", [0.1, 0.3, 0.7, 1.1, 1.3])
def test_closed_balls_hold_their_edge(spacing):
    y = spacing * torch.arange(7, dtype=torch.float64)[:, None] + 0.01
    x = torch.stack([y[0] - spacing, y[-1] + spacing])  # as far from the ends as these from their neighbors
    assert precision_recall(x, y, k=1).precision.value == 1
    assert density_coverage(x, y, k=1).density.value == 0  # open balls do not


def test_disjoint_sets_have_all_four_at_zero(generator):
    x = normal(100, 3, generator=generator)
    near, dense = precision_recall(x, x + 100), density_coverage(x, x + 100)
    assert [near.precision.value, near.recall.value, dense.density.value, dense.coverage.value] == [0, 0, 0, 0]


def test_a_dropped_mode_costs_recall_and_coverage_but_not_precision(generator):
    modes = torch.tensor([0.0, 100, 200, 300], dtype=torch.float64)
    y = normal(400, 2, generator=generator) + modes.repeat(100)[:, None]
    x = normal(400, 2, generator=generator) + modes[:1]
    near, dense = precision_recall(x, y), density_coverage(x, y)
    assert near.precision.value > 0.9
    assert near.recall.value <= 0.25
    assert 0.2 < dense.coverage.value <= 0.25
    assert dense.density.value == pytest.approx(1, abs=0.3)


def test_equal_distributions_have_the_expected_density_and_coverage(generator):
    n, m, k, runs = 60, 40, 3, 60
    results = [
        density_coverage(normal(n, 2, generator=generator), normal(m, 2, generator=generator), k=k) for _ in range(runs)
    ]
    density = torch.tensor([r.density.value for r in results])
    coverage = torch.tensor([r.coverage.value for r in results])
    expected = 1 - math.prod((m - 1 - i) / (n + m - 1 - i) for i in range(k))
    assert abs(density.mean().item() - 1) < 4 * density.std().item() / math.sqrt(runs)
    assert abs(coverage.mean().item() - expected) < 4 * coverage.std().item() / math.sqrt(runs)


def test_an_outlier_among_samples_raises_recall_but_not_coverage(generator):
    y, x = normal(100, 2, generator=generator), normal(100, 2, generator=generator, mean=50)
    outlier = x.clone()
    outlier[0] = torch.tensor([-200.0, -200.0])  # its ball holds all real data
    assert precision_recall(outlier, y).recall.value == 1
    assert density_coverage(outlier, y).coverage.value == 0


def test_events_that_repeat_make_empty_balls_and_are_refused():
    y = torch.zeros(10, 2)
    y[:4] = torch.arange(4.0)[:, None] + 1
    with pytest.raises(ValueError, match=r"may occur more than k = 5 times, got 6 that do: their balls are empty"):
        density_coverage(torch.rand(10, 2), y)
    assert precision_recall(y, y).precision.value == 1  # closed balls hold their center


@pytest.mark.parametrize("shares", [precision_recall, density_coverage])
def test_shares_refuse_invalid_arguments(shares):
    with pytest.raises(ValueError, match=r"needs at least 3 samples of each, got 9 and 2"):
        shares(torch.rand(9, 2), torch.rand(2, 2), k=2)
    with pytest.raises(ValueError, match=r"got 0 and 9"):
        shares(torch.rand(0, 2), torch.rand(9, 2))
    with pytest.raises(ValueError, match="k must be a positive integer, got 0"):
        shares(torch.rand(9, 2), torch.rand(9, 2), k=0)
    with pytest.raises(ValueError, match=r"the first set must be finite, got nan at index \(3, 1\)"):
        shares(torch.rand(9, 2).index_put((torch.tensor(3), torch.tensor(1)), torch.tensor(math.nan)), torch.rand(9, 2))
    with pytest.raises(ValueError, match=r"one event shape, got \(9, 2\) and \(9, 3\)"):
        shares(torch.rand(9, 2), torch.rand(9, 3))


def test_one_distant_sample_does_not_change_the_neighbors_of_others(generator):
    x, y = normal(200, 2, generator=generator) + 50, normal(200, 2, generator=generator)
    x[0] = 1e8
    assert precision_recall(x, y).precision.value == 0
    assert density_coverage(x, y).coverage.value == 0
    near = normal(200, 2, generator=generator)
    before = density_coverage(near[1:], y)
    near[0] = 3e5
    assert density_coverage(near, y).coverage.value == before.coverage.value
