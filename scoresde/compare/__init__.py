"""How do weightings and samplers compare on one data set? `compare` finds out and writes it down.

`recipe` says what is trained and how, `plan` what is compared; `run` does it, `pool` for several models side by side,
and `examine` looks at one; `score` puts bounds (`bounds`) beside likelihoods (`likelihood`), `measure` holds distances,
`references` what models without a network reach, `pictures` the arrays that are drawn later; `record` keeps results on
disk. Nothing is drawn here: `scoresde.report` draws what is on disk.
"""

from __future__ import annotations

from scoresde.compare.bounds import Bounds
from scoresde.compare.likelihood import Scoring
from scoresde.compare.measure import Yardstick
from scoresde.compare.plan import Comparison, shorter
from scoresde.compare.recipe import Recipe, recipe_for
from scoresde.compare.record import Results, brief, read
from scoresde.compare.run import compare, forget

__all__ = [
    "Bounds",
    "Comparison",
    "Recipe",
    "Results",
    "Scoring",
    "Yardstick",
    "brief",
    "compare",
    "forget",
    "read",
    "recipe_for",
    "shorter",
]
