"""Comparison of weightings and samplers on one data set, and its report.

`plan` states what is compared; `compare` runs it, in parallel with `worker_pool`; `examine` trains and evaluates one
model; `report_arrays` computes what figures show; `results` stores numbers and arrays. Nothing is drawn here:
`scoresde.experiments.report` draws from the stored results.
"""

from __future__ import annotations

from scoresde.evaluation import BoundSettings, LikelihoodSettings, SampleDistances
from scoresde.experiments.compare import compare, remove_models
from scoresde.experiments.plan import Calibrated, Comparison, quick_settings
from scoresde.experiments.results import Results, read_results
from scoresde.training.defaults import Recipe, default_recipe

__all__ = [
    "BoundSettings",
    "Calibrated",
    "Comparison",
    "Recipe",
    "Results",
    "LikelihoodSettings",
    "SampleDistances",
    "compare",
    "remove_models",
    "read_results",
    "default_recipe",
    "quick_settings",
]
