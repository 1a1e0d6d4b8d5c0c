"""Evaluation of a model on data: held-out likelihoods, variational bounds, sample distances and baselines."""

from __future__ import annotations

from scoresde.evaluation.baselines import baselines
from scoresde.evaluation.bounds import BoundSettings
from scoresde.evaluation.distances import METRICS, SampleDistances, comparable, gaussian_fit
from scoresde.evaluation.evaluate import Evaluation, canonical_weights, error_by_noise, evaluate
from scoresde.evaluation.likelihood import EventLikelihoods, LikelihoodSettings

__all__ = [
    "BoundSettings",
    "Evaluation",
    "EventLikelihoods",
    "LikelihoodSettings",
    "METRICS",
    "SampleDistances",
    "baselines",
    "canonical_weights",
    "comparable",
    "error_by_noise",
    "evaluate",
    "gaussian_fit",
]
