r"""Classifier two-sample test, and a nearest-neighbor test for copies of training data.

The classifier test is the held-out accuracy of a classifier that separates ``x`` from ``y`` (Lopez-Paz & Oquab 2017).
The copy test compares distances to the nearest training event, $\min_j |x_i - t_j|$, of samples and held-out events.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde._core.checks import check_integer
from scoresde.metrics.metric_estimate import Estimate, check_samples

__all__ = ["Copies", "classifier_two_sample", "copies", "nearest_neighbors"]

_ROWS = 1024  # rows of a distance matrix in memory at once


def classifier_two_sample(x: Tensor, y: Tensor, *, classifier: Any = None, folds: int = 5, seed: int = 0) -> Estimate:
    """Cross-validated accuracy of a classifier of ``x`` and ``y``: 1/2 for equal distributions, 1 for disjoint ones.

    Args:
        x, y: Samples, shapes ``(n, *D)`` and ``(m, *D)``. The larger set is reduced to the size of the smaller by a
            random draw.
        classifier: A scikit-learn classifier, cloned for each fold; ``None`` is a support vector machine with a
            radial kernel on standardized values. The accuracy is that of this classifier, not of the best one.
        folds: Number of folds, stratified and shuffled.
        seed: Determines the folds and the random draw from the larger set.

    Returns:
        Accuracy in ``[0, 1]``, with the binomial standard error (folds share data, so it is slightly too small).

    Raises:
        ValueError: If there are fewer than ``folds`` samples, they are not finite, the event shapes differ, or
            ``folds < 2``.

    Source: Lopez-Paz & Oquab 2017.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_predict  # not at import: it takes seconds
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    check_integer("folds", folds, 2)
    x, y = check_samples(x, y, least=folds)
    n, generator = min(len(x), len(y)), torch.Generator().manual_seed(seed)
    x, y = (z if len(z) == n else z[torch.randperm(len(z), generator=generator)[:n]] for z in (x, y))
    features, labels = torch.cat([x, y]).numpy(), np.arange(2 * n) // n
    classifier = make_pipeline(StandardScaler(), SVC(C=10.0)) if classifier is None else classifier
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    predictions = np.asarray(cross_val_predict(classifier, features, labels, cv=splits))
    accuracy = float((predictions == labels).mean())
    return Estimate(accuracy, math.sqrt(accuracy * (1 - accuracy) / (2 * n)))


def nearest_neighbors(x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of ``x`` its nearest row of ``reference``, by Euclidean distance.

    Args:
        x, reference: Shapes ``(n, *D)`` and ``(m, *D)``.

    Returns:
        Distances ``(n,)``, float64, and indices into ``reference`` ``(n,)``.

    Raises:
        ValueError: If either is empty or not finite, or the event shapes differ.
    """
    x, reference = check_samples(x, reference, least=1)
    center = reference.mean(0)  # torch.cdist loses digits far from the origin
    x, reference = x - center, reference - center
    indices = torch.cat([torch.cdist(part, reference).argmin(dim=1) for part in x.split(_ROWS)])
    return (x - reference[indices]).norm(dim=1), indices  # not cdist's, which is above 0 for equal rows


@dataclass(frozen=True)
class Copies:
    """Distances of samples to their nearest training event, relative to those of held-out events.

    Args:
        median_ratio: Median distance of the samples over that of held-out data; well below 1 for copies.
        too_close: Share of samples nearer than the nearest percent of held-out data; about .01 without copies.
        too_close_stderr: Binomial standard error of ``too_close`` where it is .01.
    """

    median_ratio: float
    too_close: float
    too_close_stderr: float


def copies(samples: Tensor, train: Tensor, held_out: Tensor) -> Copies:
    """Tests whether samples are copies of training events; quantize all three sets first, or none of them.

    Args:
        samples, train, held_out: Shapes ``(n, *D)``, ``(m, *D)``, ``(h, *D)``.

    Returns:
        See ``Copies``.

    Raises:
        ValueError: If there are fewer than 50 held-out events, a set is empty or not finite, or more than a percent of
            the held-out events repeat train events: then no sample is nearer than the nearest percent of them.
    """
    if len(held_out) < 50:
        raise ValueError(f"a percentile needs at least 50 held-out events, got {len(held_out)}; hold out more.")
    distances, real_distances = nearest_neighbors(samples, train)[0], nearest_neighbors(held_out, train)[0]
    threshold = real_distances.quantile(0.01)
    if threshold == 0:
        raise ValueError(
            "at most one percent of the held-out events may repeat train events, got "
            f"{(real_distances == 0).double().mean().item():.1%}; split the data again, or drop those that repeat."
        )
    return Copies(
        distances.median().item() / real_distances.median().item(),
        (distances < threshold).double().mean().item(),
        math.sqrt(0.01 * 0.99 * (1 / len(distances) + 1 / len(real_distances))),
    )
