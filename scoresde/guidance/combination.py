r"""Linear guidance: $\varepsilon = \sum_j c_j\varepsilon_j$ with $\sum_j c_j = 1$, the score of $\prod_j p_j^{c_j}$.

Each $\varepsilon_j$ is an estimate at the same state and time, of another condition or another model. The sum is taken
in the target of the network. That is the same, because every target is linear in ε and x_0. Logits of categories are
combined in the same way (`scoresde.guidance.predictions`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from scoresde._core.elementwise import Scalar
from scoresde._core.tensors import event_size
from scoresde.guidance._wrapper import Guide, Scales, between, check_scale_length, is_zero
from scoresde.guidance.predictions import combined_prediction, outputs_in_one_target, split_prediction
from scoresde.model import Model
from scoresde.process.prediction import GaussianPrediction, Prediction

__all__ = ["Combination", "Extrapolation", "predict_together"]


class Combination(Guide, ABC):
    """A guided model whose estimate is an affine combination of estimates. Subclasses define the terms and weights.

    A term whose weight is the number 0 is not evaluated; a single term with weight 1 is returned as it is.

    Attributes:
        rescale: φ in [0, 1], see `CFG`.
    """

    rescale: float = 0.0

    @property
    @abstractmethod
    def coefficients(self) -> list[Scalar]:
        """The weight of each term inside of the interval, floats or ``(B,)``; their sum is 1."""

    @property
    @abstractmethod
    def unguided(self) -> list[float]:
        """The weight of each term outside of the interval."""

    @property
    @abstractmethod
    def models(self) -> list[Model]:
        """The model that each term evaluates."""

    @abstractmethod
    def estimates(self, x: Tensor, tau: Scalar, cond: Mapping[str, object], terms: list[int]) -> list[Prediction]:
        """The estimates of some terms at ``(x, tau)``.

        Args:
            x: ``(B, *D)``.
            tau: OU time.
            cond: The conditions of the call.
            terms: Indices of the terms, increasing.
        """

    def weights(self, tau: Scalar) -> list[Scalar]:
        """The weight of each term at ``tau``."""
        inside = self.guides_at(tau)
        if inside is True:
            return self.coefficients
        return [between(inside, c, u) for c, u in zip(self.coefficients, self.unguided)]

    @property
    def cost(self) -> int:
        """Network evaluations per call: of all terms whose weight is not 0, in the interval or outside of it."""
        outside = 0 if self.interval is None else self._count(self.unguided, lambda model: model.cost)
        return vars(self).get("_cost") or max(self._count(self.coefficients, lambda model: model.cost), outside)

    @cost.setter
    def cost(self, value: int) -> None:
        Model.cost.__set__(self, value)

    def cost_at(self, tau: Scalar) -> int:
        if isinstance(tau, Tensor):
            return self.cost
        return vars(self).get("_cost") or self._count(self.weights(tau), lambda model: model.cost_at(tau))

    def _count(self, weights: Sequence[Scalar], cost: Callable[[Model], int]) -> int:
        return sum(cost(model) for model, weight in zip(self.models, weights) if not is_zero(weight))

    def why_guided(self) -> str | None:
        used = [self.coefficients, *([] if self.interval is None else [self.unguided])]
        if all(sorted(map(_as_number, weights)) == _one(len(weights)) and weights == used[0] for weights in used):
            return super().why_guided()
        return (
            f"{type(self).__name__} is guided: its field is at each time the score of a product of densities, "
            "and these products are not the marginals of one process"
        )

    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
        weights = self.weights(tau)
        terms = [j for j, weight in enumerate(weights) if not is_zero(weight)]
        for weight in weights:
            check_scale_length(weight, x)
        predictions = self.estimates(x, tau, cond, terms)
        if len(terms) == 1:
            return predictions[0]
        return self.combined([weights[j] for j in terms], predictions)

    def combined(self, weights: Sequence[Scalar], predictions: Sequence[Prediction]) -> Prediction:
        """The affine combination of at least two estimates at one state and time."""
        result = combined_prediction(weights, predictions)
        if not self.rescale:
            return result
        if not isinstance(result, GaussianPrediction):
            raise TypeError(
                f"rescale={self.rescale} matches the spread of a Gaussian process, got {type(result).__name__}; set it "
                "to 0."
            )
        reference = outputs_in_one_target(predictions)[0][0]
        factor = 1.0 - self.rescale + self.rescale * _spread_ratio(reference, result.out)
        return GaussianPrediction(result.x, result.tau, result.out * factor, result.parameterization, result.mix)


class Extrapolation(Combination):
    r"""Two terms, $\varepsilon_2 + w(\varepsilon_1 - \varepsilon_2)$; outside of the interval the first alone.

    Subclasses define the `models` and `estimates` of the two terms.

    Args:
        model: The model of the first term.
        interval: OU times between which the model is guided, or None.
        scale: w, a number, or a tensor with one entry per sample, ``(B,)``.
    """

    def __init__(self, model: Model, interval: tuple[float, float] | None, scale: float | Tensor) -> None:
        super().__init__(model, interval)
        self._scales = Scales(model, {"scale": scale})

    @property
    def scale(self) -> float | Tensor:
        """The scale w."""
        return self._scales["scale"]

    @property
    def coefficients(self) -> list[Scalar]:
        return [self.scale, 1.0 - self.scale]

    @property
    def unguided(self) -> list[float]:
        return [1.0, 0.0]


def _as_number(weight: Scalar) -> float:
    return weight if isinstance(weight, float) else float("nan")


def _one(count: int) -> list[float]:
    return [0.0] * (count - 1) + [1.0]


def _spread_ratio(reference: Tensor, out: Tensor) -> Tensor:
    """Standard deviation over the elements of each sample of ``reference`` over that of ``out``, ``(B, 1, …)``."""
    if event_size(out) < 2:
        raise ValueError(
            f"rescale needs events of several elements, whose spread it matches, got {tuple(out.shape[1:])}; set it "
            "to 0."
        )
    axes = tuple(range(1, out.ndim))
    wanted, spread = reference.std(axes, keepdim=True), out.std(axes, keepdim=True)
    return torch.where(spread > 0, wanted / torch.where(spread > 0, spread, 1.0), 1.0)


def predict_together(
    model: Model, x: Tensor, tau: Scalar, conditions: Sequence[Mapping[str, object]], batched: bool
) -> list[Prediction]:
    """The predictions of one model at one state under several sets of conditions of the same names.

    Args:
        model: The model.
        x: ``(B, *D)``.
        tau: OU time, a number, ``()`` or ``(B,)``.
        conditions: The sets of conditions.
        batched: One call for all sets, whose states and conditions are concatenated; otherwise one call for each.
    """
    count = len(conditions)
    if count == 1 or not batched:
        return [model.predict(x, tau, **cond) for cond in conditions]
    stacked = {name: _stack([cond[name] for cond in conditions], len(x)) for name in conditions[0]}
    times = torch.cat([tau] * count) if isinstance(tau, Tensor) and tau.ndim else tau
    prediction = model.predict(torch.cat([x] * count), times, **stacked)
    return split_prediction(prediction, count, x, tau)


def _stack(values: list[object], count: int) -> object:
    """Per-sample tensors concatenated; anything else is the same in all calls."""
    tensors = [value for value in values if isinstance(value, Tensor) and value.ndim and len(value) == count]
    return torch.cat(tensors) if len(tensors) == len(values) else values[0]
