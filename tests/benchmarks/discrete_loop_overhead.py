"""Overhead of the loops of categories: time per network call of `sample`, relative to a hand-written loop.

The network is one linear map of the indicators and the state one event of 16 entries, so that everything except the
network is measured. Run it:

    python tests/benchmarks/discrete_loop_overhead.py
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from loop_overhead import STEPS, measure
from torch import Tensor, nn

from scoresde.model import ScoreModel
from scoresde.process import Categorical, ou
from scoresde.process.categorical import Binomial
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

ENTRIES = 16


class LinearLogits(nn.Module):
    """Logits by a linear map of an entry's indicators; the time is ignored."""

    def __init__(self, states: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(states, classes)
        self.codes = torch.arange(states, dtype=torch.float32)

    def forward(self, x: Tensor, log_snr: Tensor) -> Tensor:
        """``(B, L)`` to ``(B, L, C)``."""
        return self.linear(torch.eq(x.unsqueeze(-1), self.codes).to(x.dtype))


def hand_written_chain(net: nn.Module, process: DiscreteProcess, taus: list[float]) -> Callable[[], Tensor]:
    """The chain as in the code of D3PM and of MDLM, with coefficients computed before."""
    classes, mask = process.most_classes, process.kernel == "absorbing"
    keep = [ou.alpha_bar(tau) for tau in taus]
    rows = [(ou.log_snr(tau), a, b, a / b) for tau, a, b in zip(taus, keep, keep[1:])]
    codes = torch.arange(classes + mask, dtype=torch.float32)

    def drawn(probs: Tensor) -> Tensor:
        cumulative = probs.cumsum(-1)
        threshold = torch.rand(1, ENTRIES, 1) * cumulative[..., -1:]
        return (cumulative[..., :-1] <= threshold).sum(-1).to(torch.float32)

    def uniform() -> Tensor:
        with torch.no_grad():
            x = torch.randint(classes, (1, ENTRIES)).to(torch.float32)
            for log_snr, a, b, ratio in rows:
                probs = net(x, torch.full((1,), log_snr)).softmax(-1)
                hot = (x.unsqueeze(-1) == codes).to(torch.float32)
                at_s = b * probs + (1 - b) / classes  # q(x_s | x_0) averaged, times q(x_tau | x_s)
                x = drawn(at_s * (ratio * hot + (1 - ratio) / classes) / (a * probs + (1 - a) / classes))
            return x

    def absorbing() -> Tensor:
        with torch.no_grad():
            x = torch.full((1, ENTRIES), float(classes))
            for log_snr, a, b, _ in rows:
                probs = net(x, torch.full((1,), log_snr)).softmax(-1) * ((b - a) / (1 - a))
                probs = torch.cat([probs, torch.full((1, ENTRIES, 1), (1 - b) / (1 - a))], -1)
                x = torch.where(x == classes, drawn(probs), x)
            return x

    return absorbing if mask else uniform


def samplers() -> list[DiscreteSampler]:
    """Samplers with as many network calls as the hand-written loop has."""
    half = STEPS // 2
    return [Ancestral(STEPS), TauLeaping(STEPS), TrapezoidalLeaping(half), DiscretePredictorCorrector(half)]


def main() -> None:
    """Prints one line per sampler; exits with 1 if the chain is above its limit."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    above = []
    for process in (Categorical(8), Categorical(8, "absorbing"), Binomial()):
        net = LinearLogits(process.states, process.most_classes)
        model = ScoreModel(net, process, Logits(), event_shape=(ENTRIES,)).eval()
        hand_written = hand_written_chain(net, process, Ancestral(STEPS).grid.times(process, STEPS))
        for sampler in samplers():
            calls = sample(model, 1, sampler).nfe
            microseconds, ratio = measure(hand_written, lambda m=model, s=sampler: sample(m, 1, s), calls)
            name = f"{type(sampler).__name__}, {type(process).__name__} {process.kernel}"
            limit = 2.0
            print(f"{name:50s} hand-written {microseconds:5.1f} us per call, ratio {ratio:.2f}", flush=True)
            if ratio > limit and isinstance(sampler, Ancestral):
                above.append(name)
    raise SystemExit(f"above the limit of 2: {', '.join(above)}" if above else 0)


if __name__ == "__main__":
    main()
