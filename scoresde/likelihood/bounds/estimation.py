r"""Monte Carlo estimation of the terms of a bound, batch by batch, in eval mode and without gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from scoresde._core.call_inputs import check_entries
from scoresde._core.checks import check_seeds
from scoresde._core.noise import Noise
from scoresde._core.progress import ProgressBar
from scoresde.likelihood.batching import ProgressHook, batches, evaluation_mode
from scoresde.model import Model

__all__ = ["Estimator", "error_kurtosis", "estimate_terms", "replicate_dof", "variance_of_mean"]

_KURTOSIS = 30.0  # excess kurtosis of a contribution times dimension; this and its bounds are measured on exact models
_LEAST_KURTOSIS, _MOST_KURTOSIS = 2.0, 20.0

Estimator = Callable[[Tensor, Noise, dict[str, object], ProgressHook], dict[str, Tensor]]
"""Terms of one batch from its data, noise source, network conditioning and progress hook."""


def estimate_terms(
    model: Model,
    data: Tensor,
    estimator: Estimator,
    generator: torch.Generator | None,
    seeds: Sequence[int] | None,
    batch_size: int | None,
    progress: bool,
    cond: dict[str, object],
) -> dict[str, Tensor]:
    """Terms of all samples: the estimator's terms of each batch, joined along their last axis.

    The model runs in eval mode and without gradients, whatever the modes of the caller.

    Raises:
        ValueError: If seeds or conditioning do not have one entry per sample.
        RuntimeError: If a term is not finite; names the samples.
    """
    per_sample = {name: value for name, value in cond.items() if isinstance(value, Tensor) and value.ndim}
    for name, value in per_sample.items():
        check_entries(name, value, len(data))
    seeds = None if seeds is None else check_seeds(seeds, len(data))
    parts: list[dict[str, Tensor]] = []
    with evaluation_mode(model), ProgressBar("likelihood", enabled=progress) as bar:
        for rows in batches(len(data), batch_size) or [slice(0, 0)]:
            noise = Noise(generator, None if seeds is None else seeds[rows])
            batch_cond = {**cond, **{name: value[rows].to(data.device) for name, value in per_sample.items()}}
            before, share = rows.start / max(len(data), 1), (rows.stop - rows.start) / max(len(data), 1)

            def hook(fraction: float, before: float = before, share: float = share) -> None:
                bar.update(before + share * fraction)

            parts.append(estimator(data[rows], noise, batch_cond, hook))
    terms = {name: torch.cat([part[name] for part in parts], -1) for name in parts[0]}
    _check_terms(terms, len(data))
    return terms


def _check_terms(terms: dict[str, Tensor], samples: int) -> None:
    bad = torch.zeros(samples, dtype=torch.bool)
    for name, value in terms.items():
        if name not in ("variance", "dof"):  # NaN there means that the variance is unknown
            bad |= ~torch.isfinite(value if value.ndim == 1 else value.sum(0)).cpu()
    if bool(bad.any()):
        indices = ", ".join(map(str, bad.nonzero().flatten()[:8].tolist()))
        raise RuntimeError(
            f"the bound is NaN or infinite for the samples [{indices}] ({int(bad.sum())} of {samples}); check the "
            "network's outputs there, or a decoder that gives the observed value probability 0."
        )


def variance_of_mean(values: Tensor) -> Tensor:
    """Variance of the mean of n independent estimates, ``(n, B)`` with n > 1, from their sample variance, ``(B,)``."""
    n = len(values)
    return (values - values.mean(0)).square().sum(0) / (n * (n - 1))


def error_kurtosis(dims: int, controlled: bool = False) -> float:
    r"""Excess kurtosis of the contribution of one pair of noises, or of one step, to a bound.

    A sum of d squared normal errors has 12/d. Contributions also differ along the clock, which makes it 30/d on exact
    models, within 2 and 20. A control variate removes what depends on the length of the noise; 2 remains.

    Args:
        dims: d, the number of values in one sample.
        controlled: Whether a profile's control variate is subtracted.
    """
    if controlled:
        return _LEAST_KURTOSIS
    return min(max(_KURTOSIS / max(dims, 1), _LEAST_KURTOSIS), _MOST_KURTOSIS)


def replicate_dof(replicates: int, points: int, kurtosis: float) -> float:
    r"""Degrees of freedom of `variance_of_mean`: $1/\big(\tfrac1{n-1} + (1-\tfrac2n)\tfrac{\kappa}{2N}\big) \le n - 1$.

    The variance of a sample variance grows with the kurtosis of its values. That of a replicate is κ/(N/n). Without
    this term an interval of 95 % holds the truth 87 to 94 times in 100 for few dimensions, the less the more replicates
    share the points. The factor 1 - 2/n is measured: few replicates give wide intervals, which need less of it.

    Args:
        replicates: n > 1.
        points: N, the number of independent contributions (pairs of noises, or steps) in all replicates.
        kurtosis: κ, the excess kurtosis of one contribution, see `error_kurtosis`.

    Source: Satterthwaite 1946, with the variance of the sample variance of values with excess kurtosis κn/N.
    """
    return 1.0 / (1.0 / (replicates - 1) + (1 - 2 / replicates) * kurtosis / (2 * points))
