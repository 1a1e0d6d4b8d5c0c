r"""Which part of the way need not be walked? That of the data's mean and covariance, which is known in closed form.

For data N(m, C) the velocity in the angle is affine, $v_G(x) = G(x - \alpha m) - \sigma m$ with
$G = \alpha\sigma(I - C)S^{-2}$ and $S^2 = \alpha^2 C + \sigma^2 I$, and it leaves $y = S^{-1}(x - \alpha m)$ where
it is. For any other data

$$\frac{dy}{d\phi} = S^{-1}(v - v_G(x)),$$

so that only what the data have beyond a mean and a covariance is left to a sampler. At the start, deep in the noise,
nothing is left, and the network need not be asked there.

Source: Wang & Vastola 2024 (scores are Gaussian far from the data, and that part of the way can be leapt over); in
these coordinates nothing is leapt, and every deterministic sampler applies as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from scoresde import _tensor as t
from scoresde import ou
from scoresde.parameterization import Prediction, V
from scoresde.sampler.base import Observe, Path, Predict, Sampler, StepSampler, check_deterministic

__all__ = ["Coordinates", "Moments", "Whitened"]


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
            t.check_finite(value, name)
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
        centred = flat - mean
        _, sizes, axes = torch.linalg.svd(centred, full_matrices=False)
        share = float(ledoit_wolf_shrinkage(centred.numpy(), assume_centered=True)) if flat.shape[1] > 1 else 0.0
        sphere = share * float(centred.square().mean())
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
            x = t.combine(alpha, x0, sigma, noise(x0))
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


class Coordinates:
    """Moments at work for states of one type on one device.

    Args:
        moments: The data's.
        like: A state, ``(B, *D)``.

    Raises:
        ValueError: If its events have another shape.
    """

    def __init__(self, moments: Moments, like: Tensor) -> None:
        if like.shape[1:] != moments.mean.shape:
            raise ValueError(
                f"events must have the moments' shape, {tuple(moments.mean.shape)}, got {tuple(like.shape[1:])}; take "
                "moments of these data."
            )
        self._mean, self._axes, self._variances = (
            each.to(like) for each in (moments.mean.reshape(-1), moments.axes, moments.variances)
        )
        # 1 - C in double precision; where no direction is across the axes any number would do for the rest
        self._short = (1.0 - moments.variances.double()).to(like)
        self._rest = moments.rest

    def enter(self, x: Tensor, tau: float) -> Tensor:
        """y of x at ``tau`` > 0, ``(B, *D)``."""
        scale, rest = self._scale(tau)
        return self._apply(x.reshape(len(x), -1) - ou.alpha(tau) * self._mean, 1.0 / scale, 1.0 / rest).reshape(x.shape)

    def leave(self, y: Tensor, tau: float) -> Tensor:
        """x of y at ``tau``, ``(B, *D)``."""
        return (self._apply(y.reshape(len(y), -1), *self._scale(tau)) + ou.alpha(tau) * self._mean).reshape(y.shape)

    def predict(self, predict: Predict, start: float, y: Tensor, tau: float) -> Prediction:
        r"""A network call as y's walk sees it: $S^{-1}(v - v_G)$ as its v. At ``start`` it is 0, without a call."""
        if tau >= start * (1 - 1e-6):
            return Prediction(y, tau, torch.zeros_like(y), V())
        alpha, sigma = ou.alpha(tau), ou.sigma(tau)
        (scale, rest), flat = self._scale(tau), y.reshape(len(y), -1)
        along = flat @ self._axes
        x = rest * flat + (along * (scale - rest)) @ self._axes.mT + alpha * self._mean
        left = predict(x.reshape(y.shape), tau).v.reshape(flat.shape) + sigma * self._mean
        pull, pull_rest = alpha * sigma * self._short / (scale * scale), alpha * sigma * (1.0 - self._rest) / rest**2
        inner = (left @ self._axes) * (1.0 / scale - 1.0 / rest) - along * (pull - pull_rest)
        out = t.combine(1.0 / rest, left, -pull_rest, flat) + inner @ self._axes.mT
        return Prediction(y, tau, out.reshape(y.shape), V())

    def _scale(self, tau: float) -> tuple[Tensor, float]:
        """S along the axes and across them."""
        power = ou.alpha_bar(tau)
        return (self._variances * power + ou.sigma(tau) ** 2).sqrt(), (self._rest * power + ou.sigma(tau) ** 2) ** 0.5

    def _apply(self, x: Tensor, along: Tensor, across: float) -> Tensor:
        return x * across + ((x @ self._axes) * (along - across)) @ self._axes.mT


class Whitened(Sampler):
    """A deterministic step sampler that walks only what the data have beyond their mean and covariance.

    The network is not asked at the start of the walk, which must lie where hardly any of the data is in x: n steps of
    a multistep method are n - 1 network calls. `calibrate` makes these.

    Args:
        sampler: A deterministic step sampler of two steps or more.
        moments: Of the data, in model units.

    Raises:
        TypeError: If ``sampler`` is no step sampler, or ``moments`` are none.
        ValueError: If ``sampler`` draws noise or makes a single step.
    """

    def __init__(self, sampler: StepSampler, moments: Moments) -> None:
        check_deterministic(sampler, "Whitened")
        t.check_kind("moments", moments, Moments)
        if sampler.steps < 2:
            raise ValueError(f"Whitened needs two steps or more, the first asks no network, got {sampler}.")
        self.sampler, self.moments = sampler, moments

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Whitened):
            return NotImplemented
        return (self.sampler, self.moments) == (other.sampler, other.moments)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"Whitened({self.sampler!r}, {self.moments!r})"

    def run(self, x: Tensor, path: Path) -> tuple[Tensor, float]:
        """See `Sampler.run`."""
        frame, asked = Coordinates(self.moments, x), _Asked(path.predict)
        told = None if path.observe is None else partial(_tell, path.observe, frame, asked)
        predict = partial(frame.predict, asked, path.start)
        inner = Path(predict, path.sde, path.noise, path.start, told, None)
        y, tau = self.sampler.run(frame.enter(x, path.start), inner)
        return frame.leave(y, tau), tau


class _Asked:
    """A network call that knows whether it was made."""

    def __init__(self, predict: Predict) -> None:
        self._predict, self.yet = predict, False

    def __call__(self, x: Tensor, tau: float) -> Prediction:
        self.yet = True
        return self._predict(x, tau)


def _tell(observe: Observe, frame: Coordinates, asked: _Asked, done: int, steps: int, tau: float, y: Tensor) -> None:
    """Tells of a step in x; a step before any network call is the first part of the next."""
    if asked.yet:
        observe(done, steps, tau, frame.leave(y, tau))
