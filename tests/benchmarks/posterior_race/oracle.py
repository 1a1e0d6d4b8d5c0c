r"""An exact mixture evaluated by matrix products: $\sum_d (x_d - \alpha m_{kd})^2 p_{kd} = x^2 \cdot p_k - 2\alpha x
\cdot (p m)_k + \alpha^2 m_k^2 \cdot p_k$ with $p = 1/(\alpha^2 C + \sigma^2)$.

The package's own exact models subtract first, which keeps all digits and takes up to 20 times as long.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from scoresde import Gaussian, GaussianMixture, KernelDensity
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.parameterization import V
from scoresde.process.prediction import GaussianPrediction, Prediction

__all__ = ["Oracle"]


class Oracle(Model):
    """A mixture with components along the coordinate axes; others are evaluated as they are.

    Args:
        exact: The mixture, float64.
    """

    def __init__(self, exact: Gaussian | GaussianMixture | KernelDensity) -> None:
        super().__init__()
        self.exact, self.sde, self.event_shape = exact, exact.sde, exact.event_shape

    def predict(self, x: Tensor, tau: Any, **cond: object) -> Prediction:
        exact = self.exact
        if exact.axes is not None or (isinstance(tau, Tensor) and tau.ndim):
            return exact.predict(x, tau, **cond)
        alpha, sigma, m = ou.alpha(tau), ou.sigma(tau), exact.means
        variances = exact.variances.expand_as(m)
        p, flat = 1.0 / (alpha * alpha * variances + sigma * sigma), x.flatten(1)
        constant = (alpha * alpha * m * m * p - p.log()).sum(1)
        square = flat.square() @ p.mT - 2.0 * alpha * (flat @ (p * m).mT) + constant
        share = torch.softmax(exact.log_weights - 0.5 * square, 1)
        slope = alpha * (1.0 - variances) * p
        v = flat * (share @ slope) - share @ (alpha * slope * m + m)
        return GaussianPrediction(x, tau, sigma * v.reshape(x.shape), V())
