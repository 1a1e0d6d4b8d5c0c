r"""Paired differences with joint 95 % intervals: every weighting, and every sampler, against the first one.

The first entries of the plan are the references, whatever the results are. An interval is $\bar d \pm t\,s$ with
Student's quantile $t$ at level $1 - 0.05/m$ for $m$ differences (Bonferroni), so that all of them hold together in 95 %
of the repetitions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from scoresde.evaluation.sample_distances import FLOOR_DRAWS
from scoresde.likelihood.student import student_half_width

__all__ = ["likelihood_differences", "sampler_differences"]

Runs = Mapping[str, Sequence[Mapping[str, Any]]]
"""A weighting to its runs, one per seed, the seeds in the same order."""

_ERROR = 0.05  # probability that an interval of a table misses


def likelihood_differences(runs: Runs, arrays: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """Likelihood of each weighting minus that of the first, on the same held-out events.

    Args:
        runs: With their ``name``.
        arrays: ``NAME/likelihood``, ``(n,)``, the likelihoods of the events; NaN for one that did not arrive.

    Returns:
        For each weighting but the first JSON with ``name``, ``reference``, ``value``, ``low``, ``high``, ``count`` and
        ``over``: "events" for one seed, and then the interval is that of these two trained networks; else "seeds".
    """
    reference, *others = runs
    rows = []
    for other in others:
        pairs = zip(runs[other], runs[reference], strict=True)
        by_seed = [arrays[f"{a['name']}/likelihood"] - arrays[f"{b['name']}/likelihood"] for a, b in pairs]
        known = [values[np.isfinite(values)] for values in by_seed]
        over_events = len(known) == 1
        values = known[0] if over_events else np.asarray([v.mean() if len(v) else math.nan for v in known])
        unit = "events" if over_events else "seeds"
        rows.append({"name": other, "reference": reference, **_interval(values, len(others)), "over": unit})
    return rows


def sampler_differences(runs: Runs, floor: Mapping[str, float]) -> list[dict[str, Any]]:
    r"""Ratio to the floor of each sampler minus that of the first, averaged over the weightings.

    For one seed the standard error is $\sqrt 2$ times that of one set of real data, as if the two sets of samples were
    independent. They share initial noises and held-out events, so the interval is rather too wide.

    Args:
        runs: With their ``samples``, in the order of the samplers.
        floor: ``value`` and ``stderr`` of the sliced Wasserstein distance of real data.

    Returns:
        As `likelihood_differences`; ``over`` is "real data" for one seed.
    """
    ratios = np.asarray(
        [[[_number(m["ratio"]["value"]) for m in run["samples"]] for run in seeds] for seeds in runs.values()]
    )
    labels = [measured["sampler"] for measured in next(iter(runs.values()))[0]["samples"]]
    by_seed, rows = ratios.mean(0), []
    for j, name in enumerate(labels[1:], 1):
        values, count = by_seed[:, j] - by_seed[:, 0], len(labels) - 1
        row = {"name": name, "reference": labels[0], **_interval(values, count), "over": "seeds"}
        if len(values) == 1:
            stderr = math.sqrt(2) * floor["stderr"] / floor["value"] if floor["value"] else math.nan
            row |= _ends(float(values[0]), stderr, FLOOR_DRAWS - 1, count) | {"count": FLOOR_DRAWS, "over": "real data"}
        rows.append(row)
    return rows


def _interval(values: np.ndarray, comparisons: int) -> dict[str, Any]:
    """Mean of paired differences, ``(n,)``, with the ends of its interval; NaN for fewer than two."""
    if not len(values):
        return {"value": math.nan, "low": math.nan, "high": math.nan, "count": 0}
    stderr = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {**_ends(float(values.mean()), stderr, len(values) - 1, comparisons), "count": len(values)}


def _ends(value: float, stderr: float, dof: int, comparisons: int) -> dict[str, float]:
    error, freedom = torch.tensor([stderr, max(dof, 1)], dtype=torch.float64)
    half = float(student_half_width(error, freedom, 1 - _ERROR / comparisons))
    return {"value": value, "low": value - half, "high": value + half}


def _number(value: float | None) -> float:
    return math.nan if value is None else value
