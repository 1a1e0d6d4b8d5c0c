r"""Variational dequantization: $u = \mathrm{sigmoid}(m(k) + s(k)\,\ell)$ with logistic noise ℓ, m and s by a network.

It starts as uniform dequantization, m = 0 and s = 1. Training minimizes the bound on $-\log p(k + u)$ under the model,
plus $\log q(u \mid k)$.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.call_inputs import as_input
from scoresde._core.checks import check_integer, check_positive
from scoresde._core.noise import Noise
from scoresde._core.tensors import sum_event, widest_dtype
from scoresde.data import Description
from scoresde.likelihood.bounds.error_profile import ErrorProfile
from scoresde.likelihood.bounds.initial_state import check_integer_data
from scoresde.likelihood.bounds.terms import diffusion_term, prior_term
from scoresde.likelihood.conditions import likelihood_inputs
from scoresde.likelihood.dequantize import Dequantization
from scoresde.model import Model, check_model, evaluating, gaussian_process
from scoresde.objective.timesteps import ImportanceTimesteps
from scoresde.objective.weighting import ELBO
from scoresde.process.base import Marginal

__all__ = ["VariationalDequantization", "fit_variational"]

_LAYERS = {0: nn.Linear, 1: nn.Linear, 2: nn.Conv1d, 3: nn.Conv2d, 4: nn.Conv3d}


class VariationalDequantization(nn.Module, Dequantization):
    r"""A learned distribution of u: three layers map the values to m and log s, by 3-wide convolutions or dense layers.

    $\log q(u) = \log f(\ell) - \log s - \log u(1 - u)$ per value, $f(\ell) = e^{-\ell}/(1 + e^{-\ell})^2$. Given the
    integer values, the offsets are independent. The layers are dense if an event has at most one axis. An object holds
    weights, so it has no text form; `fit_variational` trains it.

    Args:
        description: The data's shape, bins and scale.
        width: Hidden channels.
        generator: Source of the initial weights; the last layer starts at 0.

    Source: Ho et al. 2019 (Flow++), section 3.1, there with coupling layers.
    """

    input_layer: Any
    hidden_layer: Any
    output_layer: Any

    def __init__(self, description: Description, width: int = 32, generator: torch.Generator | None = None) -> None:
        super().__init__()
        check_integer("width", width)
        if description.bins is None or len(description.shape) not in _LAYERS:
            raise ValueError(
                f"variational dequantization needs quantized data of at most 4 axes, got {description.name!r} of shape "
                f"{description.shape} with bins={description.bins}; state bins=, or use UniformDequantization()."
            )
        self.description = description
        layer, rank = _LAYERS[len(description.shape)], len(description.shape)
        size = description.shape[0] if rank > 1 else description.dims
        options = {"kernel_size": 3, "padding": 1} if rank > 1 else {}
        sizes = (size, width), (width, width), (width, 2 * size)
        # torch would draw weights from the global generator
        layers: list[Any] = [nn.utils.skip_init(layer, a, b, **options) for a, b in sizes]
        self.input_layer, self.hidden_layer, self.output_layer = layers
        with torch.no_grad():
            for module in layers:
                gain = 0.0 if module is self.output_layer else module.weight[0].numel() ** -0.5
                module.weight.normal_(0.0, 1.0, generator=generator).mul_(gain)
                module.bias.zero_()

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """m and log s of the integer values, each ``(B, *D)``; log s lies in (-5, 5)."""
        bins, shape = self.description.bins, self.description.shape
        assert bins is not None
        h = (2.0 * values.to(self.input_layer.weight) + 1.0) / bins - 1.0
        h = h.reshape(len(values), -1) if len(shape) < 2 else h
        h = F.silu(self.hidden_layer(F.silu(self.input_layer(h))))
        mean, log_scale = self.output_layer(h).chunk(2, 1)
        return mean.reshape(values.shape), 5.0 * torch.tanh(0.2 * log_scale.reshape(values.shape))

    def draw(self, values: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """One draw, as in `Dequantization.draw`; differentiable in the weights."""
        k = values.to(widest_dtype(values.device))
        mean, log_scale = (output.to(k) for output in self(values))
        logistic = torch.logit(noise.uniform(k), 1e-12)  # a uniform number of exactly 0 would be infinite
        logit_u = mean + log_scale.exp() * logistic
        y = torch.minimum(k + torch.sigmoid(logit_u), torch.nextafter(k + 1, k))
        # log q = log f(logistic) - log s - log u(1 - u), and f(l) = u(1 - u) at u = sigmoid(l)
        return y, sum_event(_log_sigmoid_slope(logistic) - log_scale - _log_sigmoid_slope(logit_u))


def _log_sigmoid_slope(x: Tensor) -> Tensor:
    """log of sigmoid'(x)."""
    return F.logsigmoid(x) + F.logsigmoid(-x)


