"""Checks of the error itself: against denoisers without a network, and with other weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from scoresde.evaluation.verify.comparison import Bench, gain, t_bound
from scoresde.evaluation.verify.moments import LinearDenoiser
from scoresde.evaluation.verify.reading import OutputTarget, Reading
from scoresde.evaluation.verify.verification import Check
from scoresde.model import Model

__all__ = ["check_denoising", "check_weights"]

_LINEAR = 1.5  # a trained network's error over the linear denoiser's stays below it; badly trained ones have 1.05
_WEIGHT_GAIN = 0.005


def check_denoising(bench: Bench, errors: Tensor, linear: LinearDenoiser, explained: bool) -> Check:
    """Compares the stated reading with the linear denoiser, the mean, and the noised data themselves.

    Args:
        bench: Noised events.
        errors: Of the stated reading, ``(L, n)``.
        linear: Fitted to other events where there are some.
        explained: Whether another check has found what is wrong, so that the error is no longer too large.
    """
    evidence, significant = {}, False
    ratios, bound = [], t_bound(3 * len(bench.sigmas), errors.shape[1])
    for i, sigma in enumerate(bench.sigmas):
        if bool(errors[i].isnan().any()):
            continue
        log_snr, references = -2 * math.log(sigma), _references(bench, linear, i)
        for name, (reference, allowed) in references.items():
            difference = errors[i] - allowed * reference
            excess = float(difference.mean()) / max(float(difference.std()) / math.sqrt(len(difference)), 1e-300)
            ratio = float(errors[i].mean() / reference.mean())
            if name == "linear":
                spread = (errors[i] - ratio * reference).std() / math.sqrt(len(reference)) / reference.mean()
                evidence[f"error / linear error at log-SNR {log_snr:.2f}"] = (ratio, float(spread))
                ratios.append(ratio)
            significant |= excess > bound
    if not ratios:
        return Check("denoising", "undecidable", "no noise level of these data lies inside the network's times.")
    shown = f"the squared error of x_0 is {min(ratios):.2g} to {max(ratios):.3g} times that of the linear denoiser"
    if not significant:
        return Check("denoising", "passed", f"{shown}, at {len(ratios)} noise levels.", evidence=evidence)
    why = (
        "see the checks below that failed"
        if explained
        else ("no reading that was tried makes it small enough; look at the network's weights, its mode and its inputs")
    )
    return Check("denoising", "failed", f"{shown}; a trained network is below {_LINEAR}.", why, evidence)


def _references(bench: Bench, linear: LinearDenoiser, level: int) -> dict[str, tuple[Tensor, float]]:
    """Errors of denoisers without a network, ``(n,)``, and by which factor the network's may be larger."""
    sigma, y = bench.sigmas[level], bench.noised[level]
    wiener = linear(y.flatten(0, 1), sigma).reshape(y.shape)
    mean = linear.mean.expand(y.shape)
    return {
        "linear": (bench.error_of(wiener), _LINEAR),
        "mean": (bench.error_of(mean), 1.1),
        "itself": (bench.error_of(y), 1.1),
    }


def check_weights(
    bench: Bench, reading: Reading, target: OutputTarget, errors: Tensor, others: Mapping[str, Model]
) -> Check | None:
    """Compares the model's weights with other ones of the same network, e.g. averaged with raw ones.

    Args:
        bench: Noised events.
        reading, target: The best reading.
        errors: Of that reading, ``(L, n)``.
        others: Models by name; empty gives None.
    """
    if not others:
        return None
    bound, gains = t_bound(len(others), errors.shape[1]), {}
    for name, model in others.items():
        amount = gain(errors, bench.errors(replace(reading, model=model), [target])[0])
        if amount is not None:
            gains[name] = amount
    if not gains:
        return Check("weights", "undecidable", "the other weights cannot be called at these noise levels.")
    evidence = {f"gain with {name}": (g.mean, g.stderr) for name, g in gains.items()}
    name, best = max(gains.items(), key=lambda entry: entry[1].mean)
    if best.mean > _WEIGHT_GAIN and best.t > bound:
        sentence = f"{best.text()} with {name}: these weights should be used, and are not."
        return Check("weights", "failed", sentence, f"load the model with {name}", evidence)
    if best.mean < 0 and best.t < -bound:
        return Check("weights", "passed", f"{best.text()} with {name}.", evidence=evidence)
    return Check(
        "weights", "undecidable", f"these data do not tell them apart: {best.text()} with {name}.", "", evidence
    )
