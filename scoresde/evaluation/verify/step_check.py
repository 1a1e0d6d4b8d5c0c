r"""The check that a network of DDPM steps receives the right step, on the least noisy steps of its chain.

If the step's log-SNR is off by $\Delta$, a trained network's error at step k rises by $a_k\Delta^2$, $a_k \ge 0$.
So if the count is off by h steps, its errors at offsets o differ from those at offset 0 by
$a_k[(\lambda_{k+o} - \lambda_{k+h})^2 - (\lambda_k - \lambda_{k+h})^2]$. The h that fits best is the answer,
if resampled events agree on it.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from scoresde.evaluation.verify.comparison import Bench, Gain, gain, t_bound
from scoresde.evaluation.verify.reading import OutputTarget, Reading
from scoresde.evaluation.verify.times import chain_of, step_offset
from scoresde.evaluation.verify.verification import Check
from scoresde.process import ou
from scoresde.process.schedule import Schedule

__all__ = ["check_steps", "fits"]

_STEPS = 10
_OFFSETS = (-2, -1, 1, 2)
_SHIFTS = (-2, -1, 0, 1, 2)
_RESAMPLES = 500
_SURE, _LIKELY, _RIGHT = 0.99, 0.75, 0.9  # shares of resamples
_FIT = 0.25  # share of the differences that the best shift may leave unexplained


def check_steps(reading: Reading, x0: Tensor, target: OutputTarget, generator: torch.Generator) -> Check | None:
    """Compares a network of steps with itself one and two steps earlier and later, on the same noises.

    Args:
        reading, target: The best reading, called at the stated time.
        x0: Events, ``(n, d)``.
        generator: Source of noise and resampling.

    Returns:
        None for a network that takes no steps.
    """
    chain = chain_of(reading.model)
    if chain is None:
        return None
    clock, steps = chain
    first = next((k for k in range(1, steps) if clock.tau(k / steps) >= reading.model.sde.tau_min * (1 - 1e-6)), steps)
    used = range(first, min(first + _STEPS, steps - 2))
    if not used:
        return None
    log_snr = [float(ou.log_snr(float(clock.tau(max(k, 0.5) / steps)))) for k in range(used[-1] + 3)]
    bench = Bench.draw(x0, tuple(math.exp(-0.5 * log_snr[k]) for k in used), generator)
    errors = {o: bench.errors(_offset(reading, clock, steps, o), [target])[0] for o in (0, *_OFFSETS)}
    gains = {o: g for o in _OFFSETS if (g := gain(errors[0], errors[o])) is not None}
    if not {-1, 1} <= gains.keys():
        return None
    differences = torch.stack([(errors[o] - errors[0]) / errors[0].mean(1, keepdim=True) for o in _OFFSETS])
    shapes = _shapes(log_snr, used)
    left = fits(differences.mean(2), shapes)
    rows = torch.randint(len(x0), (_RESAMPLES, len(x0)), generator=generator)
    votes = torch.stack([fits(differences[:, :, row].mean(2), shapes).argmin() for row in rows])
    shares = {h: float((votes == i).double().mean()) for i, h in enumerate(_SHIFTS)}
    best = int(left.argmin())
    return _check(_SHIFTS[best], shares, float(left[best]), gains, reading, len(used))


def _shapes(log_snr: list[float], used: range) -> Tensor:
    """Change of the squared deviation of log-SNR at each offset, for each shift, ``(H, O, K)``."""
    shapes = torch.empty(len(_SHIFTS), len(_OFFSETS), len(used), dtype=torch.float64)
    for i, h in enumerate(_SHIFTS):
        for j, o in enumerate(_OFFSETS):
            for m, k in enumerate(used):
                right = log_snr[max(k + h, 0)]
                shapes[i, j, m] = (log_snr[max(k + o, 0)] - right) ** 2 - (log_snr[k] - right) ** 2
    return shapes


def fits(differences: Tensor, shapes: Tensor) -> Tensor:
    """Share of the squared differences that each shift leaves unexplained, ``(H,)``, with one slope per step.

    Args:
        differences: Relative change of the error at each offset and step, ``(O, K)``; NaN where it is not known.
        shapes: For each shift, offset and step what it is proportional to, ``(H, O, K)``.
    """
    known = ~differences.isnan()
    r = torch.where(known, differences, 0.0)
    v = torch.where(known, shapes, 0.0)
    slope = ((v * r).sum(1) / (v * v).sum(1).clamp(min=1e-300)).clamp(min=0.0)
    rest = (r - slope[:, None] * v).square().sum((1, 2))
    return rest / r.square().sum().clamp(min=1e-300)


def _check(
    shift: int, shares: dict[int, float], left: float, gains: dict[int, Gain], reading: Reading, count: int
) -> Check:
    evidence = {f"gain at {o:+d} steps": (g.mean, g.stderr) for o, g in gains.items()}
    evidence |= {f"share of resamples for an offset of {h}": (share, math.nan) for h, share in shares.items()}
    evidence["share of the differences left unexplained"] = (left, math.nan)
    where, events = f"on the {count} least noisy steps", next(iter(gains.values())).events
    beyond = sum(share for h, share in shares.items() if h * shift > 0)
    significant = abs(shift) == 1 and gains[shift].t > t_bound(2, events)
    if significant and left <= _FIT and beyond >= _SURE and shares[shift] >= _LIKELY:
        word = "later" if shift > 0 else "earlier"
        sentence = f"the count of steps is off by one: {where} {gains[shift].text()} with the step {word} by one."
        offset = getattr(getattr(reading.model, "net", None), "offset", 0) + shift
        return Check("step", "failed", sentence, f"FromStep(…, offset={offset:g})", evidence)
    closest = max((-1, 1), key=lambda o: gains[o].mean)
    if shift == 0 and left <= _FIT and shares[0] >= _RIGHT:
        sentence = f"{where} {gains[closest].text()} if the step changes by one ({closest:+d})."
        return Check("step", "passed", sentence, evidence=evidence)
    sentence = (
        f"the network hardly tells one step from the next: {where} {gains[closest].text()} with the step "
        f"{closest:+d}; its errors fit a count off by {shift} in {100 * shares[shift]:.0f} % of resamples, with "
        f"{100 * left:.0f} % unexplained."
    )
    return Check("step", "undecidable", sentence, evidence=evidence)


def _offset(reading: Reading, clock: Schedule, steps: int, offset: int) -> Reading:
    return replace(reading, time=step_offset(clock, steps, offset) if offset else None)
