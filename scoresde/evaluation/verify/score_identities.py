r"""The scale of the score from the statistics of noised data, without x_0: Stein's and Hyvärinen's identities.

In $y = x_0 + \tilde\sigma\varepsilon$ of dimension d, $s = \nabla\log p(y) = -\hat\varepsilon/\tilde\sigma$ has
$E[(y - m)\cdot s] = -d$ for any m, and $E\|s\|^2 = -E[\nabla\cdot s]$. If s is c times too large, the first gives
$-cd$ and the second $E\|s\|^2 = -c\,E[\nabla\cdot s]$. The divergence is estimated with random signs (Hutchinson).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from scoresde.evaluation.verify.comparison import Bench, t_bound
from scoresde.evaluation.verify.reading import OutputTarget, Reading
from scoresde.evaluation.verify.verification import Check

__all__ = ["check_score_scale"]

_TOLERANCE = 0.25
_EVENTS = 64


def check_score_scale(bench: Bench, reading: Reading, target: OutputTarget, generator: torch.Generator) -> Check:
    """Checks both identities at each noise level.

    Args:
        bench: Noised events; the first 64 are used.
        reading, target: The reading to check.
        generator: Source of the probes.
    """
    evidence: dict[str, tuple[float, float]] = {}
    scales: dict[str, list[tuple[float, float]]] = {"Stein": [], "Hyvärinen": []}
    count = min(_EVENTS, len(bench.x0))
    for i, sigma in enumerate(bench.sigmas):
        pairs = _at_level(bench, reading, target, i, count, generator)
        if pairs is None:
            continue
        log_snr = -2 * math.log(sigma)
        for name, pair in pairs.items():
            evidence[f"{name}: scale of the score at log-SNR {log_snr:.2f}"] = pair
            scales[name].append(pair)
    used = [name for name, pairs in scales.items() if pairs]
    if not used:
        return Check("score scale", "undecidable", "no noise level lies inside the network's times.")
    bound = t_bound(2 * len(bench.sigmas), count)
    off = [name for name in used if _is_off(scales[name], bound)]
    parts = []
    for name in used:
        values = sorted(value for value, _ in scales[name])
        parts.append(f"{values[len(values) // 2]:.2f} ({values[0]:.2f} to {values[-1]:.2f}) by {name}'s identity")
    sentence = f"the score is {' and '.join(parts)} times what the statistics of the noised data need (median, range)"
    if len(off) == len(used):
        remedy = "check the factor between output and score: parameterization, sigma, and the scale of the data"
        return Check("score scale", "failed", f"{sentence}.", remedy, evidence)
    if off:
        return Check("score scale", "undecidable", f"{sentence}; the two identities disagree.", evidence=evidence)
    return Check("score scale", "passed", f"{sentence}.", evidence=evidence)


def _is_off(pairs: list[tuple[float, float]], bound: float) -> bool:
    """Whether the scale is significantly off by more than the tolerance at most levels."""
    off = [abs(value - 1) > _TOLERANCE and abs(value - 1) > bound * stderr for value, stderr in pairs]
    return 2 * sum(off) > len(off)


def _at_level(
    bench: Bench, reading: Reading, target: OutputTarget, level: int, count: int, generator: torch.Generator
) -> dict[str, tuple[float, float]] | None:
    sigma, x0 = bench.sigmas[level], bench.x0[:count]
    with torch.enable_grad():
        y = bench.noised[level, 0, :count].clone().requires_grad_()
        output = reading.output(y, sigma, torch.arange(count))
        if output is None:
            return None
        eps_hat = (y - output.x0(target)) / sigma
        probe = torch.randint(0, 2, y.shape, generator=generator).double() * 2 - 1
        divergence = _divergence(eps_hat, y, probe)
    eps_hat, y = eps_hat.detach(), y.detach()
    eps = (y - x0) / sigma
    stein = ((y - bench.x0.mean(0)) * (eps_hat - eps)).mean(1) / sigma  # (y - m)·eps / sigma has expectation d
    result = {"Stein": (1 + float(stein.mean()), _stderr(stein))}
    if divergence is not None:
        square, flow = eps_hat.square().mean(1), sigma * divergence
        scale = float(square.mean() / flow.mean())
        result["Hyvärinen"] = (scale, _stderr((square - scale * flow) / flow.mean()))
    return result


def _divergence(eps_hat: Tensor, y: Tensor, probe: Tensor) -> Tensor | None:
    """Divergence per dimension of the noise estimate, ``(n,)``; None if the network has no derivative."""
    if not eps_hat.requires_grad:
        return None
    (gradient,) = torch.autograd.grad((eps_hat * probe).sum(), y, allow_unused=True)
    return None if gradient is None else (gradient * probe).mean(1)


def _stderr(values: Tensor) -> float:
    return float(values.std()) / math.sqrt(len(values))
