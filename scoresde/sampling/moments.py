"""What are the mean and the covariance of data? As few samples, or as a model's own field, have them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from scoresde._core.checks import check_finite
from scoresde._core.tensors import combine
from scoresde.process import ou
from scoresde.sampling.base import Predict

__all__ = ["Moments"]


class Moments:
    """Mean and covariance of data in model units, the covariance by its axes.

    Args:
        mean: ``(*D)``.
        axes: Orthonormal columns, ``(d, r)`` with d the event's size and r up to d.
        variances: Along the axes, ``(r,)``, not negative.
        rest: Variance along any direction across the axes; where r = d there is none.

    Raises:
        ValueError: If the shapes do not fit, a number is not finite, or a variance is negative.
    """

    def __init__(self, mean: Tensor, axes: Tensor, variances: Tensor, rest: float = 0.0) -> None:
        size, rank = mean.numel(), len(variances)
        if axes.shape != (size, rank) or variances.shape != (rank,):
            raise ValueError(
                f"axes must have shape ({size}, r) and variances (r,), got {tuple(axes.shape)} and "
                f"{tuple(variances.shape)}; put the axes into columns."
            )
        for name, value in {"mean": mean, "axes": axes, "variances": variances}.items():
            check_finite(value, name)
        if bool((variances < 0).any()) or not 0 <= rest < math.inf:
            raise ValueError(f"variances must not be negative, got {variances.tolist()[:8]} and {rest!r}.")
        self.mean, self.axes, self.variances, self.rest = mean, axes, variances, rest

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Moments):
            return NotImplemented
        pairs = ((self.mean, other.mean), (self.axes, other.axes), (self.variances, other.variances))
        return self.rest == other.rest and all(torch.equal(a, b) for a, b in pairs)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"Moments({len(self.variances)} of {self.mean.numel()} axes)"

    @classmethod
    def of(cls, x0: Tensor) -> Moments:
        """Of data, the covariance drawn to a sphere by as much as the data are few.

        Args:
            x0: Data in model units, ``(n, *D)``, two or more.

        Raises:
            ValueError: If there are fewer than two.

        Source: Ledoit & Wolf 2004.
        """
        from sklearn.covariance import ledoit_wolf_shrinkage

        if len(x0) < 2:
            raise ValueError(f"a covariance needs two events or more, got {len(x0)}.")
        flat = x0.detach().flatten(1).cpu().double() if x0.ndim > 1 else x0.detach()[:, None].cpu().double()
        mean = flat.mean(0)
        centered = flat - mean
        _, sizes, axes = torch.linalg.svd(centered, full_matrices=False)
        share = float(ledoit_wolf_shrinkage(centered.numpy(), assume_centered=True)) if flat.shape[1] > 1 else 0.0
        sphere = share * float(centered.square().mean())
        variances = (1.0 - share) * sizes.square() / len(flat) + sphere
        return cls(mean.reshape(x0.shape[1:]), axes.mT.contiguous(), variances, sphere)

    def sharpened(self, predict: Predict, x0: Tensor, noise: Callable[[Tensor], Tensor]) -> Moments:
        r"""Those that a model's own field has where data begin to show in the noise.

        There the data estimate is the Wiener filter $\alpha C S^{-2}$ of x but for terms of second order, so least
        squares find C to many more digits than the sample does; it is trusted within three standard errors of the
        sample's variances, so that a network that is wrong there does no harm.

        Args:
            predict: The network call.
            x0: Data, or what the model makes of noise, ``(n, *D)``, n at least two; noise is added to copies of
                it, 64 states for each of the d + 1 unknowns of an element.
            noise: Draws unit normal noise like what it is given.

        Returns:
            All d axes.
        """
        tau, size = self._first_sight(), self.mean.numel()
        alpha, sigma = ou.alpha(tau), ou.sigma(tau)
        parts = []
        for _ in range(-(-64 * (size + 1) // len(x0))):
            x = combine(alpha, x0, sigma, noise(x0))
            parts.append([each.reshape(len(x), -1).cpu().double() for each in (x, predict(x, tau).x0)])
        x, seen = (torch.cat(side) for side in zip(*parts))
        solved = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x[:, :1])], 1), seen).solution
        filtered, axes = torch.linalg.eigh(0.5 * (solved[:-1] + solved[:-1].mT))
        found = sigma * sigma / alpha * filtered / (1.0 - alpha * filtered)
        mean = axes @ ((axes.mT @ solved[-1]) / (1.0 - alpha * filtered))
        flat = x0.reshape(len(x0), -1).cpu().double()
        sample, slack = (flat @ axes).var(0), 1.0 + 3.0 * (2.0 / len(x0)) ** 0.5
        return Moments(mean.reshape(self.mean.shape), axes, found.clamp(sample / slack, sample * slack))

    def _first_sight(self) -> float:
        """OU time at which a hundredth of the data's variance can be told from x."""
        total = float(self.variances.sum()) + self.rest * (self.mean.numel() - len(self.variances))
        low, high = 1e-6, 20.0
        while high - low > 1e-6:
            tau = 0.5 * (low + high)
            power = ou.alpha_bar(tau)
            seen = (power * self.variances.square() / (power * self.variances + 1.0 - power)).sum()
            low, high = (tau, high) if float(seen) > 0.01 * total else (low, tau)
        return high
