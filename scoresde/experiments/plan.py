"""The plan of a comparison: weightings, samplers, seeds, and the number of samples and scored events."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from scoresde._core.annotations import CheckedArguments, check_arguments
from scoresde.evaluation import BoundSettings, LikelihoodSettings
from scoresde.model import Model
from scoresde.objective.weighting import ELBO, Simple, Weighting
from scoresde.process.base import Process
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.mixed import Mixed
from scoresde.sampling import (
    DDIM,
    DDPM,
    ODE,
    Adams,
    Ancestral,
    Calibration,
    EulerMaruyama,
    MixedSampler,
    Sampler,
    StepSampler,
    TauLeaping,
    TrapezoidalLeaping,
    calibrate,
)
from scoresde.sampling.base import check_deterministic
from scoresde.storage.setting_labels import short_text, slug
from scoresde.training.defaults import Recipe

__all__ = ["Calibrated", "Comparison", "check_samplers", "default_comparison", "quick_settings", "sampler_label"]


@dataclass(frozen=True)
class Calibrated(CheckedArguments):
    """A sampler that is fitted to each model before it is used; see `scoresde.sampling.calibrate`.

    Attributes:
        sampler: A deterministic step sampler.
        noises: Initial noises to fit to; as many more are held out. Fewer than 16 are too few to whiten.

    Raises:
        TypeError: If ``sampler`` is not a step sampler.
        ValueError: If it draws noise.
    """

    sampler: StepSampler
    noises: int = 75

    def __post_init__(self) -> None:
        check_deterministic(self.sampler, "Calibrated")

    def fit(self, model: Model, seed: int, progress: bool = False, **cond: Any) -> Calibration:
        """The sampler fitted to a model.

        Args:
            model: The model.
            seed: Random seed of the noises.
            progress: Shows a progress bar.
            **cond: Passed to the network, one entry for each of twice as many ``noises``.
        """
        device = next(model.parameters()).device
        generator = torch.Generator(device).manual_seed(seed)
        return calibrate(model, self.sampler, noises=self.noises, generator=generator, progress=progress, **cond)


@dataclass(frozen=True)
class Comparison(CheckedArguments):
    """What is compared.

    Attributes:
        weightings: One model is trained for each weighting and seed.
        samplers: Each sampler draws from every model.
        seeds: Random seeds of initial weights, data order, noise and sampling. Weightings share them; several seeds
            show whether a difference is more than chance.
        n: Number of samples per sampler, and of held-out events; None takes all held-out events, at most ``max_n``.
        scoring: Settings of the likelihoods of held-out data.
        shown: Number of samples stored for figures.
        max_n: Largest ``n`` that None stands for.

    Raises:
        ValueError: If there is no weighting, sampler or seed, one occurs twice, or two have the same file name.
    """

    weightings: tuple[Weighting, ...] = (ELBO(), Simple())
    samplers: tuple[Sampler | Calibrated, ...] = (
        DDPM(steps=1000),
        EulerMaruyama(steps=500),
        ODE(),
        DDIM(steps=50),
        Adams(steps=20),
        Calibrated(Adams(steps=20)),
    )
    seeds: tuple[int, ...] = (0,)
    n: int | None = None
    scoring: LikelihoodSettings = LikelihoodSettings(draws=2, bounds=BoundSettings())
    shown: int = 36
    max_n: int = 1000

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
                    f"{name} must differ in letters or digits, which make their file names, got {values}; compare "
                    "them in two folders."
                )

    def stored(self, n: int, dims: int) -> int:
        """How many of ``n`` samples with ``dims`` values are stored: all, unless they are large."""
        return min(n, max(self.shown, 4_000_000 // dims))


def default_comparison(process: Process) -> Comparison:
    """The plan for models of a process: its samplers at several numbers of steps.

    Args:
        process: Of categories, whose bound is the loss with λ = 1, so that one weighting is compared; of numbers and
            categories; or Gaussian, which gets `Comparison` as it is.
    """
    check_arguments(default_comparison, locals())
    if isinstance(process, Mixed):
        parts = DDPM(steps=250), DDPM(steps=50), DDIM(steps=50), Adams(steps=20)
        leaping = MixedSampler(DDPM(steps=50), TauLeaping())
        return Comparison(samplers=(*(MixedSampler(part) for part in parts), leaping))
    if isinstance(process, DiscreteProcess):
        chains = Ancestral(steps=250), Ancestral(steps=50), Ancestral(steps=20)
        return Comparison((Simple(),), (*chains, TauLeaping(steps=50), TrapezoidalLeaping(steps=25)))
    return Comparison()


def check_samplers(plan: Comparison, process: Process) -> None:
    """Refuses a plan whose samplers do not reverse the process of the models.

    Raises:
        TypeError: Names samplers that do.
    """
    for entry in plan.samplers:
        (entry.sampler if isinstance(entry, Calibrated) else entry).check_process(process)


def sampler_label(sampler: Sampler | Calibrated) -> str:
    """The name of a sampler in results and report, e.g. ``Adams(steps=20), calibrated``."""
    if isinstance(sampler, Calibrated):
        return f"{short_text(sampler.sampler)}, calibrated"
    text = short_text(sampler)
    return text.replace("(continuous=", "(") if isinstance(sampler, MixedSampler) else text


def quick_settings(recipe: Recipe, plan: Comparison) -> tuple[Recipe, Comparison]:
    """A short training and a small plan that take seconds: a test that everything runs, without meaningful numbers.

    Args:
        recipe: What would be trained.
        plan: What would be compared.
    """
    check_arguments(quick_settings, locals())
    samplers: tuple[Sampler, ...] = DDPM(steps=50), EulerMaruyama(steps=50), ODE(rtol=1e-2, atol=1e-2), DDIM(steps=10)
    if isinstance(recipe.sde, Mixed):
        samplers = MixedSampler(DDPM(steps=20)), MixedSampler(DDIM(steps=10))
    elif isinstance(recipe.sde, DiscreteProcess):
        samplers = Ancestral(steps=20), TauLeaping(steps=10)
    scoring = replace(plan.scoring, limit=24, tol=1.0, bounds=plan.scoring.bounds and BoundSettings(evaluations=8))
    plan = replace(plan, max_n=60, scoring=scoring, samplers=samplers)
    training = replace(recipe.training, steps=min(recipe.training.steps, 60), warmup=10)
    return replace(recipe, training=training), plan
