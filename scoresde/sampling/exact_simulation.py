r"""Exact simulation of the reverse process of categories: one jump at a time, each sample at its own times.

Absorbing kernel, first hitting: with m masked entries the next one is unmasked at
$1 - \bar\alpha' = (1 - \bar\alpha)\,U^{1/m}$ with U uniform; it is any of the m, and its class has the network's
probabilities there.

Uniform kernel, thinning: whatever $x_0$ is, the rates away from an entry's state sum to at most
$2/(1 - \bar\alpha) - 2/C = 2\bar\alpha/(1 - \bar\alpha) + (2 - 2/C)$. A jump is proposed at this rate and accepted with
the ratio of the network's rates to it. The integrals of both parts have closed forms, $\log(1 - \bar\alpha)$ and
$(2 - 2/C)\,\tau$, so the next proposal is the earlier one of two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from scoresde._core.tensors import constant, has_values, widest_dtype
from scoresde.process.base import Process
from scoresde.process.codes import draw_codes
from scoresde.process.discrete import DiscreteProcess
from scoresde.sampling.base import Sampler, SamplingContext
from scoresde.sampling.discrete import CodeNoise, predicted

__all__ = ["ExactSimulation"]

_KEPT = 1e-3  # expected number of entries that are not noise where thinning begins


@dataclass(frozen=True)
class ExactSimulation(Sampler):
    r"""Samples without error of discretization: first hitting for the absorbing kernel, thinning for the uniform one.

    Absorbing: one network call per masked entry, at ``tau_min`` at the earliest. An exact model's probabilities do not
    depend on the time, so the samples are exact. The host reads one number from the device, at the start.

    Uniform: the number of calls is random, that of the slowest sample; its mean for d entries is about
    $d\,(\log\tfrac1{2\tau_{min}} + (1 - \tfrac1C)\log(1000\,d))$. A step of the chain leads to $\bar\alpha = 0.001/d$
    first, and one leads from ``tau_min`` to 0 at last. Their total variation is below $10^{-6}$ and
    $2d\,\tau_{min}$. The host asks the device before each call whether any sample is still running.

    Each sample has its own times. Observers and trajectories get the latest one of the batch, and 0 at the end.

    Example:
        >>> import torch
        >>> from scoresde import sample
        >>> from scoresde.analytic import DiscreteTable
        >>> from scoresde.process import Categorical
        >>> from scoresde.sampling import ExactSimulation
        >>> table = DiscreteTable(torch.tensor([[0, 0, 1], [1, 2, 0]]), process=Categorical(3, "absorbing"))
        >>> sample(table, 4, ExactSimulation(), seeds=range(4)).nfe
        3

    Source: Zheng et al. 2024 (first hitting); Gillespie 1977 and Lewis & Shedler 1979 (thinning).
    """

    process_kind: ClassVar[type[Process]] = DiscreteProcess

    def run(self, x: Tensor, context: SamplingContext) -> tuple[Tensor, float]:
        """Simulates the reverse process; see `Sampler.run`.

        Raises:
            TypeError: If the kernel is uniform and the tensors have no values, on which the number of calls depends.
        """
        process = context.sde
        assert isinstance(process, DiscreteProcess)
        simulate = _first_hitting if process.kernel == "absorbing" else _thinning
        return simulate(x, process, context), 0.0


def _first_hitting(x: Tensor, process: DiscreteProcess, context: SamplingContext) -> Tensor:
    noise, level = CodeNoise(context.noise), _filled(x, -math.expm1(-2.0 * context.start))
    masked = (x == process.most_classes).reshape(len(x), -1)
    most = int(masked.sum(1).amax()) if len(x) and has_values(x) else masked.shape[1]
    for i in range(most):
        u, count = noise.uniform(level.unsqueeze(1).expand(-1, 2)).unbind(1), masked.sum(1)
        level = level * u[0] ** (1.0 / count.clamp(min=1))
        tau = -0.5 * torch.log1p(-level)
        prediction = predicted(context.predict, x, tau.clamp(process.tau_min, context.start))
        rank = torch.minimum((u[1] * count).long() + 1, count)
        chosen = masked & (masked.cumsum(1) == rank.unsqueeze(1))  # no entry of a sample that has no mask
        entry = chosen.to(torch.uint8).argmax(1)
        x = _with_codes(x, chosen, noise.codes(_rows(prediction.probs, entry)))
        masked = masked & ~chosen
        if context.observe is not None:
            latest = float(tau.where(masked.any(1), 0.0).amax()) if has_values(x) else context.start
            context.observe(i + 1, most, latest if i + 1 < most else 0.0, noise.marked(x))
    return noise.marked(x)


def _thinning(x: Tensor, process: DiscreteProcess, context: SamplingContext) -> Tensor:
    if not has_values(x):
        raise TypeError(
            "ExactSimulation makes as many network calls as its random numbers need, got tensors without values; take "
            "Ancestral() or TauLeaping() there."
        )
    noise, inverse_counts, end = CodeNoise(context.noise), _inverse_counts(process, x), process.tau_min
    entries, last = len(inverse_counts), noise.uniform(x)  # drawn first: later draws depend on the batch
    start = min(context.start, 0.5 * math.log(entries / _KEPT))
    if start < context.start:
        probs = predicted(context.predict, x, context.start).step_probs(start)
        x = noise.codes(probs).to(x.dtype)
    constant_rate = 2.0 * entries * (1.0 - sum(1.0 / count for count in process.counts) / len(process.counts))
    tau = _filled(x, start)
    while True:
        u = noise.uniform(tau.unsqueeze(1).expand(-1, 3)).unbind(1)
        level = -torch.expm1(-2.0 * tau) * (torch.log1p(-u[0]) / entries).exp()
        tau = torch.maximum(-0.5 * torch.log1p(-level), tau + torch.log1p(-u[1]) / constant_rate)
        running = tau > end
        if not bool(running.any()):
            break
        tau = tau.clamp(min=end)
        bounds = (-2.0 / torch.expm1(-2.0 * tau)).unsqueeze(1) - 2.0 * inverse_counts
        entry = draw_codes(bounds, u[2]).long()
        rates = _rows(predicted(context.predict, x, tau).rates, entry).to(tau)
        stay = (bounds.gather(1, entry.unsqueeze(1)) - rates.sum(1, keepdim=True)).clamp(min=0.0)
        code = noise.codes(torch.cat([rates, stay], 1))
        accepted = running & (code < rates.shape[1])
        chosen = (torch.arange(entries, device=x.device) == entry.unsqueeze(1)) & accepted.unsqueeze(1)
        x = _with_codes(x, chosen, code)
        if context.observe is not None:
            latest = float(tau.amax())
            context.observe(_percent(latest, start, end), 100, latest, noise.marked(x))
    x = noise.marked(noise.codes(predicted(context.predict, x, end).step_probs(0.0), last).to(x.dtype))
    if context.observe is not None:
        context.observe(100, 100, 0.0, x)
    return x


def _inverse_counts(process: DiscreteProcess, x: Tensor) -> Tensor:
    """1/C of each entry of the flattened event, ``(d,)``."""
    inverse = constant(tuple(1.0 / count for count in process.counts), x)
    return inverse.expand(x.shape[1:] or (1,)).reshape(-1)


def _rows(values: Tensor, entry: Tensor) -> Tensor:
    """Values ``(B, *D, S)`` at one entry of each flattened event, ``(B,)``; ``(B, S)``."""
    flat = values.reshape(len(values), -1, values.shape[-1])
    return flat.take_along_dim(entry.reshape(-1, 1, 1), 1).squeeze(1)


def _with_codes(x: Tensor, chosen: Tensor, codes: Tensor) -> Tensor:
    """The state with new codes, ``(B,)``, at the chosen entries of each flattened event, ``(B, d)``."""
    return torch.where(chosen.reshape(x.shape), codes.to(x.dtype).reshape(-1, *(1 for _ in x.shape[1:])), x)


def _filled(x: Tensor, value: float) -> Tensor:
    """A number for each sample, ``(B,)``, of the widest type of the device."""
    return torch.full((len(x),), value, dtype=widest_dtype(x.device), device=x.device)


def _percent(tau: float, start: float, end: float) -> int:
    """Percent of the proposals that are expected before ``tau``, at most 99."""
    log_noise = [math.log(-math.expm1(-2.0 * t)) + t for t in (start, tau, end)]
    return min(99, int(100.0 * (log_noise[0] - log_noise[1]) / (log_noise[0] - log_noise[2])))
