"""Evaluation of a model on data: held-out likelihoods, bounds, sample distances, baselines; `verify` checks a model."""

from __future__ import annotations

from scoresde.evaluation.baselines import baselines
from scoresde.evaluation.evaluate import Evaluation, canonical_weights, error_by_noise, evaluate
from scoresde.evaluation.likelihood_labels import Quantity, quantity_of
from scoresde.evaluation.ode_likelihood import EventLikelihoods, LikelihoodSettings
from scoresde.evaluation.sample_distances import METRICS, SampleDistances, comparable, gaussian_fit
from scoresde.evaluation.table_scores import TableScores, table_kinds
from scoresde.evaluation.verify import Check, Verification, verify
from scoresde.evaluation.vlb import BoundSettings, BoundSummary

__all__ = [
    "BoundSettings",
    "BoundSummary",
    "Check",
    "Evaluation",
    "EventLikelihoods",
    "LikelihoodSettings",
    "METRICS",
    "Quantity",
    "SampleDistances",
    "TableScores",
    "Verification",
    "baselines",
    "canonical_weights",
    "comparable",
    "error_by_noise",
    "evaluate",
    "gaussian_fit",
    "quantity_of",
    "table_kinds",
    "verify",
]
