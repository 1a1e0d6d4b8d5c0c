r"""Affine combinations of predictions: of ε of numbers, of logits of categories, and of both in mixed events.

With weights $c_j$ of sum 1, $\sum_j c_j\log p_j(x_0 \mid x)$ is up to a constant the sum of the outputs of `Logits`,
with or without their residual. At each time the noised codes then follow $\prod_j p_j^{c_j}$ as far as one entry given
the others is concerned.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import combine
from scoresde.process.discrete_prediction import DiscretePrediction
from scoresde.process.mixed import MixedPrediction
from scoresde.process.parameterization import V
from scoresde.process.prediction import GaussianPrediction, Prediction

__all__ = ["combined_prediction", "outputs_in_one_target", "split_prediction"]

_IMPOSSIBLE = -1e4  # log-probability of a class that an exact model excludes: sums of -inf would be NaN


def combined_prediction(weights: Sequence[Scalar], predictions: Sequence[Prediction]) -> Prediction:
    """The affine combination of at least two predictions of one process at one state and time.

    Args:
        weights: Of each, floats or ``(B,)``; their sum is 1.
        predictions: All of one kind. A learned variance is that of the first.
    """
    first = predictions[0]
    if isinstance(first, MixedPrediction):
        mixed = [p for p in predictions if isinstance(p, MixedPrediction)]
        continuous = combined_prediction(weights, [p.continuous for p in mixed])
        categorical = combined_prediction(weights, [p.categorical for p in mixed])
        assert isinstance(continuous, GaussianPrediction)
        assert isinstance(categorical, DiscretePrediction)
        return MixedPrediction(first.x, first.tau, continuous, categorical)
    if isinstance(first, DiscretePrediction):
        logits = [p.evidence.clamp(min=_IMPOSSIBLE) for p in predictions if isinstance(p, DiscretePrediction)]
        total = _affine_sum(weights, logits)
        return DiscretePrediction(first.x, first.tau, total, first.process, total)
    outs, alike = outputs_in_one_target(predictions)
    parameterization = first.parameterization if alike else V()
    return GaussianPrediction(first.x, first.tau, _affine_sum(weights, outs), parameterization, first.mix)


def outputs_in_one_target(predictions: Sequence[Prediction]) -> tuple[list[Tensor], bool]:
    """The outputs of predictions of a Gaussian process in one target, and whether it is their own; else v."""
    alike = all(p.parameterization == predictions[0].parameterization for p in predictions)
    return [p.out if alike else p.v for p in predictions], alike


def split_prediction(prediction: Prediction, count: int, x: Tensor, tau: Scalar) -> list[Prediction]:
    """The predictions of equal parts of a batch at one state and time.

    Args:
        prediction: Of the batch ``(count * B, *D)``.
        count: Number of parts.
        x, tau: State, ``(B, *D)``, and time of each part.
    """

    def parts(tensor: Tensor) -> tuple[Tensor, ...]:
        return tensor.unflatten(0, (count, len(x))).unbind(0)

    if isinstance(prediction, MixedPrediction):
        n = prediction.continuous.x.shape[-1]
        pairs = zip(
            split_prediction(prediction.continuous, count, x[..., :n], tau),
            split_prediction(prediction.categorical, count, x[..., n:], tau),
            strict=True,
        )
        mixed: list[Prediction] = []
        for continuous, categorical in pairs:
            assert isinstance(continuous, GaussianPrediction)
            assert isinstance(categorical, DiscretePrediction)
            mixed.append(MixedPrediction(x, tau, continuous, categorical))
        return mixed
    if isinstance(prediction, DiscretePrediction):
        return [DiscretePrediction(x, tau, part, prediction.process, part) for part in parts(prediction.evidence)]
    mixes = [None] * count if prediction.mix is None else parts(prediction.mix)
    outs = zip(parts(prediction.out), mixes, strict=True)
    return [GaussianPrediction(x, tau, out, prediction.parameterization, mix) for out, mix in outs]


def _affine_sum(weights: Sequence[Scalar], tensors: Sequence[Tensor]) -> Tensor:
    total = combine(weights[0], tensors[0], weights[1], tensors[1])
    for weight, other in zip(weights[2:], tensors[2:], strict=True):
        total = combine(1.0, total, weight, other)
    return total
