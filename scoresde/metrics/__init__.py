r"""How far two sets of samples are from one another: distances, a classifier's verdict, copies, and the floor beneath.

Every metric takes ``x`` ``(n, *D)`` and ``y`` ``(m, *D)``, flattens the events, computes in float64 on the CPU in the
units it is given, and answers with a value and its standard error. None is comparable between different ``n``: put the
value of real against real at the same ``n`` (``floor``) beside it.

Images are first seen by a network: ``features_of(images, EfficientNetLite0())``, whose weights come from the package
index, or ``Inception`` (FID as papers print it), or any function of images; ``image_distances`` then puts Fréchet and
kernel distances, precision, recall, density and coverage beside their floors.
"""

from __future__ import annotations

from scoresde.metrics.distances import energy_distance, kernel_distance, mmd, sliced_wasserstein
from scoresde.metrics.efficientnet_lite0 import EfficientNetLite0
from scoresde.metrics.estimate import Estimate, floor
from scoresde.metrics.features import Features, Network, features_of
from scoresde.metrics.frechet import frechet_distance, frechet_infinity
from scoresde.metrics.image_metrics import IMAGE_METRICS, ImageMetric, image_distances
from scoresde.metrics.inception import Inception
from scoresde.metrics.neighbors import DensityCoverage, PrecisionRecall, density_coverage, precision_recall
from scoresde.metrics.torch_archive import read_tensors
from scoresde.metrics.two_sample import Copies, classifier_two_sample, copies, nearest_neighbors

__all__ = [
    "IMAGE_METRICS",
    "ImageMetric",
    "Copies",
    "DensityCoverage",
    "EfficientNetLite0",
    "Estimate",
    "Features",
    "Inception",
    "Network",
    "PrecisionRecall",
    "classifier_two_sample",
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
