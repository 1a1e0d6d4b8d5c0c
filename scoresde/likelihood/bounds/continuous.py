r"""What bounds -log p without an ODE? The evidence bound in continuous time: prior, diffusion and reconstruction.

Every data point is noised by the kernel of the process, and the model is charged for the noise it cannot explain:
$\tfrac12\int \|\hat\varepsilon - \varepsilon\|^2\,(-d\,\mathrm{logSNR})$. With the exact score, decoder and terminal
density the bound is an equality at every single point.

Two things can be bounded. **Levels** (or clean data with a decoder) are taken to be free of noise:

$$-\log P(k) \le E\Big[\underbrace{KL(q(x_T|k)\,\|\,\pi)}_{prior} +
\underbrace{\int\lambda\,\|\hat\varepsilon - \varepsilon\|^2\,du}_{diffusion}
\underbrace{-\log p(k \mid x_{\tau_{min}})}_{reconstruction}\Big].$$

**Floats** are taken, as by `log_prob`, to be draws of the law at $\tau_{min}$, already with its noise. The kernel then
starts there, $x_\tau = a x + b\varepsilon$ with $a = e^{-(\tau - \tau_{min})}$, and as the entropies of its ends no
longer cancel, each point of time is charged only for what its score adds:

$$-\log p_{\tau_{min}}(x) \le E\Big[-\log\pi(x_T) + \int\lambda_b\Big(\big\|\tfrac b\sigma\hat\varepsilon -
\varepsilon\big\|^2 - a^2 d\Big)du\Big], \qquad \lambda_b = \frac{d\tau/du}{b^2}.$$
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoresde._core.noise import Noise
from scoresde.likelihood.batching import Density
from scoresde.likelihood.bounds.decoder import Decoder, KernelDecoder
from scoresde.likelihood.bounds.error_profile import ErrorProfile
from scoresde.likelihood.bounds.result import Bound, InitialState, check_count, estimate_terms, mean_variance
from scoresde.likelihood.bounds.terms import diffusion, prior_cost
from scoresde.likelihood.dequantize import Dequantization
from scoresde.model import Model, event_size, refuse_unknown
from scoresde.objective.timesteps import DiscreteTimesteps, ImportanceTimesteps, Timesteps
from scoresde.objective.weighting import ELBO
from scoresde.process.sde import SDE, Marginal

__all__ = ["continuous_vlb"]


def continuous_vlb(
    model: Model,
    data: Tensor,
    *,
    decoder: Decoder | None = None,
    decode_at: float | None = None,
    dequantization: Dequantization | None = None,
    evaluations: int = 64,
    replicates: int = 4,
    timesteps: Timesteps | None = None,
    profile: ErrorProfile | None = None,
    prior_log_prob: Density | None = None,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    progress: bool = False,
    **cond: object,
) -> Bound:
    r"""The bound on -log p in continuous time, by stratified times of each sample's own; see the module for the terms.

    A sample is noised ``evaluations / 2`` times, by pairs ±ε. Its times are ``replicates`` independent lattices, each
    shifted at random, through the inverse of the density of times; their scatter is the standard error. Runs in eval
    mode and without gradients, in float64 but for the network.

    What is bounded:

    - levels: -log P(k), with a decoder at ``tau_min`` (default `KernelDecoder`), in nats and bits;
    - levels with a ``dequantization``: the same by the density at ``tau_min`` of k + u, as `bits_per_dim` does by ODE;
    - floats: -log p of the law at ``tau_min`` in the view's coordinates, the number that `log_prob` gives by ODE;
    - floats with a decoder: -log p of the clean x_0 in model units. With `KernelDecoder` and the exact score it equals
      $E[-\log p_{\tau_{min}}(x_{\tau_{min}})] - d\log\alpha$: the law of data that carry noise σ/α.

    Args:
        model: Trained or exact.
        data: Raw integer levels, or floats in model units, ``(B, *D)``.
        decoder: See above.
        decode_at: OU time at which the decoder takes over; default ``tau_min``. A model trained on dequantized data
            does not know where in its cell a level lies, and each e-fold of σ below a cell's width costs it a nat per
            value: then decode where σ/α is about a third of that width.
        dequantization: See above.
        evaluations: Network calls per sample, without the decoder's: a multiple of twice the replicates.
        replicates: Independent lattices; at least 2.
        timesteps: Density of the times; default that of the profile, or uniform in log-SNR, ``ImportanceTimesteps(ELBO())``.
        profile: From `measure_error_profile`: where to look and how to subtract the noise's length. Measure it on other
            noise than this call's; it then changes the variance only.
        prior_log_prob: Log-density, nats, ``(B, *D) -> (B,)``, of x itself (not of the view's) at the end of the clock;
            default the view's prior.
        generator: Source of times and noise; the global random state is then left alone.
        seeds: One integer per sample instead: a sample's value then does not depend on its batch.
        batch_size: Samples at once; default all.
        progress: Shows a progress bar.
        **cond: Passed to the network; tensors have one entry per sample.

    Returns:
        See `Bound`.

    Raises:
        TypeError: If a keyword is neither an option nor read by the network.
        ValueError: If levels are given without a description with bins, lie outside their range, or a setting is out of
            its domain.
        RuntimeError: If the network returns NaN (names the samples).

    Source: Kingma et al. 2021 (levels); Song et al. 2021, Maximum likelihood training (floats).
    """
    refuse_unknown(continuous_vlb, model, cond)
    check_count("replicates", replicates, 2)
    check_count("evaluations", evaluations, 2 * replicates)
    if evaluations % (2 * replicates):
        raise ValueError(
            f"evaluations must be a multiple of twice the replicates, {2 * replicates}, got {evaluations}."
        )
    timesteps = timesteps or (ImportanceTimesteps(ELBO()) if profile is None else profile.timesteps)
    if not isinstance(timesteps, Timesteps) or isinstance(timesteps, DiscreteTimesteps):
        raise TypeError(
            f"timesteps must be Timesteps in continuous time, got {timesteps!r}; e.g. ImportanceTimesteps(ELBO())."
        )
    levels = not data.is_floating_point()
    start = InitialState.of(
        model, data, KernelDecoder() if levels and decoder is dequantization is None else decoder, dequantization
    )
    if decode_at is not None and start.decoder is None:
        raise ValueError(f"decode_at={decode_at!r} needs a decoder, got none; pass one, or leave decode_at out.")
    sde = model.sde if decode_at is None else replace(model.sde, tau_min=decode_at)
    estimate = _Continuous(start, sde, timesteps, profile, evaluations // (2 * replicates), replicates, prior_log_prob)
    terms = estimate_terms(model, data, estimate, generator, seeds, batch_size, progress, cond)
    each = torch.stack(list(terms.values())).sum(0)
    nfe = evaluations + (0 if start.decoder is None else replicates * start.decoder.calls)
    means = {name: value.mean(0) for name, value in terms.items()}
    return Bound(each.mean(0), means, mean_variance(each).sqrt(), nfe, event_size(data), levels)


@dataclass(frozen=True, eq=False)
class _Continuous:
    """Everything about an estimate but the data; gives each term as ``(replicates, B)``."""

    start: InitialState
    sde: SDE
    timesteps: Timesteps
    profile: ErrorProfile | None
    points: int
    replicates: int
    density: Density | None

    def __call__(
        self, data: Tensor, noise: Noise, cond: dict[str, object], tell: Callable[[float], None]
    ) -> dict[str, Tensor]:
        n = self.replicates
        found = [self._replicate(data, noise, cond, lambda done, i=i: tell((i + done) / n)) for i in range(n)]
        return {name: torch.stack([terms[name] for terms in found]) for name in found[0]}

    def _replicate(
        self, data: Tensor, noise: Noise, cond: dict[str, object], tell: Callable[[float], None]
    ) -> dict[str, Tensor]:
        start, sde, model = self.start, self.sde, self.start.model
        x, terms = start.place(data, noise)
        eps = None if self.density is None else noise.normal(x)
        terms["prior"] = prior_cost(sde, x, given=start.given, density=self.density, eps=eps)
        if start.decoder is not None:
            first = sde.perturb(x, sde.tau_min, noise.normal(x))
            terms["reconstruction"] = start.decoder.cost(model, data if start.levels else x, first, sde.tau_min, cond)
        shift = noise.uniform(torch.empty(len(x), dtype=x.dtype, device=x.device))
        total = torch.zeros_like(terms["prior"])
        for j in range(self.points):
            draw = self.timesteps.place((shift + j / self.points) % 1.0, sde)
            m = Marginal(torch.as_tensor(sde.schedule._tau(draw.u)), sde.schedule._rate(draw.u))
            eps = noise.normal(x)
            pair = (diffusion(model, x, m, z, given=start.given, profile=self.profile, **cond) for z in (eps, -eps))
            value = 0.5 * sum(pair, torch.zeros_like(total))
            if self.profile is not None:
                value = value - self.profile.mean(m, event_size(x), start.given).to(total)
            total = total + torch.as_tensor(draw.correction).to(total) * (1.0 - sde.u_min) / self.points * value
            tell((j + 1) / self.points)
        known = 0.0 if self.profile is None else self.profile.integral(sde, event_size(x), start.given)
        return {**terms, "diffusion": total + known}
