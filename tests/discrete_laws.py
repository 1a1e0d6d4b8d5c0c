"""Distributions of the last state of a sampler of categories on a small state space, exact and without random numbers.

A step of a sampler draws codes once or twice, each time independently by entry. So its transition from each state is a
product over the entries, or a sum of such products over the states in between.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from scoresde.analytic import CategoricalMixture
from scoresde.process.categorical import Binomial, Categorical
from scoresde.process.discrete import DiscreteProcess
from scoresde.process.discrete_prediction import DiscretePrediction
from scoresde.sampling import DiscreteSampler

__all__ = ["Enumerated", "process", "smooth_mixture", "total_variation"]

D = torch.float64
_NEGLIGIBLE = 1e-17


def process(kernel: str, entries: int = 4, **fields: Any) -> DiscreteProcess:
    """A process by name: ``"binomial"``, ``"columns"`` (3 and 2 classes in turn), or a kernel of three classes."""
    if kernel == "binomial":
        return Binomial(**fields)
    if kernel == "columns":
        return Categorical(tuple(3 - i % 2 for i in range(entries)), **fields)
    return Categorical(3, kernel, **fields)


def smooth_mixture(kernel: str, entries: int = 4, sharpness: float = 0.3, **fields: Any) -> CategoricalMixture:
    """An exact model of dependent entries; the larger the sharpness, the more a class says of other entries."""
    noised = process(kernel, entries, **fields)
    generator = torch.Generator().manual_seed(2)
    logits = sharpness * torch.randn(4, entries, noised.most_classes, generator=generator, dtype=D)
    valid = noised.valid_classes(logits)
    if valid is not None:
        logits = logits.masked_fill(~valid, -math.inf)
    return CategoricalMixture(torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=D), logits.softmax(-1), noised)


def total_variation(p: Tensor, q: Tensor) -> float:
    """Half the sum of absolute differences."""
    return 0.5 * float((p - q).abs().sum())


class _Drawn(Exception):
    """The last draw of a step has its probabilities."""


class _Script:
    """Stands for `CodeNoise`: returns given codes in the first draws, then keeps the probabilities of the next one."""

    def __init__(self, *codes: Tensor) -> None:
        self._codes = list(codes)
        self.probs = torch.empty(0)

    def codes(self, probs: Tensor) -> Tensor:
        """The next codes of the script."""
        self.probs = probs / probs.sum(-1, keepdim=True)
        if not self._codes:
            raise _Drawn
        return self._codes.pop(0)


class Enumerated:
    """All states of an exact model, and its predictions there.

    Args:
        model: Exact model of events of shape ``(d,)``.
    """

    def __init__(self, model: CategoricalMixture) -> None:
        entries = math.prod(model.event_shape or ())
        counts = [count + (model.sde.kernel == "absorbing") for count in model.sde.counts]
        self.model, self.counts = model, counts * (entries // len(counts))
        codes = [torch.arange(count, dtype=D) for count in self.counts]
        self.states = torch.cartesian_prod(*codes).reshape(-1, entries)
        self._places = torch.tensor([float(math.prod(self.counts[i + 1 :])) for i in range(entries)], dtype=D)
        self._evidence: dict[float, Tensor] = {}

    def index(self, x: Tensor) -> Tensor:
        """Index of each state, ``(B,)``."""
        return (x @ self._places).long()

    def law(self, tau: float = 0.0) -> Tensor:
        """Exact distribution at ``tau``."""
        return self.model.log_prob(self.states, tau).exp()

    def prior(self) -> Tensor:
        """The noise distribution."""
        return self.model.sde.prior_log_prob(self.states).exp()

    def predict(self, x: Tensor, tau: float) -> DiscretePrediction:
        """The model's prediction, from a table of all states."""
        if tau not in self._evidence:
            self._evidence = {tau: self.model.predict(self.states, tau).evidence, **dict([*self._evidence.items()][:2])}
        evidence = self._evidence[tau][self.index(x)]
        return DiscretePrediction(x, tau, evidence, self.model.sde, evidence)

    def last_law(self, sampler: DiscreteSampler, start: float | None = None) -> Tensor:
        """Distribution of the sampler's last state, from the exact one at ``start``; default the prior."""
        taus = sampler.grid.times(self.model.sde, sampler.steps, start)
        law = self.prior() if start is None else self.law(start)
        for tau, s in pairwise(taus):
            law = self.after(lambda x, noise, tau=tau, s=s: sampler.step(self.predict, x, tau, s, noise), law)
        return law

    def after(self, step: Callable[[Tensor, Any], Tensor], law: Tensor) -> Tensor:
        """Distribution after one step ``step(x, noise)`` from a distribution ``law``."""
        live = law > _NEGLIGIBLE
        x, weight = self.states[live], law[live]
        first = _probs(step, x)
        if _draws(step, x) == 1:
            return self._mixed(weight, first)
        total = torch.zeros_like(law)
        for rows in torch.arange(len(x)).split(64):
            joint = weight[rows, None] * _products(first[rows], self.counts)
            i, j = (joint > _NEGLIGIBLE).nonzero(as_tuple=True)
            between = self.states[j]
            total += self._mixed(joint[i, j], _probs(step, x[rows][i], between))
        return total

    def _mixed(self, weights: Tensor, probs: Tensor) -> Tensor:
        """Σ_b weight_b Π_i probs_bi over all states."""
        half = probs.shape[1] // 2
        first, second = _products(probs[:, :half], self.counts[:half]), _products(probs[:, half:], self.counts[half:])
        return ((first * weights[:, None]).T @ second).flatten()


def _probs(step: Callable[[Tensor, Any], Tensor], x: Tensor, *codes: Tensor) -> Tensor:
    script = _Script(*codes)
    try:
        step(x, script)
    except _Drawn:
        return script.probs
    raise AssertionError("a step draws as many codes as its script has, and one more")


def _draws(step: Callable[[Tensor, Any], Tensor], x: Tensor) -> int:
    """Number of draws of a step, 1 or 2."""
    try:
        step(x[:1], _Script(x[:1]))
    except _Drawn:
        return 2
    return 1


def _products(probs: Tensor, counts: list[int]) -> Tensor:
    """Products over entries: ``(B, d, S)`` to ``(B, Π counts)``."""
    out = probs.new_ones(len(probs), 1)
    for i, count in enumerate(counts):
        out = (out.unsqueeze(-1) * probs[:, i, :count].unsqueeze(1)).flatten(1)
    return out
