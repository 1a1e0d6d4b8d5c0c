"""Image metrics of features with their floors: Fréchet and kernel distance, precision, recall, density, coverage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from scoresde._core.annotations import check_arguments
from scoresde._core.checks import check_integer
from scoresde.metrics.distances import kernel_distance
from scoresde.metrics.features import Features
from scoresde.metrics.frechet import frechet_distance, frechet_infinity
from scoresde.metrics.metric_estimate import Estimate
from scoresde.metrics.neighbors import density_coverage, precision_recall

__all__ = ["IMAGE_METRICS", "ImageMetric", "image_distances"]


@dataclass(frozen=True)
class ImageMetric:
    """A metric of samples against real data, and of as many other real data against the same real data.

    Args:
        value: Of the samples: mean over the splits, with the standard deviation over the splits as its error.
        floor: Of the other half of the real data, in the same way.
    """

    value: Estimate
    floor: Estimate


def image_distances(
    samples: Features,
    real: Features,
    *,
    metrics: Sequence[str] | None = None,
    splits: int = 5,
    generator: torch.Generator | None = None,
) -> dict[str, ImageMetric]:
    """Metrics of features, each with its floor from a random split of the real data into two halves.

    Let ``n`` be the smaller of the number of samples and half the number of real data. Each split draws ``n`` samples,
    ``n`` real data as the target and ``n`` other real data for the floor. The bias of few samples is then the same in
    value and floor.

    Args:
        samples: Features of the images to evaluate.
        real: Features of real images that the model was not fitted to, from the same network; twice as many as samples.
        metrics: Some of `IMAGE_METRICS`, or one; ``None`` is all of them.
        splits: Number of random splits.
        generator: Source of the splits.

    Returns:
        For each name value and floor. Errors are the standard deviation over the splits, the error of one split. They
        do not fall with the number of splits, because splits share their data.

    Raises:
        ValueError: If a name is unknown, ``splits < 2``, or a metric raises it. Fréchet distances need more images than
            features in each half (``frechet_infinity`` in each quarter).
    """
    check_arguments(image_distances, locals())
    names = IMAGE_METRICS if metrics is None else (metrics,) if isinstance(metrics, str) else tuple(metrics)
    check_integer("splits", splits)
    if splits < 2 or not names or not set(names) <= set(IMAGE_METRICS):
        raise ValueError(
            f"metrics must be among {', '.join(IMAGE_METRICS)} and splits >= 2, got {', '.join(names)} and {splits}."
        )
    n = min(len(samples), len(real) // 2)
    pairs: list[tuple[dict[str, float], dict[str, float]]] = []
    for _ in range(splits):
        rows = torch.randperm(len(real), generator=generator)
        held_out, other = real.take(rows[:n]), real.take(rows[n : 2 * n])
        subset = samples.take(torch.randperm(len(samples), generator=generator)[:n])
        seed = int(torch.randint(2**62, (), generator=generator))
        pairs.append((_values(subset, held_out, names, seed), _values(other, held_out, names, seed)))
    return {name: ImageMetric(*(_over_splits([one[name] for one in side]) for side in zip(*pairs))) for name in names}


def _values(x: Features, y: Features, names: tuple[str, ...], seed: int) -> dict[str, float]:
    values: dict[str, float] = {}
    for group, metric in _METRICS.items():
        if set(group) & set(names):
            estimates = metric(x, y, torch.Generator().manual_seed(seed))
            values.update((name, estimate.value) for name, estimate in zip(group, estimates))
    return values


def _over_splits(values: Sequence[float]) -> Estimate:
    column = torch.tensor(values, dtype=torch.float64)
    return Estimate(column.mean().item(), column.std().item())


def _precision_recall(x: Features, y: Features, _: torch.Generator) -> tuple[Estimate, ...]:
    result = precision_recall(x.points, y.points)
    return result.precision, result.recall


def _density_coverage(x: Features, y: Features, _: torch.Generator) -> tuple[Estimate, ...]:
    result = density_coverage(x.points, y.points)
    return result.density, result.coverage


_METRICS: dict[tuple[str, ...], Callable[[Features, Features, torch.Generator], tuple[Estimate, ...]]] = {
    ("frechet",): lambda x, y, _: (frechet_distance(x.moments, y.moments),),
    ("frechet_infinity",): lambda x, y, generator: (frechet_infinity(x.moments, y.moments, generator=generator),),
    ("kernel",): lambda x, y, _: (kernel_distance(x.points, y.points),),
    ("precision", "recall"): _precision_recall,
    ("density", "coverage"): _density_coverage,
}

IMAGE_METRICS: tuple[str, ...] = tuple(name for group in _METRICS for name in group)
"""Names of the metrics of `image_distances`, in the order of its tables."""
