r"""Samplers as functions of k-diffusion and ComfyUI, `sample_fn(model, x, sigmas, extra_args, callback)`.

Their denoiser $D(\tilde x, \tilde\sigma)$ estimates the data from $\tilde x = x_0 + \tilde\sigma\varepsilon$, here
$\tilde x = x/\alpha$ at $\tau = \tfrac12\log(1 + \tilde\sigma^2)$; of a flow from
$\tilde x = (1 - \sigma)x_0 + \sigma\varepsilon$.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.noise import Noise
from scoresde._core.tensors import is_narrow
from scoresde.bridges.replay import call_times, noise_alone
from scoresde.process import SDE, VE, Flow, GeometricSigma, StraightPath
from scoresde.process.parameterization import X0
from scoresde.process.prediction import GaussianPrediction, Prediction
from scoresde.sampling import ExplicitGrid, NonStationary, SamplingContext, StepSampler, Whitened

__all__ = ["sampler_function", "sigmas_of"]


def sampler_function(sampler: StepSampler | Whitened, flow: bool = False) -> Callable[..., Tensor]:
    """A sampler as a function that k-diffusion and ComfyUI call.

    The result is ``sample_fn(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None)``:

    - ``model(x, sigma, **extra_args)`` is their denoiser, ``x`` the first state, ``(B, *D)``;
    - ``sigmas`` are the noise levels of the steps, falling, with the last one 0 or above: they are the sampler's grid.
      A sampler of fixed times needs its own levels (`sigmas_of`);
    - ``callback`` gets a dict with ``i``, ``x``, ``sigma``, ``sigma_hat`` and ``denoised`` after each step;
    - noise is drawn from ``noise_sampler(sigma, sigma_next)``, else by a generator whose seed is derived from
      ``extra_args["seed"]``, which drew the first state, else from torch's global generator. Further noises of one step
      never come from ``noise_sampler``, which gives one for each interval;
    - ``disable`` (of a progress bar) is not used.

    Args:
        sampler: A step sampler, or what `calibrate` returns.
        flow: Whether ``sigmas`` are those of a flow, in [0, 1].

    Raises:
        TypeError: If ``sampler`` is not one of these.

    Example:
        >>> import torch
        >>> from scoresde import Adams
        >>> from scoresde.bridges.k_diffusion_sampler import sampler_function
        >>> def denoiser(x, sigma):  # exact for normal data of variance 4
        ...     return x * (4 / (4 + sigma**2)).reshape(-1, 1)
        >>> sample_fn = sampler_function(Adams())
        >>> sigmas = torch.tensor([80.0, 20.0, 5.0, 1.0, 0.2, 0.0])
        >>> x = sample_fn(denoiser, torch.full((1, 1), 80.0), sigmas)
        >>> round(float(x), 1)  # 80 · 2/√(4 + 80²)
        2.0
    """
    if not isinstance(sampler, (StepSampler, Whitened)):
        raise TypeError(f"sampler must be a step sampler or a calibrated one, got {sampler!r}; take Adams().")
    check_arguments(sampler_function, locals())

    return _SampleFunction(sampler, flow)


def sigmas_of(sampler: StepSampler | Whitened, process: SDE) -> Tensor:
    r"""The noise levels of a sampler's own times, which `sampler_function` takes as ``sigmas``.

    Args:
        sampler: A step sampler, or what `calibrate` returns.
        process: The process of the model.

    Returns:
        $\tilde\sigma = \sqrt{e^{2\tau} - 1}$, of a `Flow` $\sigma = \tilde\sigma/(1 + \tilde\sigma)$; ``(steps + 1,)``
        float64.
    """
    check_arguments(sigmas_of, locals())
    inner = sampler.sampler if isinstance(sampler, Whitened) else sampler
    taus = torch.tensor(inner.grid.times(process, inner.steps), dtype=torch.float64)
    sigmas = torch.expm1(2.0 * taus).sqrt()
    return torch.where(sigmas.isinf(), 1.0, sigmas / (1.0 + sigmas)) if isinstance(process, Flow) else sigmas


@dataclass(frozen=True)
class _SampleFunction:
    """The function that `sampler_function` returns."""

    sampler: StepSampler | Whitened
    flow: bool

    @torch.no_grad()
    def __call__(
        self,
        model: Callable[..., Tensor],
        x: Tensor,
        sigmas: Tensor,
        extra_args: Mapping[str, Any] | None = None,
        callback: Callable[[dict[str, Any]], object] | None = None,
        disable: bool | None = None,
        noise_sampler: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> Tensor:
        levels, extra = _checked_levels(sigmas), dict(extra_args or {})
        if len(levels) < 2:
            return x
        process = _process(levels, self.flow)
        taus = [_tau(level, self.flow) for level in levels]
        network = _Denoiser(model, process, extra, x.dtype)
        source = _NoiseSource(sigmas, noise_sampler, extra.get("seed"), x.device)
        state = (x.float() if is_narrow(x) else x) / float(process.scale(min(taus[0], 300.0)))
        context = SamplingContext(network, process, source, taus[0], _Report(network, source, sigmas, callback))
        sampler = _on_grid(self.sampler, taus)
        with noise_alone(sampler, taus[0]):
            call_times(sampler, taus, X0())
        state, tau = sampler.run(state, context)
        return (state * float(process.scale(tau))).to(x.dtype)


class _Denoiser:
    """The denoiser as a network call; keeps its last input and output in the coordinates of k-diffusion."""

    def __init__(
        self, model: Callable[..., Tensor], process: SDE, extra_args: Mapping[str, Any], dtype: torch.dtype
    ) -> None:
        self._model, self._process, self._extra_args, self._dtype = model, process, extra_args, dtype
        self.x = self.denoised = torch.empty(0)

    def __call__(self, x: Tensor, tau: float) -> Prediction:
        scale = float(self._process.scale(min(tau, 300.0)))
        sigma = 1.0 if tau == math.inf else math.sqrt(math.expm1(2.0 * tau))
        if isinstance(self._process, Flow) and tau < math.inf:
            sigma = sigma / (1.0 + sigma)
        self.x = (x * scale).to(self._dtype)
        level = torch.full((len(x),), sigma, dtype=self._dtype, device=x.device)
        self.denoised = self._model(self.x, level, **self._extra_args)
        return GaussianPrediction(x, tau, self.denoised.to(x.dtype), X0())


class _NoiseSource(Noise):
    """Noise for the steps, from a function of k-diffusion or from a seed.

    The first state is usually drawn by the seed itself, so the steps take another one. The function gives one noise for
    an interval; further draws of the same step are fresh.
    """

    def __init__(self, sigmas: Tensor, function: Any, seed: int | None, device: torch.device) -> None:
        super().__init__(None if seed is None else torch.Generator(device).manual_seed(_derived(int(seed))))
        self._sigmas, self._function, self.step, self._asked = sigmas, function, 0, -1

    def normal(self, like: Tensor) -> Tensor:
        if self._function is None or self._asked == self.step:
            return super().normal(like)
        self._asked = self.step
        return self._function(self._sigmas[self.step], self._sigmas[self.step + 1]).to(like)


def _derived(seed: int) -> int:
    """Another seed, by the golden ratio in 64 bits."""
    return (seed ^ 0x9E3779B97F4A7C15) & (2**63 - 1)


@dataclass(frozen=True)
class _Report:
    """The observer of the steps: it counts them for the noise, and calls k-diffusion's callback."""

    network: _Denoiser
    source: _NoiseSource
    sigmas: Tensor
    callback: Callable[[dict[str, Any]], object] | None

    def __call__(self, done: int, steps: int, tau: float, x: Tensor) -> None:
        self.source.step = done
        if self.callback is not None:
            sigma = self.sigmas[done - 1]
            values = {"x": self.network.x, "i": done - 1, "sigma": sigma, "sigma_hat": sigma}
            self.callback({**values, "denoised": self.network.denoised})


