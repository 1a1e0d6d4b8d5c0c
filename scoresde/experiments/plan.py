"""What is compared? Weightings, samplers and seeds, and how much of everything; the defaults are the demo's."""

from __future__ import annotations

from dataclasses import dataclass, replace

from scoresde.evaluation.bounds import BoundSettings
from scoresde.evaluation.likelihood import LikelihoodSettings
from scoresde.objective.weighting import ELBO, Simple, Weighting
from scoresde.sampling import DDIM, DDPM, ODE, EulerMaruyama, Sampler
from scoresde.storage.labels import slug
from scoresde.training.defaults import Recipe

__all__ = ["Comparison", "quick_settings"]


@dataclass(frozen=True)
class Comparison:
    """What is compared.

    Attributes:
        weightings: One model is trained for each of them and each seed.
        samplers: Each draws from every model.
        seeds: Of initial weights, data order, noise and sampling. Weightings share them; several tell whether a
            difference is more than chance.
        n: Samples per sampler and held-out events; None is all held-out events, at most ``most`` of them.
        scoring: How held-out data are scored.
        shown: Samples kept for the pictures.
        most: Largest ``n`` that None stands for.

    Raises:
        ValueError: If there is no weighting, sampler or seed, one is there twice, or two would have one name.
    """

    weightings: tuple[Weighting, ...] = (ELBO(), Simple())
    samplers: tuple[Sampler, ...] = (DDPM(steps=1000), EulerMaruyama(steps=500), ODE(), DDIM(steps=50))
    seeds: tuple[int, ...] = (0,)
    n: int | None = None
    scoring: LikelihoodSettings = LikelihoodSettings(draws=2, bounds=BoundSettings())
    shown: int = 36
    most: int = 1000

    def __post_init__(self) -> None:
        for name in ("weightings", "samplers", "seeds"):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            if not values or len({repr(value) for value in values}) < len(values):
                raise ValueError(f"{name} must be one or more, each given once, got {values}.")
        for name in ("weightings", "samplers"):
            values = getattr(self, name)
            if len({slug(value) for value in values}) < len(values):
                raise ValueError(
                    f"{name} must differ in letters or digits, which name their files, got {values}; compare them in "
                    "two folders."
                )

    def kept(self, n: int, dims: int) -> int:
        """How many of ``n`` samples of ``dims`` values are stored: all, unless they are large."""
        return min(n, max(self.shown, 4_000_000 // dims))


def quick_settings(recipe: Recipe, plan: Comparison) -> tuple[Recipe, Comparison]:
    """Everything so short that it takes seconds, to see that it runs; its numbers mean little.

    Args:
        recipe: What would be trained.
        plan: What would be compared.
    """
    short = (DDPM(steps=50), EulerMaruyama(steps=50), ODE(rtol=1e-2, atol=1e-2), DDIM(steps=10))
    scoring = replace(plan.scoring, limit=24, tol=1.0, bounds=plan.scoring.bounds and BoundSettings(evaluations=8))
    plan = replace(plan, most=60, scoring=scoring, samplers=short)
    settings = replace(recipe.training, steps=min(recipe.training.steps, 60), warmup=10)
    return replace(recipe, training=settings), plan
