"""How far are images from real ones, and how far are real ones from one another? Each metric beside its floor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from scoresde.metrics.distances import kernel_distance
from scoresde.metrics.estimate import Estimate
from scoresde.metrics.features import Features
from scoresde.metrics.frechet import frechet_distance, frechet_infinity
from scoresde.metrics.neighbors import density_coverage, precision_recall

__all__ = ["IMAGE_METRICS", "ImageMetric", "image_distances"]


@dataclass(frozen=True)
class ImageMetric:
    """What a metric says of samples against real data, and of as many other real data against the same.

    Args:
        value: Of the samples: the mean over the splits, and as its error their standard deviation.
        floor: Of the other half of the real data, likewise.
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
    """Metrics of features, each beside its floor: real data are cut into halves; one is what both others are held to.

    With ``n`` the smaller of the samples and half the real data, each split draws ``n`` of the samples, ``n`` real data
    to measure them against and ``n`` other real data for the floor, so that what few samples do is done to both.

    Args:
        samples: Features of the images in question.
        real: Features of real images that the model was not fitted to, from the same network; twice as many as samples.
        metrics: Some of `IMAGE_METRICS`, or one; ``None`` is all of them.
        splits: How often to cut.
        generator: Source of the cuts.

    Returns:
        For each name value and floor. Errors are the standard deviation over the splits, the error of one; splits share
        their data, so that it does not fall with their number.

    Raises:
        ValueError: If a name is unknown, ``splits < 2``, or as the metric raises: Fréchet distances want each half (the
            one without bias each quarter) to have more images than features.
    """
    names = IMAGE_METRICS if metrics is None else (metrics,) if isinstance(metrics, str) else tuple(metrics)
    if splits < 2 or not names or not set(names) <= set(IMAGE_METRICS):
        raise ValueError(
            f"metrics must be among {', '.join(IMAGE_METRICS)} and splits >= 2, got {', '.join(names)} and {splits}."
        )
    n = min(len(samples), len(real) // 2)
    pairs: list[tuple[dict[str, float], dict[str, float]]] = []
    for _ in range(splits):
        rows = torch.randperm(len(real), generator=generator)
        held_out, other = real.take(rows[:n]), real.take(rows[n : 2 * n])
        ours = samples.take(torch.randperm(len(samples), generator=generator)[:n])
        seed = int(torch.randint(2**62, (), generator=generator))
        pairs.append((_measured(ours, held_out, names, seed), _measured(other, held_out, names, seed)))
    return {name: ImageMetric(*(_over_splits([one[name] for one in side]) for side in zip(*pairs))) for name in names}


def _measured(x: Features, y: Features, names: tuple[str, ...], seed: int) -> dict[str, float]:
    found: dict[str, float] = {}
    for group, measure in _MEASURES.items():
        if set(group) & set(names):
            estimates = measure(x, y, torch.Generator().manual_seed(seed))
            found.update((name, estimate.value) for name, estimate in zip(group, estimates))
    return found


def _over_splits(values: Sequence[float]) -> Estimate:
    column = torch.tensor(values, dtype=torch.float64)
    return Estimate(column.mean().item(), column.std().item())


def _near(x: Features, y: Features, _: torch.Generator) -> tuple[Estimate, ...]:
    found = precision_recall(x.points, y.points)
    return found.precision, found.recall


def _dense(x: Features, y: Features, _: torch.Generator) -> tuple[Estimate, ...]:
    found = density_coverage(x.points, y.points)
    return found.density, found.coverage


_MEASURES: dict[tuple[str, ...], Callable[[Features, Features, torch.Generator], tuple[Estimate, ...]]] = {
    ("frechet",): lambda x, y, _: (frechet_distance(x.moments, y.moments),),
    ("frechet_infinity",): lambda x, y, generator: (frechet_infinity(x.moments, y.moments, generator=generator),),
    ("kernel",): lambda x, y, _: (kernel_distance(x.points, y.points),),
    ("precision", "recall"): _near,
    ("density", "coverage"): _dense,
}

IMAGE_METRICS: tuple[str, ...] = tuple(name for group in _MEASURES for name in group)
"""What `image_distances` can measure, by name, in the order of its tables."""
