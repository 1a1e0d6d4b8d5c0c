r"""The replacement method: known entries of an event stay noised originals, $x_\tau = \alpha x_0 + \sigma\varepsilon$.

The model's data estimate of a known entry is its value. Every sampler then carries that entry along the reverse process
of a known value: from $\alpha x_0 + \sigma\varepsilon$ an ODE leads to $\alpha_s x_0 + \sigma_s\varepsilon$ with the
same ε, and DDPM with $\tilde\beta$ draws from $q(x_s \mid x_\tau, x_0)$. So does `Ancestral` of a known category, whose
probability is 1. The network reads the known entries at the noise level of all others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from scoresde._core.checks import check_finite, check_tensor, check_values
from scoresde._core.elementwise import Scalar
from scoresde.model import Model, check_model
from scoresde.process.codes import one_hot
from scoresde.process.discrete_prediction import DiscretePrediction
from scoresde.process.mixed import MixedPrediction
from scoresde.process.parameterization import X0
from scoresde.process.prediction import GaussianPrediction, Prediction

__all__ = ["Replacement"]


class Replacement(Model):
    """A wrapped model whose data estimate of known entries is their value; for one batch of events.

    It is the exact conditional model where known and unknown entries are independent, and an approximation elsewhere:
    the unknown entries see the known ones only as far as these show through the noise.

    Args:
        model: The wrapped model.
        x0: The events, model units, ``(B, *D)``. Unknown entries are not read and may be NaN.
        known: Which entries are known, bool, shape of ``x0``.

    Raises:
        TypeError: If ``model`` is not a `Model`, or ``known`` is not bool.
        ValueError: If the shapes differ or a known entry is not finite; when called, if a batch has another shape.

    Source: Song et al. 2021, appendix I.2; Meng et al. 2022 (SDEdit), algorithm 2.
    """

    x0: Tensor
    known: Tensor

    def __init__(self, model: Model, x0: Tensor, known: Tensor) -> None:
        check_model(model)
        check_tensor("x0", x0)
        check_values("x0", x0)
        check_tensor("known", known)
        super().__init__()
        if known.dtype is not torch.bool:
            raise TypeError(f"known must be a bool tensor, got {known.dtype}; write mask > 0.")
        if known.shape != x0.shape:
            raise ValueError(f"known must have the shape of x0, {tuple(x0.shape)}, got {tuple(known.shape)}.")
        self.model = model
        self.sde, self.event_shape, self.data = model.sde, model.event_shape, model.data
        x0 = x0.where(known, 0.0)
        check_finite(x0, "x0")
        self.register_buffer("x0", x0)
        self.register_buffer("known", known)

    def predict(self, x: Tensor, tau: Scalar, **cond: object) -> Prediction:
        if x.shape != self.x0.shape:
            raise ValueError(
                f"x must have the shape of the known events, {tuple(self.x0.shape)}, got {tuple(x.shape)}; make one "
                "Replacement per batch."
            )
        prediction = self.model.predict(x, tau, **cond)
        return _with_known(prediction, self.x0.to(x.dtype), self.known)


def _with_known(prediction: Prediction, values: Tensor, known: Tensor) -> Prediction:
    """The prediction whose known entries are certain: Gaussian, of categories, or of both."""
    if isinstance(prediction, DiscretePrediction):
        return _with_known_codes(prediction, values, known)
    if not isinstance(prediction, MixedPrediction):
        return _with_known_numbers(prediction, values, known)
    n = prediction.continuous.x.shape[-1]
    return MixedPrediction(
        prediction.x,
        prediction.tau,
        _with_known_numbers(prediction.continuous, values[..., :n], known[..., :n]),
        _with_known_codes(prediction.categorical, values[..., n:], known[..., n:]),
    )


def _with_known_numbers(prediction: Prediction, values: Tensor, known: Tensor) -> GaussianPrediction:
    x0 = torch.where(known, values, prediction.x0)
    return GaussianPrediction(prediction.x, prediction.tau, x0, X0(), prediction.mix)


def _with_known_codes(prediction: DiscretePrediction, values: Tensor, known: Tensor) -> DiscretePrediction:
    certain = one_hot(values, prediction.process.most_classes).log()
    evidence = torch.where(known.unsqueeze(-1), certain, prediction.evidence)
    return DiscretePrediction(prediction.x, prediction.tau, prediction.out, prediction.process, evidence)
