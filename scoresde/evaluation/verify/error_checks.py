"""Checks of the error itself: against denoisers without a network, one step off, and with other weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from scoresde.evaluation.verify.comparison import Bench, gain, t_bound
from scoresde.evaluation.verify.moments import LinearDenoiser
from scoresde.evaluation.verify.reading import OutputTarget, Reading
from scoresde.evaluation.verify.times import chain_of, step_offset
from scoresde.evaluation.verify.verification import Check
from scoresde.model import Model
from scoresde.process import ou
from scoresde.process.schedule import Schedule

__all__ = ["check_denoising", "check_steps", "check_weights"]

_LINEAR = 1.5  # a trained network's error over the linear denoiser's stays below it; badly trained ones have 1.05
_STEPS = 10
_STEP_GAIN = 0.001
_WEIGHT_GAIN = 0.005


def check_denoising(bench: Bench, errors: Tensor, linear: LinearDenoiser, explained: bool) -> Check:
    """Compares the stated reading with the linear denoiser, the mean, and the noised data themselves.

    Args:
        bench: Noised events.
        errors: Of the stated reading, ``(L, n)``.
        linear: Fitted to other events where there are some.
        explained: Whether another check has found what is wrong.
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
        else ("no reading that was tried denoises better; look at the network's weights, its mode and its inputs")
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


def check_steps(reading: Reading, x0: Tensor, target: OutputTarget, generator: torch.Generator) -> Check | None:
    """Compares a network of steps with itself one step earlier and later, on the least noisy steps of its chain.

    The noise is the same for all. A network is told the right step if its error is least there.

    Returns:
        None for a network that takes no steps.
    """
    chain = chain_of(reading.model)
    if chain is None:
        return None
    clock, steps = chain
    knots = [tau for tau in clock.knots(steps)[1 : _STEPS + 1] if tau >= reading.model.sde.tau_min * (1 - 1e-6)]
    sigmas = tuple(math.exp(-0.5 * float(ou.log_snr(tau))) for tau in knots)
    bench = Bench.draw(x0, sigmas, generator)
    errors = {o: bench.errors(_offset(reading, clock, steps, o), [target])[0] for o in (-2, -1, 0, 1, 2)}
    gains = {o: g for o in (-2, -1, 1, 2) if (g := gain(errors[0], errors[o])) is not None}
    evidence = {f"gain at {o:+d} steps": (g.mean, g.stderr) for o, g in gains.items()}
    bound = t_bound(4, len(x0))
    best = max((-1, 1), key=lambda o: gains[o].mean if o in gains else -math.inf)
    if best not in gains:
        return None
    found = gains[best]
    where = f"on the {len(knots)} least noisy steps"
    if found.mean > _STEP_GAIN and found.t > bound and _is_minimum(errors, best, bound):
        word = "later" if best > 0 else "earlier"
        sentence = f"{where} {found.text()} with the step {word} by one: the count of steps is off by one."
        return Check("step", "failed", sentence, f"FromStep(…, offset={_new_offset(reading, best)})", evidence)
    if all(gains[o].t < -bound and gains[o].mean < 0 for o in (-1, 1) if o in gains):
        return Check("step", "passed", f"{where} {found.text()} if the step changes by one.", evidence=evidence)
    sentence = f"the network hardly tells one step from the next: {where} {found.text()} with the step {best:+d}."
    return Check("step", "undecidable", sentence, evidence=evidence)


def _is_minimum(errors: dict[int, Tensor], offset: int, bound: float) -> bool:
    """Whether the error at an offset is below that at twice the offset, which a mistake of one step is."""
    further = gain(errors[offset], errors[2 * offset])
    return further is None or (further.mean < 0 and further.t < -bound)


def _offset(reading: Reading, clock: Schedule, steps: int, offset: int) -> Reading:
    return replace(reading, time=step_offset(clock, steps, offset) if offset else None)


def _new_offset(reading: Reading, change: int) -> float:
    return getattr(getattr(reading.model, "net", None), "offset", 0) + change


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
