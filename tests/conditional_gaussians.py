"""A network that is exact for Gaussian data with named conditions, and counts the rows that it evaluates."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from scoresde.model import ScoreModel
from scoresde.process.parameterization import Eps
from scoresde.process.sde import VPSDE

__all__ = ["NULL", "ConditionalGaussians", "conditional_model"]

NULL = 3  # the null of both conditions
MEANS = [[0.8, -0.3], [-0.5, 1.1], [0.2, 0.4], [0.0, 0.0]]
VARIANCES = [0.3, 0.5, 0.8, 1.0]


class ConditionalGaussians(nn.Module):
    """The noise estimate of N(mean[label] + mean[style], variance[label] variance[style] I)."""

    means: Tensor
    variances: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("means", torch.tensor(MEANS, dtype=torch.float64))
        self.register_buffer("variances", torch.tensor(VARIANCES, dtype=torch.float64))
        self.rows: list[int] = []
        self.labels: list[list[int]] = []

    def forward(self, x: Tensor, log_snr: Tensor, label: Tensor, style: Tensor | None = None) -> Tensor:
        self.rows.append(len(x))
        self.labels.append(label.tolist())
        alpha2 = torch.sigmoid(log_snr.double())[:, None]
        mean, variance = self.means[label], self.variances[label][:, None]
        if style is not None:
            mean, variance = mean + self.means[style], variance * self.variances[style][:, None]
        residual = x - alpha2.sqrt() * mean
        return (1 - alpha2).sqrt() * residual / (alpha2 * variance + 1 - alpha2)


def conditional_model() -> ScoreModel:
    """A model of two coordinates, float64, whose null is not known to it."""
    return ScoreModel(ConditionalGaussians(), VPSDE(), Eps(), (2,))
