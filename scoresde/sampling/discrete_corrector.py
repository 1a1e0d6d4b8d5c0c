r"""Predictor–corrector steps of categories: the chain's step to s, then jumps at s that keep the distribution there.

Jumps with the rates of the process and of its reverse, added, have the distribution at s as their stationary one. In
units of log-SNR both are $\tfrac12(1 - \bar\alpha)$ times those per unit of $\tau$, and bounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from scoresde._core.checks import check_integer, check_positive
from scoresde.process import ou
from scoresde.process.discrete_prediction import DiscretePrediction
from scoresde.sampling.base import Predict
from scoresde.sampling.discrete import CodeNoise, DiscreteSampler, predicted
from scoresde.sampling.leaping import leap_probs

__all__ = ["DiscretePredictorCorrector"]

_LONGEST = 1.0  # length in log-SNR to which a correction is relative; a step from pure noise has no finite one


@dataclass(frozen=True)
class DiscretePredictorCorrector(DiscreteSampler):
    r"""`Ancestral`, with ``corrections`` corrector steps after each step to s > 0, each one network call.

    A corrector step is a leap with the sum of the forward and the reverse rates at s. Its length is ``size`` times that
    of the step before, in log-SNR, and at most ``size``. It removes a part of the error that the steps before it made,
    and adds one of second order in its length, because all entries of a leap jump independently.

    Args:
        steps: Number of steps.
        grid: Default `Chain`.
        corrections: Number of corrector steps after each predictor step, 0 or more.
        size: Length of a corrector step, relative to the predictor's; above 0.

    Raises:
        ValueError: If ``corrections`` is not an integer of at least 0, or ``size`` is not positive and finite.

    Source: Campbell et al. 2022, section 4.4.
    """

    corrections: int = 1
    size: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("corrections", self.corrections, least=0)
        check_positive(size=self.size)

    def step(self, predict: Predict, x: Tensor, tau: float, s: float, noise: CodeNoise) -> Tensor:
        x = noise.codes(predicted(predict, x, tau).step_weights(s)).to(x.dtype)
        if s > 0:
            length = self.size * min(ou.log_snr(s) - ou.log_snr(tau), _LONGEST)
            for _ in range(self.corrections):
                x = correct(predict, x, s, length, noise)
        return x


def correct(predict: Predict, x: Tensor, s: float, length: float, noise: CodeNoise) -> Tensor:
    """One corrector step at s: codes at s, ``(B, *D)``.

    Args:
        predict: ``predict(x, s)``, one network call.
        x: Codes at s, ``(B, *D)``.
        s: OU time above 0.
        length: Length of the leap in log-SNR.
        noise: Draws codes.
    """
    prediction = predicted(predict, x, s)
    if prediction.process.kernel == "absorbing":
        return noise.codes(_masking_probs(prediction, s, length)).to(x.dtype)
    rates = prediction.rates + prediction.process.forward_rates(x, prediction.hot)
    return noise.codes(leap_probs(prediction.hot, rates, -0.5 * math.expm1(-2.0 * s) * length)).to(x.dtype)


def _masking_probs(prediction: DiscretePrediction, s: float, length: float) -> Tensor:
    r"""A leap of the absorbing kernel: rates add up to $\bar\alpha$ at a masked entry, else to $1 - \bar\alpha$."""
    keep, hot = ou.alpha_bar(s), prediction.hot
    unmask, mask = -math.expm1(-keep * length), -math.expm1(-(1.0 - keep) * length)
    masked = F.pad(prediction.unknown_probs * unmask, (0, 1), value=1.0 - unmask)
    unmasked = F.pad(hot[..., :-1] * (1.0 - mask), (0, 1), value=mask)
    return torch.where(hot[..., -1:] > 0, masked, unmasked)
