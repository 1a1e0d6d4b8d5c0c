"""How do weightings and samplers compare on one data set? `compare` finds out and writes it down.

`recipe` says what is trained and how, `plan` what is compared; `run` does it, `pool` for several models side by side,
and `examine` looks at one; `score` puts bounds (`bounds`) beside likelihoods (`likelihood`), `measure` holds distances,
`references` what models without a network reach, `pictures` the arrays that are drawn later; `record` keeps results on
disk. Nothing is drawn here: `scoresde.experiments.report` draws what is on disk.
"""

from __future__ import annotations

from scoresde.evaluation.bounds import BoundSettings
from scoresde.evaluation.distances import SampleDistances
from scoresde.evaluation.likelihood import LikelihoodSettings
from scoresde.experiments.compare import compare, remove_results
from scoresde.experiments.plan import Comparison, quick_settings
from scoresde.experiments.results import Results, read
from scoresde.training.defaults import Recipe, default_recipe

__all__ = [
    "BoundSettings",
    "Comparison",
    "Recipe",
    "Results",
    "LikelihoodSettings",
    "SampleDistances",
    "compare",
    "remove_results",
    "read",
    "default_recipe",
    "quick_settings",
]
