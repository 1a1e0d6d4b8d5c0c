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

from functools import partial

import torch
from torch import Tensor

from scoresde._core.checks import check_kind
from scoresde._core.tensors import combine
from scoresde.process import ou
from scoresde.process.parameterization import Prediction, V
from scoresde.sampling.base import Predict, Sampler, SamplingContext, StepHook, StepSampler, check_deterministic
from scoresde.sampling.moments import Moments

__all__ = ["DEEP", "WhitenedCoordinates", "Whitened"]

DEEP = 0.1
"""Largest alpha at which a walk may begin without a network call."""


class WhitenedCoordinates:
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
        out = combine(1.0 / rest, left, -pull_rest, flat) + inner @ self._axes.mT
        return Prediction(y, tau, out.reshape(y.shape), V())

    def _scale(self, tau: float) -> tuple[Tensor, float]:
        """S along the axes and across them."""
        power = ou.alpha_bar(tau)
        return (self._variances * power + ou.sigma(tau) ** 2).sqrt(), (self._rest * power + ou.sigma(tau) ** 2) ** 0.5

    def _apply(self, x: Tensor, along: Tensor, across: float) -> Tensor:
        return x * across + ((x @ self._axes) * (along - across)) @ self._axes.mT


class Whitened(Sampler):
    """A deterministic step sampler that walks only what the data have beyond their mean and covariance.

    The network is not asked at the start of the walk, which must lie where hardly any of the data is in x (a start
    with α above 0.1 is refused): n steps of a multistep method are n - 1 network calls. `calibrate` makes these.

    Args:
        sampler: A deterministic step sampler of two steps or more.
        moments: Of the data, in model units.

    Raises:
        TypeError: If ``sampler`` is no step sampler, or ``moments`` are none.
        ValueError: If ``sampler`` draws noise or makes a single step.
    """

    def __init__(self, sampler: StepSampler, moments: Moments) -> None:
        check_deterministic(sampler, "Whitened")
        check_kind("moments", moments, Moments)
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

    def run(self, x: Tensor, path: SamplingContext) -> tuple[Tensor, float]:
        """See `Sampler.run`."""
        if ou.alpha(path.start) > DEEP:
            raise ValueError(
                f"Whitened asks no network at its start, which must have alpha <= {DEEP:g}, got alpha = "
                f"{ou.alpha(path.start):.3g} at tau = {path.start:.6g}; from there take {self.sampler}."
            )
        frame, asked = WhitenedCoordinates(self.moments, x), _Asked(path.predict)
        told = None if path.observe is None else partial(_tell, path.observe, frame, asked)
        predict = partial(frame.predict, asked, path.start)
        inner = SamplingContext(predict, path.sde, path.noise, path.start, told, None)
        y, tau = self.sampler.run(frame.enter(x, path.start), inner)
        return frame.leave(y, tau), tau


class _Asked:
    """A network call that knows whether it was made."""

    def __init__(self, predict: Predict) -> None:
        self._predict, self.yet = predict, False

    def __call__(self, x: Tensor, tau: float) -> Prediction:
        self.yet = True
        return self._predict(x, tau)


def _tell(
    observe: StepHook, frame: WhitenedCoordinates, asked: _Asked, done: int, steps: int, tau: float, y: Tensor
) -> None:
    """Tells of a step in x; a step before any network call is the first part of the next."""
    if asked.yet:
        observe(done, steps, tau, frame.leave(y, tau))
