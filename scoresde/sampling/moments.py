r"""Mean m and covariance $C = U\,\mathrm{diag}(variances)\,U^T + rest\,(I - UU^T)$, from samples or from a model."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from scoresde._core.annotations import CheckedArguments
from scoresde._core.arrays import as_tensor
from scoresde._core.checks import check_event_shape, check_finite
from scoresde._core.tensors import combine
from scoresde.process import ou
from scoresde.sampling.base import Predict

__all__ = ["Moments"]


class Moments(CheckedArguments):
    """Mean and covariance of data in model units, the covariance by its principal axes.

    Args:
        mean: Mean, ``(*D)``.
        axes: Orthonormal columns, ``(d, r)``, where d is the number of elements of one event and r <= d.
        variances: Variances along the axes, ``(r,)``, not negative.
        rest: Variance along every direction orthogonal to the axes; without effect where r = d.

    Raises:
        ValueError: If the shapes do not fit each other, a number is not finite, or a variance is negative.
    """

    def __init__(self, mean: Tensor, axes: Tensor, variances: Tensor, rest: float = 0.0) -> None:
        check_event_shape(variances, (), "variances")
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
        # as files hold them: products with other strides round differently
        self.mean, self.axes, self.variances, self.rest = mean, axes.contiguous(), variances, rest

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
        """Sample mean and covariance of data, shrunk toward a multiple of the identity as Ledoit & Wolf do.

        Args:
            x0: Data in model units, ``(n, *D)`` with n >= 2.

        Raises:
            ValueError: If there are fewer than two events, or a value is not finite.

        Source: Ledoit & Wolf 2004.
        """
        from sklearn.covariance import ledoit_wolf_shrinkage

        x0 = as_tensor(x0, "x0")
        check_event_shape(x0, None, "x0")
        if len(x0) < 2:
            raise ValueError(f"a covariance needs two events or more, got {len(x0)}.")
        check_finite(x0, "x0")
        flat = x0.detach().flatten(1).cpu().double() if x0.ndim > 1 else x0.detach()[:, None].cpu().double()
        mean = flat.mean(0)
        centered = flat - mean
        _, singular_values, axes = torch.linalg.svd(centered, full_matrices=False)
        shrinkage = float(ledoit_wolf_shrinkage(centered.numpy(), assume_centered=True)) if flat.shape[1] > 1 else 0.0
        shrinkage = min(max(shrinkage, 0.0), 1.0)  # of two events it is 0 up to rounding, also below
        sphere = shrinkage * float(centered.square().mean())
        variances = (1.0 - shrinkage) * singular_values.square() / len(flat) + sphere
        return cls(mean.reshape(x0.shape[1:]), axes.mT.contiguous(), variances, sphere)

    def sharpened(self, predict: Predict, x0: Tensor, noise: Callable[[Tensor], Tensor]) -> Moments:
        r"""More precise moments, from a model's data estimates where x explains 1 % of the data's variance.

        There, up to terms of second order, the data estimate is the Wiener filter $\alpha C S^{-2}$ of x, with
        $S^2 = \alpha^2 C + \sigma^2 I$. So least squares gives C to many more digits than the sample does. The
        variances are clamped to three standard errors of the sample's: a network that is wrong there does no harm.

        Args:
            predict: The network call.
            x0: Data, or samples of the model, ``(n, *D)`` with n >= 2. Noise is added to copies of them, to make 64
                states for each of the d + 1 unknowns of an element.
            noise: Draws unit normal noise of the shape, type and device of its argument.

        Returns:
            Moments with all d axes.
        """
        tau, size = self._first_visible_tau(), self.mean.numel()
        alpha, sigma = ou.alpha(tau), ou.sigma(tau)
        batches = []
        for _ in range(-(-64 * (size + 1) // len(x0))):
            x = combine(alpha, x0, sigma, noise(x0))
            batches.append([each.reshape(len(x), -1).cpu().double() for each in (x, predict(x, tau).x0)])
        x, x0_hat = (torch.cat(side) for side in zip(*batches))
        # x0_hat = x @ gain + offset, with gain = alpha C S^-2 and offset = (I - alpha gain) m
        solution = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x[:, :1])], 1), x0_hat).solution
        gain, offset = solution[:-1], solution[-1]
        gains, axes = torch.linalg.eigh(0.5 * (gain + gain.mT))
        variances = sigma * sigma / alpha * gains / (1.0 - alpha * gains)
        mean = axes @ ((axes.mT @ offset) / (1.0 - alpha * gains))
        flat = x0.reshape(len(x0), -1).cpu().double()
        sample_variances, slack = (flat @ axes).var(0), 1.0 + 3.0 * (2.0 / len(x0)) ** 0.5
        variances = variances.clamp(sample_variances / slack, sample_variances * slack)
        return Moments(mean.reshape(self.mean.shape), axes, variances)

    def _first_visible_tau(self) -> float:
        """The largest OU time at which x explains a hundredth of the data's variance, by bisection."""
        total = float(self.variances.sum()) + self.rest * (self.mean.numel() - len(self.variances))
        low, high = 1e-6, 20.0
        while high - low > 1e-6:
            tau = 0.5 * (low + high)
            power = ou.alpha_bar(tau)
            explained = (power * self.variances.square() / (power * self.variances + 1.0 - power)).sum()
            low, high = (tau, high) if float(explained) > 0.01 * total else (low, tau)
        return high
