r"""Can the place in the cell be learned? $u = \mathrm{sigmoid}(m(k) + s(k)\,\ell)$, ℓ logistic, m and s by a network.

With m = 0 and s = 1, where it begins, u is uniform. It is trained by what it is to lower: the bound on the model's
density at the place, plus log q.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scoresde._core.noise import Noise
from scoresde._core.tensors import sum_event, widest_dtype
from scoresde.data import Description
from scoresde.likelihood.bounds.error_profile import ErrorProfile
from scoresde.likelihood.bounds.result import check_count, check_levels
from scoresde.likelihood.bounds.terms import diffusion, prior_cost
from scoresde.likelihood.dequantize import Dequantization
from scoresde.model import Model, evaluating
from scoresde.objective.timesteps import ImportanceTimesteps
from scoresde.objective.weighting import ELBO
from scoresde.process.sde import Marginal

__all__ = ["VariationalDequantization", "fit_variational"]

_LAYERS = {0: nn.Linear, 1: nn.Linear, 2: nn.Conv1d, 3: nn.Conv2d, 4: nn.Conv3d}


class VariationalDequantization(nn.Module, Dequantization):
    r"""A learned law of u: three layers see the levels (3-wide convolutions over space, else dense), and give m, log s.

    $\log q(u) = \log f(\ell) - \log s - \log u(1 - u)$ per value, $f(\ell) = e^{-\ell}/(1 + e^{-\ell})^2$. Given the
    levels the values are independent. It holds weights, and so has no text form; `fit_variational` makes it.

    Args:
        about: The data's description: shape, bins and scale.
        width: Hidden channels.
        generator: Source of the first weights; the last layer begins at 0.

    Source: Ho et al. 2019 (Flow++), section 3.1, there with coupling layers.
    """

    enter: Any
    inner: Any
    leave: Any

    def __init__(self, about: Description, width: int = 32, generator: torch.Generator | None = None) -> None:
        super().__init__()
        check_count("width", width)
        if about.bins is None or len(about.shape) not in _LAYERS:
            raise ValueError(
                f"a place in a cell needs quantized data of at most 4 axes, got {about.name!r} of shape {about.shape} "
                f"with bins={about.bins}; state bins=, or take Uniform()."
            )
        self.about = about
        layer, rank = _LAYERS[len(about.shape)], len(about.shape)
        size = about.shape[0] if rank > 1 else about.dims
        options = {"kernel_size": 3, "padding": 1} if rank > 1 else {}
        sizes = (size, width), (width, width), (width, 2 * size)  # without torch's own first weights, drawn globally
        self.enter, self.inner, self.leave = (nn.utils.skip_init(layer, a, b, **options) for a, b in sizes)
        with torch.no_grad():
            for module in (self.enter, self.inner, self.leave):
                gain = 0.0 if module is self.leave else module.weight[0].numel() ** -0.5
                module.weight.normal_(0.0, 1.0, generator=generator).mul_(gain)
                module.bias.zero_()

    def forward(self, levels: Tensor) -> tuple[Tensor, Tensor]:
        """m and log s of the levels, each ``(B, *D)``; log s lies in (-5, 5)."""
        assert self.about.bins is not None
        h = (2.0 * levels.to(self.enter.weight) + 1.0) / self.about.bins - 1.0
        h = h.reshape(len(levels), -1) if len(self.about.shape) < 2 else h
        h = F.silu(self.inner(F.silu(self.enter(h))))
        mean, log_scale = self.leave(h).chunk(2, 1)
        return mean.reshape(levels.shape), 5.0 * torch.tanh(0.2 * log_scale.reshape(levels.shape))

    def draw(self, levels: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        """See the base class; differentiable in the weights."""
        k = levels.to(widest_dtype(levels.device))
        mean, log_scale = (v.to(k) for v in self(levels))
        logistic = torch.logit(noise.uniform(k), 1e-12)  # a uniform number of exactly 0 would be infinite
        place = mean + log_scale.exp() * logistic
        y = torch.minimum(k + torch.sigmoid(place), torch.nextafter(k + 1, k))
        # log q = log f(logistic) - log s - log u(1 - u), and f(l) = u(1 - u) at u = sigmoid(l)
        return y, sum_event(_log_slope(logistic) - log_scale - _log_slope(place))


def _log_slope(x: Tensor) -> Tensor:
    """log of sigmoid'(x)."""
    return F.logsigmoid(x) + F.logsigmoid(-x)


def fit_variational(
    model: Model,
    levels: Tensor,
    *,
    steps: int = 500,
    batch_size: int = 64,
    width: int = 32,
    rate: float = 2e-3,
    profile: ErrorProfile | None = None,
    generator: torch.Generator | None = None,
    **cond: Tensor,
) -> VariationalDequantization:
    r"""Learns where in their cells levels are likeliest, by the bound on $-\log p_{\tau_{min}}(k + u)$ plus log q.

    The bound's diffusion term is drawn at one time and one pair of noises per sample and step. The model is evaluated
    in eval mode and left as it is.

    Args:
        model: Carries the data's description.
        levels: Training data, integer levels ``(n, *D)``.
        steps: Adam's steps; the rate falls to 0 by a cosine.
        batch_size: Samples per step, drawn with replacement.
        width: See `VariationalDequantization`.
        rate: Adam's first learning rate.
        profile: From `measure_error_profile`; less noise.
        generator: Source of weights, batches, times and noise; on the CPU.
        **cond: Passed to the network, one entry per sample.

    Returns:
        The law, in eval mode, on the levels' device.

    Raises:
        ValueError: If the levels are not those of a description with bins, or a setting is out of its domain.
    """
    check_count("steps", steps)
    check_count("batch_size", batch_size)
    check_levels(model, levels)
    assert model.data is not None
    sde, given, noise = model.sde, model.sde.tau_min, Noise(generator)
    times = ImportanceTimesteps(ELBO()) if profile is None else profile.timesteps
    with torch.inference_mode(False), torch.enable_grad(), evaluating(model):
        law = VariationalDequantization(model.data, width, generator).to(levels.device)
        optimizer = torch.optim.Adam(law.parameters(), rate)
        falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            pick = torch.randint(len(levels), (batch_size,), generator=generator)
            seen = {name: value[pick] for name, value in cond.items()}
            y, log_q = law.draw(levels[pick], noise)
            x = model.data.to_model(y) / float(sde.scale(given))
            draw = times.draw(times.base(x, noise), sde)
            m = Marginal(torch.as_tensor(sde.schedule._tau(draw.u)), sde.schedule._rate(draw.u))
            eps = noise.normal(x)
            pair = [diffusion(model, x, m, z, given=given, profile=profile, **seen) for z in (eps, -eps)]
            factor = torch.as_tensor(draw.correction).to(log_q) * (0.5 * (1.0 - sde.u_min))
            loss = (prior_cost(sde, x, given=given) + factor * (pair[0] + pair[1]) + log_q).mean()
            optimizer.zero_grad()
            for weight, slope in zip(law.parameters(), torch.autograd.grad(loss, list(law.parameters()))):
                weight.grad = slope
            optimizer.step()
            falling.step()
    return law.eval()
