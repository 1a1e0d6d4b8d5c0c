r"""Variational bound (VLB, negative ELBO) of DDPM's chain, term by term: $L_T + \sum_{k=2}^K L_{k-1} + L_0$.

$L_T = KL(q(x_K \mid x_0)\,\|\,\pi)$, $L_{k-1} = E\,KL(q(x_{k-1} \mid x_k, x_0)\,\|\,p(x_{k-1} \mid x_k))$ and
$L_0 = -E\log p(x_0 \mid x_1)$. As K grows the sum tends to the bound in continuous time, at first order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from scoresde._core.annotations import check_arguments
from scoresde._core.arrays import ArrayLike
from scoresde._core.call_inputs import as_input
from scoresde._core.checks import check_integer
from scoresde._core.tensors import event_size
from scoresde.likelihood.batching import Density
from scoresde.likelihood.bounds.categorical import refuse_gaussian_options
from scoresde.likelihood.bounds.categorical_chain import CategoricalChain
from scoresde.likelihood.bounds.decoder import Decoder
from scoresde.likelihood.bounds.error_profile import ErrorProfile
from scoresde.likelihood.bounds.estimation import estimate_terms
from scoresde.likelihood.bounds.result import Bound
from scoresde.likelihood.bounds.reverse_chain import ReverseChain
from scoresde.likelihood.bounds.step_estimators import AllSteps, SampledSteps
from scoresde.likelihood.conditions import likelihood_inputs
from scoresde.likelihood.score_check import refuse_without_score
from scoresde.model import Model, refuse_unknown
from scoresde.process.discrete import DiscreteProcess
from scoresde.sampling import Grid, OptimalVariance
from scoresde.sampling.grid import Chain

__all__ = ["discrete_vlb"]


def discrete_vlb(
    model: Model,
    data: ArrayLike,
    steps: int = 1000,
    *,
    grid: Grid | None = None,
    rev_var: str | OptimalVariance = "beta_tilde",
    decoder: Decoder | None = None,
    draws: int = 1,
    terms: int | None = None,
    replicates: int = 4,
    profile: ErrorProfile | None = None,
    prior_log_prob: Density | None = None,
    generator: torch.Generator | None = None,
    seeds: Sequence[int] | None = None,
    batch_size: int | None = None,
    progress: bool = False,
    **cond: object,
) -> Bound:
    r"""Upper bound on -log p from a chain of K = ``steps`` (VLB), each term from a separate draw of noise.

    With ``terms=None`` every term is evaluated, with ``draws * (K - 1)`` network evaluations and two for each
    reconstruction. The standard error then compares neighboring terms, each divided by its decrease in log-SNR (in ᾱ
    for categories), and two draws of L_0. It is correct where the terms vary smoothly with k, and otherwise too large.
    With ``terms=n`` each sample has n randomly chosen steps, from ``replicates`` lattices shifted at random. Their
    scatter is the standard error; the sum stays unbiased.

    The bounded quantity depends on the data. Integer values: -log P(k) in nats and bits, with a decoder in the first
    step. Floats: -log p of the clean x_0 in model units; or, on a grid that ends at ``tau_min``, -log p of the
    distribution there (that of `log_prob`, in the view's coordinates). Means are not clipped. Categories: -log P(x_0),
    with the network's probabilities in the last step; ``rev_var``, ``decoder``, ``profile`` and ``prior_log_prob`` are
    not for them.

    Args:
        model: Trained or exact.
        data: Raw integer values, floats in model units, or codes of categories, ``(B, *D)``.
        steps: Length K of the chain.
        grid: Times of the steps; default those of the DDPM chain, which end at 0. On a grid that ends at ``tau_min``
            integer values are decoded there, by default by `KernelDecoder`.
        rev_var: ``"beta"``, ``"beta_tilde"``, ``"learned"`` or an `OptimalVariance`, as for `scoresde.sampling.DDPM`.
        decoder: Default: the chain's last step, rounded to the bins (`RoundedDecoder`). For β̃, which is 0 there, with
            the β̃ of the step before.
        draws: Draws of every term.
        terms: Number of terms to evaluate, a multiple of the replicates; default all.
        replicates: Independent lattices if not all terms are evaluated; at least 2.
        profile: From `measure_error_profile`: gives the probabilities of the steps. Default: in proportion to the
            decrease in log-SNR.
        prior_log_prob, generator, seeds, batch_size, progress, **cond: As for `continuous_vlb`.

    Returns:
        See `Bound`; with ``per_step``.

    Raises:
        TypeError, ValueError, RuntimeError: As `continuous_vlb`; if the grid does not suit the data; if the variance
            is ``"learned"`` and the model returns none.

    Source: Ho, Jain & Abbeel 2020, eqs. 5, 8 and 13; Nichol & Dhariwal 2021 (learned variances);
    Austin et al. 2021 (D3PM, categories).
    """
    refuse_unknown(discrete_vlb, model, cond)
    check_arguments(discrete_vlb, locals())
    data, cond = as_input(model, data, "data"), likelihood_inputs(model, cond)
    check_integer("draws", draws)
    categories = isinstance(model.sde, DiscreteProcess)
    if categories:
        options = {"rev_var": None if rev_var == "beta_tilde" else rev_var, "decoder": decoder, "profile": profile}
        refuse_gaussian_options(discrete_vlb, options | {"prior_log_prob": prior_log_prob})
        chain = CategoricalChain.of(model, data, steps, grid or Chain())
    else:
        refuse_without_score(discrete_vlb, model)
        chain = ReverseChain.of(model, data, steps, grid or Chain(), rev_var, decoder, prior_log_prob, profile)
    if terms is None:
        estimator = AllSteps(chain, draws)
        nfe = model.cost * draws * (chain.steps - chain.first + 1 + 2 * chain.decoder_calls)
    else:
        check_integer("replicates", replicates, 2)
        check_integer("terms", terms, replicates)
        if terms % replicates:
            raise ValueError(f"terms must be a multiple of the replicates, {replicates}, got {terms}.")
        estimator = SampledSteps(chain, terms // replicates, replicates)
        nfe = model.cost * (terms + replicates * chain.decoder_calls)
    estimates = estimate_terms(model, data, estimator, generator, seeds, batch_size, progress, cond)
    variance, dof, per_step = (estimates.pop(name) for name in ("variance", "dof", "per_step"))
    per_step = per_step.mean(1) if len(data) else torch.zeros(chain.steps, dtype=torch.float64)
    nats = torch.stack(list(estimates.values())).sum(0)
    quantized = categories or not data.is_floating_point()
    return Bound(nats, estimates, variance.sqrt(), dof, nfe, event_size(data), quantized, per_step)