def fit_variational(
    model: Model,
    values: ArrayLike,
    *,
    steps: int = 500,
    batch_size: int = 64,
    width: int = 32,
    rate: float = 2e-3,
    profile: ErrorProfile | None = None,
    generator: torch.Generator | None = None,
    **cond: Tensor,
) -> VariationalDequantization:
    r"""Trains a variational dequantization by the bound on $-\log p_{\tau_{min}}(k + u)$ plus $\log q(u \mid k)$.

    Each training step draws one timestep and one pair of noises per sample for the bound's diffusion term. The model
    runs in eval mode and does not change.

    Args:
        model: Carries the data's description.
        values: Training data, integer values ``(n, *D)``.
        steps: Steps of Adam; the learning rate decays to 0 by a cosine.
        batch_size: Samples per step, drawn with replacement.
        width: See `VariationalDequantization`.
        rate: Initial learning rate of Adam.
        profile: From `measure_error_profile`; lowers the variance of the loss.
        generator: Source of weights, batches, timesteps and noise; on the CPU.
        **cond: Passed to the network, one entry per sample.

    Returns:
        The trained dequantization, in eval mode, on the device of the values.

    Raises:
        ValueError: If the model has no description with bins, the values do not fit it, or a setting is out of its
            domain.
    """
    check_model(model)
    check_arguments(fit_variational, locals())
    values, cond = as_input(model, values, "values"), likelihood_inputs(model, cond)
    check_integer("steps", steps)
    check_integer("batch_size", batch_size)
    check_positive(rate=rate)
    check_integer_data(model, values)
    if not len(values):
        raise ValueError("a dequantization is fitted to at least one event, got none; pass values (n, *D).")
    assert model.data is not None
    sde, tau_start, noise = gaussian_process(model), model.sde.tau_min, Noise(generator)
    timesteps = ImportanceTimesteps(ELBO()) if profile is None else profile.timesteps
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        dequantization = VariationalDequantization(model.data, width, generator).to(values.device)
        weights = list(dequantization.parameters())
        optimizer = torch.optim.Adam(weights, rate)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            rows = torch.randint(len(values), (batch_size,), generator=generator)
            batch_cond = {name: value[rows] for name, value in cond.items()}
            y, log_q = dequantization.draw(values[rows], noise)
            x = model.data.to_model(y) / float(sde.scale(tau_start))
            draw = timesteps.draw(timesteps.uniforms(x, noise), sde)
            m = Marginal(torch.as_tensor(sde.schedule._tau(draw.u)), sde.schedule._rate(draw.u))
            eps = noise.normal(x)
            terms = [
                diffusion_term(model, x, m, z, tau_start=tau_start, profile=profile, **batch_cond) for z in (eps, -eps)
            ]
            factor = torch.as_tensor(draw.correction).to(log_q) * (0.5 * (1.0 - sde.u_min))
            loss = (prior_term(sde, x, tau_start=tau_start) + factor * (terms[0] + terms[1]) + log_q).mean()
            optimizer.zero_grad()
            for weight, gradient in zip(weights, torch.autograd.grad(loss, weights)):
                weight.grad = gradient
            optimizer.step()
            scheduler.step()
    return dequantization.eval()
