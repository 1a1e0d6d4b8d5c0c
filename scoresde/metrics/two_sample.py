r"""Classifier two-sample tests, and a nearest-neighbor test for copies of training data.

The classifier tests are the held-out accuracy, or the area under the ROC curve (AUC), of a classifier that separates
``x`` from ``y`` (Lopez-Paz & Oquab 2017).
The copy test compares distances to the nearest training event, $\min_j |x_i - t_j|$, of samples and held-out events.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.checks import check_integer
from scoresde.metrics.column_distances import kinds_of_columns
from scoresde.metrics.metric_estimate import Estimate, as_events, check_samples

__all__ = ["Copies", "classifier_auc", "classifier_two_sample", "copies", "nearest_neighbors"]

_CATEGORIES = 255  # the most that gradient boosting tells apart
_ROWS = 1024  # rows of a distance matrix in memory at once


def classifier_two_sample(
    x: ArrayLike, y: ArrayLike, *, classifier: Any = None, folds: int = 5, seed: int = 0
) -> Estimate:
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
    check_arguments(classifier_two_sample, locals())
    from sklearn.model_selection import StratifiedKFold, cross_val_predict  # not at import: it takes seconds
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    check_integer("folds", folds, 2)
    check_integer("seed", seed, 0, 2**32 - 1)  # scikit-learn takes 32 bits
    x, y = check_samples(x, y, least=folds)
    n, generator = min(len(x), len(y)), torch.Generator().manual_seed(seed)
    x, y = (z if len(z) == n else z[torch.randperm(len(z), generator=generator)[:n]] for z in (x, y))
    features, labels = torch.cat([x, y]).numpy(), np.arange(2 * n) // n
    classifier = make_pipeline(StandardScaler(), SVC(C=10.0)) if classifier is None else classifier
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    if not hasattr(classifier, "fit"):
        raise TypeError(
            f"classifier must be a scikit-learn classifier, got {type(classifier).__name__}; pass one, such as "
            "SVC(), or None."
        )
    predictions = np.asarray(cross_val_predict(classifier, features, labels, cv=splits))
    accuracy = float((predictions == labels).mean())
    return Estimate(accuracy, math.sqrt(accuracy * (1 - accuracy) / (2 * n)))


def classifier_auc(
    x: ArrayLike,
    y: ArrayLike,
    *,
    categorical: Sequence[bool] = (),
    classifier: Any = None,
    folds: int = 5,
    seed: int = 0,
) -> Estimate:
    """Cross-validated AUC of a classifier of ``x`` and ``y``: 1/2 for equal distributions, 1 for disjoint ones.

    The AUC is the probability that a row of ``x`` gets a higher score than one of ``y``. Unlike the accuracy it needs
    no threshold, and the sizes of the sets may differ. Ties and constant columns are allowed.

    Args:
        x, y: Tables, shapes ``(n, D)`` and ``(m, D)``; categories as codes.
        categorical: For each column whether it holds categories; empty if none does.
        classifier: A scikit-learn classifier with probabilities, cloned for each fold; ``None`` is gradient boosting of
            trees, which reads mixed columns without scaling. The AUC is that of this classifier, not of the best one.
        folds: Number of folds, stratified and shuffled.
        seed: Determines the folds and the classifier.

    Returns:
        Mean over the folds, in ``[0, 1]``, with the standard error of Hanley & McNeil for all rows.

    Raises:
        ValueError: If there are fewer than ``folds`` samples, they are not finite, the event shapes differ, ``folds <
            2``, or ``categorical`` has another length.

    Source: Lopez-Paz & Oquab 2017; Hanley & McNeil 1982, eq. 1 and 2.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # not at import: it takes seconds
    from sklearn.model_selection import StratifiedKFold, cross_val_score

    check_arguments(classifier_auc, locals())
    check_integer("folds", folds, 2)
    check_integer("seed", seed, 0, 2**32 - 1)  # scikit-learn takes 32 bits
    x, y = check_samples(x, y, least=folds)
    flags = kinds_of_columns(categorical, x.shape[1])
    features, labels = torch.cat([x, y]).numpy().copy(), np.arange(len(x) + len(y)) < len(x)
    boosted = []
    for j in range(features.shape[1]):  # codes of categories that occur, as many as the trees can tell apart
        codes, index = np.unique(features[:, j], return_inverse=True)
        boosted.append(flags[j] and len(codes) <= _CATEGORIES)
        features[:, j] = index if flags[j] else features[:, j]
    if classifier is None:
        leaf = min(20, max(3, len(labels) // 40))  # the default of 20 rows would see nothing in small sets
        options: dict[str, Any] = {"max_iter": 60, "min_samples_leaf": leaf, "random_state": seed}
        options["categorical_features"] = boosted
        classifier = HistGradientBoostingClassifier(**options)
    if not hasattr(classifier, "fit"):
        raise TypeError(
            f"classifier must be a scikit-learn classifier, got {type(classifier).__name__}; pass one with "
            "probabilities, or None."
        )
    splits = StratifiedKFold(folds, shuffle=True, random_state=seed)
    auc = float(np.mean(cross_val_score(classifier, features, labels, cv=splits, scoring="roc_auc")))
    n, m, both = len(x), len(y), auc**2
    spread = (n - 1) * (auc / (2 - auc) - both) + (m - 1) * (2 * both / (1 + auc) - both)
    return Estimate(auc, math.sqrt(max(0.0, auc * (1 - auc) + spread) / (n * m)))


def nearest_neighbors(x: ArrayLike, reference: ArrayLike) -> tuple[Tensor, Tensor]:
    """For each row of ``x`` its nearest row of ``reference``, by Euclidean distance.

    Args:
        x, reference: Shapes ``(n, *D)`` and ``(m, *D)``.

    Returns:
        Distances ``(n,)``, float64, and indices into ``reference`` ``(n,)``.

    Raises:
        ValueError: If either is empty or not finite, or the event shapes differ.
    """
    check_arguments(nearest_neighbors, locals())
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


def copies(samples: ArrayLike, train: ArrayLike, held_out: ArrayLike) -> Copies:
    """Tests whether samples are copies of training events; quantize all three sets first, or none of them.

    Args:
        samples, train, held_out: Shapes ``(n, *D)``, ``(m, *D)``, ``(h, *D)``.

    Returns:
        See ``Copies``.

    Raises:
        ValueError: If there are fewer than 50 held-out events, a set is empty or not finite, or more than a percent of
            the held-out events repeat train events: then no sample is nearer than the nearest percent of them.
    """
    check_arguments(copies, locals())
    held_out = as_events(held_out, "held_out")
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
