"""Can samples be told from real data, and are they copies of the training part?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scoresde.metrics.estimate import Estimate, two_sets

__all__ = ["Copies", "classifier_two_sample", "copies", "nearest_neighbors"]

_ROWS = 1024  # rows of a distance matrix held at a time


def classifier_two_sample(x: Tensor, y: Tensor, *, classifier: Any = None, folds: int = 5, seed: int = 0) -> Estimate:
    """Cross-validated accuracy of telling ``x`` from ``y``: 1/2 where the laws are alike, 1 where they are disjoint.

    Args:
        x, y: Samples, shapes ``(n, *D)`` and ``(m, *D)``. Of the larger one as many as of the smaller are drawn.
        classifier: A scikit-learn classifier, cloned for each fold; ``None`` is a support vector machine with a
            radial kernel on standardized values. The verdict is this classifier's, not that of the best one.
        folds: Number of folds, stratified and shuffled.
        seed: Fixes the folds, and which of the larger set are drawn.

    Returns:
        Accuracy in ``[0, 1]``, with the binomial standard error (folds share data: a little too small).

    Raises:
        ValueError: If samples are fewer than ``folds``, not finite, of unlike events, or ``folds < 2``.

    Source: Lopez-Paz & Oquab 2017.
    """
    from sklearn.model_selection import StratifiedKFold, cross_val_predict  # not at import: it takes seconds
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    if folds < 2:
        raise ValueError(f"folds must be >= 2, got {folds}; 5 is usual.")
    x, y = two_sets(x, y, least=folds)
    n, generator = min(len(x), len(y)), torch.Generator().manual_seed(seed)
    x, y = (z if len(z) == n else z[torch.randperm(len(z), generator=generator)[:n]] for z in (x, y))
    features, truth = torch.cat([x, y]).numpy(), np.arange(2 * n) // n
    classifier = make_pipeline(StandardScaler(), SVC(C=10.0)) if classifier is None else classifier
    order = StratifiedKFold(folds, shuffle=True, random_state=seed)
    guess = np.asarray(cross_val_predict(classifier, features, truth, cv=order))
    accuracy = float((guess == truth).mean())
    return Estimate(accuracy, math.sqrt(accuracy * (1 - accuracy) / (2 * n)))


def nearest_neighbors(x: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of ``x`` its nearest row of ``reference``, by Euclidean distance.

    Args:
        x, reference: Shapes ``(n, *D)`` and ``(m, *D)``.

    Returns:
        Distances ``(n,)``, float64, and indices into ``reference`` ``(n,)``.

    Raises:
        ValueError: If either is empty or not finite, or the events are unlike.
    """
    x, reference = two_sets(x, reference, least=1)
    center = reference.mean(0)  # torch.cdist loses digits far from the origin
    x, reference = x - center, reference - center
    indices = torch.cat([torch.cdist(part, reference).argmin(dim=1) for part in x.split(_ROWS)])
    return (x - reference[indices]).norm(dim=1), indices  # not cdist's, which is above 0 for equal rows


@dataclass(frozen=True)
class Copies:
    """Distances of samples to their nearest training event, beside those of held-out events.

    Args:
        median_ratio: Median distance of the samples over that of held-out data; well below 1 for copies.
        too_close: Share of samples nearer than the nearest percent of held-out data; about .01 without copies.
        too_close_stderr: Its binomial standard error where it is .01.
    """

    median_ratio: float
    too_close: float
    too_close_stderr: float


def copies(samples: Tensor, train: Tensor, held_out: Tensor) -> Copies:
    """Asks whether samples are copies of training events; quantize (or not) all three alike first.

    Args:
        samples, train, held_out: Shapes ``(n, *D)``, ``(m, *D)``, ``(h, *D)``.

    Returns:
        See ``Copies``.

    Raises:
        ValueError: If held-out events are few (< 50), any is empty or not finite, or more than a percent of the
            held-out data repeat train data: then no sample is nearer than the nearest percent of them.
    """
    if len(held_out) < 50:
        raise ValueError(f"a percentile needs at least 50 held-out events, got {len(held_out)}; hold out more.")
    ours, real = nearest_neighbors(samples, train)[0], nearest_neighbors(held_out, train)[0]
    near = real.quantile(0.01)
    if near == 0:
        raise ValueError(
            "at most one percent of the held-out events may repeat train events, got "
            f"{(real == 0).double().mean().item():.1%}; split them anew, or drop those that repeat."
        )
    close = (ours < near).double().mean().item()
    return Copies(
        ours.median().item() / real.median().item(), close, math.sqrt(0.01 * 0.99 * (1 / len(ours) + 1 / len(real)))
    )
