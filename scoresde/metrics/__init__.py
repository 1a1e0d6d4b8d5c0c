r"""Metrics between two sets of samples: distances, two-sample tests, copies of training data, and floors.

Every metric takes ``x`` ``(n, *D)`` and ``y`` ``(m, *D)`` and returns a value with its standard error. It flattens the
events and computes in float64 on the CPU, in the units of its inputs. Values for different ``n`` are not comparable:
always compute the value between two sets of real data of the same ``n`` as well (``floor``).

For images, compute features with a network first: ``features_of(images, EfficientNetLite0())``, whose weights come
from the package index, or ``Inception`` (FID as printed in papers), or any function of images. ``image_distances``
then computes Fréchet and kernel distances, precision, recall, density and coverage, each with its floor.

For tables of numbers and categories there are ``column_distances``, ``association_matrix`` (pairwise dependence),
``classifier_auc`` and ``copied_rows``.
"""

from __future__ import annotations

from scoresde.metrics.associations import association_matrix
from scoresde.metrics.column_distances import column_distances
from scoresde.metrics.copied_rows import CopiedRows, copied_rows
from scoresde.metrics.distances import energy_distance, kernel_distance, mmd, sliced_wasserstein
from scoresde.metrics.efficientnet_lite0 import EfficientNetLite0
from scoresde.metrics.features import Features, Network, features_of
from scoresde.metrics.frechet import frechet_distance, frechet_infinity
from scoresde.metrics.image_metrics import IMAGE_METRICS, ImageMetric, image_distances
from scoresde.metrics.inception import Inception
from scoresde.metrics.metric_estimate import Estimate, floor
from scoresde.metrics.neighbors import DensityCoverage, PrecisionRecall, density_coverage, precision_recall
from scoresde.metrics.torch_archive import read_tensors
from scoresde.metrics.two_sample import Copies, classifier_auc, classifier_two_sample, copies, nearest_neighbors

__all__ = [
    "IMAGE_METRICS",
    "ImageMetric",
    "CopiedRows",
    "Copies",
    "DensityCoverage",
    "EfficientNetLite0",
    "Estimate",
    "Features",
    "Inception",
    "Network",
    "PrecisionRecall",
    "association_matrix",
    "classifier_auc",
    "classifier_two_sample",
    "column_distances",
    "copied_rows",
    "copies",
    "density_coverage",
    "energy_distance",
    "features_of",
    "floor",
    "frechet_distance",
    "frechet_infinity",
    "image_distances",
    "kernel_distance",
    "mmd",
    "nearest_neighbors",
    "precision_recall",
    "read_tensors",
    "sliced_wasserstein",
]
