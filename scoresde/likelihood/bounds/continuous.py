r"""Variational bound (VLB, negative ELBO) in continuous time: prior + diffusion + reconstruction.

The forward process noises each data point. The diffusion term is the error of the noise estimate,
$\tfrac12\int \|\hat\varepsilon - \varepsilon\|^2\,(-d\,\mathrm{logSNR})$. With the exact score, decoder and terminal
density the bound is an equality at every single point. It needs no ODE.

There are two cases. **Integer values** (or clean data with a decoder) carry no noise:

$$-\log P(k) \le E\Big[\underbrace{KL(q(x_T|k)\,\|\,\pi)}_{prior} +
\underbrace{\int\lambda\,\|\hat\varepsilon - \varepsilon\|^2\,du}_{diffusion}
\underbrace{-\log p(k \mid x_{\tau_{min}})}_{reconstruction}\Big].$$

**Floats** are, as for `log_prob`, draws of the distribution at $\tau_{min}$ and already carry its noise. The kernel
then starts there, $x_\tau = a x + b\varepsilon$ with $a = e^{-(\tau - \tau_{min})}$. The entropies of the kernel at its
two ends no longer cancel; $\lambda_b a^2 d$ is their derivative in u:

$$-\log p_{\tau_{min}}(x) \le E\Big[-\log\pi(x_T) + \int\lambda_b\Big(\big\|\tfrac b\sigma\hat\varepsilon -
\varepsilon\big\|^2 - a^2 d\Big)du\Big], \qquad \lambda_b = \frac{d\tau/du}{b^2}.$$
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.call_inputs import as_input
from scoresde._core.checks import check_integer
from scoresde._core.noise import Noise
from scoresde._core.tensors import event_size, sum_event
from scoresde.likelihood.batching import Density, ProgressHook
from scoresde.likelihood.bounds.categorical import categorical_paths, refuse_gaussian_options
from scoresde.likelihood.bounds.decoder import Decoder, KernelDecoder
from scoresde.likelihood.bounds.error_profile import ErrorProfile
from scoresde.likelihood.bounds.estimation import error_kurtosis, estimate_terms, replicate_dof, variance_of_mean
from scoresde.likelihood.bounds.initial_state import InitialState
from scoresde.likelihood.bounds.mixed import mixed_paths
from scoresde.likelihood.bounds.result import Bound
from scoresde.likelihood.bounds.terms import diffusion_term, prior_term
from scoresde.likelihood.conditions import likelihood_inputs
from scoresde.likelihood.dequantize import Dequantization
from scoresde.likelihood.score_check import refuse_guided, refuse_without_score
from scoresde.model import Model, gaussian_process, refuse_unknown
from scoresde.objective.timesteps import ImportanceTimesteps, Timesteps
from scoresde.objective.weighting import ELBO
from scoresde.process.base import Marginal
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.mixed import Mixed
from scoresde.process.sde import SDE

__all__ = ["continuous_vlb"]


def continuous_vlb(
    model: Model,
    data: ArrayLike,
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
    r"""Upper bound on -log p in continuous time (VLB), from stratified timesteps drawn for each sample separately.

    Each sample is noised ``evaluations / 2`` times, with pairs ±ε. Its timesteps are ``replicates`` independent
    lattices, each shifted at random and mapped through the inverse distribution function of the timesteps. The scatter
    of the replicates gives the standard error. The model runs in eval mode and without gradients; all arithmetic except
    the network's is float64. The module docstring states the terms.

    The bounded quantity depends on the data:

    - integer values: -log P(k), with a decoder at ``tau_min`` (default `KernelDecoder`), in nats and bits;
    - integer values with a ``dequantization``: the same through the density at ``tau_min`` of k + u, as `bits_per_dim`
      does by ODE;
    - floats: -log p of the distribution at ``tau_min`` in the view's coordinates, which `log_prob` computes by ODE;
    - floats with a decoder: -log p of the clean x_0 in model units. With `KernelDecoder` and the exact score it equals
      $E[-\log p_{\tau_{min}}(x_{\tau_{min}})] - d\log\alpha$: the distribution of data with added noise σ/α;
    - categories: -log P(x_0), of a model whose process is `Categorical` or `Binomial`; the network decodes. Pairs have
      the random numbers r and 1 - r, and each replicate decodes once more. The options ``decoder``, ``decode_at``,
      ``dequantization``, ``profile`` and ``prior_log_prob`` are not for categories.
    - numbers and codes of a mixed process, ``(B, n + K)``: -log p of the numbers at ``tau_min`` as a density and of the
      codes as a probability, together, with terms of each.

    Args:
        model: Trained or exact.
        data: Raw integer values, floats in model units, or codes of categories, ``(B, *D)``.
        decoder: See above.
        decode_at: OU time at which the decoder takes over; default ``tau_min``. A model trained on dequantized data
            does not know the position of a value within its bin. Each e-fold of σ below the bin width then costs one
            nat per value. For such a model choose the time where σ/α is about a third of the bin width.
        dequantization: See above.
        evaluations: Network evaluations per sample, without the decoder's: a multiple of twice the replicates.
        replicates: Independent lattices; at least 2.
        timesteps: Distribution of the timesteps; default that of the profile, or uniform in log-SNR,
            ``ImportanceTimesteps(ELBO())``. For categories uniform in ᾱ, and half of them in σ for the
            uniform kernel.
        profile: From `measure_error_profile`: gives the timesteps and the control variate. Measure it on noise other
            than that of this call; then it changes only the variance.
        prior_log_prob: Log-density, nats, ``(B, *D) -> (B,)``, of the OU state (not the view's) at the end of the
            clock; default the view's prior.
        generator: Source of timesteps and noise; the global random state is then not used.
        seeds: One integer in [0, 2**63) per sample instead: the value of a sample then does not depend on its batch.
        batch_size: Samples at once; default all.
        progress: Shows a progress bar.
        **cond: Passed to the network; tensors have one entry per sample.

    Returns:
        See `Bound`.

    Raises:
        TypeError: If a keyword is neither an option nor read by the network, or an option is not for categories.
        ValueError: If integer data have no description with bins or lie outside their range, an entry is not the code
            of a class, or a setting is out of its domain; for the absorbing kernel, if signal remains at the end of
            the clock.
        RuntimeError: If the network returns NaN (names the samples).

    Source: Kingma et al. 2021 (integer values); Song et al. 2021, Maximum likelihood training (floats); Campbell et al.
    2022 (categories).
    """
    refuse_unknown(continuous_vlb, model, cond)
    data, cond = as_input(model, data, "data"), likelihood_inputs(model, cond)
    timesteps = _checked_timesteps(timesteps, profile, evaluations, replicates)
    check_arguments(continuous_vlb, locals())
    pairs = evaluations // (2 * replicates)
    if isinstance(model.sde, (DiscreteProcess, Mixed)):
        options = {"decoder": decoder, "decode_at": decode_at, "dequantization": dequantization, "profile": profile}
        refuse_gaussian_options(continuous_vlb, options | {"prior_log_prob": prior_log_prob})
        refuse_guided(continuous_vlb, model)
        mixed = isinstance(model.sde, Mixed)
        paths = (mixed_paths if mixed else categorical_paths)(model, data, timesteps, pairs, replicates)
        terms = estimate_terms(model, data, paths, generator, seeds, batch_size, progress, cond)
        dof = replicate_dof(replicates, pairs * replicates, error_kurtosis(event_size(data)))
        return _bound(terms, model.cost * (evaluations + replicates), data, not mixed, dof)
    refuse_without_score(continuous_vlb, model)
    timesteps = _gaussian_timesteps(profile) if timesteps is None else timesteps
    quantized = not data.is_floating_point()
    if quantized and decoder is None and dequantization is None:
        decoder = KernelDecoder()
    initial = InitialState.of(model, data, decoder, dequantization)
    if decode_at is not None and decoder is None:
        raise ValueError(f"decode_at={decode_at!r} needs a decoder, got none; pass one, or leave decode_at out.")
    sde = gaussian_process(model)
    sde = sde if decode_at is None else replace(sde, tau_min=decode_at)
    estimator = _ContinuousEstimator(initial, sde, timesteps, profile, pairs, replicates, prior_log_prob)
    terms = estimate_terms(model, data, estimator, generator, seeds, batch_size, progress, cond)
    nfe = model.cost * (evaluations + (0 if decoder is None else replicates * decoder.calls))
    dof = replicate_dof(replicates, pairs * replicates, error_kurtosis(event_size(data), profile is not None))
    return _bound(terms, nfe, data, quantized, dof)


def _bound(terms: dict[str, Tensor], nfe: int, data: Tensor, quantized: bool, dof: float) -> Bound:
    """The bound from the replicates of each term, ``(replicates, B)``."""
    totals = torch.stack(list(terms.values())).sum(0)
    means, stderr = {name: value.mean(0) for name, value in terms.items()}, variance_of_mean(totals).sqrt()
    return Bound(totals.mean(0), means, stderr, torch.full_like(stderr, dof), nfe, event_size(data), quantized)


def _checked_timesteps(
    timesteps: Timesteps | None, profile: ErrorProfile | None, evaluations: int, replicates: int
) -> Timesteps | None:
    """The given timesteps, after checks of all settings of their number."""
    check_integer("replicates", replicates, 2)
    check_integer("evaluations", evaluations, 2 * replicates)
    if evaluations % (2 * replicates):
        raise ValueError(
            f"evaluations must be a multiple of twice the replicates, {2 * replicates}, got {evaluations}."
        )
    if not isinstance(profile, ErrorProfile | None):
        raise TypeError(
            f"profile must be an ErrorProfile or None, got {type(profile).__name__}; see measure_error_profile."
        )
    if timesteps is not None and (not isinstance(timesteps, Timesteps) or timesteps.chain is not None):
        raise TypeError(
            f"timesteps must be Timesteps in continuous time, got {timesteps!r}; e.g. ImportanceTimesteps(ELBO())."
        )
    return timesteps


def _gaussian_timesteps(profile: ErrorProfile | None) -> Timesteps:
    """The default timesteps of a Gaussian process."""
    return ImportanceTimesteps(ELBO()) if profile is None else profile.timesteps


@dataclass(frozen=True, eq=False)
class _ContinuousEstimator:
    """Estimates each term of the bound in continuous time, ``(replicates, B)``."""

    initial: InitialState
    sde: SDE
    timesteps: Timesteps
    profile: ErrorProfile | None
    pairs: int
    replicates: int
    prior_log_prob: Density | None

    def __call__(self, data: Tensor, noise: Noise, cond: dict[str, object], hook: ProgressHook) -> dict[str, Tensor]:
        n = self.replicates
        parts = [self._replicate(data, noise, cond, lambda fraction, i=i: hook((i + fraction) / n)) for i in range(n)]
        return {name: torch.stack([part[name] for part in parts]) for name in parts[0]}

    def _replicate(self, data: Tensor, noise: Noise, cond: dict[str, object], hook: ProgressHook) -> dict[str, Tensor]:
        initial, sde = self.initial, self.sde
        x, terms = initial.draw(data, noise)
        eps = None if self.prior_log_prob is None else noise.normal(x)
        terms["prior"] = prior_term(sde, x, tau_start=initial.tau_start, prior_log_prob=self.prior_log_prob, eps=eps)
        if initial.decoder is not None:
            x_min = sde.perturb(x, sde.tau_min, noise.normal(x))
            target = data if initial.quantized else x
            terms["reconstruction"] = initial.decoder.cost(initial.model, target, x_min, sde.tau_min, cond)
        return {**terms, "diffusion": self._diffusion(x, noise, cond, hook)}

    def _diffusion(self, x: Tensor, noise: Noise, cond: dict[str, object], hook: ProgressHook) -> Tensor:
        """Integral of the diffusion term over the clock from one shifted lattice of timesteps, ``(B,)`` float64."""
        sde, profile, tau_start = self.sde, self.profile, self.initial.tau_start
        shift = noise.uniform(torch.empty(len(x), dtype=x.dtype, device=x.device))
        total = sum_event(torch.zeros_like(x))
        for j in range(self.pairs):
            draw = self.timesteps.inverse_cdf((shift + j / self.pairs) % 1.0, sde)
            m = Marginal(torch.as_tensor(sde.schedule._tau(draw.u)), sde.schedule._rate(draw.u))
            eps = noise.normal(x)
            pair = (
                diffusion_term(self.initial.model, x, m, z, tau_start=tau_start, profile=profile, **cond)
                for z in (eps, -eps)
            )
            value = 0.5 * sum(pair, torch.zeros_like(total))
            if profile is not None:
                value = value - profile.mean(m, event_size(x), tau_start).to(total)
            total = total + torch.as_tensor(draw.correction).to(total) * (1.0 - sde.u_min) / self.pairs * value
            hook((j + 1) / self.pairs)
        return total + (0.0 if profile is None else profile.integral(sde, event_size(x), tau_start))
