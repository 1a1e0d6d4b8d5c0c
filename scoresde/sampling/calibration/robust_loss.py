r"""The robust loss of a calibration, in which outlying trajectories have little weight.

It is the mean of $w\,s^2\log(1 + e^2/s^2)/c^2$, where e is the root mean square error of a rollout, w its weight and
c the spread of the targets. A rollout that ends at another mode than its reference has an error as large as the
distance between the modes, and a small change of a time or a weight does not correct it. So its influence is limited
by $s$, which is c or, if that is larger, the distance of its target from the mean of the targets. Up to the factor c²
the loss is the mean square error where errors are small against s, also of trajectories that end far from all others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["RobustLoss"]


@dataclass(frozen=True, eq=False)
class RobustLoss:
    """The loss of a batch of rollouts with given weights and targets.

    Attributes:
        weights: w, ``(B,)``, 1 on average.
        scales: s², ``(B,)``.
        variance: c².
    """

    weights: Tensor
    scales: Tensor
    variance: float

    @staticmethod
    def of(targets: Tensor, weights: Tensor) -> RobustLoss:
        """The loss for targets ``(B, …)``; c is 1 where all are the same point."""
        flat, weights = targets.reshape(len(targets), -1), weights.to(targets)
        mean = (weights / weights.sum()) @ flat
        squares = (flat - mean).square().mean(1)
        variance = float((squares * weights).mean() / weights.mean()) or 1.0
        return RobustLoss(weights, squares.clamp(min=variance), variance)

    def value(self, squares: Tensor) -> float:
        """The loss of rollouts with mean square errors ``(B,)``; infinite if one of them is not finite."""
        value = float(((squares / self.scales).log1p() * self.scales * self.weights).mean()) / self.variance
        return value if math.isfinite(value) else math.inf

    def influence(self, squares: Tensor) -> Tensor:
        """Factors by which the loss weights the squared errors, ``(B,)``."""
        return self.weights / (1.0 + squares / self.scales)

    def root_mean_square(self, squares: Tensor) -> float:
        """Weighted root mean square error; infinite if one of them is not finite."""
        value = math.sqrt(torch.nan_to_num((squares * self.weights).mean(), nan=math.inf))
        return value if math.isfinite(value) else math.inf
