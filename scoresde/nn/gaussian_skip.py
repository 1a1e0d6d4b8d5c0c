r"""A closed-form skip connection for continuous data: the expected v of normal data, given x and a vector condition.

For data $N(m, C)$, $C = U\,\mathrm{diag}(s)\,U^T$, and $x = \alpha x_0 + \sigma\varepsilon$, the expected
$v = \alpha\varepsilon - \sigma x_0$ is

$$v_G = U\,\mathrm{diag}\Big(\frac{\alpha\sigma(1 - s)}{\alpha^2 s + \sigma^2}\Big)U^T(x - \alpha m) - \sigma m.$$

The inner network's output is multiplied by the standard deviation of v that remains,
$\big(\tfrac1d\sum_i s_i/(\alpha^2 s_i + \sigma^2)\big)^{1/2}$, so that its target has unit variance at every time.

With a vector condition c the mean is $m = m_0 + W^T c$, a linear regression, and C the covariance of its residuals. At
high noise the expected v of any data is near this one. Directions in which the data hardly vary are free of noise at
once. A network without this skip connection learns both slowly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike, as_tensor
from scoresde._core.checks import check_event_shape, check_finite, check_integer, check_positive, check_values
from scoresde.nn._execution import full_precision
from scoresde.nn._network_wrapper import NetworkWrapper
from scoresde.nn.conditions import Channels, Condition, Vector

__all__ = ["GaussianSkip"]


@dataclass(eq=False, repr=False, init=False)
class GaussianSkip(NetworkWrapper):
    r"""Adds the expected v of normal data to an inner network; the sum estimates v (`V()`).

    Means and covariances are part of the weights: those of N(0, I) until `fit` has read the data. The inner network
    starts at 0 and learns what the data have beyond them. Each covariance takes d² numbers for events of d, and each
    call d² multiplications per event: up to some thousand values per event this is cheap.

    Attributes:
        net: The inner network, of one output; it declares its ``event_shape``.
        condition: Name of a `Vector` condition of ``net`` on which the mean depends, or None. Where the condition is
            null, mean and covariance are those of all data.
        estimate: Name of a `Channels` condition of ``net`` that receives the expected x_0 of the normal data, or None.
            It has the shape of the event; callers do not pass it. With it, convolutions refine a denoised image.

    Raises:
        ValueError: If ``net`` declares no event shape, several outputs, or no such conditions.

    Source: Wang & Vastola 2024 (at high noise scores of data are those of their Gaussian).
    """

    net: nn.Module
    condition: str | None = None
    estimate: str | None = None

    def __init__(self, net: nn.Module, condition: str | None = None, estimate: str | None = None) -> None:
        super().__init__()  # before a submodule can be assigned, so the dataclass cannot write this
        self.net, self.condition, self.estimate = net, condition, estimate
        if self.event_shape is None:
            raise ValueError(f"net must declare its event_shape, got a {type(net).__name__} without one; set it.")
        if (outputs := getattr(net, "outputs", 1)) != 1:
            raise ValueError(f"net must have 1 output, got outputs={outputs}; build it with outputs=1.")
        size = math.prod(self.event_shape)
        if estimate is not None:
            expected = Channels(self.event_shape[0] if self.event_shape else 1, null=False)
            if getattr(net, "conditions", {}).get(estimate) != expected:
                raise ValueError(
                    f"estimate must name a condition {expected} of net, got {estimate!r}; build net with "
                    f"conditions={{{estimate!r}: {expected}}}."
                )
        buffers = {"mean": torch.zeros(size), "axes": torch.eye(size), "variances": torch.ones(size)}
        if condition is not None:
            vector = self.conditions.get(condition)
            if not isinstance(vector, Vector):
                raise ValueError(
                    f"condition must name a Vector condition of net, got {condition!r} and "
                    f"{', '.join(self.conditions) or 'none'}; build net with "
                    f"conditions={{{condition!r}: Vector(size)}}."
                )
            buffers |= {f"given_{name}": value.clone() for name, value in buffers.items()}
            buffers["weight"] = torch.zeros(vector.size, size)
        for name, value in buffers.items():
            self.register_buffer(name, value)
        self.mean: Tensor
        self.axes: Tensor
        self.variances: Tensor
        self.given_mean: Tensor
        self.given_axes: Tensor
        self.given_variances: Tensor
        self.weight: Tensor

    @property
    def conditions(self) -> Mapping[str, Condition]:
        """Conditions of the inner network by name, without the estimate."""
        return {name: kind for name, kind in super().conditions.items() if name != self.estimate}

    def fit(
        self, x0: ArrayLike, cond: Mapping[str, ArrayLike] | None = None, penalty: float = 1e-3, folds: int = 5
    ) -> GaussianSkip:
        """Sets means and covariances to those of data, and the weight to that of a ridge regression.

        Args:
            x0: Data in model units, ``(n, *D)``.
            cond: Conditions in model units by name; that of ``condition`` is read, ``(n, size)``. Null entries (NaN)
                are left out of the regression.
            penalty: Of the squared weight, as a multiple of n.
            folds: The covariance is that of residuals of events that the regression has not seen, in so many runs of
                consecutive events. Neighbors in the data that belong together should be neighbors here.

        Returns:
            This network.

        Raises:
            ValueError: If shapes do not fit, values are not finite, there are fewer events than ``2 * folds``, or a
                setting is out of its domain.
        """
        check_arguments(GaussianSkip.fit, locals())
        check_positive(penalty=penalty)
        check_integer("folds", folds, 2)
        x0 = as_tensor(x0, "x0").detach()
        check_event_shape(x0, self.event_shape, "x0")
        check_values("x0", x0)
        check_finite(x0, "x0")
        flat = x0.flatten(1).cpu().double() if x0.ndim > 1 else x0.cpu().double()[:, None]
        if len(flat) < 2 * folds:
            raise ValueError(f"fit needs at least 2 * folds = {2 * folds} events, got {len(flat)}; pass more.")
        self._set("", flat.mean(0), flat - flat.mean(0))
        if self.condition is not None:
            if self.condition not in (cond or {}):
                raise ValueError(
                    f"fit needs the condition {self.condition!r}; pass cond={{{self.condition!r}: values}}."
                )
            values = as_tensor((cond or {})[self.condition], self.condition).detach()
            check_values(self.condition, values)
            values = values.cpu().double()
            if values.shape != (len(flat), len(self.weight)):
                raise ValueError(
                    f"{self.condition} must have shape ({len(flat)}, {len(self.weight)}), got {tuple(values.shape)}; "
                    "pass one vector per event."
                )
            given = ~values.isnan().all(1)
            check_finite(values[given], self.condition)
            self._regress(flat[given], values[given], penalty, folds)
        return self

    def _regress(self, flat: Tensor, values: Tensor, penalty: float, folds: int) -> None:
        residuals = torch.empty_like(flat)
        for part in torch.arange(len(flat)).tensor_split(folds):
            seen = torch.ones(len(flat), dtype=torch.bool)
            seen[part] = False
            mean, weight = _ridge(values[seen], flat[seen], penalty)
            residuals[part] = flat[part] - mean - values[part] @ weight
        mean, weight = _ridge(values, flat, penalty)
        self.weight.copy_(weight)
        self._set("given_", mean, residuals)

    def _set(self, prefix: str, mean: Tensor, residuals: Tensor) -> None:
        variances, axes = torch.linalg.eigh(residuals.mT @ residuals / len(residuals))
        for name, value in {"mean": mean, "axes": axes, "variances": variances.clamp(min=0)}.items():
            getattr(self, prefix + name).copy_(value)

    def forward(
        self,
        x: Tensor,
        log_snr: Tensor,
        *,
        augment: Tensor | None = None,
        delta: Tensor | None = None,
        **cond: Tensor | None,
    ) -> Tensor:
        """Evaluates the network.

        Args:
            x: Noised state, shape ``(B, *D)``.
            log_snr: Log-SNR in nats, shape ``(B,)``; infinities are allowed.
            augment, delta: Passed to the inner network if not None.
            **cond: Conditions of the inner network by name.

        Returns:
            v, shape and dtype of ``x``.

        Raises:
            ValueError, TypeError: As the inner network.
        """
        if self.estimate in cond and self.estimate is not None:
            raise TypeError(f"{self.estimate} is computed by this network, got a value for it; leave it out.")
        with full_precision(x):
            wide = x.to(torch.promote_types(x.dtype, torch.float32)).reshape(x.shape[0], -1)
            per_sample = log_snr.clamp(*self.log_snr_range).to(wide.dtype)[:, None]
            alpha, sigma = torch.sigmoid(per_sample).sqrt(), torch.sigmoid(-per_sample).sqrt()
            v, scale = self._expected(wide, alpha, sigma, None if self.condition is None else cond.get(self.condition))
            if self.estimate is not None:
                cond[self.estimate] = (alpha * wide - sigma * v).reshape(x.shape).to(x.dtype)
        learned = self._inner_output(x, log_snr, augment=augment, delta=delta, **cond)
        return (v + scale * learned.reshape(v.shape).to(v.dtype)).reshape(x.shape).to(x.dtype)

    def _expected(self, x: Tensor, alpha: Tensor, sigma: Tensor, value: Tensor | None) -> tuple[Tensor, Tensor]:
        """Expected v given x and the condition, ``(B, d)``, and the standard deviation around it, ``(B, 1)``."""
        v, scale = _expected_v(x, alpha, sigma, self.mean.to(x), self.axes.to(x), self.variances.to(x))
        if value is None:
            return v, scale
        absent = value.isnan().all(1, keepdim=True)
        mean = self.given_mean.to(x) + torch.where(absent, 0.0, value).to(x) @ self.weight.to(x)
        axes, variances = self.given_axes.to(x), self.given_variances.to(x)
        given_v, given_scale = _expected_v(x, alpha, sigma, mean, axes, variances)
        return torch.where(absent, v, given_v), torch.where(absent, scale, given_scale)


def _expected_v(
    x: Tensor, alpha: Tensor, sigma: Tensor, mean: Tensor, axes: Tensor, variances: Tensor
) -> tuple[Tensor, Tensor]:
    """Expected v of N(mean, axes diag(variances) axes^T) at x, and the standard deviation of v around it."""
    total = alpha * alpha * variances + sigma * sigma
    gains = alpha * sigma * (1.0 - variances) / total
    v = ((x - alpha * mean) @ axes * gains) @ axes.mT - sigma * mean
    return v, (variances / total).mean(1, keepdim=True).sqrt()


def _ridge(values: Tensor, targets: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Intercept and weight of a ridge regression, ``(d,)`` and ``(size, d)``."""
    center = values.mean(0)
    centered = values - center
    gram = centered.mT @ centered + penalty * len(values) * torch.eye(values.shape[1], dtype=values.dtype)
    weight = torch.linalg.solve(gram, centered.mT @ (targets - targets.mean(0)))
    return targets.mean(0) - center @ weight, weight