def _checked_levels(sigmas: Tensor) -> list[float]:
    levels = [float(level) for level in torch.as_tensor(sigmas).reshape(-1).tolist()]
    if any(not a > b >= 0 for a, b in zip(levels, levels[1:])):
        raise ValueError(f"sigmas must fall strictly to a value of 0 or above, got {levels}; sort them.")
    return levels


def _process(levels: list[float], flow: bool) -> SDE:
    """A process whose clock contains the levels."""
    positive = [level for level in levels if level > 0]
    low = 0.5 * min(positive)
    if flow:
        if levels[0] > 1:
            raise ValueError(f"sigmas of a flow must lie in [0, 1], got {levels[0]!r}; leave flow out for others.")
        return Flow(tau_min=float(StraightPath().tau(low)))
    clock = GeometricSigma(low, positive[0])
    return VE(clock, tau_min=float(clock.tau(0.0)))


def _tau(level: float, flow: bool) -> float:
    if flow:
        return float(StraightPath().tau(level))
    return 0.5 * math.log1p(level * level)


def _on_grid(sampler: StepSampler | Whitened, taus: list[float]) -> StepSampler | Whitened:
    """The sampler on these times.

    Raises:
        ValueError: If it has times of its own that differ.
    """
    if isinstance(sampler, Whitened):
        inner = _on_grid(sampler.sampler, taus)
        assert isinstance(inner, StepSampler)
        return Whitened(inner, sampler.moments)
    fixed = isinstance(sampler, NonStationary) and sampler.weights
    if isinstance(sampler.grid, ExplicitGrid):
        own = sampler.grid.taus
        if len(own) != len(taus) or not all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(own, taus)):
            raise ValueError(
                f"{type(sampler).__name__} has {sampler.steps} steps of fixed times, got other sigmas; pass "
                "sigmas_of(sampler, process)."
            )
        return replace(sampler, grid=ExplicitGrid((taus[0], *own[1:])))
    if fixed:
        raise ValueError("weights belong to fixed times, got a NonStationary sampler on another grid; calibrate it.")
    return replace(sampler, steps=len(taus) - 1, grid=ExplicitGrid(tuple(taus)))
