r"""A surrogate of the network near its reference solutions: $v(x) = v_{ref} + G\,(x - x_{ref})$, without network calls.

$x_{ref}(\tau)$ and $v_{ref}(\tau)$ are interpolated along the recorded solution that starts from the same noise. G is
the derivative of the velocity for normal data of covariance C, $\alpha\sigma(I - C)(\alpha^2 C + \sigma^2 I)^{-1}$. In
whitened coordinates the surrogate's velocity does not depend on the state, and a rollout is a quadrature. So the first
order of an error along the solution is right, and its propagation is that of normal data.

Rollouts of the surrogate compare methods and grids, and give the derivatives of their errors in the times.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from scoresde.process import ou
from scoresde.process.parameterization import V
from scoresde.process.prediction import GaussianPrediction, Prediction
from scoresde.sampling.base import Predict, StepSampler
from scoresde.sampling.calibration.reference import ReferenceSolutions
from scoresde.sampling.calibration.robust_loss import RobustLoss
from scoresde.sampling.calibration.rollouts import Rollouts
from scoresde.sampling.calibration.rows import FittedRollouts
from scoresde.sampling.moments import Moments

__all__ = ["Sketch", "Surrogate"]

_RELATIVE_STEP = 1e-4  # of finite differences; large enough for values that are interpolated


@dataclass(frozen=True, eq=False)
class Sketch:
    """Linear coordinates of recorded elements in which the data's covariance is diagonal.

    Attributes:
        basis: Orthonormal columns, ``(d, k)``; None for the elements themselves.
        mean, variances: Of the data along the coordinates, ``(k,)`` float64.
        scale: Factor of each coordinate, ``(k,)``, by which the mean square over coordinates estimates that over
            elements.
    """

    basis: Tensor | None
    mean: Tensor
    variances: Tensor
    scale: Tensor

    @staticmethod
    def of_axes(moments: Moments, complement: int) -> Sketch:
        """The principal axes, and random directions orthogonal to them that stand for all others.

        Args:
            moments: Moments of the data.
            complement: Number of random directions, at most.
        """
        size, rank = moments.axes.shape
        count = min(complement, size - rank)
        draw = torch.randn(size, count, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        axes = moments.axes.double().cpu()
        draw -= axes @ (axes.mT @ draw)
        basis = torch.cat([axes, torch.linalg.qr(draw)[0]], 1)
        variances = torch.cat([moments.variances.double().cpu(), torch.full((count,), moments.rest).double()])
        share = torch.ones(rank + count, dtype=torch.float64)
        share[rank:] = (size - rank) / max(count, 1)
        mean = moments.mean.reshape(-1).double().cpu() @ basis
        return Sketch(basis, mean, variances, (share * (rank + count) / size).sqrt())

    @staticmethod
    def of_elements(values: Tensor) -> Sketch:
        """The elements themselves, each with its own mean and variance.

        Args:
            values: Data, ``(B, d)``.
        """
        values = values.double().cpu()
        variances = values.var(0, correction=0) if len(values) > 1 else torch.ones_like(values[0])
        return Sketch(None, values.mean(0), variances, torch.ones_like(variances))

    def project(self, values: Tensor) -> Tensor:
        """Coordinates ``(…, k)``, float64 on the CPU, of elements ``(…, d)``."""
        values = values.double().cpu()
        return values if self.basis is None else values @ self.basis


class Surrogate:
    """The surrogate of one set of trajectories.

    Args:
        trajectories: Reference solutions with their velocities.
        sketch: Coordinates in which it is evaluated.
        elements: The recorded elements; None for all.
    """

    def __init__(self, trajectories: ReferenceSolutions, sketch: Sketch, elements: Tensor | None = None) -> None:
        flat = trajectories.ends.reshape(len(trajectories.ends), -1)
        self._trajectories, self.sketch = trajectories, sketch
        self._x, self._v = sketch.project(trajectories.x), sketch.project(trajectories.v)
        self._targets = sketch.project(flat if elements is None else flat[:, elements])
        self._whitened: Tensor | None = None

    def rollouts(self, method: StepSampler, ends: tuple[float, float], weights: Tensor, *, whiten: bool) -> Rollouts:
        """Rollouts of the surrogate.

        Args:
            method: The sampler; its own grid is not used.
            ends: Times of the noises and of the targets.
            weights: Weights of the rollouts.
            whiten: In whitened coordinates, where no call is made at the start; else in x.
        """
        (first, last), scale, targets = ends, self.sketch.scale, self._targets * self.sketch.scale
        predict, x = self._coordinates(first, whiten)
        mean = ou.alpha(last) * self.sketch.mean

        def to_x(y: Tensor) -> Tensor:
            return (y * self._deviation(last) + mean) * scale if whiten else y * scale

        return Rollouts(predict, method, x, targets, to_x, _RELATIVE_STEP, weights.double().cpu())

    def fitted(self, ends: tuple[float, float], weights: Tensor, feedback: float, *, whiten: bool) -> FittedRollouts:
        """Rollouts of the surrogate with fitted weights; for the arguments see `rollouts` and `FittedRollouts`."""
        (first, last), scale, targets = ends, self.sketch.scale, self._targets
        predict, x = self._coordinates(first, whiten)

        def linear(y: Tensor, tau: float) -> Tensor:
            return y * (self._deviation(tau) * scale) if whiten else y * scale

        def reference(tau: float) -> Tensor:
            x_ref = targets if tau == last else self._trajectories.interpolated(self._x, tau)
            return (x_ref - ou.alpha(tau) * self.sketch.mean if whiten else x_ref) * scale

        robust = RobustLoss.of(targets * scale, weights.double().cpu())
        return FittedRollouts(predict, x, linear, reference, robust, feedback, 0)

    def _coordinates(self, first: float, whiten: bool) -> tuple[Predict, Tensor]:
        """The network call and the first states."""
        x = self._trajectories.interpolated(self._x, first)
        if not whiten:
            return self._predict, x

        def predict(y: Tensor, tau: float) -> Prediction:
            if tau >= first * (1 - 1e-6):
                return GaussianPrediction(y, tau, torch.zeros_like(y), V())
            return GaussianPrediction(y, tau, self._trajectories.interpolated(self._whitened_velocity(), tau), V())

        return predict, (x - ou.alpha(first) * self.sketch.mean) / self._deviation(first)

    def _predict(self, x: Tensor, tau: float) -> Prediction:
        x_ref, v_ref = self._trajectories.interpolated(self._x, tau), self._trajectories.interpolated(self._v, tau)
        return GaussianPrediction(x, tau, v_ref + self._gains(tau) * (x - x_ref), V())

    def _whitened_velocity(self) -> Tensor:
        """$S^{-1}(v - v_G)$ at the recorded times, ``(K, B, k)``."""
        if self._whitened is None:
            mean, rows = self.sketch.mean, []
            for tau, x, v in zip(self._trajectories.taus, self._x, self._v):
                normal = self._gains(tau) * (x - ou.alpha(tau) * mean) - ou.sigma(tau) * mean
                rows.append((v - normal) / self._deviation(tau))
            self._whitened = torch.stack(rows)
        return self._whitened

    def _gains(self, tau: float) -> Tensor:
        """The eigenvalues of G."""
        return ou.alpha(tau) * ou.sigma(tau) * (1.0 - self.sketch.variances) / self._deviation(tau).square()

    def _deviation(self, tau: float) -> Tensor:
        """Standard deviations of x along the coordinates."""
        return (ou.alpha_bar(tau) * self.sketch.variances + ou.sigma(tau) ** 2).sqrt()
