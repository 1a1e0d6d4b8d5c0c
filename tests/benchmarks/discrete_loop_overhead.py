"""Overhead of the loops of categories: time per network call of `sample`, relative to a hand-written loop.

The network is one linear map of the indicators and the state one event of 16 entries, so that everything except the
network is measured. Each sampler has a hand-written loop of its own, which draws from the same probabilities. Run it:

    python tests/benchmarks/discrete_loop_overhead.py
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from loop_overhead import STEPS, measure
from torch import Tensor, nn

from scoresde._core.noise import Noise
from scoresde.model import ScoreModel
from scoresde.process import Categorical, ou
from scoresde.process.categorical import Binomial
from scoresde.process.codes import draw_codes
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.discrete_prediction import Logits
from scoresde.sampling import (
    Ancestral,
    DiscretePredictorCorrector,
    DiscreteSampler,
    TauLeaping,
    TrapezoidalLeaping,
    sample,
)
from scoresde.sampling.discrete import CodeNoise

ENTRIES, LIMIT = 16, 2.0


class LinearLogits(nn.Module):
    """Logits by a linear map of an entry's indicators; the time is ignored."""

    def __init__(self, states: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(states, classes)
        self.codes = torch.arange(states, dtype=torch.float32)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """``(B, L)`` to ``(B, L, C)``."""
        return self.linear(torch.eq(x.unsqueeze(-1), self.codes).to(x.dtype))


@dataclass(frozen=True)
class Row:
    """A step from tau to s, with the numbers that a step of any method needs, computed before a loop begins."""

    tau: float
    s: float
    log_snr: float
    log_snr_s: float
    log_snr_c: float
    a: float
    b: float
    c: float

    @classmethod
    def between(cls, tau: float, s: float) -> Row:
        """The row of a step; c lies halfway from a to b."""
        a, b = ou.alpha_bar(tau), ou.alpha_bar(s)
        c = 0.5 * (a + b)
        return cls(tau, s, ou.log_snr(tau), ou.log_snr(s), math.log(c / (1 - c)), a, b, c)

    @property
    def length(self) -> float:
        """Length in log-SNR."""
        return self.log_snr_s - self.log_snr


class HandWritten:
    """Steps as one would write them for one kernel and one method.

    The network's output is added to log q(x | x_0): its softmax e times q(x | x_0) is proportional to p(x_0 | x).

    Args:
        net: The network.
        process: The process, which gives the kernel and the number of classes.
    """

    def __init__(self, net: nn.Module, process: DiscreteProcess) -> None:
        self.net, self.classes, self.masked = net, process.most_classes, process.kernel == "absorbing"
        self.codes = torch.arange(self.classes + self.masked, dtype=torch.float32)
        self.share = 1.0 / self.classes

    def loop(self, sampler: DiscreteSampler, rows: list[Row]) -> Callable[[], Tensor]:
        """The loop of a sampler."""
        step = self.step(sampler)

        def loop() -> Tensor:
            with torch.no_grad():
                x = self.start()
                for row in rows:
                    x = step(x, row)
                return x

        return loop

    def step(self, sampler: DiscreteSampler) -> Callable[[Tensor, Row], Tensor]:
        """The step of a sampler; with the absorbing kernel a leap is the chain's step."""
        if isinstance(sampler, TrapezoidalLeaping):
            return self.trapezoidal_absorbing if self.masked else self.trapezoidal_uniform
        if isinstance(sampler, DiscretePredictorCorrector):
            return self.corrected_absorbing if self.masked else self.corrected_uniform
        if self.masked:
            return self.ancestral_absorbing
        return self.leaping_uniform if isinstance(sampler, TauLeaping) else self.ancestral_uniform

    def drawn(self, probs: Tensor) -> Tensor:
        cumulative = probs.cumsum(-1)
        threshold = torch.rand(1, ENTRIES, 1) * cumulative[..., -1:]
        return (cumulative[..., :-1] <= threshold).sum(-1).to(torch.float32)

    def start(self) -> Tensor:
        if self.masked:
            return torch.full((1, ENTRIES), float(self.classes))
        return torch.randint(self.classes, (1, ENTRIES)).to(torch.float32)

    def evidence(self, x: Tensor, log_snr: float) -> Tensor:
        return self.net(x, torch.full((1,), log_snr)).softmax(-1)

    def hot(self, x: Tensor) -> Tensor:
        return (x.unsqueeze(-1) == self.codes).to(torch.float32)

    def chain_uniform(self, e: Tensor, hot: Tensor, a: float, b: float) -> Tensor:
        ratio = a / b
        return self.drawn((e * b + (1 - b) * self.share) * (hot * ratio + (1 - ratio) * self.share))

    def chain_absorbing(self, e: Tensor, x: Tensor, a: float, b: float) -> Tensor:
        stay = torch.full((1, ENTRIES, 1), (1 - b) / (1 - a))
        probs = torch.cat([e * ((b - a) / (1 - a)), stay], -1)
        return torch.where(x == self.classes, self.drawn(probs), x)

    def leap(self, hot: Tensor, rates: Tensor, length: float) -> Tensor:
        total = rates.sum(-1, keepdim=True)
        jump = 1 - (total * -length).exp()
        return self.drawn(hot * (1 - jump) + rates * (jump / total))

    def reverse_rates(self, e: Tensor, hot: Tensor, a: float) -> Tensor:
        marginal = e * a + (1 - a) * self.share
        return marginal / (marginal * hot).sum(-1, keepdim=True) * (1 - hot)

    def ancestral_uniform(self, x: Tensor, row: Row) -> Tensor:
        return self.chain_uniform(self.evidence(x, row.log_snr), self.hot(x), row.a, row.b)

    def ancestral_absorbing(self, x: Tensor, row: Row) -> Tensor:
        return self.chain_absorbing(self.evidence(x, row.log_snr), x, row.a, row.b)

    def leaping_uniform(self, x: Tensor, row: Row) -> Tensor:
        e, hot = self.evidence(x, row.log_snr), self.hot(x)
        if row.length == math.inf:  # from pure noise, or to the data
            return self.chain_uniform(e, hot, row.a, row.b)
        return self.leap(hot, self.reverse_rates(e, hot, row.a), row.length * (1 - row.a) * self.share)

    def trapezoidal_uniform(self, x: Tensor, row: Row) -> Tensor:
        e, c = self.evidence(x, row.log_snr), row.c
        y = self.chain_uniform(e, self.hot(x), row.a, c)
        hot = self.hot(y)
        likelihood = hot * c + (1 - c) * self.share
        old, new = e * likelihood, self.evidence(y, row.log_snr_c) * likelihood
        probs = (2 * new / new.sum(-1, keepdim=True) - old / old.sum(-1, keepdim=True)).clamp(min=0)
        e = probs / likelihood
        return self.chain_uniform(e / e.sum(-1, keepdim=True), hot, c, row.b)

    def trapezoidal_absorbing(self, x: Tensor, row: Row) -> Tensor:
        e = self.evidence(x, row.log_snr)
        y = self.chain_absorbing(e, x, row.a, row.c)
        probs = (2 * self.evidence(y, row.log_snr_c) - e).clamp(min=0)
        return self.chain_absorbing(probs / probs.sum(-1, keepdim=True), y, row.c, row.b)

    def corrected_uniform(self, x: Tensor, row: Row) -> Tensor:
        x = self.ancestral_uniform(x, row)
        if row.s == 0:
            return x
        hot, length = self.hot(x), 0.3 * min(row.length, 1.0)
        rates = self.reverse_rates(self.evidence(x, row.log_snr_s), hot, row.b) + (1 - hot)
        return self.leap(hot, rates, length * (1 - row.b) * self.share)

    def corrected_absorbing(self, x: Tensor, row: Row) -> Tensor:
        x = self.ancestral_absorbing(x, row)
        if row.s == 0:
            return x
        length, e = 0.3 * min(row.length, 1.0), self.evidence(x, row.log_snr_s)
        unmask, mask = -math.expm1(-row.b * length), -math.expm1(-(1 - row.b) * length)
        known = self.hot(x) * (1 - mask)
        known[..., -1] = mask
        unmasked = torch.cat([e * unmask, torch.full((1, ENTRIES, 1), 1 - unmask)], -1)
        return self.drawn(torch.where((x == self.classes).unsqueeze(-1), unmasked, known))


class GlobalNoise(CodeNoise):
    """Draws codes by the same numbers of torch's global generator as the hand-written loops."""

    def __init__(self) -> None:
        super().__init__(Noise())

    def codes(self, probs: Tensor, uniform: Tensor | None = None) -> Tensor:
        """As of the base class."""
        return draw_codes(probs, torch.rand(probs.shape[:-1]))


def check(model: ScoreModel, hand_written: HandWritten, sampler: DiscreteSampler, rows: list[Row]) -> None:
    """Raises if a hand-written step gives other codes than the sampler's from the same random numbers."""
    step, noise = hand_written.step(sampler), GlobalNoise()
    for row in (rows[0], rows[len(rows) // 2], rows[-2], rows[-1]) * 25:
        seed, x = torch.seed(), torch.randint(len(hand_written.codes), (1, ENTRIES)).float()
        with torch.no_grad():
            torch.manual_seed(seed)
            ours = sampler.step(lambda x, tau: model(x, tau), x, row.tau, row.s, noise)
            torch.manual_seed(seed)
            assert torch.equal(ours, step(x, row)), (type(sampler).__name__, row)


def samplers() -> list[DiscreteSampler]:
    """Samplers with as many network calls as each other."""
    half = STEPS // 2
    return [Ancestral(STEPS), TauLeaping(STEPS), TrapezoidalLeaping(half), DiscretePredictorCorrector(half)]


def main() -> None:
    """Prints one line per sampler; exits with 1 if one is above the limit."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    above = []
    for process in (Categorical(8), Categorical(8, "absorbing"), Binomial()):
        net = LinearLogits(process.states, process.most_classes)
        model = ScoreModel(net, process, Logits(), event_shape=(ENTRIES,)).eval()
        hand_written = HandWritten(net, process)
        for sampler in samplers():
            times = sampler.grid.times(process, sampler.steps)
            rows = [Row.between(tau, s) for tau, s in zip(times, times[1:])]
            check(model, hand_written, sampler, rows)
            calls = sample(model, 1, sampler).nfe
            loop = hand_written.loop(sampler, rows)
            microseconds, ratio = measure(loop, lambda m=model, s=sampler: sample(m, 1, s), calls, calls)
            name = f"{type(sampler).__name__}, {type(process).__name__} {process.kernel}"
            print(f"{name:50s} hand-written {microseconds:5.1f} us per call, ratio {ratio:.2f}", flush=True)
            if ratio > LIMIT:
                above.append(name)
    raise SystemExit(f"above the limit of {LIMIT}: {', '.join(above)}" if above else 0)


if __name__ == "__main__":
    main()
