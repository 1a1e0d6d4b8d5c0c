"""Paired differences with joint intervals agree with SciPy's paired t test."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from scoresde.evaluation.sample_distances import FLOOR_DRAWS
from scoresde.experiments.differences import likelihood_differences, sampler_differences


def runs_of(weightings: list[str], seeds: int) -> dict[str, list[dict[str, Any]]]:
    return {w: [{"name": f"{w}-seed{seed}"} for seed in range(seeds)] for w in weightings}


@pytest.mark.parametrize("weightings", [["a", "b"], ["a", "b", "c", "d"]])
def test_with_one_seed_the_interval_is_that_of_the_paired_t_test_over_events(weightings: list[str]) -> None:
    draw = np.random.default_rng(0)
    difficulty = 3 * draw.normal(size=200)
    arrays = {f"{w}-seed0/likelihood": difficulty + 0.1 * draw.normal(size=200) for w in weightings}
    arrays["b-seed0/likelihood"][7] = math.nan  # did not arrive
    rows = likelihood_differences(runs_of(weightings, 1), arrays)
    assert [(row["name"], row["reference"], row["over"]) for row in rows] == [
        (w, "a", "events") for w in weightings[1:]
    ]
    for row in rows:
        first, other = arrays["a-seed0/likelihood"], arrays[f"{row['name']}-seed0/likelihood"]
        known = np.isfinite(other)
        test = stats.ttest_rel(other[known], first[known])
        low, high = test.confidence_interval(1 - 0.05 / len(rows))
        assert row["count"] == known.sum()
        np.testing.assert_allclose([row["low"], row["high"]], [low, high])
        assert high - low < 0.1  # the spread of the events cancels


def test_with_several_seeds_the_interval_is_over_the_seeds() -> None:
    draw = np.random.default_rng(1)
    arrays = {f"{w}-seed{s}/likelihood": draw.normal(size=50) + s for w in "ab" for s in range(4)}
    (row,) = likelihood_differences(runs_of(["a", "b"], 4), arrays)
    means = {w: [arrays[f"{w}-seed{s}/likelihood"].mean() for s in range(4)] for w in "ab"}
    low, high = stats.ttest_rel(means["b"], means["a"]).confidence_interval(0.95)
    np.testing.assert_allclose([row["low"], row["high"]], [low, high])
    assert (row["count"], row["over"]) == (4, "seeds")


def test_a_single_event_has_no_interval() -> None:
    arrays = {"a-seed0/likelihood": np.asarray([1.0]), "b-seed0/likelihood": np.asarray([3.0])}
    (row,) = likelihood_differences(runs_of(["a", "b"], 1), arrays)
    assert row["value"] == 2.0
    assert math.isnan(row["low"])
    arrays["b-seed0/likelihood"][:] = math.nan
    (row,) = likelihood_differences(runs_of(["a", "b"], 1), arrays)
    assert math.isnan(row["value"])
    assert row["count"] == 0


def sampler_runs(ratios: np.ndarray) -> dict[str, list[dict[str, Any]]]:
    """Of ratios ``(weightings, seeds, samplers)``."""

    def run(values: np.ndarray) -> dict[str, Any]:
        return {"samples": [{"sampler": f"s{j}", "ratio": {"value": float(r)}} for j, r in enumerate(values)]}

    return {f"w{i}": [run(values) for values in seeds] for i, seeds in enumerate(ratios)}


def test_samplers_with_one_seed_have_the_error_of_two_sets_of_real_data() -> None:
    ratios = np.asarray([[[1.0, 1.5, 0.9]], [[1.2, 1.5, 1.3]]])
    first, second = sampler_differences(sampler_runs(ratios), {"value": 0.2, "stderr": 0.01})
    assert first["value"] == pytest.approx(0.4)
    assert second["value"] == pytest.approx(0.0)
    half = stats.t.ppf(1 - 0.05 / 4, FLOOR_DRAWS - 1) * math.sqrt(2) * 0.05
    for row in (first, second):
        assert row["high"] - row["value"] == pytest.approx(half)
        assert (row["reference"], row["count"], row["over"]) == ("s0", FLOOR_DRAWS, "real data")


def test_samplers_with_several_seeds_have_the_interval_over_seeds_of_the_mean_over_weightings() -> None:
    ratios = np.random.default_rng(2).normal(1.2, 0.1, (2, 5, 3))
    rows = sampler_differences(sampler_runs(ratios), {"value": 0.2, "stderr": 0.01})
    for j, row in enumerate(rows, 1):
        low, high = stats.ttest_rel(ratios.mean(0)[:, j], ratios.mean(0)[:, 0]).confidence_interval(1 - 0.05 / 2)
        np.testing.assert_allclose([row["low"], row["high"]], [low, high])


def test_an_unknown_ratio_gives_an_unknown_difference() -> None:
    runs = sampler_runs(np.ones((1, 1, 2)))
    runs["w0"][0]["samples"][1]["ratio"]["value"] = None
    (row,) = sampler_differences(runs, {"value": 0.2, "stderr": 0.01})
    assert math.isnan(row["value"])
