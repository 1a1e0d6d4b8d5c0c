r"""How far two sets of samples are from one another: distances, a classifier's verdict, copies, and the floor beneath.

Every metric takes ``x`` ``(n, *D)`` and ``y`` ``(m, *D)``, flattens the events, computes in float64 on the CPU in the
units it is given, and answers with a value and its standard error. None is comparable between different ``n``: put the
value of real against real at the same ``n`` (``floor``) beside it.
"""

from __future__ import annotations

from .distances import energy_distance, kernel_distance, mmd, sliced_wasserstein
from .estimate import Estimate, floor
from .frechet import frechet_distance, frechet_infinity
from .neighbours import DensityCoverage, PrecisionRecall, density_coverage, precision_recall
from .verdicts import Copies, classifier_two_sample, copies, nearest_neighbours

__all__ = [
    "Copies",
    "DensityCoverage",
    "Estimate",
    "PrecisionRecall",
    "classifier_two_sample",
    "copies",
    "density_coverage",
    "energy_distance",
    "floor",
    "frechet_distance",
    "frechet_infinity",
    "kernel_distance",
    "mmd",
    "nearest_neighbours",
    "precision_recall",
    "sliced_wasserstein",
]
