r"""Sampling in whitened coordinates $y = S^{-1}(x - \alpha m)$ with $S^2 = \alpha^2 C + \sigma^2 I$, for moments m, C.

For data N(m, C) the velocity in the angle is affine, $v_G(x) = G(x - \alpha m) - \sigma m$ with
$G = \alpha\sigma(I - C)S^{-2}$, and y is constant along the probability flow. For any other data

$$\frac{dy}{d\phi} = S^{-1}(v - v_G(x)).$$

A sampler then integrates only what the data have beyond their mean and covariance. At the start, at high noise, this
velocity is almost 0, and no network call is needed there.

Source: Wang & Vastola 2024 (far from the data scores are Gaussian, and that part of the trajectory can be skipped). In
these coordinates nothing is skipped, and every deterministic sampler applies unchanged.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from scoresde._core.checks import check_kind
from scoresde._core.tensors import combine
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.parameterization import V
from scoresde.process.prediction import GaussianPrediction, Prediction
from scoresde.sampling.base import Predict, Sampler, SamplingContext, StepSampler, check_deterministic
from scoresde.sampling.moments import Moments
from scoresde.sampling.observer import StepHook

__all__ = ["MAX_START_ALPHA", "Whitened", "WhitenedCoordinates"]

MAX_START_ALPHA = 0.1
"""Largest α at which sampling may start without a network call."""


class WhitenedCoordinates:
    """The change of coordinates between x and y, for states of one type on one device.

    Args:
        moments: Moments of the data.
        like: A state, ``(B, *D)``; only its type, device and event shape are read.

    Raises:
        ValueError: If the events of ``like`` do not have the shape of the moments.
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
        # in double precision, because the difference cancels where a variance is near 1
        self._one_minus_variances = (1.0 - moments.variances.double()).to(like)
        self._rest = moments.rest

    def whiten(self, x: Tensor, tau: float) -> Tensor:
        """y of x at ``tau`` > 0, ``(B, *D)``."""
        scales, rest_scale = self._scales(tau)
        centered = x.reshape(x.shape[0], -1) - ou.alpha(tau) * self._mean
        return self._multiply(centered, 1.0 / scales, 1.0 / rest_scale).reshape(x.shape)

    def unwhiten(self, y: Tensor, tau: float) -> Tensor:
        """x of y at ``tau``, ``(B, *D)``."""
        return (self.scaled(y, tau) + ou.alpha(tau) * self._mean).reshape(y.shape)

    def scaled(self, y: Tensor, tau: float) -> Tensor:
        r"""The deviation $S y = x - \alpha m$ of y at ``tau``, ``(B, d)``."""
        return self._multiply(y.reshape(y.shape[0], -1), *self._scales(tau))

    def centered(self, x: Tensor, tau: float) -> Tensor:
        r"""The deviation $x - \alpha m$ of flat states ``(B, d)`` from the mean at ``tau``."""
        return x - ou.alpha(tau) * self._mean

    def predict(self, predict: Predict, start: float, y: Tensor, tau: float) -> Prediction:
        r"""A network call in these coordinates, $S^{-1}(v - v_G)$ as its v; 0 at ``start``, without a call."""
        if tau >= start * (1 - 1e-6):
            return GaussianPrediction(y, tau, torch.zeros_like(y), V())
        alpha, sigma = ou.alpha(tau), ou.sigma(tau)
        (scales, rest_scale), flat = self._scales(tau), y.reshape(y.shape[0], -1)
        along = flat @ self._axes
        x = rest_scale * flat + (along * (scales - rest_scale)) @ self._axes.mT + alpha * self._mean
        velocity = predict(x.reshape(y.shape), tau).v.reshape(flat.shape) + sigma * self._mean
        # the eigenvalues of G along the axes and across them
        gains = alpha * sigma * self._one_minus_variances / (scales * scales)
        rest_gain = alpha * sigma * (1.0 - self._rest) / rest_scale**2
        inner = (velocity @ self._axes) * (1.0 / scales - 1.0 / rest_scale) - along * (gains - rest_gain)
        out = combine(1.0 / rest_scale, velocity, -rest_gain, flat) + inner @ self._axes.mT
        return GaussianPrediction(y, tau, out.reshape(y.shape), V())

    def _scales(self, tau: float) -> tuple[Tensor, float]:
        """The eigenvalues of S along the axes and across them."""
        power, noise = ou.alpha_bar(tau), ou.sigma(tau) ** 2
        return (self._variances * power + noise).sqrt(), (self._rest * power + noise) ** 0.5

    def _multiply(self, x: Tensor, along: Tensor, across: float) -> Tensor:
        """x times the matrix with these eigenvalues along the axes and across them."""
        return x * across + ((x @ self._axes) * (along - across)) @ self._axes.mT


class Whitened(Sampler):
    """A deterministic step sampler in whitened coordinates: it integrates what the moments do not explain.

    No network call is made at the start, so a start with α above 0.1 is refused: there x contains too much signal. Thus
    n steps of a multistep method are n - 1 network calls. `calibrate` returns these samplers.

    Args:
        sampler: A deterministic step sampler of two steps or more.
        moments: Moments of the data, in model units.

    Raises:
        TypeError: If ``sampler`` is not a step sampler, or ``moments`` not a `Moments`.
        ValueError: If ``sampler`` draws noise or makes a single step.
    """

    def __init__(self, sampler: StepSampler, moments: Moments) -> None:
        check_deterministic(sampler, "Whitened")
        check_kind("moments", moments, Moments)
        if sampler.steps < 2:
            raise ValueError(
                f"Whitened needs two steps or more, because the first makes no network call, got {sampler}."
            )
        self.sampler, self.moments = sampler, moments

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Whitened):
            return NotImplemented
        return (self.sampler, self.moments) == (other.sampler, other.moments)

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"Whitened({self.sampler!r}, {self.moments!r})"

    def for_model(self, model: Model) -> Whitened:
        return Whitened(self.sampler.for_model(model), self.moments)

    def run(self, x: Tensor, context: SamplingContext) -> tuple[Tensor, float]:
        if ou.alpha(context.start) > MAX_START_ALPHA:
            raise ValueError(
                f"Whitened makes no network call at its start, which must have alpha <= {MAX_START_ALPHA:g}, got "
                f"alpha = {ou.alpha(context.start):.3g} at tau = {context.start:.6g}; from there use {self.sampler}."
            )
        coordinates, network = WhitenedCoordinates(self.moments, x), _RecordedCalls(context.predict)
        observe = None if context.observe is None else partial(_observe_in_x, context.observe, coordinates, network)
        predict = partial(coordinates.predict, network, context.start)
        whitened = SamplingContext(predict, context.sde, context.noise, context.start, observe, None)
        y, tau = self.sampler.run(coordinates.whiten(x, context.start), whitened)
        return coordinates.unwhiten(y, tau), tau


class _RecordedCalls:
    """The network call, with a flag that it has been made."""

    def __init__(self, predict: Predict) -> None:
        self._predict, self.called = predict, False

    def __call__(self, x: Tensor, tau: float) -> Prediction:
        self.called = True
        return self._predict(x, tau)


def _observe_in_x(
    observe: StepHook,
    coordinates: WhitenedCoordinates,
    network: _RecordedCalls,
    done: int,
    steps: int,
    tau: float,
    y: Tensor,
) -> None:
    """Reports a step in x, except steps before the first network call: an observer needs its prediction."""
    if network.called:
        observe(done, steps, tau, coordinates.unwhiten(y, tau))
